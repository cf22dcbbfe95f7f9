"""Published pairs of models at constant rate and cooled ones, to measure what the belief says of the latter.

Gemstones (McLeish et al. 2025): language models of 20 shapes, at the begin and the end of each cooldown.
CLIP on DataComp-1.4B (Nezhurina et al. 2025, arXiv 2506.04598): the best run of each model and number of
samples at a constant rate, with a cooldown, and with a cosine.
"""

import numpy as np
import pandas as pd

from analysis.belief.cell_draws import stream
from analysis.belief.family import families
from analysis.cells.intervals import column_intervals
from analysis.cells.table import of_trunks, tidy
from runners.results import TRUNK
from tests.analysis.public_tables import SHARED

PAIRS = ("gemstones", "const-cooldown", "cosine")
"""Tables of pairs: language models, and CLIP by the scheduler of its cooled runs."""
KNOWN = 5
"""Cooled runs that are known of a table."""
LEAST_GAIN, MOST_GAIN, LEAST = -0.03, 0.1, 0.2
"""Pairs of CLIP that count: least and most gain in accuracy, and least accuracy at constant rate.

The limits were set after a look at the pairs. The last leaves out 21 of 70 with a cooldown and 18 of 40 with
a cosine: up to 6.4M samples a cooldown makes CLIP worse. Of the others, the gain leaves out runs of single
models that went wrong (M-16, L-14 and H-14 at 128M samples lose .11 to .24 in a cooldown; at constant rate
L-14 and H-14 are below B-16 there), and S-16 at 300M with a cosine, which gains .107 where others gain .09.
"""
_DRAWS = 400


def published_pairs(name: str) -> tuple[pd.DataFrame, str]:
    """Return results with a state and a cooled run of each model and number of samples, and the metric."""
    if name == "gemstones":
        found = pd.read_csv(SHARED / "gemstones.csv").sort_values(["run", "tokens"])
        found = found[found["phase"].isin(["cool_begin", "cool_end"])]
        pair = [found["run"], found.groupby(["run", "phase"]).cumcount()]
        found = pd.DataFrame({
            "model": found["run"], "samples": found["tokens"].groupby(pair).transform("max"),
            "per_sample": 6.0 * found["params"], "text/loss": found["loss"],
            "state": found["phase"] == "cool_begin",
        })  # fmt: skip
        return _table(found), "text/loss"
    found = pd.read_csv(SHARED / "open_clip_scaling_best_per_scale.csv")
    clip = (found["loss"] == "clip") & (found["downstream"] == "imagenet1k") & (found["metric"] == "acc1")
    found = found[clip & (found["pretrain"] == "datacomp_1b") & found["scheduler"].isin(["const", name])]
    both = found.pivot_table(index=["arch", "samples_seen"], columns="scheduler", values="value").dropna()
    sound = both[(both[name] - both["const"]).between(LEAST_GAIN, MOST_GAIN) & (both["const"] > LEAST)]
    found = found.set_index(["arch", "samples_seen"]).loc[sound.index].reset_index()
    found = pd.DataFrame({
        "model": found["arch"], "samples": found["samples_seen"], "state": found["scheduler"] == "const",
        "per_sample": 3e9 * found["gflops_per_sample"], "imagenet/top1": found["value"],
        "imagenet/count": 50_000.0,
    })  # fmt: skip
    return _table(found), "imagenet/top1"


def _table(pairs: pd.DataFrame) -> pd.DataFrame:
    samples, model = pairs["samples"].astype(float), pairs["model"].astype(str)
    return pairs.drop(columns=["model", "samples", "state"]).assign(
        trial=model + samples.map("-{:.4g}".format) + np.where(pairs["state"], "-trunk", ""),
        regime="one-epoch", subset_size=samples, quality="all", strategy="clip", architecture=model,
        level_flops=np.nan, seed=0, train_flops=samples * pairs["per_sample"],
        train_flops_per_sample=pairs["per_sample"].astype(float), evaluation_flops=0.0, samples_seen=samples,
        epochs=1.0, parameters=np.nan, train_loss=np.nan, status="finished", reason="", trunk=model,
        phase=np.where(pairs["state"], TRUNK, ""),
    )  # fmt: skip


def score(name: str, number: int) -> tuple[float, float]:
    """Return how well the belief predicts cooled runs from all states and ``KNOWN`` others, drawn at random.

    The root mean square miss over the spread, the standard deviation between models at equal samples (mean
    over the samples), and the share of the 90 % intervals that hold.
    """
    table, metric = published_pairs(name)
    states = of_trunks(table)
    spread = float(table[~states].groupby("samples_seen")[metric].std().mean())
    chosen = stream(f"pairs/{name}", number).choice(np.flatnonzero(~states), KNOWN, replace=False)
    known = states | np.isin(np.arange(len(table)), chosen)
    (family,) = families(tidy(table[known], metric=metric), table, draws=_DRAWS).values()
    asked = tidy(table[~known], metric=metric).frame
    curve, point = np.array([family.place_of[trial] for trial in asked["trial"]]).T
    noise = np.sqrt(family.belief.noise[curve, point]) * stream(name).standard_normal((_DRAWS, len(asked)))
    drawn = family.belief.draws[:, curve, point] + noise
    miss, (low, high) = np.median(drawn, axis=0) - asked["error"], column_intervals(drawn)
    return float(np.sqrt((miss**2).mean())) / spread, float(asked["error"].between(low, high).mean())
