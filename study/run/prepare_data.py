"""Makes the data of a study ready for its trials: embedded pools, copies of subsets, chosen subsets."""

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from functools import cache, partial
from pathlib import Path

from budgets.declaration.data_sections import EmbeddedPool
from budgets.planning.plan import Plan
from budgets.planning.planned_trial import Trial
from budgets.quantity import format_share
from runners.data.build.subset_copy import SubsetCopy, copy_subsets
from runners.data.pool.pool import Pool
from runners.host.workers import Processes, Workers, usable_cores
from runners.store.copies import pool_at
from runners.store.files import locked, write_sealed
from runners.store.shared_folder import open_shared
from study.run.pool_site import PoolSite
from study.show.progress import Progress
from study.state.plan_study import plan_tables
from study.state.study import COPIES, Study, trial_job
from study.state.subset_copies import copies_of
from study.storage.lock import only_writer

_LONG_S = 2.0
_RECORD_S = 2.0


def ensure_pools(study: Study, say: Callable[[str], None]) -> None:
    """Build each embedded pool unless it exists on this machine or in the study's storage.

    If another run builds the same pool, wait for it.

    Raises:
        OSError: The storage can't be reached.
    """
    for name, declared in study.declaration.sources.items():
        folder, pool = study.pool_folders[name], declared.embedded
        if pool is None or (folder / "pool.json").exists():
            continue
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = folder.with_name(f".{folder.name}.lock")
        with ExitStack() as until_built:
            if until_built.enter_context(locked(lock, wait_s=0)) is None:
                say(f"another run is building the pool {pool.name}; waiting for it")
                until_built.enter_context(locked(lock))
            if not (folder / "pool.json").exists() and not study.storage.bring_pool(f"pools/{pool.name}"):
                _build(pool, folder, say)


def share_data(study: Study, trials: Iterable[Trial], say: Callable[[str], None]) -> None:
    """Make the data of trials visible to all nodes; choose their subsets of large pools, once for all.

    Raises:
        ValueError: A pool can't be read, or lacks pairs.
        OSError: A pool's place or the study's storage can't be reached.
    """
    jobs = [trial_job(study, trial) for trial in {trial.components: trial for trial in trials}.values()]
    for job in {job.pools: job for job in jobs}.values():  # all read the same evaluation sets
        study.storage.share(job, say)
    opened = cache(partial(Pool.open, tolerance=study.declaration.limits.damage))
    for job in jobs:
        for folder, part in zip(job.pools, job.trial.components, strict=True):
            began, pool = time.monotonic(), opened(folder, holding=part.pool)
            pool.subset(size=part.pairs, quality=part.quality, shared=job.subsets)
            if (took := time.monotonic() - began) > _LONG_S:
                name = pool.name
                say(
                    f"chose {part.pairs:,} of {pool.count:,} pairs of {name} ({part.quality}) in {took:.0f} s"
                )


def _build(pool: EmbeddedPool, folder: Path, say: Callable[[str], None]) -> None:
    from runners.embedded.scorer import build_scored_pool  # noqa: PLC0415 - torch takes seconds

    began = time.monotonic()
    say(f"building the pool {pool.name}: {pool.pairs:,} captioned emoji scenes, scored by a small CLIP …")
    build_scored_pool(folder, pairs=pool.pairs, seed=pool.seed)
    say(f"pool {folder} built in {time.monotonic() - began:.0f} s")


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
        text = f"copying {done:,} of {of:,} pairs of the pool {pool.name} ({part})"
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
