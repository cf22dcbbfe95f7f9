"""Storage of a study in a folder that all nodes share; also the interface of every storage."""

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from runners.scheduling.storage_check import Seen
from runners.store.location import Location
from runners.trials.trial_job import TrialJob
from study.storage.lock import LEAVE, STOP, Holder, active_run, only_run, stop_limit

_LOOK_S, _WAIT_S = 0.2, 60.0


class FolderStorage:
    """The storage of one study in a folder that nodes and drivers share; a run holds its lock.

    `BucketStorage` overrides the methods that need work when no folder is shared; here most of them do
    nothing. Every method raises OSError if the storage can't be reached.

    Attributes:
        place: The study's folder as all nodes see it.
    """

    def __init__(self, folder: Path, place: Location | None = None) -> None:
        self._folder, self.place = folder, place or Location(folder.resolve())

    def refresh(self, note: Callable[[str], None] = lambda _: None) -> None:
        """Update the study's folder from the storage, unless a run on this machine is active.

        ``note`` is called with a line on what it waits for.
        """

    def bring_weights(self, trial_id: str) -> None:
        """Make a trial's weights available in its folder."""

    def bring_pool(self, name: str) -> bool:  # noqa: ARG002 - there is nothing to download
        """Make a pool of the storage available on this machine; return whether the storage had it."""
        return False

    def stop(
        self, *, within_s: float | None = None, node: str = "", wait_s: float = _WAIT_S
    ) -> Iterator[str]:
        """Ask the active run to stop, or to leave one node alone, and wait for that; yield progress lines.

        With ``within_s`` the run ends trials that have not left in time. Without it they have the time that
        they need, and only the wait ends, after ``wait_s`` seconds.

        Raises:
            ValueError: No run of the study is active.
        """
        holder = self._holder()
        if holder is None:
            raise ValueError(f"no run of {self.place} is active")
        request = f"{LEAVE}/{node}" if node else STOP
        self.place.write(request, b"" if within_s is None else f"{within_s:g}".encode())
        what = f"leave {node}" if node else "stop"
        yield f"asked {holder} to {what}: its trials write checkpoints and exit"
        wait_s = wait_s if within_s is None else within_s
        until = time.monotonic() + wait_s
        # With another holder, this run has ended and a new one has begun.
        while self._holder() == holder:
            if node and self.place.read(request) is None:
                yield f"no trial runs on {node} any more"
                return
            if time.monotonic() >= until:
                yield f"the run has not ended after {wait_s:.0f} s; the request to {what} remains"
                return
            time.sleep(_LOOK_S)
        yield "the run has ended; `run` continues it"

    def _holder(self) -> Holder | None:
        return active_run(self._folder)

    @contextmanager
    def claim(self, say: Callable[[str], None]) -> Iterator[None]:  # noqa: ARG002 - nothing to wait for
        """Context manager that makes this process the only run of the study.

        Raises:
            ValueError: Another run is active, or the storage can't be used.
        """
        with only_run(self._folder):
            self._forget_requests()
            yield

    def _forget_requests(self) -> None:
        """Delete older requests, which were meant for an earlier run."""
        self.place.delete([STOP, *(f"{LEAVE}/{node}" for node in self.place.list(LEAVE))])

    def seen_by_nodes(self, read: tuple[Path, ...]) -> Seen:
        """Return what every node must see, given the folders that trials read."""
        return Seen(written=self.place, read=read if self.place.local is not None else ())

    def call(
        self,
        run: Callable[[TrialJob], object],
        job: TrialJob,
        *,
        nodes: int = 1,  # noqa: ARG002 - they share the folder
        checks: bool = False,  # noqa: ARG002 - as above
    ) -> Callable[[], object]:
        """Return the call with which a node runs a trial, given the function that runs it on local paths.

        A call that ``checks`` uses a trial's data alone. Its job has a folder of its own, so that the trial
        itself can run meanwhile.
        """
        return partial(run, job)

    # The methods below are only for the run that has claimed the study.

    def share(self, job: TrialJob, say: Callable[[str], None]) -> None:
        """Make the data that a trial reads visible to all nodes."""

    def announce(self, trial_id: str) -> None:
        """Show drivers elsewhere that a trial starts, before it computes."""

    def watch(self, trials: Collection[str], milestones: Collection[str] = ()) -> None:
        """Set the trials whose progress, or whose milestone, is kept up to date in the study's folder."""

    def fetch(self, trial_id: str) -> None:
        """Update a trial's folder with what its node wrote: FLOP count, result, names of checkpoints."""

    def publish(self, trial_id: str) -> None:
        """Make the run's decision on a trial visible to nodes: it has failed, or it starts again."""

    def stop_requested(self) -> float | None:
        """Return the seconds in which the run is to stop, infinite without limit; None if it was not asked.

        Raises:
            ValueError: Another run has taken the study over.
        """
        return stop_limit(self.place) if (self._folder / STOP).exists() else None

    def nodes_to_leave(self) -> Collection[str]:
        """Return the names of the nodes that the run is asked to leave."""
        return self.place.list(LEAVE)

    def left(self, node: str) -> None:
        """Tell who asked that no trial runs on a node any more."""
        self.place.delete([f"{LEAVE}/{node}"])
