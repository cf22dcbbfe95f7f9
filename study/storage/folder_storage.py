"""A study's storage, as all who run, stop or read the study use it: here a folder that all nodes share."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from runners.scheduling.shared_storage import Folders, Objects
from study.storage.lock import only_run, running, stop_mark, stop_run

if TYPE_CHECKING:
    from runners.trials.trial_setup import TrialJob


class FolderStorage:
    """The storage of one study: a folder that nodes and drivers share, held by a lock during a run.

    `BucketStorage` is the other one. Each method raises OSError where the storage can't be reached.

    Args:
        folder: The study's folder on this machine.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def refresh(self) -> None:
        """Bring what the storage has of the study into its folder, unless a run of it there does so."""

    def bring_weights(self, trial_id: str) -> None:
        """Bring a trial's weights into its folder."""

    def bring_pool(self, name: str) -> bool:  # noqa: ARG002 - none comes from elsewhere
        """Bring a pool, by its name in the storage, to this machine; tell whether it was there."""
        return False

    def stop(self, *, wait_s: float) -> Iterator[str]:
        """Tell the run of the study to stop, wait for its end at most so many seconds, and word that.

        Raises:
            ValueError: No run of it is under way.
        """
        tell = stop_mark(self._folder).touch
        return stop_run(str(self._folder), partial(running, self._folder), tell, wait_s=wait_s)

    @contextmanager
    def claim(self, say: Callable[[str], None]) -> Iterator[None]:  # noqa: ARG002 - told what is waited for
        """Context manager that makes this process the one run of the study.

        Raises:
            ValueError: Another run is under way, or the storage can't be used.
        """
        with only_run(self._folder):
            yield

    def seen_by_nodes(self, read: tuple[Path, ...]) -> Folders | Objects:
        """Return what every node must see, given the folders that trials read."""
        return Folders(written=self._folder.resolve(), read=read)

    def call(self, run: "Callable[[TrialJob], object]", job: "TrialJob") -> Callable[[], object]:
        """Return the call that has a node run a trial, given what runs it on paths of the node's own."""
        return partial(run, job)

    # For the run that has claimed the study.

    def share(self, job: "TrialJob", say: Callable[[str], None]) -> None:
        """Have nodes see what a trial reads."""

    def watch(self, trials: Collection[str]) -> None:
        """Have the progress of these trials come to the study's folder."""

    def fetch(self, trial_id: str) -> None:
        """Bring what a node wrote of a trial: its count, its result, the names of its checkpoints."""

    def give(self, trial_id: str) -> None:
        """Have nodes see what the run decided of a trial: that it failed, or starts anew."""

    def told(self) -> bool:
        """Tell whether the run was told to stop, on any machine.

        Raises:
            ValueError: Another run took the study over.
        """
        return stop_mark(self._folder).exists()
