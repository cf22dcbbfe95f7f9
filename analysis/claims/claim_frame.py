"""The frame that claims are judged on: measured errors with their noise, of the paper or of a study.

Claims compare values that were measured together, that is in one ``group``. In the paper a group is a set of
panels: the same model read off two panels differs by the reading error, and panels average different sets. In
a study a group is a slice of the grid.
"""

import numpy as np
import pandas as pd

from analysis.cells.bootstrap import cell_draws
from analysis.cells.intervals import QUANTILE
from analysis.cells.table import CELL, metrics, records, tidy
from analysis.claims.slice import VARIANT, VARIANTS, at_one_budget
from analysis.error_unit import is_loss
from analysis.labels import quality_fraction
from budgets.cost.architecture import family_of
from runners.data.evaluation.paper_suite import variant_sets

GROUPS = ("epochs", "augmentation", "quality", "vits", "architectures", "strategies")
COLUMNS = (
    "group", "metric", "regime", "budget", "subset_size", "quality", "architecture", "family", "size",
    "strategy", "epochs", "error", "sd",
)  # fmt: skip
"""``error`` and its standard deviation ``sd`` in percent, ``size`` in any unit that orders the models."""

_FIGURES = {
    1: "augmentation", 2: "epochs", 3: "epochs", 4: "epochs", 5: "quality", 6: "quality", 7: "quality",
    8: "vits", 9: "vits", 10: "vits", 11: "vits", 13: "architectures", 14: "architectures",
    17: "strategies", 18: "strategies", 19: "strategies",
}  # fmt: skip
_METRICS = {
    "zeroshot_imagenet": "zero-shot", "zeroshot_imagenet_variants": "variants", "linprobe_imagenet": "probe",
    "linprobe_ood": "probe, other sets", "fewshot5_imagenet": "5-shot", "fewshot10_imagenet": "10-shot",
    "coco_img2txt": "image to text", "coco_txt2img": "text to image",
}  # fmt: skip
_STRATEGIES = {
    "CLIP": "clip", "SLIP": "slip", "FLIP": "flip-50", "CLIP+Data Aug": "clip-augmented",
    "No Data Aug": "clip",
    "Crop&Flip": "clip-crop-flip", "RandAug": "clip-randaugment", "Stacked RA": "clip-stacked-randaugment",
}  # fmt: skip
_SIZES = {"ViT-Ti/16": 2.65, "ViT-S/16": 6.03, "ViT-B/32": 5.76, "ViT-B/16": 19.1, "ViT-L/16": 63.3}
_MANY_EPOCHS = 10
_BATCH_OF_EPOCHS = 0.01  # share of the epochs that rounding to whole batches may take


def from_figures(figures: pd.DataFrame) -> pd.DataFrame:
    """Return the digitised figures (``results/paper/figures.csv``) as a frame for claims.

    The reading error is a half-width that covers nine readings in ten. Figure 8b repeats 8a over compute and
    is left out.
    """
    kept = figures[(figures["source"] == "digitised") & ~figures["metric"].eq("g_per_sample")]
    kept = kept[~((kept["figure"] == 8) & (kept["panel"] == "b"))]  # noqa: PLR2004 (a figure's number)
    rows = []
    for row in records(kept):
        group, series = _FIGURES[int(row["figure"])], str(row["series"])
        metric, turned = _metric(str(row["metric"]))
        strategy = _STRATEGIES.get(series, "clip")
        architecture = series if group in ("vits", "architectures") else "ViT-B/32"
        unique, seen = float(row["unique_samples"]), float(row["samples_seen"])
        value, by_quality = float(row["y"]), row["x_name"] == "top_quality_pct"
        rows.append({
            "group": group, "metric": metric, "regime": _regime(str(row["regime"])), "budget": seen,
            "subset_size": unique, "quality": float(row["x"]) / 100 if by_quality else 1.0,
            "architecture": architecture,
            "family": "Mixer" if "Mixer" in architecture else family_of(architecture, {}),
            "size": _SIZES.get(architecture, 5.76), "strategy": strategy, "epochs": round(seen / unique, 3),
            "error": 100 - value if turned else value, "sd": float(row["precision"]) / QUANTILE,
        })  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS))


def from_study(results: pd.DataFrame, *, metric: str) -> pd.DataFrame:
    """Return a study's results as a frame for claims; within a group everything not compared is fixed.

    Args:
        results: Results in the results schema.
        metric: Declared metric. Its evaluation set takes the part of ImageNet. The ``top1`` of the other sets
            appear one by one and averaged as the variants; if shifted versions of ImageNet were evaluated,
            only these do. A loss tests no claim: all are about errors.
    """
    if is_loss(metric):
        return pd.DataFrame(columns=list(COLUMNS))
    names: dict[str, list[str]] = {}
    variants = variant_sets(name.rpartition("/")[0] for name in metrics(results)).values()
    for name in metrics(results):
        kind = _study_metric(name, metric)
        if kind == VARIANTS and variants and name.rpartition("/")[0] not in variants:
            continue
        names.setdefault(kind, []).append(name)
        if kind == VARIANTS:
            names[VARIANT + name.rpartition("/")[0]] = [name]
    frames = [
        _average([_cells(results, column) for column in columns]).assign(metric=kind)
        for kind, columns in names.items()
        if kind
    ]
    cells = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    if cells.empty:
        return pd.DataFrame(columns=list(COLUMNS))
    return pd.concat([_slice(cells, group) for group in GROUPS], ignore_index=True)[list(COLUMNS)]


def _regime(name: str) -> str:
    """Return the regime; the paper's epochs over a fixed subset are equal samples at several budgets."""
    if name.startswith("unclear"):
        return "unclear"
    return "one-epoch" if name == "one-epoch" else "equal-samples"


def _metric(name: str) -> tuple[str, bool]:
    for prefix in sorted(_METRICS, key=len, reverse=True):
        if name.startswith(prefix):
            return _METRICS[prefix], name.endswith(("accuracy_pct", "_R1"))
    raise ValueError(
        f"unknown metric '{name}' of a digitised figure; allowed prefixes: {', '.join(_METRICS)}"
    )


def _study_metric(name: str, declared: str) -> str:
    place, _, what = name.rpartition("/")
    if name == declared:
        return "zero-shot"
    named = {"image_to_text_r1": "image to text", "text_to_image_r1": "text to image"}
    if what in named:
        return named[what]
    same = place == declared.rpartition("/")[0]
    if "probe" in what:
        return "probe" if same else "probe, other sets"
    if "shot" in what:
        return ("5-shot" if "5" in what else "10-shot") if same else ""
    return VARIANTS if what == "top1" and place not in ("validation", "seen") and not same else ""


def _cells(results: pd.DataFrame, column: str) -> pd.DataFrame:
    draws = cell_draws(tidy(results, metric=column), question=f"findings/{column}")
    cells, sd = draws.cells, draws.draws.std(axis=0) if draws.source == "runs" else np.nan
    return cells.assign(
        error=100 * cells["error"], sd=100 * np.asarray(sd), quality_text=cells["quality"],
        quality=[quality_fraction(str(name)) for name in cells["quality"]],
        size=cells["train_flops_per_sample"],
        epochs=[_whole(epochs) for epochs in cells["epochs"]],
    )  # fmt: skip


def _whole(epochs: float) -> float:
    """Return a number of epochs without what rounding to whole batches took from a whole number."""
    return float(round(epochs)) if abs(epochs - round(epochs)) <= _BATCH_OF_EPOCHS * epochs else epochs


def _average(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """Return the mean over evaluation sets, whose noise is treated as independent."""
    together = pd.concat(frames, ignore_index=True)
    kept = together.assign(variance=together["sd"] ** 2).groupby([*CELL, "quality_text"], as_index=False).agg(
        error=("error", "mean"), variance=("variance", "sum"), known=("variance", "count"),
        family=("family", "first"), size=("size", "first"), epochs=("epochs", "first"), sets=("sd", "size"),
    )  # fmt: skip
    kept["sd"] = (kept["variance"] ** 0.5 / kept["sets"]).where(kept["known"] == kept["sets"])
    return kept[kept["sets"] == len(frames)]


def _slice(cells: pd.DataFrame, group: str) -> pd.DataFrame:
    """Return the rows that a group compares, with all other columns at their most frequent value."""
    varies = {
        "epochs": {"subset_size", "epochs"}, "augmentation": {"subset_size", "strategy"},
        "quality": {"subset_size", "quality"}, "vits": {"subset_size", "architecture"},
        "architectures": {"subset_size", "architecture"}, "strategies": {"subset_size", "strategy"},
    }[group]  # fmt: skip
    kept = cells
    if "strategy" not in varies:
        kept = kept[kept["strategy"] == "clip"]
    if group == "vits":
        kept = kept[kept["family"] == "ViT"]
    if group == "quality":
        kept = kept[kept["quality"] <= 1]  # mixtures and named subsets are no fractions of one pool
    if group == "augmentation":
        many = kept[kept["epochs"] >= _MANY_EPOCHS]  # the claims are about many epochs
        by_regime = [at_one_budget(each, "strategy") for _, each in many.groupby("regime")]
        kept = pd.concat(by_regime) if by_regime else many
    if len(kept):
        held = [name for name in ("architecture", "quality_text") if name not in varies]
        most = {name: kept[name].value_counts().index[0] for name in held}
        kept = kept[np.logical_and.reduce([kept[name] == value for name, value in most.items()])]
    return kept.assign(group=group)
