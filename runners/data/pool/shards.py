"""Webdataset tar shards: deterministic writing, and the location and description of samples in them."""

import io
import json
import math
import tarfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from hashlib import blake2b
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from runners.data.pool.damage import NOT_READABLE, Damage
from runners.data.pool.pictures import DecodeError, open_image
from runners.data.pool.samples import IMAGE_KINDS, INCOMPLETE, Gap, Sample, walk_samples
from runners.data.pool.tokenizer import caption_tokens

_LACKING = ("no image", "no caption")

Inspect = Callable[[Image.Image], object]
"""Called with each opened image, for example to decode it."""

_BLOCK = tarfile.BLOCKSIZE
_LARGEST_SCORE = float(np.finfo(np.float32).max)


@dataclass(frozen=True, kw_only=True, slots=True)
class PairEntry:
    """One pair of a shard: a row of the index before it is ranked."""

    key: str  # the sample's key in webdataset: the common name of its members
    shard: str
    offset: int  # of the image's bytes in the shard
    length: int
    caption: str  # on one line, with white space collapsed
    width: int
    height: int
    hash: int  # 64 bits, of the image's bytes and the caption
    score: float  # quality, higher is better; NaN without a score
    uid: str = ""  # given by a data set's authors (DataComp's 32 hexadecimal digits), or empty


_DTYPES = {
    "key": "str",
    "shard": "str",
    "offset": "int64",
    "length": "int64",
    "caption": "str",
    "width": "int32",
    "height": "int32",
    "hash": "uint64",
    "score": "float32",
    "uid": "str",
}


def frame_of(entries: Iterable[PairEntry]) -> pd.DataFrame:
    """Build the index: the columns of ``PairEntry``, and ``tokens`` (int16).

    ``tokens`` is the caption's length in CLIP's byte-pair encoding, without start and end token.
    """
    rows = list(entries)
    columns = {name: [getattr(row, name) for row in rows] for name in _DTYPES}
    frame = pd.DataFrame({name: pd.Series(values, dtype=_DTYPES[name]) for name, values in columns.items()})
    return frame.assign(tokens=caption_tokens(columns["caption"]))


def content_hash(image: bytes, caption: str) -> int:
    """Return a stable 64-bit hash of an image file's bytes and its caption."""
    return int.from_bytes(blake2b(image + b"\0" + caption.encode(), digest_size=8).digest(), "little")


def write_sample(file: IO[bytes], key: str, members: Mapping[str, bytes]) -> dict[str, int]:
    """Append one sample to a tar; ``members`` maps file endings to contents, the result to their offsets.

    Owner, mode and time are fixed, so that the same samples give the same bytes.
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
    """Write the end of a tar: two empty blocks."""
    file.write(b"\0" * 2 * _BLOCK)


def entries_of(
    path: Path, name: str, *, score_field: str, inspect: Inspect | None = None
) -> Iterator[tuple[PairEntry, Sample] | Damage]:
    """Describe each sample of a shard: an entry, or damage where it is not a pair or bytes hold no sample.

    A sample whose members lie apart counts once. ``name`` is the shard's in the index, ``score_field`` the
    field of a sample's json that holds its score. ``inspect`` is called with each opened image, just before
    its pair is yielded; None reads only headers.
    """
    members: dict[str, tuple[frozenset[str], ...]] = {}  # key → members of each of its samples
    described, lost = Counter[str](), dict[str, list[str]]()
    end: Damage | None = None  # zeros like the end of a tar before another one
    sound = some = False
    if as_utf8(name) != name:
        yield Damage(shard=as_utf8(name), key="", reason="name is not UTF-8")
        return
    for span in walk_samples(path):
        some = True
        if isinstance(span, Gap):
            hole = Damage(shard=name, key=as_utf8(span.key), reason=f"{NOT_READABLE}: {span.reason}")
            end = hole if span.ends_archive and sound else None
            if end is None:
                yield hole
            continue
        entry = describe(span, name, score_field=score_field, inspect=inspect) if span.whole else INCOMPLETE
        sound = not isinstance(entry, str)
        if end and not sound:
            yield end  # beside a sample that is not a pair, zeros are a hole
        end = None
        members[span.key] = (*members.get(span.key, ()), span.endings)
        if isinstance(entry, str) and (span.fault or entry in (*_LACKING, INCOMPLETE)):
            lost.setdefault(span.key, []).append(entry)
            continue
        described[span.key] += 1
        if isinstance(entry, str):
            yield Damage(shard=name, key=as_utf8(span.key), reason=entry)
        else:
            yield entry, span
    for key, reason in _lost(lost, members, described):
        yield Damage(shard=name, key=as_utf8(key), reason=reason)
    if not some:
        yield Damage(shard=name, key="", reason="shard without samples")


def _lost(
    pieces: Mapping[str, list[str]],
    members: Mapping[str, tuple[frozenset[str], ...]],
    described: Counter[str],
) -> Iterator[tuple[str, str]]:
    """Yield the key and reason of incomplete samples, given the reason of each piece, each sample once.

    Pieces of one key whose members differ are parts of one sample whose members lie apart, or of one that was
    described already.
    """
    for key, reasons in pieces.items():
        samples = max(Counter(ending for piece in members[key] for ending in piece).values())
        apart = "members apart" if len(reasons) > 1 else reasons[0]
        reason = next((reason for reason in reasons if reason not in _LACKING), apart)
        for _ in range(samples - described[key]):
            yield key, reason


def describe(sample: Sample, name: str, *, score_field: str, inspect: Inspect | None) -> PairEntry | str:
    """Describe one sample of a shard, or return the reason why it is not a pair (see ``entries_of``)."""
    members = sample.members
    ending = image_kind(members)
    if sample.fault or as_utf8(sample.key) != sample.key:
        return sample.fault or "name is not UTF-8"
    if ending is None:
        return "no image"
    facts = facts_of(members)
    try:
        caption = members["txt"][1].decode("utf-8-sig") if "txt" in members else facts.get("caption")
    except UnicodeDecodeError:
        return "caption is not UTF-8"
    return entry_of(
        sample.key, name, members[ending], caption, facts, score_field=score_field, inspect=inspect
    )


def entry_of(  # noqa: PLR0913 - what is known about a pair, and options
    key: str,
    shard: str,
    image: tuple[int, bytes],
    caption: object,
    facts: Mapping[str, object],
    *,
    score_field: str,
    inspect: Inspect | None,
) -> PairEntry | str:
    """Describe a pair by its image (offset, bytes), caption and other fields, or return why it is not one."""
    if isinstance(caption, bool) or not isinstance(caption, str | int | float | None):
        return "caption is not text"
    text = "" if caption is None else " ".join(str(caption).split())
    if not text:
        return "no caption"
    if as_utf8(text) != text:
        return "caption is not UTF-8"
    if "\0" in text:
        return "caption with a NUL character"
    offset, content = image
    size = image_size(content, inspect)
    if isinstance(size, str):
        return size
    return PairEntry(
        key=key,
        shard=shard,
        offset=offset,
        length=len(content),
        caption=text,
        width=size[0],
        height=size[1],
        hash=content_hash(content, text),
        score=score_of(facts.get(score_field)),
        uid=as_utf8(str(facts.get("uid") or "")),
    )


def image_kind(members: Mapping[str, object]) -> str | None:
    """Return the ending of a sample's image among its members, or None."""
    return next((kind for kind in IMAGE_KINDS if kind in members), None)


def facts_of(members: Mapping[str, tuple[int, bytes]]) -> dict[str, object]:
    """Return the content of a sample's json; empty if it is missing or not valid."""
    try:
        facts = json.loads(members["json"][1])
    except (KeyError, ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def image_size(image: bytes, inspect: Inspect | None = None) -> tuple[int, int] | str:
    """Return width and height of an image file in pixels, or the reason why it is not an image.

    ``inspect`` is called with the opened image; None reads only its header.
    """
    if not image:
        return "empty image file"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PIL warns about large images and unusual metadata
            with open_image(image) as opened:
                if inspect:
                    inspect(opened)
                return opened.size
    except DecodeError as error:
        return error.reason


def score_of(value: object) -> float:
    """Return a number, also one that is written as a text, as a score; NaN if it is not finite in float32."""
    # A boolean is an integer to Python, but not a score.
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        return math.nan
    try:
        number = float(value)
    except (OverflowError, ValueError):
        return math.nan
    return number if abs(number) <= _LARGEST_SCORE else math.nan


def as_utf8(name: str) -> str:
    """Return a name with bytes that are not UTF-8 as escape sequences, so that it can be stored."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def encode_image(image: NDArray[np.uint8]) -> bytes:
    """Encode a PNG without compression: identical bytes with any zlib, fast to read, for small images."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=0)
    return file.getvalue()
