"""Builds the embedded pools that a run does not find."""

import time
from collections.abc import Callable

from budgets.declaration.data_sections import EmbeddedPool
from study.state.study import Study


def ensure_pools(study: Study, say: Callable[[str], None]) -> None:
    """Build each embedded pool unless it exists on this machine or in the study's storage.

    Raises:
        OSError: The storage can't be reached.
    """
    for name, pool in study.declaration.sources.items():
        folder = study.pool_folders[name]
        if not isinstance(pool, EmbeddedPool) or (folder / "pool.json").exists():
            continue
        if study.storage.bring_pool(f"pools/{pool.name}"):
            continue
        from runners.embedded.scorer import build_scored_pool  # noqa: PLC0415 - torch takes seconds

        began = time.monotonic()
        say(f"building the pool {pool.name}: {pool.pairs:,} captioned emoji scenes, scored by a small CLIP …")
        build_scored_pool(folder, pairs=pool.pairs, seed=pool.seed)
        say(f"pool {folder} built in {time.monotonic() - began:.0f} s")
