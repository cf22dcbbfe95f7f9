"""A small embedded pool, built once."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from runners.data.pool.pool import Pool
from runners.embedded.embedded_pool import build_embedded_pool

EVALUATION_SIZES = {"held-out": 200, "seen": 100, "style": 100, "validation": 100, "retrieval": 64}


def brightness(images: NDArray[np.uint8], captions: list[str]) -> NDArray[np.float32]:
    """Return a simple score, for tests that are not about scoring."""
    assert images.shape == (len(captions), 3, 32, 32)
    scores: NDArray[np.float32] = images.mean(axis=(1, 2, 3)).astype(np.float32)
    return scores


def build_small(path: Path) -> Pool:
    """Build another copy of the pool of the fixture ``pool``."""
    return build_embedded_pool(path, pairs=503, seed=3, score=brightness, evaluation_sizes=EVALUATION_SIZES)


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return build_small(tmp_path_factory.mktemp("pools") / "small")


@pytest.fixture
def evaluation(pool: Pool) -> Path:
    return pool.path / "evaluation"


@pytest.fixture
def evaluation_sizes() -> dict[str, int]:
    return EVALUATION_SIZES


@pytest.fixture
def build_again() -> Callable[[Path], Pool]:
    return build_small
