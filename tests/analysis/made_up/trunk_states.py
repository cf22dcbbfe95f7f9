"""States of trunks for a simulated grid: what its models score where each starts to cool down."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from analysis.cells.table import records
from runners.results import TRUNK
from tests.analysis.synthetic import METRIC

COOLDOWN = 0.2
"""Share of a cooled run that its cooldown takes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrueMap:
    """The true map: ln odds of the state = (1 + tilt)·(ln odds of the cooled error) + offset.

    Attributes:
        offset: Offset of all configurations.
        tilt: How much faster states change than cooled errors.
        effects: Further offset of some values of the columns of configurations, such as a strategy.
        own: Standard deviation of the offset of a configuration.
        shared: Correlation of the noise of a state with that of its cooled run.
    """

    offset: float = 0.2
    tilt: float = 0.05
    effects: Mapping[str, float] = field(default_factory=dict)
    own: float = 0.02
    shared: float = 0.7


def with_trunk_states(
    results: pd.DataFrame, truth: Callable[[Mapping[str, Any]], float], true_map: TrueMap,
    generator: np.random.Generator,
) -> pd.DataFrame:  # fmt: skip
    """Return a table with the state of each run beside it; each seed of a configuration is a trunk.

    ``truth`` is the true error of a row. A cooled run pays its cooldown, a state what its trunk adds.
    """
    name = results["architecture"] + "-" + results["strategy"] + "-" + results["quality"]
    curve = pd.factorize(name + "-" + results["subset_size"].astype(str))[0]
    trunk = pd.Series(curve, results.index).astype(str) + "-" + results["seed"].astype(str)
    results = results.assign(trunk=trunk, curve=curve)
    results = results.sort_values(["trunk", "train_flops"], ignore_index=True)
    own = true_map.own * generator.standard_normal(int(curve.max()) + 1)
    true = np.array([truth(row) for row in records(results)])
    curve = results.pop("curve").to_numpy()
    noise = 1.0 - results[METRIC].to_numpy() - true
    fresh = noise.std() * generator.standard_normal(len(results))
    off = true_map.shared * noise + np.sqrt(1.0 - true_map.shared**2) * fresh
    odds = (1 + true_map.tilt) * np.log(true / (1.0 - true)) + true_map.offset + own[curve]
    for part in ("architecture", "strategy", "quality"):
        odds += [true_map.effects.get(value, 0.0) for value in results[part]]
    begun = (1 - COOLDOWN) * results["train_flops"]
    states = results.assign(
        trial=results["trial"] + "-trunk", phase=TRUNK, train_flops=begun,
        samples_seen=((1 - COOLDOWN) * results["samples_seen"]).astype(int),
        paid_flops=begun - begun.groupby(results["trunk"]).shift(fill_value=0.0),
        **{METRIC: 1.0 - np.clip(1 / (1 + np.exp(-odds)) + off, 0.001, 0.999)},
    )  # fmt: skip
    branches = results.assign(phase="", paid_flops=COOLDOWN * results["train_flops"])
    return pd.concat([branches, states]).sort_index(kind="stable", ignore_index=True)
