"""Makes the copies of subsets that a study declares, which its trials then read in place of the pools."""

import time
from collections.abc import Mapping
from contextlib import suppress

from budgets.planning.plan import Plan
from budgets.quantity import format_share
from runners.data.build.subset_copy import SubsetCopy, copy_subsets
from runners.host.workers import Processes, Workers, usable_cores
from runners.store.copies import pool_at
from runners.store.files import write_sealed
from runners.store.shared_folder import open_shared
from study.run.pool_site import PoolSite
from study.show.progress import Progress
from study.state.plan_study import plan_tables
from study.state.study import COPIES, Study
from study.state.subset_copies import copies_of
from study.storage.lock import only_writer

_RECORD_S = 2.0


def materialise(study: Study, plan: Plan, site: PoolSite, progress: Progress) -> bool:
    """Make each copy unless it exists, and record which subsets the trials read from it.

    Return whether any was made. A copy that was interrupted is continued.

    Raises:
        ValueError: A pool has too much damage, or another command is making the same copy.
        OSError: The place of a pool or of a copy can't be reached.
    """
    names, made = dict[str, str](), False
    for copy, keys in copies_of(study, plan):
        place = study.copy_place(copy.name)
        folder = study.place_here(place)
        if not folder.exists():
            with suppress(ValueError):  # it does not exist; else another machine made it
                pool_at(place, folder)
        if not (folder / "pool.json").exists():
            if plan.tuning is None:  # `status` shows the trials that wait; those of a tuning come first
                study.write_declaration()
                study.write_table("plan.parquet", plan_tables(plan)[0])
            began, made = time.monotonic(), True
            damaged = _make(study, copy, names, site, progress)
            also = f"; {damaged:,} of them are damaged" if damaged else ""
            progress.detail(f"copied {copy.words}; to {place}, in {time.monotonic() - began:.0f} s{also}")
        names |= dict.fromkeys(keys, copy.name)
    if names:
        write_sealed(study.folder / COPIES, {"copies": names})
    return made


def _make(
    study: Study, copy: SubsetCopy, names: Mapping[str, str], site: PoolSite, progress: Progress
) -> int:
    """Make a copy, and return the number of damaged pairs; `status` sees how far it is."""
    place, pool, due = study.copy_place(copy.name), copy.pool, 0.0

    def report(done: int, of: int) -> None:
        nonlocal due
        part = f"{format_share(of / pool.count)} of it"
        text = f"copying {done:,} of {of:,} pairs of the pool {pool.origin.name} ({part})"
        progress.step(text, done / of)
        if time.monotonic() > due:
            due = time.monotonic() + _RECORD_S
            write_sealed(study.folder / COPIES, {"copies": names, "copying": text})

    if place.local is not None:
        place.local.mkdir(parents=True, exist_ok=True)
    with only_writer(place, progress.say), open_shared(place) as shared:
        in_folder = pool.place.ahead_bytes == 0
        if in_folder and shared.url:  # nodes that share only a bucket do not see the folder
            workers: Workers = Processes(count=usable_cores())
        else:
            workers = site.workers(*[pool.path] * in_folder, written=shared.url or shared.path)
        damaged = copy_subsets(copy, shared, workers, report)
    pool_at(place, study.place_here(place))
    return damaged
