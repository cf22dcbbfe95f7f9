"""What the joint law of a family says in numbers: its parameters, and the law of a typical configuration.

A typical configuration has the surface, the drift and the effects that curves share, and nothing of its own.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from analysis.arrays import Floats, Indices
from analysis.belief.family import Family
from analysis.belief.law import TEMPER, JointLaw
from analysis.belief.space import Axes
from analysis.cells.intervals import interval

COLUMNS = ("regime", "parameter", "of", "value", "low", "high")
PARTS = ("architecture", "strategy", "quality")
"""Parts of a configuration that have effects, in the order of the law's."""
FORWARD = 3.0
"""A training step costs three forward passes."""
_LEAST_PRIOR = 0.05
_PLAIN = {"strategy": "clip", "quality": "all"}


def parameters(families: Iterable[Family]) -> pd.DataFrame:
    """Return the parameters of the laws of some families with their intervals, columns ``COLUMNS``.

    ``alpha``, ``beta`` and ``gamma`` are the surface's exponents, ``E`` its floor, ``epochs`` those that
    repeated samples last. The effect of an architecture, strategy or quality ``of`` that curves share is the
    factor of q at the middle of the data: to plain CLIP, to all data, or to the mean of the architectures.
    """
    rows = [
        (family.regime, name, of, float(np.median(drawn)), *interval(drawn))
        for family in families
        if family.source != "none"
        for name, of, drawn in _drawn(family)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _drawn(family: Family) -> Iterator[tuple[str, str, Floats]]:
    """Yield name, part and draws of each parameter."""
    law, scale = family.belief.law, family.belief.scale
    around = np.concatenate([part.around[:, None] + part.common for part in law.parts], axis=1)
    yield "E", "", np.repeat([part.link.floor * scale for part in law.parts], _counts(law))
    for place, name, known in (
        (1, "alpha", law.space.sized), (3, "beta", True), (4, "gamma", law.space.sized),
        (5, "epochs", law.space.repeated),
    ):  # fmt: skip
        if known:
            yield name, "", np.exp(around[place])
    count = law.space.shared.shape[1]
    names, levels = list(_effects(family)), around[len(around) - 2 * count : len(around) - count]
    for (part, value), level in zip(names, levels, strict=True):
        others = [place for place, (kind, _) in enumerate(names) if kind == part]
        plain = [place for place in others if names[place][1] == _PLAIN.get(part)] or others
        if (part, value) != names[plain[0]] or len(plain) > 1:
            yield part, value, np.exp(level - levels[plain].mean(axis=0))


def typical(
    family: Family, held: Mapping[str, object], size: Floats, samples: Floats, distinct: Floats
) -> Floats:
    """Return draws of the errors of a typical configuration of some sizes and samples seen.

    Args:
        family: Its family.
        held: Parts of the configuration: those that have effects are used.
        size: Forward FLOPs of a sample, shape (rows, points).
        samples: Samples seen, of the same shape.
        distinct: Distinct samples at most, of the same shape.

    Returns:
        Errors of shape (draws, rows, points), in the order of the draws of the belief.
    """
    law, log_samples = family.belief.law, np.log(samples)
    effects = [float(held.get(part) == value) for part, value in _effects(family)]
    axes = Axes(
        size=np.log(size), samples=log_samples, distinct=np.minimum(log_samples, np.log(distinct)),
        along=np.zeros_like(log_samples),
    )  # fmt: skip
    alone = replace(
        law,
        space=replace(law.space, shared=np.array([effects]).reshape(1, -1)),
        parts=tuple(replace(part, own=np.zeros_like(part.own[:1])) for part in law.parts),
    )
    return alone.errors(axes, np.zeros(len(size), dtype=np.intp)) * family.belief.scale


def resampled(family: Family) -> Indices:
    """Return draws of the belief by the untempered evidence of the components that they are of.

    The law tempers the evidence because its forms differ most far beyond the data. Within the data what is
    asked is better known.
    """
    law, counts = family.belief.law, _counts(family.belief.law)
    lowest = family.measured.mean[family.measured.runs > 0].min() / family.belief.scale
    prior = np.array([max(1 - part.link.floor / lowest, _LEAST_PRIOR) for part in law.parts])
    weight = np.array([part.weight for part in law.parts])
    weight = np.repeat(prior * (weight / prior) ** (1 / TEMPER) / counts, counts)
    total = np.cumsum(weight / weight.sum())
    return np.searchsorted(total, (np.arange(len(weight)) + 0.5) / len(weight)).astype(np.intp)


def _counts(law: JointLaw) -> Indices:
    return np.array([part.common.shape[1] for part in law.parts], dtype=np.intp)


def _effects(family: Family) -> Iterator[tuple[str, str]]:
    """Yield the part and the value of each column of the law's shared effects, see `belief.effects`."""
    for part in PARTS:
        values = pd.unique(family.configurations[part])
        if 1 < len(values) < len(family.configurations):
            yield from ((part, str(value)) for value in values)
