"""The evaluation sets of "Scaling (Down) CLIP", and means over its shifted versions of ImageNet.

The paper shows a mean of six such sets and one of five without ReaL without saying which: figures 2 and 9
agree with six, figure 17 with five. The two must not be compared with each other.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class PaperSet:
    """A set of the paper's suite: its title there, and its names in CLIP_benchmark and elsewhere."""

    title: str
    images: int
    names: tuple[str, ...]


SUITE = (
    PaperSet(title="ImageNet", images=50_000, names=("imagenet1k", "imagenet", "imagenet-1k")),
    PaperSet(title="ImageNet-A", images=7_500, names=("imagenet-a", "imagenet_a")),
    PaperSet(title="ImageNet-R", images=30_000, names=("imagenet-r", "imagenet_r")),
    PaperSet(title="ImageNet-Sketch", images=50_889, names=("imagenet_sketch", "imagenet-sketch")),
    PaperSet(title="ImageNet-V2", images=10_000, names=("imagenetv2", "imagenet-v2", "imagenet_v2")),
    PaperSet(title="ImageNet-ReaL", images=50_000, names=("imagenet-real", "imagenet_real", "real")),
    PaperSet(title="ObjectNet", images=18_574, names=("objectnet",)),
    PaperSet(title="MSCOCO retrieval", images=5_000, names=("mscoco_captions", "mscoco", "coco")),
)
"""Section 3.2 of the paper; CLIP_benchmark's name of each set first."""

_SIX = ("ImageNet-A", "ImageNet-R", "ImageNet-Sketch", "ImageNet-V2", "ImageNet-ReaL", "ObjectNet")
_FIVE = tuple(title for title in _SIX if title != "ImageNet-ReaL")
MEANS = {"variants-6": _SIX, "variants-5": _FIVE}
"""Name of each mean → titles of its sets in the paper's suite."""


def suite_title(name: str) -> str | None:
    """Return the paper's name of a set; ``None`` if it is not part of the suite."""
    return next((entry.title for entry in SUITE if _key(name) in map(_key, entry.names)), None)


def _key(name: str) -> str:
    return name.lower().removeprefix("vtab_").replace("-", "").replace("_", "")


def variant_sets(names: Iterable[str]) -> dict[str, str]:
    """Return title in the paper's suite → name, for the sets that are shifted versions of ImageNet."""
    titles = {suite_title(name): name for name in names}
    return {title: name for title, name in titles.items() if title in _SIX}


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
            values = [metrics[key] for member in members if (key := f"{member}/{metric}") in metrics]
            errors = [metrics.get(f"{member}/{metric}_se", float("nan")) for member in members]
            if len(values) == len(members):
                means[f"{name}/{metric}"] = sum(values) / len(values)
                means[f"{name}/{metric}_se"] = sum(error**2 for error in errors) ** 0.5 / len(values)
    return means
