"""Builds the embedded pools that a run does not find."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from budgets.declaration.data_sections import EmbeddedPool
from runners.store.files import locked
from study.state.study import Study


def ensure_pools(study: Study, say: Callable[[str], None]) -> None:
    """Build each embedded pool unless it exists on this machine or in the study's storage.

    If another run builds the same pool, wait for it.

    Raises:
        OSError: The storage can't be reached.
    """
    for name, pool in study.declaration.sources.items():
        folder = study.pool_folders[name]
        if not isinstance(pool, EmbeddedPool) or (folder / "pool.json").exists():
            continue
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = folder.with_name(f".{folder.name}.lock")
        with ExitStack() as until_built:
            if until_built.enter_context(locked(lock, wait_s=0)) is None:
                say(f"another run is building the pool {pool.name}; waiting for it")
                until_built.enter_context(locked(lock))
            if not (folder / "pool.json").exists() and not study.storage.bring_pool(f"pools/{pool.name}"):
                _build(pool, folder, say)


def _build(pool: EmbeddedPool, folder: Path, say: Callable[[str], None]) -> None:
    from runners.embedded.scorer import build_scored_pool  # noqa: PLC0415 - torch takes seconds

    began = time.monotonic()
    say(f"building the pool {pool.name}: {pool.pairs:,} captioned emoji scenes, scored by a small CLIP …")
    build_scored_pool(folder, pairs=pool.pairs, seed=pool.seed)
    say(f"pool {folder} built in {time.monotonic() - began:.0f} s")
