"""Workers for commands on pools: processes of this machine, or jobs on a Ray cluster."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from budgets.quantity import plural
from runners.host.workers import Processes, Workers, usable_cores
from runners.scheduling.nodes import Amounts, cores_per_gpu
from runners.scheduling.pool_jobs import ClusterWorkers
from runners.scheduling.ray_backend.address import cluster_address
from runners.scheduling.storage_check import Seen, StorageCheck
from runners.store.location import Location

if TYPE_CHECKING:
    from runners.scheduling.ray_backend.core import RayBackend


_ADVICE = ": all nodes of the cluster must share it. Use a folder that they share, or leave out --address"
_A_CORE = {"cpus": 1.0}
_FOR_FILES = ("runners.data.build.build_pool", "runners.data.pool.byte_pairs")
_FOR_MODELS = ("runners.evaluate.clip_score",)


class PoolSite:
    """Context manager; the connection to a cluster is opened at its first use and closed at exit.

    ``address`` and ``workers`` are the options of these names. A ``backend`` that is given stays connected.
    """

    def __init__(
        self,
        address: str | None,
        workers: int | None,
        say: Callable[[str], None],
        backend: "RayBackend | None" = None,
    ) -> None:
        self._address, self._count, self._say = cluster_address(address), workers, say
        self._backend, self._own = backend, backend is None
        self._at_work: ClusterWorkers | None = None

    @property
    def on_cluster(self) -> bool:
        """True if the workers are on a cluster."""
        return self._address is not None

    def workers(self, *read: str | Path, written: str | Path | None = None) -> Workers:
        """Return workers with a core each.

        They read the folders and files ``read``, and write to the folder or URL ``written``.

        Raises:
            ValueError: No cluster answers at the address, or a node does not see one of the places.
        """
        if self._address is None:
            return Processes(count=self._count or usable_cores())
        return self._on_cluster(_A_CORE, read, written, self._count)

    def one(self, *read: str | Path) -> Workers:
        """Return a single worker, for work that can't be divided: this process, or one on the cluster."""
        return Processes() if self._address is None else self._on_cluster(_A_CORE, read, None, 1)

    def models(self, device: str | None, *read: str | Path, written: str | Path) -> Workers:
        """Return workers for a model: one per GPU, or without GPUs one per node.

        On a cluster each has as many cores as the node with the fewest has for one. Without a device they
        use GPUs where there are any; the other arguments are those of `workers`.

        Raises:
            ValueError: As `workers`.
        """
        on_gpus = device is None or device.startswith("cuda")
        if self._address is not None:
            nodes = self._opened(_FOR_MODELS).nodes().values()
            share = cores_per_gpu(nodes) if on_gpus else None
            cores = min((int(has["cpus"]) for has in nodes if has.get("cpus", 0) >= 1), default=1)
            resources = {"cpus": cores} if share is None else {"gpus": 1, "cpus": share}
            return self._on_cluster(resources, read, written, self._count)
        from runners.scheduling.local_backend import gpu_names  # noqa: PLC0415 - torch takes seconds

        names = tuple(gpu_names()) if on_gpus and device in {None, "cuda"} else ()
        return Processes(count=len(names), devices=names) if len(names) > 1 else Processes()

    def threads(self, workers: Workers) -> int | None:
        """Return the threads for each of `models`; None if each has cores of its own."""
        if not isinstance(workers, Processes):
            return None
        return max(1, (self._count or usable_cores()) // workers.count)

    def _on_cluster(
        self, resources: Amounts, read: tuple[str | Path, ...], written: str | Path | None, limit: int | None
    ) -> Workers:
        backend = self._opened(_FOR_FILES)
        seen = tuple(path.absolute() for source in read if (path := Location(source).local) is not None)
        there = None if written is None else Location(written)
        if there is not None and there.local is not None:
            there = Location(there.local.absolute())
            Path(there.address).mkdir(parents=True, exist_ok=True)
        place = Seen(written=there, read=seen, advice=_ADVICE)
        storage = StorageCheck(backend, place, lambda _node, why: self._say(f"{why}: it is not used"))
        storage.require()
        self._at_work = ClusterWorkers(backend, storage, resources, limit=limit, say=self._say)
        return self._at_work

    def _opened(self, modules: Sequence[str]) -> "RayBackend":
        if self._backend is None:
            from runners.scheduling.ray_backend.core import RayBackend  # noqa: PLC0415 - Ray's import takes seconds

            # Else torch's threads spin between batches; read when it is loaded.
            self._backend = RayBackend(
                self._address, modules=modules, environment={"OMP_WAIT_POLICY": "passive"}
            )
            self._say(f"{self._backend.name}: {plural(len(self._backend.nodes()), 'node')}")
        return self._backend

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._at_work is not None:
            self._at_work.end()
        if self._backend is not None and self._own:
            self._backend.__exit__(*error)
