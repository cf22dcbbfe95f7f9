"""The evaluation sets of "Scaling (Down) CLIP" with their names in the paper and elsewhere."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class PaperSet:
    """A set of the paper's suite.

    Attributes:
        title: Name in the paper.
        images: Number of images.
        names: Names in CLIP_benchmark and elsewhere.
    """

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


def suite_title(name: str) -> str | None:
    """Return the paper's name of a set; ``None`` if it is not part of the suite."""
    return next((each.title for each in SUITE if _key(name) in map(_key, each.names)), None)


def _key(name: str) -> str:
    return name.lower().removeprefix("vtab_").replace("-", "").replace("_", "")
