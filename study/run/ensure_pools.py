"""Makes the data of a study ready for its trials: embedded pools, copies in its storage, chosen subsets."""

import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path

from budgets.declaration.data_sections import EmbeddedPool
from budgets.planning.planned_trial import Trial
from runners.data.pool.pool import Pool
from runners.store.files import locked
from study.state.study import Study, trial_job

_LONG_S = 2.0


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
                name = pool.origin.name
                say(
                    f"chose {part.pairs:,} of {pool.count:,} pairs of {name} ({part.quality}) in {took:.0f} s"
                )


def _build(pool: EmbeddedPool, folder: Path, say: Callable[[str], None]) -> None:
    from runners.embedded.scorer import build_scored_pool  # noqa: PLC0415 - torch takes seconds

    began = time.monotonic()
    say(f"building the pool {pool.name}: {pool.pairs:,} captioned emoji scenes, scored by a small CLIP …")
    build_scored_pool(folder, pairs=pool.pairs, seed=pool.seed)
    say(f"pool {folder} built in {time.monotonic() - began:.0f} s")
