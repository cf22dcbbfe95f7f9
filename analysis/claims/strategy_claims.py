"""Claims on training strategies: augmentation, FLIP, SLIP (section 7 and the introduction)."""

from itertools import product

import pandas as pd

from analysis.claims.slice import (
    EQUAL,
    ONE_EPOCH,
    PROBES,
    RETRIEVAL,
    VARIANTS,
    ZERO_SHOT,
    B,
    Claim,
    Effect,
    M,
    Slice,
)  # fmt: skip

CLIP, SLIP = "clip", "slip"


def _augmented(at: Slice) -> list[str]:
    return [name for name in at.columns if name.startswith("clip-")]


def _augmentations(frame: pd.DataFrame) -> list[Slice]:
    """Return the slice of subset sizes by augmentation of each regime: budgets of two don't compare."""
    kept = frame[(frame["group"] == "augmentation") & (frame["metric"] == ZERO_SHOT)]
    return [Slice(each, "subset_size", "strategy") for _, each in kept.groupby("regime", sort=False)]


def _strategies(frame: pd.DataFrame, metric: str, regime: str) -> Slice:
    return Slice(frame, "subset_size", "strategy", group="strategies", metric=metric, regime=regime)


def _c36(frame: pd.DataFrame) -> list[Effect]:
    return [
        effect
        for at in _augmentations(frame)
        for size, name in product(at.rows, _augmented(at))
        for effect in at.gap((size, CLIP), (size, name))
    ]


def _half_data(at: Slice, name: str, slack: float, sizes: list[float]) -> list[Effect]:
    """Compare a strategy on each set with plain CLIP on a set twice as large."""
    return [effect for size in sizes for effect in at.gap((2 * size, CLIP), (size, name), slack)]


def _c37(frame: pd.DataFrame) -> list[Effect]:
    found: list[Effect] = []
    for at in _augmentations(frame):
        name, named = "clip-stacked-randaugment", _augmented(at)
        found += _half_data(at, name if name in named else (named or [""])[-1], 2.0, at.rows)
    return found


def _c38(frame: pd.DataFrame) -> list[Effect]:
    at = _strategies(frame, ZERO_SHOT, EQUAL)
    sizes = [size for size in at.rows if size <= 400 * M]
    return [effect for name in _augmented(at)[-1:] for effect in _half_data(at, name, 0.5, sizes)]


def _slip_best(frame: pd.DataFrame, metrics: tuple[str, ...], regime: str) -> list[Effect]:
    return [effect for metric in metrics for effect in _strategies(frame, metric, regime).leads(SLIP)]


def _c41(frame: pd.DataFrame) -> list[Effect]:
    at = _strategies(frame, ZERO_SHOT, ONE_EPOCH)
    pairs = product(at.rows, _augmented(at))
    return [effect for size, name in pairs for effect in at.gap((size, name), (size, CLIP))]


def _c42(frame: pd.DataFrame) -> list[Effect]:
    at = _strategies(frame, ZERO_SHOT, EQUAL)
    others = [name for name in at.columns if name == CLIP or name.startswith("flip")]
    sizes = [size for size in at.rows if size <= 100 * M]
    return [effect for size, name in product(sizes, others) for effect in at.gap((size, name), (size, SLIP))]


def _augmented_best(frame: pd.DataFrame, metrics: tuple[str, ...]) -> list[Effect]:
    slices = [_strategies(frame, metric, EQUAL) for metric in metrics]
    return [effect for at in slices for name in _augmented(at)[-1:] for effect in at.leads(name)]


def _c48(frame: pd.DataFrame) -> list[Effect]:
    at = _strategies(frame, ZERO_SHOT, EQUAL)
    sizes = [size for size in at.rows if size >= 0.8 * B]
    return [effect for size in sizes for effect in at.within((size, SLIP), (size, CLIP), 1.3)]


STRATEGIES = (
    Claim(
        name="C36", text="Each image augmentation beats none over many epochs (30).", where="Sec 7, Fig 1b",
        compare=_c36,
    ),
    Claim(
        name="C37", text="Half data: augmented CLIP on half of the pairs is within two points of plain CLIP.",
        where="Abstract, Sec 7, Fig 1b", compare=_c37,
    ),
    Claim(
        name="C38", text="Half data at equal samples: augmented CLIP on half of the pairs equals plain CLIP.",
        where="Fig 17a", compare=_c38,
    ),
    Claim(
        name="C39", text="One epoch: SLIP is the best below a billion samples, CLIP overtakes it beyond.",
        part="below", where="Sec 7, Fig 16a",
        compare=lambda frame: _strategies(frame, ZERO_SHOT, ONE_EPOCH).leads(SLIP, high=B - 1),
    ),
    Claim(
        name="C39", text="One epoch: SLIP is the best below a billion samples, CLIP overtakes it beyond.",
        part="beyond", where="Sec 7, Fig 16a",
        compare=lambda frame: _strategies(frame, ZERO_SHOT, ONE_EPOCH).gaps(SLIP, CLIP, low=B + 1),
    ),
    Claim(
        name="C40", text="SLIP is the worst at equal compute.", where="Sec 7, Fig 16b",
        compare=lambda frame: _strategies(frame, ZERO_SHOT, "fixed-compute").leads(SLIP, sign=-1),
    ),
    Claim(name="C41", text="One epoch: augmentation hurts.", where="Sec 7, Fig 16a", compare=_c41),
    Claim(
        name="C42", text="Equal samples: SLIP beats CLIP and FLIP on sets to 100M.", where="Sec 7, Fig 17a",
        compare=_c42,
    ),
    Claim(
        name="C43", text="Equal samples: on variants SLIP is not better from 200M on.",
        where="Sec 7, Fig 17b",
        compare=lambda frame: _strategies(frame, VARIANTS, EQUAL).gaps(SLIP, CLIP, low=200 * M),
    ),
    Claim(
        name="C44", text="Equal samples: augmented CLIP beats the other strategies.", part="ImageNet",
        where="Sec 7, Fig 17a", compare=lambda frame: _augmented_best(frame, (ZERO_SHOT,)),
    ),
    Claim(
        name="C44", text="Equal samples: augmented CLIP beats the other strategies.", part="variants",
        where="Sec 7, Fig 17b", compare=lambda frame: _augmented_best(frame, (VARIANTS,)),
    ),
    Claim(
        name="C45", text="Linear probe: augmented CLIP is the best at all set sizes.", part="ImageNet",
        where="Sec 7, Fig 19a", compare=lambda frame: _augmented_best(frame, PROBES[:1]),
    ),
    Claim(
        name="C45", text="Linear probe: augmented CLIP is the best at all set sizes.", part="other sets",
        where="Sec 7, Fig 19b", compare=lambda frame: _augmented_best(frame, PROBES[1:]),
    ),
    Claim(
        name="C46", text="Equal samples: SLIP is the best at retrieval for every set size.",
        where="Sec 7, Fig 18c-d", compare=lambda frame: _slip_best(frame, RETRIEVAL, EQUAL),
    ),
    Claim(
        name="C47", text="One epoch: SLIP is the best at retrieval.", where="Sec 7, Fig 18a-b",
        compare=lambda frame: _slip_best(frame, RETRIEVAL, ONE_EPOCH),
    ),
    Claim(
        name="C48", text="From 800M on SLIP only equals CLIP, at twice the cost.", where="Sec 1, Fig 17a",
        compare=_c48,
    ),
)  # fmt: skip
