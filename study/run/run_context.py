"""The environment of a run: the backend, the storage and requests to stop; for tuning and grid alike."""

import signal
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from functools import cached_property
from typing import ParamSpec, Self, TypeVar

from budgets.quantity import format_seconds
from runners.host.faults import NOTICES, Notice, patiently
from runners.scheduling.backend import Backend, ClusterLostError
from runners.scheduling.cluster import LiveCluster
from runners.scheduling.ray_backend.address import cluster_address
from runners.scheduling.schedule import Schedule
from runners.scheduling.storage_check import StorageCheck
from study.run.pool_site import PoolSite
from study.show.progress import Progress
from study.state.events import add_event
from study.state.study import Study

_PATIENCE_S = 300.0  # longest wait for storage that can't be reached

T = TypeVar("T")
P = ParamSpec("P")


class RunContext:
    """Context manager; the backend is opened at its first use and closed at exit.

    ``address`` is the option ``--address``; ``pay_again`` allows to run trials that were paid for, but whose
    results are gone. ``notice`` has the signal that asked the run to stop, if any; until `listen` is called,
    it may end the run at once. ``within_s`` are the seconds in which `study stop` asked it to, as of the last
    `stop_source`; None if it did not.
    """

    def __init__(  # noqa: PLR0913 - the options of a command
        self,
        study: Study,
        progress: Progress,
        *,
        address: str | None = None,
        local: bool = False,
        pay_again: bool = False,
        notice: Notice | None = None,
    ) -> None:
        self.pay_again = pay_again
        self._study, self._progress = study, progress
        self._address, self._local = address, local
        self._described = ""
        self._listens = False
        self.within_s: float | None = None
        self._until_the_end = ExitStack()
        self.notice = notice or Notice()

    @cached_property
    def backend(self) -> Backend:
        """The backend.

        Raises:
            ValueError: No cluster answers at the address.
        """
        return self._until_the_end.enter_context(open_backend(self._address, local=self._local))

    def listen(self) -> None:
        """Take signals such as SIGTERM as requests to stop in order from now on."""
        self.notice.at_once = False
        if not self._listens:
            self._until_the_end.enter_context(self.notice.listening(*NOTICES, signal.SIGINT))
        self._listens = True

    def tuning_backend(self) -> AbstractContextManager[Backend]:
        """Return the backend of tuning trials: Ray Tune, or without Ray the same as for the grid."""
        if self._local:
            return nullcontext(self.backend)
        from runners.scheduling.ray_backend.core import RayBackend  # noqa: PLC0415 - as below
        from runners.scheduling.ray_backend.tune import TuneBackend  # noqa: PLC0415 - Ray Tune's import takes seconds

        assert isinstance(self.backend, RayBackend)
        return TuneBackend(self.backend)

    def for_pools(self) -> PoolSite:
        """Return the site of workers for pools: this cluster's, or processes of this machine."""
        if self._local or cluster_address(self._address) is None:
            return PoolSite("local", None, self._progress.detail)
        from runners.scheduling.ray_backend.core import RayBackend  # noqa: PLC0415 - as above

        assert isinstance(self.backend, RayBackend)
        return PoolSite(self._address, None, self._progress.detail, self.backend)

    def look_around(self, schedule: Schedule, backend: Backend) -> LiveCluster:
        """Return the cluster behind a backend (this site's, or the one for tuning); schedule its nodes.

        Every node must see the folders that trials read and write. A node that joins later and does not
        see them is left out.

        Raises:
            ValueError: A node does not see the folders, or no node has room for a waiting trial.
        """
        resources = self._study.declaration.resources
        grows = not self._local and cluster_address(self._address) is not None
        check = self._node_check if grows else None
        # A bucket must be the same for all processes of this machine, too.
        if grows or self._study.storage.place.local is None:
            self._node_check.require()
        wait_s = resources.wait_s if grows else None
        cluster = LiveCluster(
            backend, schedule, patience_s=wait_s, storage_check=check, advice=no_room_advice(wait_s)
        )
        cluster.look()
        description = f"{backend.name}: {cluster.describe()}"
        if description != self._described:  # print it once for tuning and grid
            self._progress.detail(description)
        self._described = description
        return cluster

    def stop_source(self) -> str:
        """Return the source of a request to stop the run; empty if there was none.

        Raises:
            ValueError: Another run has taken the study over.
        """
        with suppress(OSError):  # unreachable storage: the run looks again in the next round
            self.within_s = self._study.storage.stop_requested()
        return self.notice.by or ("" if self.within_s is None else "`study stop`")

    def nodes_to_leave(self) -> Collection[str]:
        """Return the names of the nodes that the run is asked to leave."""
        with suppress(OSError):  # as above
            return self._study.storage.nodes_to_leave()
        return ()

    def with_storage(self, do: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that uses the study's storage; retry while the storage can't be reached.

        The function must be safe to call again after it failed halfway.

        Raises:
            OSError: The storage stays unreachable, or a signal to stop leaves no time to wait.
        """

        def look_and_do() -> T:
            # Fails if the storage is unreachable; otherwise its files would look deleted.
            (self._study.folder / "trials").stat()
            return do(*args, **kwargs)

        return patiently(
            look_and_do, patience_s=_PATIENCE_S, say=self._progress.say, hurry=lambda: bool(self.notice.by)
        )

    @cached_property
    def _node_check(self) -> StorageCheck:
        study = self._study
        folders = *study.pool_folders.values(), *study.copies.values(), *study.evaluation.values()
        read = tuple(path.resolve() for path in folders)
        return StorageCheck(self.backend, study.storage.seen_by_nodes(read), self.leave_out)

    def leave_out(self, node: str, why: str, how: str = "it joined the cluster and is not used") -> None:
        """Record and say that a node runs nothing from now on."""
        self.with_storage(add_event, self._study, "node-left-out", node=node, reason=why)
        self._progress.say(f"{why}: {how}; the other nodes continue")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ClusterLostError) and self.stop_source():
            error.own = False  # a run that was asked to stop does not continue with another Ray
        self._until_the_end.close()


def open_backend(address: str | None, *, local: bool) -> Backend:
    """Return the backend that runs trials: the Ray at an address, or without Ray this machine.

    Raises:
        ValueError: No cluster answers at the address.
    """
    if local:
        from runners.scheduling.local_backend import LocalBackend  # noqa: PLC0415 - one of the two is needed

        return LocalBackend()
    from runners.scheduling.ray_backend.core import RayBackend  # noqa: PLC0415 - Ray's import starts threads

    return RayBackend(cluster_address(address))


def no_room_advice(wait_s: float | None) -> str:
    """Return what to do if no node has room for a trial; trials wait ``wait_s`` for nodes, None: not."""
    if wait_s is None:
        return "See resources: in the declaration, or name a larger cluster with --address"
    wait = format_seconds(wait_s)
    return (
        f"See resources: in the declaration; wait: (now {wait}) sets how long trials wait for nodes to join"
    )
