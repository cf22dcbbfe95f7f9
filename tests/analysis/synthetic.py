"""A plausible study, made up: known laws, known noise, and the frames that a run leaves behind."""

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd

from analysis.arrays import Floats
from analysis.belief.cell_draws import CellDraws, cell_draws
from analysis.cells.study_frames import StudyFrames, by_phase
from analysis.cells.table import tidy
from analysis.charts.figure_data import FigureData, Missing

GIGA = 1e9
METRIC = "held-out/top1"
PER_SAMPLE = {"ViT-X": 13e6, "ViT-S": 39e6, "ViT-M": 72e6, "ConvNeXt-C": 19e6}
STRATEGY_COST = {"clip": 1.0, "clip-crop-flip": 1.0, "flip-50": 0.7, "slip": 2.9}
LEVELS = (200 * GIGA, 900 * GIGA, 3600 * GIGA)
POOL = 8192
QUALITIES = {"top20": 0.2, "top40": 0.4, "all": 1.0}


def figure_of(figure: FigureData | Missing | None) -> FigureData:
    """Return a figure that the data must support."""
    assert isinstance(figure, FigureData), figure
    return figure


def cells_of(results: pd.DataFrame, *, draws: int = 1000) -> CellDraws:
    """Return the cells of a results table with their draws."""
    return cell_draws(tidy(results, metric=METRIC), draws=draws)


def true_error(level: float, size: int, quality: str, architecture: str, strategy: str) -> float:
    """The law the study is made of: the larger model wins late, purer data early, more data always."""
    floor = {"ViT-X": 0.38, "ViT-S": 0.30, "ViT-M": 0.28, "ConvNeXt-C": 0.30}[architecture]
    scale = {"ViT-X": 0.50, "ViT-S": 0.62, "ViT-M": 0.70, "ConvNeXt-C": 0.46}[architecture]
    gain = {"clip": 0.0, "clip-crop-flip": 0.01, "flip-50": -0.01, "slip": 0.04}[strategy]
    dirt = {"top20": 0.0, "top40": 0.02, "all": 0.10}[quality]
    hunger = 0.9 * (size / 256) ** -0.7 * (level / LEVELS[0]) ** 0.2
    return float(min(0.99, floor + scale * (level / LEVELS[0]) ** -0.35 + gain + dirt + 0.2 * hunger))


def trial_row(
    configuration: tuple[int, str, str, str], level: float, seed: int, error: float
) -> dict[str, object]:
    """One row of the results schema; the configuration is (size, quality, architecture, strategy)."""
    size, quality, architecture, strategy = configuration
    cost = round(PER_SAMPLE[architecture] * STRATEGY_COST[strategy])
    batch = 64
    steps = int(level // (cost * batch))
    samples = steps * batch
    return {
        "trial": f"{architecture}-{strategy}-{quality}-{size}-{level / GIGA:g}G-s{seed}".lower(),
        "regime": "fixed-compute", "subset_size": size, "quality": quality, "architecture": architecture,
        "strategy": strategy, "level_flops": level, "seed": seed, "train_flops": float(samples * cost),
        "train_flops_per_sample": cost, "evaluation_flops": 2e9, "samples_seen": samples,
        "epochs": samples / size, "steps": steps, "batch_size": batch, "lr_peak": 1e-3,
        "parameters": round(PER_SAMPLE[architecture] / 40), "status": "finished", "reason": "",
        "train_loss": 4.2 * error, "held-out/top1": 1 - error, "held-out/count": 1600.0,
        "style/top1": 0.5 * (1 - error), "style/count": 800.0,
    }  # fmt: skip


def table_of(
    curves: Mapping[tuple[int, str, str, str], Sequence[float] | Floats], levels: Sequence[float] | Floats, *,
    seeds: int = 3, noise: float = 0.004, seed: int = 5,
) -> pd.DataFrame:  # fmt: skip
    """Return seeds of each configuration, as of `trial_row`, around its errors at some levels."""
    generator = np.random.default_rng(seed)
    return pd.DataFrame([
        trial_row(configuration, level, run, float(error) + noise * float(generator.standard_normal()))
        for configuration, line in curves.items()
        for level, error in zip(levels, line, strict=True)
        for run in range(seeds)
    ])  # fmt: skip


def study(*, seeds: int = 3, noise: float = 0.012, levels: tuple[float, ...] = LEVELS) -> StudyFrames:
    """A partial grid as a declaration would give it: each axis varied around one centre."""
    generator = np.random.default_rng(7)
    size_of = {quality: int(POOL * share) for quality, share in QUALITIES.items()}
    centre = (size_of["top40"], "top40", "ViT-X", "clip")
    cells = {(size_of["top40"], "top40", architecture, "clip"): None for architecture in PER_SAMPLE}
    cells |= {(size_of[quality], quality, "ViT-X", "clip"): None for quality in QUALITIES}
    cells |= {(size, "top40", "ViT-X", "clip"): None for size in (512, 1024, *([centre[0]]))}
    cells |= {(centre[0], "top40", "ViT-X", strategy): None for strategy in STRATEGY_COST}
    rows = []
    for (size, quality, architecture, strategy), level, seed in product(cells, levels, range(seeds)):
        error = true_error(level, size, quality, architecture, strategy) + noise * generator.standard_normal()
        rows.append(
            trial_row((size, quality, architecture, strategy), level, seed, float(np.clip(error, 0.01, 0.99)))
        )
    return frames_around(pd.DataFrame(rows))


def paid(
    what: str, spent: float = 0.0, wasted: float = 0.0, evaluation: float = 0.0, *, charge: bool = False
) -> dict[str, object]:
    """Return a row of a study's book."""
    return {
        "what": what, "charge": charge, "spent_flops": spent, "wasted_flops": wasted, "kept_flops": 0.0,
        "evaluation_flops": evaluation,
    }  # fmt: skip


def frames_around(results: pd.DataFrame) -> StudyFrames:
    """Plan, curves, book and events that fit a results table."""
    plan = results.drop(
        columns=[name for name in results if "/" in str(name)] + ["status", "reason", "train_loss"]
    )
    plan = plan.assign(predicted_s=plan["train_flops"] / 100e9, paid_flops=plan["train_flops"])
    book = [paid("quality scorer", 1e12, charge=True)]
    curves, events = [], [{"time": 1000.0, "event": "study-started", "slots": 2}]
    for place, row in enumerate(results.to_dict("records")):
        book.append(paid(row["trial"], row["train_flops"], evaluation=row["evaluation_flops"]))
        steps = np.unique(np.linspace(1, max(int(row["steps"]), 2), 40).astype(int))
        curves.append(
            pd.DataFrame({
                "trial": row["trial"], "step": steps, "samples_seen": steps * 64,
                "train_flops": steps * 64.0 * row["train_flops_per_sample"],
                "loss": row["train_loss"] + (4.2 - row["train_loss"]) * np.exp(-3 * steps / steps[-1]),
                "lr": 1e-3,
            })
        )  # fmt: skip
        events.append({
            "time": 1001.0 + 3 * place, "event": "trial-finished", "trial": row["trial"], "slot": place % 2,
            "wall_s": 5.0, "samples_per_s": 4000.0, "node": "local",
        })  # fmt: skip
    events.append({"time": 1010.0 + 3 * len(results), "event": "study-ended"})
    left_out = pd.DataFrame([{
        "regime": "fixed-compute", "subset_size": 3276, "quality": "top40", "architecture": "ConvNeXt-C",
        "strategy": "flip-50", "level_flops": LEVELS[0],
        "reason": "patch dropout needs a ViT; ConvNeXt-C has none",
    }])  # fmt: skip
    midway = pd.concat(
        results[["trial", "samples_seen", "train_flops"]].assign(
            step=1, samples_seen=results["samples_seen"] // over, train_flops=results["train_flops"] / over,
            **{"held-out/top1": results["held-out/top1"] / over},
        )
        for over in (4, 2)
    )  # fmt: skip
    return StudyFrames(
        name="made-up", metric="held-out/top1", midway=midway, **by_phase(results=results, plan=plan),
        curves=pd.concat(curves, ignore_index=True), left_out=left_out,
        spent=pd.DataFrame(book), events=pd.DataFrame(events),
    )  # fmt: skip


def language_models(frame: pd.DataFrame, *, seeds: int = 1, draws: int = 1000) -> CellDraws:
    """Return cells from columns of parameters, tokens and loss, each token seen once."""
    compute = 6.0 * frame["parameters"] * frame["tokens"]
    rows = pd.DataFrame({
        "trial": [f"row-{place}" for place in range(len(frame))], "regime": "one-epoch",
        "subset_size": frame["tokens"], "quality": "all", "strategy": "language-model",
        "architecture": [f"transformer-{size:.6g}" for size in frame["parameters"]],
        "level_flops": np.nan, "seed": np.arange(len(frame)) % seeds, "train_flops": compute,
        "train_flops_per_sample": 6.0 * frame["parameters"], "evaluation_flops": 0.0,
        "samples_seen": frame["tokens"], "epochs": 1.0, "parameters": frame["parameters"].astype(float),
        "train_loss": frame["loss"], "status": "finished", "reason": "", "text/loss": frame["loss"],
    })  # fmt: skip
    return cell_draws(tidy(rows, metric="text/loss"), draws=draws)
