"""Webdataset tar shards: writing them the same to the byte each time, and finding what lies where in them."""

import io
import json
import math
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import IO

from PIL import Image

IMAGE_KINDS = ("jpg", "jpeg", "png", "webp")

_BLOCK = tarfile.BLOCKSIZE


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One pair of a shard: a row of the index before it is ranked.

    Attributes:
        key: What webdataset calls it: the members' common name.
        shard: The shard's path below the pool.
        offset: Where the image's bytes begin in the shard.
        length: How many there are.
        caption: The text, white space at its ends removed.
        width: Of the image, pixels.
        height: Of the image, pixels.
        hash: Of the image's bytes and the caption, 64 bits.
        score: Quality, higher is better; NaN if there is none.
    """

    key: str
    shard: str
    offset: int
    length: int
    caption: str
    width: int
    height: int
    hash: int
    score: float


def content_hash(image: bytes, caption: str) -> int:
    """A stable 64-bit hash of an image file's bytes and its caption."""
    return int.from_bytes(blake2b(image + b"\0" + caption.encode(), digest_size=8).digest(), "little")


def write_sample(file: IO[bytes], key: str, members: Mapping[str, bytes]) -> dict[str, int]:
    """Appends one sample to a tar; ``members`` maps file endings to contents.

    Owner, mode and time are fixed, so that the same samples give the same bytes.

    Returns:
        Where each member's content begins in the file.
    """
    offsets = {}
    for ending, content in members.items():
        header = tarfile.TarInfo(f"{key}.{ending}")
        header.size = len(content)
        header.mode = 0o444
        file.write(header.tobuf(tarfile.USTAR_FORMAT))
        offsets[ending] = file.tell()
        file.write(content)
        file.write(b"\0" * (-len(content) % _BLOCK))
    return offsets


def close_shard(file: IO[bytes]) -> None:
    """Writes the end of a tar: two empty blocks."""
    file.write(b"\0" * 2 * _BLOCK)


def read_samples(path: Path) -> Iterator[tuple[str, dict[str, tuple[int, bytes]]]]:
    """Reads a tar sample by sample, as webdataset groups its members.

    Yields:
        The key and, for each file ending, where the content begins and the content.

    Raises:
        ValueError: If the file cannot be read as a tar.
    """
    key, members = "", dict[str, tuple[int, bytes]]()
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                content = tar.extractfile(member)
                if content is None:
                    continue
                folder, slash, name = member.name.rpartition("/")
                stem, _, ending = name.partition(".")
                if folder + slash + stem != key:
                    if members:
                        yield key, members
                    key, members = folder + slash + stem, {}
                payload = content.read()
                if len(payload) != member.size:
                    raise tarfile.ReadError("unexpected end of data")
                members[ending.lower()] = member.offset_data, payload
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ValueError(f"cannot read shard {path}: {error}") from error
    if members:
        yield key, members


def entries_of(path: Path, name: str, *, score_field: str) -> Iterator[Entry | str]:
    """Describes each sample of a shard.

    Args:
        path: The shard.
        name: What the index calls it.
        score_field: The field of a sample's json that holds its score.

    Yields:
        An entry or, for a sample that is no pair, the reason.
    """
    for key, members in read_samples(path):
        ending = next((kind for kind in IMAGE_KINDS if kind in members), None)
        facts = _facts(members)
        caption = _caption(members, facts)
        if ending is None:
            yield "no image"
        elif caption is None:
            yield "no caption"
        else:
            offset, image = members[ending]
            size = _size(image)
            if size is None:
                yield "unreadable image"
                continue
            yield Entry(
                key=key,
                shard=name,
                offset=offset,
                length=len(image),
                caption=caption,
                width=size[0],
                height=size[1],
                hash=content_hash(image, caption),
                score=_score(facts.get(score_field)),
            )


def all_entries(pool: Path, shards: Iterable[Path], *, score_field: str) -> Iterator[Entry | str]:
    """``entries_of`` for one shard after the other.

    Raises:
        ValueError: If a shard cannot be read or holds no pair at all.
    """
    for shard in shards:
        any_pair = False
        for entry in entries_of(shard, shard.relative_to(pool).as_posix(), score_field=score_field):
            any_pair |= isinstance(entry, Entry)
            yield entry
        if not any_pair:
            raise ValueError(
                f"shard {shard} holds no pair: each sample needs an image ({', '.join(IMAGE_KINDS)}) "
                "and a caption (txt, or 'caption' in its json) under one key"
            )


def _facts(members: Mapping[str, tuple[int, bytes]]) -> dict[str, object]:
    try:
        facts = json.loads(members["json"][1])
    except (KeyError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _caption(members: Mapping[str, tuple[int, bytes]], facts: Mapping[str, object]) -> str | None:
    if "txt" in members:
        text = members["txt"][1].decode("utf-8", "replace")
    else:
        text = str(facts.get("caption") or "")
    return " ".join(text.split()) or None


def _size(image: bytes) -> tuple[int, int] | None:
    try:
        with Image.open(io.BytesIO(image)) as opened:
            return opened.size
    except (OSError, ValueError, Image.DecompressionBombError):
        return None


def _score(value: object) -> float:
    number = float(value) if isinstance(value, int | float) else math.nan
    return number if math.isfinite(number) else math.nan
