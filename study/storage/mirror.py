"""A run whose storage is no folder: how that and the driver's own folder of the study follow each other.

The driver writes its book, events and tables, and brings them to the storage within seconds; the nodes bring
trials (`runners.trials.upload`), of which the driver fetches what it needs.
"""

import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from types import TracebackType
from typing import Self

from budgets.planning.plan import Trial
from runners.host.faults import patiently
from runners.host.files import new_file
from runners.host.storage import Storage, cache_folder
from runners.host.trees import share_tree
from runners.trials.trial_files import FAILURE
from study.state.bookkeeping import read_from, trial_folder
from study.state.lock import Holder
from study.state.study import Study
from study.storage.bring import LEASE, STOP, bring_study, bring_trial
from study.storage.lease import Lease

_HERE_ALONE = {"throughput.json", STOP}  # of this machine
_BEAT_S = 3.0
_PATIENCE_S = 300.0  # with storage that is away at the end of a run


class Mirror:
    """What a run keeps up with its storage; used as a context by the one run of the study.

    Args:
        study: The study.
        holder: This run.
        before: The last run in the study's folder, which has ended.
        say: Told what is waited for.

    Raises:
        ValueError: The storage can't be used, or another run is under way.
    """

    def __init__(
        self, study: Study, holder: Holder, before: Holder | None, say: Callable[[str], None]
    ) -> None:
        self._study, self._before, self._say = study, before, say
        self._storage, self._name = Storage(study.url), study.name_in_storage
        self._lease = Lease(self._storage, f"{self._name}/{LEASE}", holder)
        self._pushed: dict[str, tuple[int, int]] = {}
        self._watched: Collection[str] = ()
        self._told, self._lost = False, ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Self:
        self._storage.require()
        self._lease.claim(self._before, self._say)
        try:
            self._storage.delete([f"{self._name}/{STOP}"])  # meant for a run before this one
            bring_study(self._storage, self._study)
        except BaseException:
            self._lease.release()
            raise
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        if self._lost:
            return
        if error is None:
            patiently(self._push, patience_s=_PATIENCE_S, say=self._say)
        else:
            with suppress(OSError):  # that error is the one to be told
                self._push()
        self._lease.release()

    def told(self) -> bool:
        """Whether `study stop` was said, on any machine.

        Raises:
            ValueError: Another run took over.
        """
        if self._lost:
            raise ValueError(self._lost)
        return self._told

    def share(self, trial: Trial) -> None:
        """Puts what trials read into the storage, once: the pool, and evaluation sets that lie elsewhere."""
        here, study = cache_folder(self._study.url), self._study
        pool, sets = read_from(study, trial)
        folders = {pool: study.pool}
        folders |= {path: study.evaluation[name] for name, path in sets.items() if pool not in path.parents}
        for path, folder in folders.items():
            if not (here / path).exists():  # this machine need not fetch what it has
                (here / path).parent.mkdir(parents=True, exist_ok=True)
                (here / path).unlink(missing_ok=True)
                (here / path).symlink_to(folder.resolve())
            if share_tree(self._storage, folder, path.as_posix()):
                self._say(f"{folder} was put into {study.url}/{path.as_posix()}")

    def watch(self, trials: Collection[str]) -> None:
        """Names the trials whose progress is to be fetched."""
        self._watched = tuple(trials)

    def fetch(self, trial_id: str) -> None:
        """Brings what the storage has of a trial: its count, its result, the names of its checkpoints."""
        bring_trial(self._storage, self._study, trial_id)

    def give(self, trial_id: str) -> None:
        """Has the storage say of a trial what the driver decided: that it failed, that it starts anew."""
        folder, name = trial_folder(self._study, trial_id), f"{self._name}/trials/{trial_id}"
        left = set() if (folder / FAILURE).exists() else {FAILURE}
        if not any(folder.glob("checkpoint-*")):
            left |= {"owner", "progress.json"} | {
                each for each in self._storage.list(name) if each.startswith("checkpoint-")
            }
        self._storage.delete(f"{name}/{each}" for each in left)
        if (folder / FAILURE).exists():
            self._storage.put(folder / FAILURE, f"{name}/{FAILURE}")

    def _follow(self) -> None:
        while not self._over.wait(_BEAT_S):
            with suppress(OSError):  # it is tried again; what can't go on without the storage says so
                try:
                    self._lease.renew()
                except ValueError as error:
                    self._lost = str(error)
                    return
                self._push()
                self._told = self._told or self._storage.read(f"{self._name}/{STOP}") is not None
                self._fetch_progress()

    def _push(self) -> None:
        """Brings those of the driver's files to the storage that have changed."""
        for path in self._study.folder.iterdir():
            if path.is_file() and not path.name.startswith(".") and path.name not in _HERE_ALONE:
                facts = path.stat()
                version = facts.st_mtime_ns, facts.st_size
                if self._pushed.get(path.name) != version:
                    self._storage.put(path, f"{self._name}/{path.name}")
                    self._pushed[path.name] = version

    def _fetch_progress(self) -> None:
        for trial_id in self._watched:
            found = self._storage.read(f"{self._name}/trials/{trial_id}/progress.json")
            folder = trial_folder(self._study, trial_id)
            if found is not None and folder.is_dir():
                with new_file(folder / "progress.json") as file:
                    file.write_bytes(found)
