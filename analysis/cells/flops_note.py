"""Comparison of a table's training FLOPs with what its models cost."""

import numpy as np
import pandas as pd

from analysis.arrays import Floats
from analysis.error_unit import is_loss
from budgets.cost.architecture import catalogue, load_architecture
from budgets.cost.flops import sample_cost
from budgets.cost.strategy import find_strategy
from budgets.quantity import plural

_CLOSE = 1.3
"""Largest ratio that differences of convention explain, such as counting embeddings."""


def flops_notes(results: pd.DataFrame, metric: str) -> list[str]:
    """Return a sentence for each way in which training FLOPs are not what the models cost, within 1.3 times.

    CLIP of a catalogued architecture is held to its towers, at their usual sizes; a language model, whose
    metric is a loss and whose samples are tokens, to 6 × parameters × samples seen.
    """
    rows = results[results["status"] == "finished"]
    samples = rows["samples_seen"].to_numpy(np.float64)
    known = rows["architecture"].isin(catalogue()) & (rows["strategy"].str.lower() == "clip")
    tokens = rows["parameters"].where(~known & is_loss(metric))
    clip = find_strategy("clip")
    costs = {
        name: sample_cost(load_architecture(name), clip, batch_size=1).train_flops
        for name in rows.loc[known, "architecture"].unique()
    }
    towers = rows["architecture"].map(costs).where(known).to_numpy(np.float64)
    found = rows["train_flops"].to_numpy(np.float64)
    return [
        *_note(found, samples * towers, "those of the towers at their usual sizes"),
        *_note(found, 6.0 * samples * tokens.to_numpy(np.float64), "6 × parameters × samples_seen"),
    ]


def _note(found: Floats, expected: Floats, what: str) -> list[str]:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = found / expected
    ratio = ratio[np.isfinite(ratio) & (ratio > 0)]
    apart = ratio[np.abs(np.log(ratio)) > np.log(_CLOSE)]
    if not len(apart):
        return []
    rows = f"{plural(len(apart), 'row')} of {len(ratio):,}"
    times = f"{np.median(apart):.2g} times {what}"
    hint = "forward passes alone are a third. Correct it with times: unless it is meant"
    return [f"train_flops of {rows} is {times}; {hint}"]
