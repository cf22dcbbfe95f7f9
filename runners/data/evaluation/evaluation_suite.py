"""Checking evaluation sets, and what of the suite of "Scaling (Down) CLIP" is missing."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from runners.data.evaluation.evaluation_facts import check_evaluation_set
from runners.data.evaluation.paper_suite import SUITE, suite_title


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
    """Read each set whole, its images decoded, then tells what of the paper's suite is missing."""
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
