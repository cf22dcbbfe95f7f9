"""Check of evaluation sets, including what is missing of the suite of "Scaling (Down) CLIP"."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from runners.data.evaluation.evaluation_facts import check_evaluation_set
from runners.data.evaluation.paper_suite import SUITE, suite_title
from runners.host.workers import Workers


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """Result of checking one set.

    Attributes:
        line: Message to print.
        good: True if the set can be used.
    """

    line: str
    good: bool


def found_sets(folder: Path) -> dict[str, Path]:
    """Find the evaluation sets in a folder, including subfolders; the prefix ``wds_`` is removed from names.

    Raises:
        ValueError: The folder does not exist.
    """
    if not folder.is_dir():
        raise ValueError(f"no folder of evaluation sets at {folder}")
    marks = sorted({*folder.rglob("test/nshards.txt"), *folder.rglob("test/0.tar")})
    tests = sorted({mark.parents[1] for mark in marks})
    return {path.relative_to(folder).as_posix().replace("wds_", "").replace("/", "_"): path for path in tests}


def check_sets(sets: Mapping[str, Path], workers: Workers) -> Iterator[Checked]:
    """Read each set and decode its images, then report what is missing of the paper's suite.

    Args:
        sets: Name → folder.
        workers: What reads the sets.
    """
    names, paths, sizes = list(sets), list(sets.values()), dict[str, int]()
    found, told = dict[int, tuple[Checked, int]](), 0
    for number, checked in workers.map(partial(_check, names, paths), range(len(names)), names.__getitem__):
        found[number] = checked
        while told in found:  # in their order
            result, images = found[told]
            yield result
            if result.good:
                sizes[names[told]] = images
            told += 1
    for member in SUITE:
        present = [name for name in sizes if suite_title(name) == member.title]
        if not present:
            yield Checked(line=f"missing of the paper's suite: {member.title} ({member.names[0]})", good=True)
        for name in present:
            if sizes[name] != member.images:
                line = f"{name} has {sizes[name]:,} images; the full {member.title} has {member.images:,}"
                yield Checked(line=line, good=True)


def _check(names: Sequence[str], paths: Sequence[Path], number: int) -> tuple[Checked, int]:
    """Return the result for a set, and its number of images."""
    name, path = names[number], paths[number]
    try:
        kind, images, texts = check_evaluation_set(path)
    except ValueError as error:
        return Checked(line=f"{name}: {error}", good=False), 0
    line = f"{name}: {kind}, {images:,} images, {texts:,} texts, in {path}"
    return Checked(line=line, good=True), images
