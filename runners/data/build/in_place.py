"""Indexing of existing webdataset or img2dataset shards; only small files are added beside them."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath, PurePosixPath

from budgets.quantity import format_seconds
from runners.data.index.writing import discard_index, write_parts
from runners.data.pool.damage import DAMAGE_TOLERANCE, NOT_READABLE, Damage, damage_table
from runners.data.pool.describe import describe_pool
from runners.data.pool.pool import Origin, Pool, Scorer
from runners.data.pool.samples import IMAGE_KINDS, ShardError
from runners.data.pool.shards import PairEntry, as_utf8, entries_of, frame_of
from runners.host.workers import usable_cores
from runners.store.copies import SHARDS_AT, listed
from runners.store.files import finish_files, is_hidden, locked, walk
from runners.store.place import UrlPlace, size_of

_PACKED = re.compile(r"\.(tar\.(gz|bz2|xz|zstd?|lz4|z|zip)|tgz|tbz2?|txz|tzst|zip)$", re.IGNORECASE)
"""Names of compressed tars."""

_OWN = re.compile(r"\..*|pool\.json|index|versions|vocabulary.*\.txt|left-out.*\.parquet")
"""Names of hidden files and of those that a pool consists of."""

_MOST_SHOWN = 5

LARGEST_UNASKED = 2 * 10**9
"""Bytes of shards up to which a folder is indexed when it is opened."""

_INDEXED_PER_S = 25e6  # bytes by one process; measured on JPEGs of 33 kB: 30 MB and 890 pairs a second

SCORE_FIELD = "similarity"
"""Default field of a sample's json that holds its score."""


def open_pool(
    path: str | Path,
    *,
    tolerance: float = DAMAGE_TOLERANCE,
    holding: str = "",
    say: Callable[[str], None] = lambda _text: None,
) -> Pool:
    """Open a pool; a small folder of shards without an index is indexed first.

    ``tolerance`` and ``holding`` are those of ``Pool.open``; ``say`` is called with a line before the folder
    is indexed.

    Raises:
        ValueError: As ``Pool.open`` and ``index_shards``; or the folder has no index, and is large or being
            indexed by a build.
    """
    path = Path(path)
    finish_files(path)
    if path.is_dir() and not (path / "pool.json").exists():
        shards = shards_of(path)
        size = sum(max(0, size_of(shard)) for shard in shards)
        extent = f"{len(shards):,} tars, {size / 1e6:,.0f} MB"
        if size > LARGEST_UNASKED:
            workers = usable_cores()
            takes = format_seconds(size / _INDEXED_PER_S / workers)
            raise ValueError(
                f"{path} has no index ({extent}). `python -m study data build {path} --in-place` writes it, "
                f"in about {takes} with {workers} processes on this machine, and can be interrupted"
            )
        work = path / work_of(path)
        if work.exists():
            raise ValueError(
                f"{path} is being indexed, or was until its `data build` was stopped: wait for it, or run "
                f"the same command again; to begin anew, delete {work}"
            )
        say(f"{path} has no index yet: indexing it ({extent}) …")
        with _writing_beside(path), locked(path / ".indexing"):
            if not (path / "pool.json").exists():  # else another process has indexed it meanwhile
                return index_shards(path, tolerance=tolerance)
    return Pool.open(path, tolerance=tolerance, holding=holding)


def work_of(path: Path) -> str:
    """Return the name of the folder of a build's working files, below the pool or beside it."""
    return f".{path.resolve().name}.building/"


def not_indexed(pool: Pool) -> str | None:
    """Return a message if the pool's place has tars that its index does not contain, else None."""
    if isinstance(pool.place, UrlPlace):
        names = shards_at(listed("pool", pool.place.url))
    else:
        names = [name_in(pool.path, shard) for shard in shards_of(pool.path)]
    # A build that is adding shards of its own has not described them yet.
    being_written = "shards/" if pool.sources else "\0"
    new = [name for name in names if name not in pool.shards and not name.startswith(being_written)]
    if not new:
        return None
    url = pool.origin.provenance.get(SHARDS_AT)
    source = f" --from {url}" if url else ""
    return (
        f"{len(new):,} tars in {pool.place.path('')} are not in its index, the first is {new[0]}; "
        f"`python -m study data build {pool.copy_of or pool.path}{source} --in-place` takes them up; "
        "otherwise move them away"
    )


def index_shards(path: str | Path, *, tolerance: float = DAMAGE_TOLERANCE) -> Pool:
    """Index a folder of tars. Samples that are not pairs are left out, counted and listed by shard and key.

    Only the headers of images are checked; `runners.data.build.build_pool` decodes them. Subfolders belong to
    it, except ``evaluation/`` and hidden ones. ``tolerance`` is the share of the shards that may be
    truncated; samples before the damage are indexed.

    Raises:
        ValueError: The folder does not exist, has no tars or cannot be written to; too many tars are damaged;
            or one holds no pair.
    """
    path, damage = Path(path), list[Damage]()
    shards = shards_of(path, packed=True)
    frame = frame_of(_entries(path, shards, tolerance, damage))
    scorer = Scorer(name=SCORE_FIELD) if frame["score"].notna().any() else None
    with _writing_beside(path):
        discard_index(path)
        describe_pool(
            path,
            write_parts(path, frame),
            Origin(name=path.resolve().name, scorer=scorer),
            [damage_table(damage)],
            shards=(name_in(path, shard) for shard in shards),
        )
    return Pool.open(path)


@contextmanager
def _writing_beside(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(f"cannot write the index of {path} beside its shards: {error}") from error


def shards_of(path: Path, *, packed: bool = False) -> list[Path]:
    """List the tars of a folder's pairs, at least one; evaluation sets and hidden folders do not count.

    With ``packed`` also what takes the place of a tar, and is read as a shard without samples: compressed
    tars, and folders with the name of a tar.
    """
    if not path.is_dir():
        raise ValueError(f"no such pool: {path} is not a folder")
    found = [*_shards(path)]
    shards = dict[str, Path]()
    for shard in sorted(found, key=lambda each: (each.is_symlink(), each)):
        if packed or (_is_tar(shard) and not shard.is_dir()):
            shards.setdefault(os.path.realpath(shard), shard)  # a file and a link to it hold the same pairs
    if all(shard.is_dir() or not _is_tar(shard) for shard in shards.values()):
        other = f"; {min(found).name} is not one: unpack it" if found else ""
        raise ValueError(f"{path} is not a pool: it has neither a pool.json nor any .tar shard{other}")
    return sorted(shards.values())


def shards_at(found: Iterable[str], *, packed: bool = False) -> list[str]:
    """Return the tars below a URL that hold pairs, as `shards_of` does for a folder."""
    paths = map(PurePosixPath, found)
    named = (each for each in paths if _is_tar(each) or (packed and _PACKED.search(each.name)))
    return sorted(str(each) for each in named if _is_training(each.parent / "x"))


def not_pairs(path: Path) -> str:
    """Say which files, by ending, and folders lie beside a folder's shards and are not read; or nothing."""
    files, folders = Counter[str](), list[str]()
    for folder, inside, names in walk(path):
        below = Path(folder).relative_to(path)
        folders += [f"{each}/" for each in inside if not below.parts and each == "evaluation"]
        inside[:] = [each for each in inside if _is_training(below / each) and not _OWN.fullmatch(each)]
        other = (each for each in map(Path, names) if not _is_tar(each) and not _PACKED.search(each.name))
        files.update(each.suffix or each.name for each in other if not _OWN.fullmatch(each.name))
    most = sorted(f"{count:,} {ending}" for ending, count in files.most_common(_MOST_SHOWN))
    more = ["…"] if len(files) > _MOST_SHOWN else []
    found = ", ".join([*most, *more, *folders])
    return f"not read as pairs, which only tars hold, in {path}: {found}" if found else ""


def name_in(path: Path, shard: Path) -> str:
    """Return a shard's name in the index of a pool."""
    return as_utf8(shard.relative_to(path).as_posix())


def _shards(path: Path) -> Iterator[Path]:
    """Yield the shards of a folder's pairs, also in linked folders, each folder once."""
    seen = set[str]()
    for folder, folders, files in walk(path):
        here = Path(folder)
        seen.add(os.path.realpath(here))
        inside = {os.path.realpath(here / each): each for each in sorted(folders, reverse=True)}
        folders[:] = sorted(
            each
            for real, each in inside.items()
            if real not in seen and _is_training((here / each).relative_to(path))
        )
        seen |= {os.path.realpath(here / each) for each in folders}
        shards = [each for each in files if _is_tar(Path(each)) or _PACKED.search(each)]
        yield from (here / each for each in shards)
        if _is_tar(here) and not shards and here != path:
            yield here


def _is_tar(path: PurePath) -> bool:
    return path.suffix.lower() == ".tar"


def _entries(path: Path, shards: list[Path], tolerance: float, damage: list[Damage]) -> Iterator[PairEntry]:
    """Yield pairs, and append everything else to ``damage``."""
    cut = 0
    for shard in shards:
        name, any_pair, unreadable = name_in(path, shard), False, False
        for found in entries_of(shard, name, score_field=SCORE_FIELD):
            if not isinstance(found, Damage):
                any_pair = True
                yield found[0]
                continue
            damage.append(found)
            if found.reason.startswith(NOT_READABLE) and not unreadable:
                unreadable, cut = True, cut + (_is_tar(shard) and not shard.is_dir())
                if cut > tolerance * len(shards):
                    raise ShardError(shard, found.key, found.reason.removeprefix(f"{NOT_READABLE}: "))
        if not any_pair and not unreadable:
            raise ValueError(
                f"shard {shard} holds no pair: each sample needs an image ({', '.join(IMAGE_KINDS)}) "
                "and a caption (txt, or 'caption' in its json) under one key"
            )


def _is_training(folder: PurePath) -> bool:
    return folder.parts[0] != "evaluation" and not is_hidden(folder.as_posix())
