"""Makes the copies of subsets that a study declares, which its trials then read in place of the pools."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from budgets.planning.plan import Plan
from runners.data.build.subset_copy import SubsetCopy, copy_subsets
from runners.data.pool.pool import Pool
from runners.host.workers import Processes, Workers, usable_cores
from runners.results import write_table
from runners.store.copies import copy_pool, is_url
from runners.store.files import write_json
from runners.store.shared_folder import open_shared
from study.run.pool_site import PoolSite
from study.state.plan_study import plan_tables
from study.state.study import COPIES, Study
from study.state.subset_copies import Copying, copies_of
from study.storage.lease import only_writer

_RECORD_S = 2.0


def materialise(
    study: Study,
    plan: Plan,
    site: PoolSite,
    *,
    say: Callable[[str], None],
    show: Callable[[Copying], None],
) -> bool:
    """Make each copy unless it exists, and record which subsets the trials read from it.

    Return whether any was made.

    A copy that was interrupted is continued. ``say`` is called with lines, ``show`` with the progress.

    Raises:
        ValueError: A pool has too much damage, or another command is making the same copy.
        OSError: The place of a pool or of a copy can't be reached.
    """
    names, made_any = dict[str, str](), False
    for copy, subsets in copies_of(study, plan):
        place, what = study.copy_place(copy.name), copy.pool.origin.name
        folder = study.place_here(place)
        if not (folder / "pool.json").exists():
            made_any, began = True, time.monotonic()
            if plan.tuning is None:  # `status` shows the trials that wait; those of a tuning come first
                write_table(study.folder / "plan.parquet", plan_tables(plan)[0])
            _make(copy, place, site, say, _recorded(study, copy, names, show))
            made = Pool.open(copy_pool(place, folder) if is_url(place) else folder)
            damaged = made.origin.provenance["damaged"]
            say(
                f"copied {made.count:,} pairs of {what} to {place} in {time.monotonic() - began:.0f} s"
                + (f"; {damaged:,} of them are damaged" if damaged else "")
            )
        names |= dict.fromkeys(subsets, copy.name)
    if names:
        write_json(study.folder / COPIES, {"copies": names})
    return made_any


def _recorded(
    study: Study, copy: SubsetCopy, names: Mapping[str, str], show: Callable[[Copying], None]
) -> Callable[[int, int], None]:
    """Return a function that shows the progress, and records it for `status` every few seconds."""
    due = 0.0

    def report(done: int, of: int) -> None:
        nonlocal due
        copying = Copying(pool=copy.pool.origin.name, done=done, of=of, share=of / copy.pool.count)
        show(copying)
        if time.monotonic() > due:
            due = time.monotonic() + _RECORD_S
            write_json(study.folder / COPIES, {"copies": names, "copying": asdict(copying)})

    return report


def _make(
    copy: SubsetCopy,
    place: str,
    site: PoolSite,
    say: Callable[[str], None],
    report: Callable[[int, int], None],
) -> None:
    if not is_url(place):
        Path(place).mkdir(parents=True, exist_ok=True)
    with only_writer(place, say), open_shared(place) as shared:
        in_folder = copy.pool.place.ahead_bytes == 0
        if in_folder and shared.url:  # nodes that share only a bucket do not see the folder
            workers: Workers = Processes(count=usable_cores())
        else:
            workers = site.workers(*[copy.pool.path] * in_folder, written=shared.url or shared.path)
        copy_subsets(copy, shared, workers, report)
