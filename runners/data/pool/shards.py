"""Webdataset tar shards: deterministic writing, and the location and description of samples in them."""

import io
import json
import math
import tarfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from runners.data.pool.damage import Damage

IMAGE_KINDS = ("jpg", "jpeg", "png", "webp")

MAX_PIXELS = 100_000_000
"""Larger images are rejected as an attempt to fill the memory."""

Inspect = Callable[[Image.Image], None]
"""Called with each decoded image."""

_BLOCK = tarfile.BLOCKSIZE


@dataclass(frozen=True, kw_only=True, slots=True)
class PairEntry:
    """One pair of a shard: a row of the index before it is ranked.

    Attributes:
        key: The sample's key in webdataset: the common name of its members.
        shard: The shard's path below the pool.
        offset: Offset of the image's bytes in the shard.
        length: Number of the image's bytes.
        caption: The text, white space at its ends removed.
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        hash: 64-bit hash of the image's bytes and the caption.
        score: Quality, higher is better; NaN without a score.
        uid: Id given by a data set's authors (DataComp's 32 hexadecimal digits), or empty.
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
    uid: str = ""


class ShardError(ValueError):
    """A shard that cannot be read to its end.

    Args:
        path: The shard.
        key: Key of the incomplete sample, or empty.
        reason: The problem.
    """

    def __init__(self, path: Path, key: str, reason: str) -> None:
        super().__init__(f"cannot read shard {path}{f' after sample {key}' if key else ''}: {reason}")
        self.key, self.reason = key, reason


def content_hash(image: bytes, caption: str) -> int:
    """Return a stable 64-bit hash of an image file's bytes and its caption."""
    return int.from_bytes(blake2b(image + b"\0" + caption.encode(), digest_size=8).digest(), "little")


def write_sample(file: IO[bytes], key: str, members: Mapping[str, bytes]) -> dict[str, int]:
    """Append one sample to a tar; ``members`` maps file endings to contents.

    Owner, mode and time are fixed, so that the same samples give the same bytes.

    Returns:
        File ending → offset of the member's content in the file.
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


def read_samples(path: Path) -> Iterator[tuple[str, dict[str, tuple[int, bytes]]]]:
    """Read a tar sample by sample, as webdataset groups its members.

    Yields:
        The key and, for each file ending, the content with its offset: (offset, content).

    Raises:
        ShardError: The file is missing, is not a tar, or ends before the end-of-archive mark: tarfile alone
            would take a damaged header for the end.
    """
    key, members = "", dict[str, tuple[int, bytes]]()
    try:
        with tarfile.open(path, "r:") as tar:
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
                # tarfile would keep every member it has read.
                tar.members = []  # type: ignore[attr-defined]
            end = tar.offset
        _check_end(path, end)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ShardError(path, key, str(error)) from error
    if members:
        yield key, members


def _check_end(path: Path, end: int) -> None:
    with path.open("rb") as file:
        file.seek(end)
        if file.read(_BLOCK) != b"\0" * _BLOCK:
            raise tarfile.ReadError("it is truncated or damaged")


def entries_of(
    path: Path, name: str, *, score_field: str, decode: bool = False
) -> Iterator[PairEntry | Damage]:
    """Describe each sample of a shard.

    Args:
        path: The shard.
        name: The shard's name in the index.
        score_field: Field of a sample's json that holds its score.
        decode: True to decode whole images, False to read only their headers.

    Yields:
        An entry or, for a sample that is not a pair, its damage.

    Raises:
        ShardError: The shard cannot be read to its end; the samples before were yielded.
    """
    for key, members in read_samples(path):
        found = describe(key, members, name, score_field=score_field, decode=decode)
        yield Damage(shard=name, key=key, reason=found) if isinstance(found, str) else found


def describe(  # noqa: PLR0913 - independent options
    key: str,
    members: Mapping[str, tuple[int, bytes]],
    name: str,
    *,
    score_field: str,
    decode: bool,
    inspect: Inspect | None = None,
) -> PairEntry | str:
    """Describe one sample of a shard, or return the reason why it is not a pair (see ``entries_of``)."""
    ending = image_kind(members)
    facts = facts_of(members)
    caption = _caption(members, facts)
    if ending is None:
        return "no image"
    if caption is None:
        return "no caption"
    offset, image = members[ending]
    size = image_size(image, decode=decode, inspect=inspect)
    if isinstance(size, str):
        return size
    return PairEntry(
        key=key,
        shard=name,
        offset=offset,
        length=len(image),
        caption=caption,
        width=size[0],
        height=size[1],
        hash=content_hash(image, caption),
        score=score_of(facts.get(score_field)),
        uid=str(facts.get("uid") or ""),
    )


def image_kind(members: Mapping[str, object]) -> str | None:
    """Return the ending of a sample's image among its members, or None."""
    return next((kind for kind in IMAGE_KINDS if kind in members), None)


def facts_of(members: Mapping[str, tuple[int, bytes]]) -> dict[str, object]:
    """Return the content of a sample's json; empty if it is missing or not valid."""
    try:
        facts = json.loads(members["json"][1])
    except (KeyError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def clean_caption(text: str) -> str:
    """Return a caption on one line, with white space collapsed."""
    return " ".join(text.split())


def image_size(image: bytes, *, decode: bool, inspect: Inspect | None = None) -> tuple[int, int] | str:
    """Return width and height of an image file in pixels, or the reason why it is not an image.

    Args:
        image: The file's bytes.
        decode: True to decode the whole image, False to read only its header.
        inspect: Called with the image after decoding.
    """
    if not image:
        return "empty image file"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PIL warns about large images and unusual metadata
            with Image.open(io.BytesIO(image)) as opened:
                width, height = opened.size
                if width * height > MAX_PIXELS:
                    return "image too large"
                if decode:
                    opened.load()
                    if inspect:
                        inspect(opened)
                return width, height
    except Image.DecompressionBombError:
        return "image too large"
    except (OSError, ValueError, SyntaxError):
        return "unreadable image"


def score_of(value: object) -> float:
    """Return a finite number as a score, and NaN for everything else."""
    number = float(value) if isinstance(value, int | float) else math.nan
    return number if math.isfinite(number) else math.nan


def _caption(members: Mapping[str, tuple[int, bytes]], facts: Mapping[str, object]) -> str | None:
    if "txt" in members:
        text = members["txt"][1].decode("utf-8", "replace")
    else:
        text = str(facts.get("caption") or "")
    return clean_caption(text) or None


def encode_image(image: NDArray[np.uint8]) -> bytes:
    """Encode a PNG without compression: identical bytes with any zlib, fast to read, for small images."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=0)
    return file.getvalue()
