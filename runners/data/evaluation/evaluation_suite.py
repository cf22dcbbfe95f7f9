"""Check of evaluation sets, including what is missing of the suite of "Scaling (Down) CLIP"."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from runners.data.evaluation.evaluation_set import LAYOUT, RETRIEVAL_METRICS, describe_evaluation_set
from runners.data.evaluation.paper_suite import SUITE, suite_title
from runners.host.workers import Workers
from runners.store.copies import set_at
from runners.store.location import Location


def found_sets(*places: str | Path) -> dict[str, str]:
    """Find the evaluation sets in folders, including subfolders, or below URLs.

    A set is a folder with a split ``test`` or a ``dataset_type.txt``, or with shards outside of other sets.
    Returns name → folder or URL; the set ``a/wds_b`` is called ``a_b``.

    Raises:
        ValueError: A place does not exist, can't be read or has no sets; or two sets have one name.
    """
    sets = dict[str, str]()
    for place in places:
        there = Location(place)
        some = there.local is None or not there.local.is_dir()
        listing = there.contents("folder of evaluation sets", some=some)
        tests = sorted(_set_folders([*map(PurePosixPath, listing)]))
        if not tests:
            raise ValueError(
                f"{place} holds no evaluation set: neither test/nshards.txt nor any .tar shard; {LAYOUT}"
            )
        for test in tests:
            named = test if test.parts else PurePosixPath(there.name)
            name = "_".join(part.removeprefix("wds_") or part for part in named.parts)
            path = (there / test).address
            if name in sets:
                raise ValueError(f"{sets[name]} and {path} are both called '{name}'; rename one of them")
            sets[name] = path
    return sets


def _set_folders(files: Sequence[PurePosixPath]) -> set[PurePosixPath]:
    """Return the folders that are sets, given everything below a place."""
    shards = {file.parent for file in files if file.suffix.lower() == ".tar"}
    sets = {folder.parent for folder in shards if folder.name == "test"}
    sets |= {file.parents[1] for file in files if file.match("test/nshards.txt")}
    sets |= {file.parent for file in files if file.name == "dataset_type.txt"}
    around = {parent for folder in sets for parent in folder.parents}
    within = sets | (shards - around)
    return sets | {folder for folder in shards - around if not within.intersection(folder.parents)}


def check_sets(sets: Mapping[str, str], workers: Workers) -> Iterator[tuple[str, bool]]:
    """Read each set and decode its images, then report what is missing of the paper's suite.

    Yields a line to print, and False if it is about a set that can't be used. A set below a URL is copied
    into the cache of the machine that checks it.
    """
    names, places, sizes = list(sets), list(sets.values()), dict[str, int]()
    check = partial(_check, names, places)
    for number, (line, images) in workers.map(check, range(len(names)), names.__getitem__):
        yield line, images is not None
        if images is not None:
            sizes[names[number]] = images
    for member in SUITE:
        present = [name for name in sorted(sizes) if suite_title(name) == member.title]
        if not present:
            yield f"missing of the paper's suite: {member.title} ({member.names[0]})", True
        for name in present:
            if sizes[name] != member.images:
                yield (
                    f"{name} has {sizes[name]:,} images; the full {member.title} has {member.images:,}",
                    True,
                )


def _check(names: Sequence[str], places: Sequence[str], number: int) -> tuple[str, int | None]:
    """Return the line for a set, and its number of images; None if it can't be used."""
    name, place = names[number], places[number]
    try:
        facts = describe_evaluation_set(set_at(place), decode=True)
    except ValueError as error:
        return f"{name}: {error}", None
    kind = "retrieval" if facts.metrics == RETRIEVAL_METRICS else "classification"
    return f"{name}: {kind}, {facts.images:,} images, {facts.texts:,} texts, in {place}", facts.images
