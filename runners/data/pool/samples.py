"""Samples of a tar shard: members grouped by key; samples beside unreadable bytes are marked.

A tar is read to the end of the file by its size, and bytes that hold no member are reported as gaps: tarfile
alone takes the first empty block for the end, and a damaged header for the end as well.
"""

import os
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

IMAGE_KINDS = ("jpg", "jpeg", "png", "webp")

INCOMPLETE = "incomplete beside unreadable bytes"
"""Reason for a sample that may have a part in unreadable bytes."""

LARGEST_MEMBER = 2**30
"""Bytes above which a member is not read: no image or caption is as large."""

_BLOCK = tarfile.BLOCKSIZE
_CHUNK = 2**20
_MAGIC, _MAGIC_AT = b"ustar", 257
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """Members of one key that lie side by side."""

    key: str  # the sample's key in webdataset: the common name of its members
    members: dict[str, tuple[int, bytes]] = field(default_factory=dict)  # ending → (offset, content)
    faults: dict[str, str] = field(default_factory=dict)  # ending → reason, of members that are not read
    whole: bool = True  # False: lies beside unreadable bytes and lacks members that others have

    @property
    def endings(self) -> frozenset[str]:
        """File endings of all its members; one name for all kinds of images."""
        return frozenset("image" if kind in IMAGE_KINDS else kind for kind in (*self.members, *self.faults))

    @property
    def fault(self) -> str:
        """The reason why a member is not read; empty if all are."""
        return next((f"{kind} is {reason}" for kind, reason in self.faults.items()), "")


@dataclass(frozen=True, kw_only=True, slots=True)
class UnreadableRange:
    """A range of a shard's bytes that holds no readable sample."""

    key: str  # the last sample before it, or the one that begins it
    reason: str


class ShardError(ValueError):
    """A shard that cannot be read to its end; ``key`` is that of the incomplete sample, or empty."""

    def __init__(self, path: Path, key: str, reason: str) -> None:
        super().__init__(f"cannot read shard {path}{f' after sample {key}' if key else ''}: {reason}")
        self.key, self.reason = key, reason


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One member of a tar."""

    name: str  # bytes that are not UTF-8 as surrogates
    offset: int
    content: bytes  # empty if ``fault`` is set
    fault: str = ""  # why its content is not read, for example that it is a link; empty if it is read


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """A range of bytes that holds no readable member."""

    reason: str
    name: str = ""  # of the member that begins the gap, if its header can be read
    clean: bool = True  # the member before the gap is known to end there


def read_samples(path: Path) -> Iterator[tuple[str, dict[str, tuple[int, bytes]]]]:
    """Read a sound tar: yield each sample's key and, by file ending, its members as (offset, content).

    Raises:
        ShardError: The file is missing, is not a tar, or some of its bytes hold no sample.
    """
    for each in walk_samples(path):
        if isinstance(each, UnreadableRange):
            raise ShardError(path, each.key, each.reason)
        if not each.whole:
            continue  # the unreadable bytes beside it are an error
        if each.fault:
            raise ShardError(path, each.key, each.fault)
        yield each.key, each.members


def walk_samples(path: Path) -> Iterator[Sample | UnreadableRange]:
    """Read a tar sample by sample, as webdataset groups its members, past everything that is damaged.

    A member that repeats begins a new sample, so adjacent samples may have the same key. A member without a
    stem or an ending belongs to no sample.
    """
    # ``now`` is the present sample; ``usual``, the members of the last sample known to be whole.
    key, now, usual = "", Sample(key=""), frozenset[str]()
    beside = False  # True if the present sample follows unreadable bytes, and may lack its first members
    try:
        for its_key, ending, each in _members_of_samples(path):
            if isinstance(each, Gap):
                # The member that begins the gap belongs to the present sample, or shows that it had ended.
                ended = its_key != now.key if each.name else each.clean and _has_all(now, usual)
                if now.endings:
                    yield replace(now, whole=ended and (not beside or _has_all(now, usual)))
                key = its_key or key
                yield UnreadableRange(key=key, reason=each.reason)
                now, beside = Sample(key=""), True
                continue
            key = its_key
            if now.endings and (key != now.key or ending in now.members or ending in now.faults):
                yield replace(now, whole=not beside or _has_all(now, usual))
                usual, beside = usual if beside else now.endings, False
                now = Sample(key=key)
            elif not now.endings:
                now = Sample(key=key)
            if each.fault:
                now.faults[ending] = each.fault
            else:
                now.members[ending] = each.offset, each.content
    except OSError as error:
        if now.endings:
            yield replace(now, whole=False)
        yield UnreadableRange(key=key, reason=error.strerror or str(error))
        return
    if now.endings:
        yield replace(now, whole=not beside or _has_all(now, usual))


def _members_of_samples(path: Path) -> Iterator[tuple[str, str, Member | Gap]]:
    """Yield key, ending and member, or gap, of a tar, without the members that belong to no sample."""
    for each in _members_of(path):
        key, ending = _key_of(each.name)
        # Such as README, and the ``._a.png`` that macOS puts beside each file.
        if isinstance(each, Gap) or (ending and key and not key.endswith("/")):
            yield key, ending, each


def _key_of(name: str) -> tuple[str, str]:
    folder, slash, name = name.rpartition("/")
    stem, _, ending = name.partition(".")
    return folder + slash + stem, ending.lower()


def _has_all(sample: Sample, usual: frozenset[str]) -> bool:
    """Return whether a sample has all members that the one before it has."""
    return bool(usual) and usual <= sample.endings


def _members_of(path: Path) -> Iterator[Member | Gap]:
    """Read a tar to its end, also one with damaged headers, holes, or another tar behind its end."""
    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for a writer
        raise OSError("not a regular file")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        at = archive = 0  # the next header; the beginning of this archive
        last = b""
        while True:
            cut = None
            for found in _readable(file, at, size):
                if isinstance(found, str):
                    cut = found
                    break
                member, at = found
                last = member.content
                yield member
            start, at = at, _zeros_end(file, at, size)
            gap = at > start and not _ends_archive(start - archive, at - start, final=at == size)
            # A header with a valid checksum that tarfile could not use is passed over as well.
            if at < size and (at == start or cut is not None or not _is_header(_block(file, at))):
                gap, at = True, _next_header(file, at + _BLOCK, size)
            elif at <= start:  # the end of the file, without the mark of an end
                gap = True
            if gap:
                yield _gap(file, start, at, size, cut=cut, last=last)
            if at >= size:
                return
            archive = archive if gap else at


def _readable(file: IO[bytes], at: int, size: int) -> Iterator[tuple[Member, int] | str]:
    """Yield each member with the offset of the next header; end with the name of one that is not whole."""
    file.seek(at)
    try:
        tar = tarfile.TarFile(fileobj=file)
    except Exception:  # noqa: BLE001 - damaged headers raise many types of errors
        return
    while True:
        try:
            info = tar.next()
        except Exception:  # noqa: BLE001 - as above
            return
        if info is None:
            return
        after, regular = tar.offset, info.isreg() or info.type not in tarfile.SUPPORTED_TYPES
        if info.size < 0 or after <= at:
            return
        if regular and info.offset_data + info.size > size:
            yield info.name
            return
        fault = _fault(info, regular=regular)
        content = b""
        if not fault:
            file.seek(info.offset_data)
            content = file.read(info.size)
            if _swallows(content, info.name):
                yield info.name
                return
        if not info.isdir():
            yield Member(name=info.name, offset=info.offset_data, content=content, fault=fault), after
        at = after
        # tarfile would keep every member it has read.
        tar.members = []  # type: ignore[attr-defined]


def _fault(info: tarfile.TarInfo, *, regular: bool) -> str:
    if info.issym() or info.islnk():
        return "a link, which is not followed"
    if info.issparse():
        return "a sparse file"
    if not regular:
        return "not a file"
    return "larger than 1 GiB" if info.size > LARGEST_MEMBER else ""


def _swallows(content: bytes, name: str) -> bool:
    """Return whether a content holds headers of members: the size in its own header is wrong."""
    if name.lower().endswith(".tar"):
        return False
    place = content.find(_MAGIC, _MAGIC_AT)
    while place >= 0:
        start = place - _MAGIC_AT
        if start % _BLOCK == 0 and _is_header(content[start : start + _BLOCK]):
            return True
        place = content.find(_MAGIC, place + 1)
    return False


def _is_header(block: bytes) -> bool:
    """Return whether a block is a header by its checksum."""
    if len(block) < _BLOCK or not set(block[148:156]) <= set(b"01234567 \0"):
        return False
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError, OverflowError):
        return False
    return True


def _next_header(file: IO[bytes], at: int, size: int) -> int:
    """Return the offset of the next block that is a header, or the file's size."""
    while at < size:
        file.seek(at)
        chunk = file.read(_CHUNK)
        if not chunk:
            return size
        for place in range(0, len(chunk), _BLOCK):
            if chunk[place] and _is_header(chunk[place : place + _BLOCK]):
                return at + place
        at += len(chunk)
    return size


def _zeros_end(file: IO[bytes], at: int, size: int) -> int:
    """Return the end of the empty blocks that begin at an offset."""
    while at < size:
        file.seek(at)
        chunk = file.read(_CHUNK)
        rest = len(chunk.lstrip(b"\0"))
        if rest or not chunk:
            return at + (len(chunk) - rest) // _BLOCK * _BLOCK
        at += len(chunk)
    return size


def _ends_archive(length: int, zeros: int, *, final: bool) -> bool:
    """Return whether empty blocks are the end of an archive of some length, not a hole.

    Writers append two empty blocks, or fill the last record of 20 blocks; some append only one.
    """
    to_record = -(length + 2 * _BLOCK) % tarfile.RECORDSIZE + 2 * _BLOCK
    return zeros in {2 * _BLOCK, to_record} or (final and zeros <= _BLOCK)


def _block(file: IO[bytes], at: int) -> bytes:
    file.seek(at)
    return file.read(_BLOCK)


def _gap(  # noqa: PLR0913 - what is known about it
    file: IO[bytes], start: int, stop: int, size: int, *, cut: str | None, last: bytes
) -> Gap:
    block = _block(file, start)
    where = f"bytes {start:,} to {stop:,} are damaged"
    name = cut or ""
    if start == 0 and not size:
        where = "empty file"
    elif packed := next((kind for mark, kind in _COMPRESSED.items() if block.startswith(mark)), None):
        where = f"compressed with {packed}; unpack it" if start == 0 else where
    elif stop == size and (cut is not None or size - start < _BLOCK):
        where = "unexpected end of data"
    elif not any(block):
        # A hole may begin within the content before it.
        return Gap(reason=f"bytes {start:,} to {stop:,} are zeros", clean=not last.endswith(b"\0"))
    clean = start >= size or cut is not None or block[_MAGIC_AT:].startswith(_MAGIC)
    return Gap(reason=where, name=name, clean=clean)
