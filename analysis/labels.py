"""Texts for quantities, configurations and metrics in figures, tables and the report."""

import re
from collections.abc import Mapping, Sequence
from math import isnan, nan
from typing import Any

import pandas as pd

from budgets.cost.strategy import strategies
from budgets.quality import MIXTURE
from budgets.quantity import format_count, format_flops, format_number
from runners.results import LABEL

_WRITTEN_OUT, _TENTH = 100_000, 0.1
_ORDER = ("architecture", "strategy", "subset_size", "quality")
_TOP = re.compile(r"top(\d+(?:\.\d+)?)( by .+)?")
_METRICS = {
    "top1": "zero-shot top-1 error",
    "top5": "zero-shot top-5 error",
    "mean_per_class": "zero-shot error, mean per class",
    **{f"image_to_text_r{k}": f"image-to-text R@{k} error" for k in (1, 5, 10)},
    **{f"text_to_image_r{k}": f"text-to-image R@{k} error" for k in (1, 5, 10)},
    "probe_top1": "linear-probe error",
    **{f"few_shot_{shots}_top1": f"{shots}-shot error" for shots in (5, 10)},
}
_IMPORTED_STRATEGIES = {
    "mammut": "MaMMUT", "coca": "CoCa", "cap": "Cap", "clip-augmented": "CLIP + augmentation"
}  # fmt: skip
_own_strategies: dict[str, str] = {}  # of users, whose files are not executed to read results
POOL = "largest subset of each quality"


def count_text(count: float) -> str:
    """Return a count with three digits: ``4096`` → ``4,096``; ``12800000`` → ``12.8M``."""
    return format_count(count, digits=3, from_=_WRITTEN_OUT)


def epochs_text(epochs: float) -> str:
    """Return epochs with a digit after the point, or the first digit: ``9.1``; ``0.0009``."""
    return format_number(epochs, ".1g" if 0 < epochs < _TENTH else ",.1f")


def budget_text(regime: str, budget: float) -> str:
    """Return a budget level in the unit of its regime."""
    return format_flops(budget) if regime == "fixed-compute" else f"{count_text(budget)} samples"


def x_text(along: str, x: float) -> str:
    """Return an x of a curve along ``compute`` or ``data`` with its unit; empty for NaN."""
    if isnan(x):
        return ""
    return format_flops(x, digits=3) if along == "compute" else f"{count_text(x)} pairs"


def regime_text(regime: str) -> str:
    """Return a regime in words."""
    return regime.replace("-", " ")


def with_regime(text: str, regime: str, *, named: bool) -> str:
    """Return a text, with its regime if that is named, as where a study has several."""
    return f"{text} ({regime_text(regime)})" if named else text


def capital(text: str) -> str:
    """Return a sentence with its first letter in upper case; ``str.capitalize`` would lower the others."""
    return text[:1].upper() + text[1:]


def listed(texts: Sequence[str]) -> str:
    """Return texts as a list in words: ``a``; ``a and b``; ``a, b and c``."""
    *most, last = texts
    return f"{', '.join(most)} and {last}" if most else last


def quality_fraction(quality: str) -> float:
    """Return the kept fraction of a quality: ``top20`` → 0.2, ``all`` → 1; others 2, to sort last."""
    match = _TOP.fullmatch(quality)
    return float(match[1]) / 100 if match else (1.0 if quality == "all" else 2.0)


def quality_text(quality: str) -> str:
    """Return a quality as text: ``top20`` → ``top 20 %``; of a mixture, ``mixture half``."""
    if quality.startswith(MIXTURE):
        return quality.replace(":", " ")
    match = _TOP.fullmatch(quality)
    return f"top {match[1]} %{match[2] or ''}" if match else quality


def call_strategies(plan: pd.DataFrame) -> None:
    """Call a user's own strategies from now on as a plan's column ``strategy_label`` does, if it has one."""
    if LABEL in plan:
        _own_strategies.update(zip(plan["strategy"], plan[LABEL], strict=True))


def strategy_text(strategy: str) -> str:
    """Return a strategy's usual name, ``flip-50`` → ``FLIP (50 %)``; an unknown name stays as it is."""
    known, others = strategies().get(strategy), {**_IMPORTED_STRATEGIES, **_own_strategies}
    return (known.label if known else others.get(strategy, "")) or strategy


def axis_text(axis: str, value: object) -> str:
    """Return the text of one value of a configuration."""
    if axis == "subset_size":
        return f"{count_text(float(str(value)))} pairs"
    if axis == "quality":
        return quality_text(str(value))
    return strategy_text(str(value)) if axis == "strategy" else str(value)


def configuration_text(cell: Mapping[str, Any], *, without: str = "") -> str:
    """Return a configuration as text: architecture, strategy, pairs and quality, in that order."""
    return fixed_factors_text({axis: cell[axis] for axis in _ORDER if axis != without})


def cell_text(cell: Mapping[str, Any]) -> str:
    """Return a cell as text: its configuration and its budget."""
    return f"{configuration_text(cell)}, {budget_text(cell['regime'], cell['budget'])}"


def level_text(row: Mapping[str, Any]) -> str:
    """Return the budget of a planned or left-out cell as text; its regime, if each subset has another."""
    budget = float(row["level_flops"] if row["regime"] == "fixed-compute" else row.get("budget", nan))
    known = row["regime"] != "one-epoch" and not isnan(budget)
    return budget_text(row["regime"], budget) if known else regime_text(row["regime"])


def metric_text(metric: str) -> str:
    """Return a metric as text: ``held-out/top1`` → ``zero-shot top-1 error (held-out)``."""
    where, _, what = metric.rpartition("/")
    if what == "loss":
        return f"loss ({where})"
    return f"{_METRICS.get(what, f'1 − {what}')} ({where})" if where else f"1 − {metric}"


def interval_text(low: float, high: float, form: str = ".2f") -> str:
    """Return an interval of plain numbers; empty for NaN."""
    if isnan(low) or isnan(high):
        return ""
    return f"[{format_number(low, form)}, {format_number(high, form)}]"


def sort_key(axis: str, value: object) -> tuple[float, str]:
    """Return the sort key of a value along a part of the configuration: sizes and qualities by size.

    Names that are numbers, such as a number of parameters, sort by value, after all other names.
    """
    text = str(value)
    if axis == "subset_size":
        return float(text), ""
    if axis == "quality":
        return quality_fraction(text), text
    return float(text) if re.fullmatch(r"\d+(\.\d*)?", text) else 0.0, text


def fixed_factors_text(held: Mapping[str, Any]) -> str:
    """Return the fixed parts of a comparison in words, without its regime and budget."""
    return ", ".join(
        POOL if held[name] == POOL else axis_text(name, held[name]) for name in _ORDER if name in held
    )
