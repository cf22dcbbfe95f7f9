"""Means over shifted versions of ImageNet: the paper's six sets, or five without ReaL.

"Scaling (Down) CLIP" shows both means without saying which: figures 2 and 9 agree with six, figure 17 with
five. The two must not be compared with each other.
"""

from collections.abc import Iterable, Mapping

from runners.data.evaluation.paper_suite import suite_title

SIX = ("ImageNet-A", "ImageNet-R", "ImageNet-Sketch", "ImageNet-V2", "ImageNet-ReaL", "ObjectNet")
FIVE = tuple(title for title in SIX if title != "ImageNet-ReaL")
MEANS = {"variants-6": SIX, "variants-5": FIVE}
"""Name of each mean → titles of its sets in the paper's suite."""


def variant_sets(names: Iterable[str]) -> dict[str, str]:
    """Return title in the paper's suite → name, for the sets that are shifted versions of ImageNet."""
    titles = {suite_title(name): name for name in names}
    return {title: name for title, name in titles.items() if title in SIX}


def variant_means(metrics: Mapping[str, float]) -> dict[str, float]:
    """Average each ``<set>/<metric>`` over the variants, if all of them have it.

    Returns ``variants-6/<metric>`` and ``variants-5/<metric>`` with their standard errors; sets are treated
    as independent samples.
    """
    sets = variant_sets(name.rpartition("/")[0] for name in metrics)
    means: dict[str, float] = {}
    for name, titles in MEANS.items():
        if not set(titles) <= set(sets):
            continue
        members = [sets[title] for title in titles]
        for metric in ("top1", "top5", "mean_per_class", "probe_top1"):
            values = [metrics.get(f"{member}/{metric}") for member in members]
            errors = [metrics.get(f"{member}/{metric}_se", float("nan")) for member in members]
            known = [value for value in values if value is not None]
            if len(known) == len(members):
                means[f"{name}/{metric}"] = sum(known) / len(known)
                means[f"{name}/{metric}_se"] = sum(error**2 for error in errors) ** 0.5 / len(known)
    return means
