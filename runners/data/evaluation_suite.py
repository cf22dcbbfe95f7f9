"""Checking evaluation sets, and what of the suite of "Scaling (Down) CLIP" is missing."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from runners.data.evaluation_facts import check_evaluation_set


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A set of the paper's suite.

    Attributes:
        title: As the paper calls it.
        images: How many it has.
        names: What CLIP_benchmark and others call it.
    """

    title: str
    images: int
    names: tuple[str, ...]


SUITE = (
    Member(title="ImageNet", images=50_000, names=("imagenet1k", "imagenet", "imagenet-1k")),
    Member(title="ImageNet-A", images=7_500, names=("imagenet-a", "imagenet_a")),
    Member(title="ImageNet-R", images=30_000, names=("imagenet-r", "imagenet_r")),
    Member(title="ImageNet-Sketch", images=50_889, names=("imagenet_sketch", "imagenet-sketch")),
    Member(title="ImageNet-V2", images=10_000, names=("imagenetv2", "imagenet-v2", "imagenet_v2")),
    Member(title="ImageNet-ReaL", images=50_000, names=("imagenet-real", "imagenet_real", "real")),
    Member(title="ObjectNet", images=18_574, names=("objectnet",)),
    Member(title="MSCOCO retrieval", images=5_000, names=("mscoco_captions", "mscoco", "coco")),
)
"""Section 3.2 of the paper; CLIP_benchmark's names of the sets first."""


def suite_title(name: str) -> str | None:
    """What the paper calls a set of that name; ``None`` where it is none of its suite."""
    return next((each.title for each in SUITE if _key(name) in map(_key, each.names)), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """One set of a check.

    Attributes:
        line: What to tell.
        good: Whether it can be used.
    """

    line: str
    good: bool


def found_sets(folder: Path) -> dict[str, Path]:
    """The evaluation sets in a folder, by name; CLIP_benchmark's ``wds_`` and folders in it are looked into.

    Raises:
        ValueError: If there is no such folder.
    """
    if not folder.is_dir():
        raise ValueError(f"no folder of evaluation sets at {folder}")
    marks = sorted({*folder.rglob("test/nshards.txt"), *folder.rglob("test/0.tar")})
    tests = sorted({mark.parents[1] for mark in marks})
    return {path.relative_to(folder).as_posix().replace("wds_", "").replace("/", "_"): path for path in tests}


def check_sets(sets: Mapping[str, Path]) -> Iterator[Checked]:
    """Reads each set whole, its images decoded, then tells what of the paper's suite is missing."""
    sizes = {}
    for name, path in sets.items():
        try:
            kind, images, texts = check_evaluation_set(path)
        except ValueError as error:
            yield Checked(line=f"{name}: {error}", good=False)
            continue
        sizes[name] = images
        yield Checked(line=f"{name}: {kind}, {images:,} images, {texts:,} texts, in {path}", good=True)
    for member in SUITE:
        present = [name for name in sizes if suite_title(name) == member.title]
        if not present:
            yield Checked(line=f"missing of the paper's suite: {member.title} ({member.names[0]})", good=True)
        for name in present:
            if sizes[name] != member.images:
                told = f"{name} has {sizes[name]:,} images; the whole {member.title} has {member.images:,}"
                yield Checked(line=told, good=True)


def _key(name: str) -> str:
    return name.lower().removeprefix("vtab_").replace("-", "").replace("_", "")
