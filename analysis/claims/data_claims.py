"""Claims on data: number of pairs, epochs and quality (section 4 of the paper)."""

from dataclasses import replace
from itertools import pairwise, product

import pandas as pd

from analysis.claims.slice import (
    EQUAL,
    FEW_SHOT,
    ONE_EPOCH,
    RETRIEVAL,
    VARIANT,
    VARIANTS,
    ZERO_SHOT,
    Claim,
    Effect,
    M,
    Slice,
)

FULL = 1.0


def _epochs(frame: pd.DataFrame, metric: str) -> Slice:
    """Return the slice of epochs (rows) by subset size (columns)."""
    return Slice(frame, "epochs", "subset_size", group="epochs", metric=metric)


def _quality(frame: pd.DataFrame, metric: str, regime: str) -> Slice:
    """Return the slice of one architecture (row) by kept fraction (columns)."""
    if regime == EQUAL:
        return Slice(frame, "architecture", "quality", group="quality", metric=metric, regime=regime)
    # One epoch of one pool: keep the largest subset of each quality.
    mine = frame[(frame["group"] == "quality") & (frame["regime"] == regime)]
    largest = mine.groupby(["metric", "quality"])["subset_size"].transform("max")
    return Slice(mine[mine["subset_size"] == largest], "architecture", "quality", metric=metric)


def _larger_is_better(frame: pd.DataFrame, metrics: tuple[str, ...]) -> list[Effect]:
    return [
        effect
        for at in (_epochs(frame, metric) for metric in metrics)
        for epochs, (small, large) in product(at.rows, pairwise(at.columns))
        for effect in at.gap((epochs, small), (epochs, large))
    ]


def _c02(frame: pd.DataFrame) -> list[Effect]:
    at = _epochs(frame, ZERO_SHOT)
    return at.within((16.0, 25 * M), (32.0, 25 * M), 0.5)


def _c03(frame: pd.DataFrame) -> list[Effect]:
    at, size = _epochs(frame, ZERO_SHOT), 400 * M
    return [effect for low, high in at.steps(size) for effect in at.gap((low, size), (high, size))]


def _c05(frame: pd.DataFrame) -> list[Effect]:
    names = sorted(name for name in set(frame["metric"]) if name.startswith(VARIANT))
    early, late = (16.0, 25 * M), (32.0, 25 * M)
    gains = [gain for name in names for gain in _epochs(frame, name).gap(early, late)]
    return [*_c02(frame), *gains] if gains else []


def _c07(frame: pd.DataFrame) -> list[Effect]:
    slices = [_epochs(frame, metric) for metric in RETRIEVAL]
    gaps = [gap for at in slices for size in at.columns for gap in at.gap((8.0, size), (32.0, size))]
    return [replace(gap, value=1.1 - gap.value) for gap in gaps]


def _filtered(frame: pd.DataFrame, metrics: tuple[str, ...], qualities: tuple[float, ...]) -> list[Effect]:
    """Compare each filtered subset with the full set in one epoch."""
    return [
        effect
        for at in (_quality(frame, metric, ONE_EPOCH) for metric in metrics)
        for row, quality in product(at.rows, qualities)
        for effect in at.gap((row, FULL), (row, quality))
    ]


def _c09(frame: pd.DataFrame) -> list[Effect]:
    at = _quality(frame, ZERO_SHOT, EQUAL)
    return [e for row in at.rows for e in (*at.best(row, 0.4), *at.gap((row, 0.2), (row, 0.4)))]


def _c10(frame: pd.DataFrame) -> list[Effect]:
    return [
        effect
        for at in (_quality(frame, metric, EQUAL) for metric in FEW_SHOT)
        for row, (pure, dirty) in product(at.rows, pairwise(at.columns))
        for effect in at.gap((row, dirty), (row, pure))
    ]


def _c12(frame: pd.DataFrame) -> list[Effect]:
    slices = [_quality(frame, metric, regime) for regime, metric in product((ONE_EPOCH, EQUAL), RETRIEVAL)]
    return [effect for at in slices for row in at.rows for effect in at.best(row, 0.8)]


DATA = (
    Claim(
        name="C01", text="Larger training sets give lower zero-shot error at any number of epochs.",
        where="Sec 4, Fig 2", compare=lambda frame: _larger_is_better(frame, (ZERO_SHOT, VARIANTS)),
    ),
    Claim(
        name="C02", text="On a small set (25M) training longer hardly helps, past 16 epochs.",
        where="Sec 4, Fig 2a", compare=_c02,
    ),
    Claim(
        name="C03", text="On a large set (400M) more epochs keep helping.", where="Sec 4, Fig 2a",
        compare=_c03,
    ),
    Claim(
        name="C04", text="The mean over the variants falls with each doubling of epochs, on every set.",
        where="Sec 4, Fig 2b", compare=lambda frame: _epochs(frame, VARIANTS).falls_by_row(),
    ),
    Claim(
        name="C05", text="25M pairs gain on single variants past 16 epochs, where ImageNet gains nothing.",
        where="Sec 4, App. Fig 20", compare=_c05,
    ),
    Claim(
        name="C06", text="Few-shot error is ordered by set size at each number of epochs.",
        where="Sec 4, Fig 3", compare=lambda frame: _larger_is_better(frame, FEW_SHOT),
    ),
    Claim(
        name="C07", text="Retrieval gains little past eight epochs.", where="Sec 4, Fig 4", compare=_c07
    ),
    Claim(
        name="C08", text="In one epoch the top 40 % beat the full set, in spite of far fewer steps.",
        where="Sec 4, Fig 5a", compare=lambda frame: _filtered(frame, (ZERO_SHOT,), (0.4,)),
    ),
    Claim(
        name="C09", text="At equal samples the top 40 % are the best; the top 20 % fall short of them.",
        where="Sec 4, Fig 5b", compare=_c09,
    ),
    Claim(
        name="C10", text="At equal samples higher quality gives better few-shot error.",
        where="Sec 4, Fig 6c-d", compare=_c10,
    ),
    Claim(
        name="C11", text="In one epoch higher quality gives better few-shot error.", part="few-shot",
        where="Sec 4, Fig 6a-b", compare=lambda frame: _filtered(frame, FEW_SHOT, (0.2, 0.4, 0.6, 0.8)),
    ),
    Claim(
        name="C11", text="In one epoch higher quality gives better retrieval.", part="retrieval",
        where="Sec 4, Fig 7a-b", compare=lambda frame: _filtered(frame, RETRIEVAL, (0.2, 0.4, 0.6, 0.8)),
    ),
    Claim(name="C12", text="The top 80 % have the best retrieval.", where="Sec 4, Fig 7", compare=_c12),
)  # fmt: skip
