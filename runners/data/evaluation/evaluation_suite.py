"""Check of evaluation sets, including what is missing of the suite of "Scaling (Down) CLIP"."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath, PurePosixPath

from runners.data.evaluation.evaluation_facts import check_evaluation_set
from runners.data.evaluation.paper_suite import SUITE, suite_title
from runners.data.places.copies import set_at, something_at
from runners.host.workers import Workers


@dataclass(frozen=True, kw_only=True, slots=True)
class SetCheck:
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
    marks = {*folder.rglob("test/nshards.txt"), *folder.rglob("test/0.tar")}
    tests = sorted({mark.parents[1] for mark in marks})
    return {_name(path.relative_to(folder)): path for path in tests}


def sets_at(url: str) -> dict[str, str]:
    """Find the evaluation sets below a URL, as `found_sets` does in a folder.

    Raises:
        ValueError: The URL can't be read, or nothing is below it.
    """
    found = map(PurePosixPath, something_at("folder of evaluation sets", url))
    tests = sorted(
        {file.parents[1] for file in found if file.match("test/nshards.txt") or file.match("test/0.tar")}
    )
    return {_name(path): f"{url.rstrip('/')}/{path}" for path in tests}


def _name(path: PurePath) -> str:
    return path.as_posix().replace("wds_", "").replace("/", "_")


def check_sets(sets: Mapping[str, Path] | Mapping[str, str], workers: Workers) -> Iterator[SetCheck]:
    """Read each set and decode its images, then report what is missing of the paper's suite.

    Args:
        sets: Name → folder or URL; a set below a URL is copied into the cache of the machine that checks it.
        workers: Workers that read the sets.
    """
    names, sizes = list(sets), dict[str, int]()
    places: list[str | Path] = [*sets.values()]
    found, reported = dict[int, tuple[SetCheck, int]](), 0
    for number, checked in workers.map(partial(_check, names, places), range(len(names)), names.__getitem__):
        found[number] = checked
        while reported in found:  # workers finish in any order; results are reported in that of the sets
            result, images = found[reported]
            yield result
            if result.good:
                sizes[names[reported]] = images
            reported += 1
    for member in SUITE:
        present = [name for name in sizes if suite_title(name) == member.title]
        if not present:
            yield SetCheck(
                line=f"missing of the paper's suite: {member.title} ({member.names[0]})", good=True
            )
        for name in present:
            if sizes[name] != member.images:
                line = f"{name} has {sizes[name]:,} images; the full {member.title} has {member.images:,}"
                yield SetCheck(line=line, good=True)


def _check(names: Sequence[str], places: Sequence[str | Path], number: int) -> tuple[SetCheck, int]:
    """Return the result for a set, and its number of images."""
    name, place = names[number], places[number]
    try:
        kind, images, texts = check_evaluation_set(set_at(place))
    except ValueError as error:
        return SetCheck(line=f"{name}: {error}", good=False), 0
    line = f"{name}: {kind}, {images:,} images, {texts:,} texts, in {place}"
    return SetCheck(line=line, good=True), images
