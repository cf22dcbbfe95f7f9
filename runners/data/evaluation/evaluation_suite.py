"""Check of evaluation sets, including what is missing of the suite of "Scaling (Down) CLIP"."""

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePath, PurePosixPath

from budgets.machine_cache import machine_cache
from runners.data.evaluation.evaluation_facts import check_evaluation_set
from runners.data.evaluation.evaluation_set import LAYOUT
from runners.data.evaluation.paper_suite import SUITE, suite_title
from runners.host.workers import Workers
from runners.store.copies import copy_name, copy_set, is_url, something_at
from runners.store.files import is_hidden, walk


def found_sets(place: str) -> dict[str, str]:
    """Find the evaluation sets in a folder, including subfolders, or below a URL.

    A set is a folder with a split ``test`` or a ``dataset_type.txt``, or with shards outside of other sets.
    Returns name, without the prefix ``wds_`` → folder or URL.

    Raises:
        ValueError: The place does not exist or can't be read; there are no sets; or two have one name.
    """
    if is_url(place):
        files = [PurePosixPath(name) for name in something_at("folder of evaluation sets", place)]
    elif Path(place).is_dir():
        files = list(_files_below(place))
    else:
        raise ValueError(f"no folder of evaluation sets at {place}")
    tests = sorted(_set_folders(files))
    if not tests:
        raise ValueError(
            f"{place} holds no evaluation set: neither test/nshards.txt nor any .tar shard; {LAYOUT}"
        )
    own = PurePosixPath(place).name if is_url(place) else Path(place).resolve().name
    sets = dict[str, str]()
    for test in tests:
        name = set_name(test if test.parts else PurePosixPath(own))
        path = f"{place.rstrip('/')}/{test}" if is_url(place) else str(Path(place) / test)
        if name in sets:
            raise ValueError(f"{sets[name]} and {path} are both called '{name}'; rename one of them")
        sets[name] = path
    return sets


def _files_below(place: str) -> Iterator[PurePosixPath]:
    """Yield all files that are not hidden, also through links to folders."""
    for folder, folders, names in walk(Path(place)):
        below = PurePosixPath(Path(folder).relative_to(place))
        around = {os.path.realpath(Path(place) / parent) for parent in below.parents}
        if os.path.realpath(folder) in around:  # a link to a folder that it lies in
            folders.clear()
            continue
        folders[:] = [name for name in folders if not is_hidden(name)]
        yield from (below / name for name in names if not is_hidden(name))


def _set_folders(files: Sequence[PurePosixPath]) -> set[PurePosixPath]:
    """Return the folders that are sets, given everything below a place."""
    shards = {file.parent for file in files if file.suffix.lower() == ".tar"}
    sets = {folder.parent for folder in shards if folder.name == "test"}
    sets |= {file.parents[1] for file in files if file.match("test/nshards.txt")}
    sets |= {file.parent for file in files if file.name == "dataset_type.txt"}
    around = {parent for folder in sets for parent in folder.parents}
    within = sets | (shards - around)
    return sets | {folder for folder in shards - around if not within.intersection(folder.parents)}


def set_name(path: PurePath) -> str:
    """Return the name of a set at a path below a folder of sets: ``a/wds_b`` is called ``a_b``."""
    return "_".join(part.removeprefix("wds_") or part for part in path.parts)


def check_sets(sets: Mapping[str, str], workers: Workers) -> Iterator[tuple[str, bool]]:
    """Read each set and decode its images, then report what is missing of the paper's suite.

    Yields a line to print, and False if it is about a set that can't be used. A set below a URL is copied
    into the cache of the machine that checks it.
    """
    names, places, sizes = list(sets), list(sets.values()), dict[str, int]()
    found, reported = dict[int, tuple[str, int | None]](), 0
    for number, checked in workers.map(partial(_check, names, places), range(len(names)), names.__getitem__):
        found[number] = checked
        while reported in found:  # workers finish in any order; results are reported in that of the sets
            line, images = found[reported]
            yield line, images is not None
            if images is not None:
                sizes[names[reported]] = images
            reported += 1
    for member in SUITE:
        present = [name for name in sizes if suite_title(name) == member.title]
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
        # This machine's copy of a set below a URL.
        copy = machine_cache() / "sets" / copy_name(place)
        kind, images, texts = check_evaluation_set(copy_set(place, copy) if is_url(place) else place)
    except ValueError as error:
        return f"{name}: {error}", None
    return f"{name}: {kind}, {images:,} images, {texts:,} texts, in {place}", images
