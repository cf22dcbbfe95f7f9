"""Samples of a tar shard: members grouped by key; samples beside unreadable bytes are marked.

A key ends at the first dot, as in webdataset, unless members form a pair by what stands before their last
dot: ``a.1.jpg`` and ``a.1.txt`` are the pair ``a.1``, while ``a.seg.png`` belongs to ``a.jpg``.

A tar is read to the end of the file by its size, and bytes that hold no member are reported as gaps: tarfile
alone takes the first empty block for the end, and a damaged header for the end as well.
"""

import io
import os
import re
import stat
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

IMAGE_KINDS = ("jpg", "jpeg", "png", "webp")

INCOMPLETE = "incomplete beside unreadable bytes"
"""Reason for a sample that may have a part in unreadable bytes."""

LARGEST_MEMBER = 2**30
"""Bytes above which a member is not read: no image or caption is as large."""

_TEXTS = {"txt", "json", "cls"}

_APPLE_DOUBLE = b"\x00\x05\x16\x07"
"""Beginning of a ``._a.png`` that macOS puts beside ``a.png``."""

_BLOCK = tarfile.BLOCKSIZE
_CHUNK = 2**20
_MAGIC, _MAGIC_AT = b"ustar", 257
_EXTENSIONS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4", b"PK\x03\x04": "zip"}  # fmt: skip


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
        return frozenset(map(_kind, (*self.members, *self.faults)))

    @property
    def fault(self) -> str:
        """The reason why a member is not read; empty if all are."""
        return next((f"{kind or 'member'} is {reason}" for kind, reason in self.faults.items()), "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One member of a tar."""

    key: str  # bytes that are not UTF-8 as surrogates
    ending: str
    offset: int
    content: bytes  # empty if ``fault`` is set
    fault: str = ""  # why its content is not read, for example that it is a link; empty if it is read


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """A range of a shard's bytes that holds no readable member."""

    reason: str
    key: str = ""  # of the member that begins the gap; if none can be told, of the last sample before it
    begun: bool = False  # a header of a member begins it
    clean: bool = True  # the member before the gap is known to end there
    zeros: int = 0  # its length, if it is all zeros and a header follows
    ends_archive: bool = False  # may be the end of a tar before another one, and hold no sample


def read_samples(path: Path) -> Iterator[tuple[str, dict[str, tuple[int, bytes]]]]:
    """Read a sound tar: yield each sample's key and, by file ending, its members as (offset, content).

    Raises:
        ValueError: The file is missing, is not a tar, or some of its bytes hold no sample.
    """
    for span in walk_samples(path):
        reason = span.fault if isinstance(span, Sample) else "" if span.ends_archive else span.reason
        if reason:
            after = f" after sample {span.key}" if span.key else ""
            raise ValueError(f"cannot read shard {path}{after}: {reason}")
        if isinstance(span, Sample) and span.whole:  # otherwise, the unreadable bytes beside it are an error
            yield span.key, span.members


def walk_samples(path: Path) -> Iterator[Sample | Gap]:
    """Read a tar sample by sample, as webdataset groups its members, past everything that is damaged.

    A member that repeats begins a new sample, so adjacent samples may have the same key.
    """
    # ``now`` is the present sample; ``usual``, the members of the last sample known to be whole.
    key, now, usual = "", Sample(key=""), frozenset[str]()
    beside = False  # True if the present sample follows unreadable bytes, and may lack its first members
    try:
        for span in _members_of_samples(path):
            key = span.key or key
            if isinstance(span, Gap):
                # The member that begins the gap belongs to the present sample, or shows that it had ended.
                ended = span.key != now.key if span.begun else span.clean and _has_all(now, usual)
                if now.endings:
                    whole = (ended or span.ends_archive) and (not beside or _has_all(now, usual))
                    yield replace(now, whole=whole)
                yield replace(span, key=key)
                now, beside = Sample(key=""), not span.ends_archive
                continue
            if now.endings and (key != now.key or span.ending in now.members or span.ending in now.faults):
                yield replace(now, whole=not beside or _has_all(now, usual))
                usual, beside = usual if beside else now.endings, False
                now = Sample(key=key)
            elif not now.endings:
                now = Sample(key=key)
            if span.fault:
                now.faults[span.ending] = span.fault
            else:
                now.members[span.ending] = span.offset, span.content
    except OSError as error:
        if now.endings:
            yield replace(now, whole=False)
        yield Gap(key=key, reason=error.strerror or str(error))
        return
    if now.endings:
        yield replace(now, whole=not beside or _has_all(now, usual))


def _members_of_samples(path: Path) -> Iterator[Member | Gap]:
    """Yield the members of a tar with the keys of their samples, and its gaps."""
    before, end = "", None
    for span in _with_keys(_members_of(path)):
        if isinstance(span, Gap) and span.ends_archive:
            end = span
            continue
        if end:
            yield replace(end, ends_archive=not _lacks_number(before, span.key, end.zeros))
        end, before = None, span.key or before
        yield span


def _with_keys(spans: Iterator[Member | Gap]) -> Iterator[Member | Gap]:
    """Give members with several dots in their names the keys of their samples, once these are known."""
    key, last, single = "", "", set[str]()  # single: kinds of the members with one dot
    stems: dict[str, list[Member]] = {}  # the others by their names up to the last dot
    error: OSError | None = None
    try:
        for span in spans:
            if isinstance(span, Gap) or span.key != key:
                yield from _by_stem(stems, single)
                key, last, single, stems = span.key, "", set(), {}
            if isinstance(span, Gap) or "." not in span.ending:
                single |= set() if isinstance(span, Gap) else _kinds(span)
                yield span
                continue
            stem = f"{key}.{span.ending}".rpartition(".")[0]
            # All keys of a tar may begin alike: a pair does not wait for the end of the key.
            if stem != last and _is_pair(_kinds(*stems.get(last, ()))) and (not single or _is_pair(single)):
                yield from _by_stem({last: stems.pop(last)}, single)
            stems.setdefault(stem, []).append(span)
            last = stem
    except OSError as raised:
        error = raised
    yield from _by_stem(stems, single)
    if error:
        raise error


def _by_stem(stems: Mapping[str, Sequence[Member]], single: AbstractSet[str]) -> Iterator[Member]:
    """Yield members with the keys of their samples: webdataset's, if it has an image and they are no pair."""
    for stem, members in stems.items():
        if "image" in single and not _is_pair(_kinds(*members)):
            yield from members
        else:
            yield from (replace(each, key=stem, ending=each.ending.rpartition(".")[2]) for each in members)


def _kinds(*members: Member) -> set[str]:
    return {_kind(member.ending.rpartition(".")[2]) for member in members}


def _kind(ending: str) -> str:
    """Return one name for all kinds of images."""
    return "image" if ending in IMAGE_KINDS else ending


def _is_pair(kinds: AbstractSet[str]) -> bool:
    return "image" in kinds and not kinds.isdisjoint(_TEXTS)


def _lacks_number(before: str, after: str, zeros: int) -> bool:
    """Return whether numbered keys beside zeros lack some numbers, no more than samples that fit into them.

    A hole that ends with a record of the tar looks like the end of a tar before another one.
    """
    if not before:
        return True
    first, second = (re.fullmatch(r"(.*?)(\d+)", key, re.DOTALL) for key in (before, after))
    if not first or not second or first[1] != second[1]:
        return False
    return 1 < int(second[2]) - int(first[2]) <= 1 + zeros // (2 * _BLOCK)


def _key_of(name: str) -> tuple[str, str]:
    """Split a name at its first dot, as webdataset does; dots that begin a name belong to its key."""
    folder, slash, name = name.rpartition("/")
    dots = name[: len(name) - len(name.lstrip("."))]
    stem, _, ending = name[len(dots) :].partition(".")
    if dots and not ending and _kind(stem.lower()) in {"image", *_TEXTS}:  # as .jpg
        stem, ending = "", stem
    inner, dot, kind = ending.rpartition(".")
    return folder + slash + dots + stem, inner + dot + kind.lower()


def _has_all(sample: Sample, usual: frozenset[str]) -> bool:
    """Return whether a sample has all members that the one before it has."""
    return bool(usual) and usual <= sample.endings


def _members_of(path: Path) -> Iterator[Member | Gap]:
    """Read a tar to its end, also one with damaged headers, holes, or another tar behind its end."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):  # opening a pipe would wait for a writer
        raise OSError("a folder, not a file" if stat.S_ISDIR(mode) else "not a regular file")
    with path.open("rb") as file:
        # Opened for reading, a TarFile begins with the first header, which may be damaged.
        tar = tarfile.TarFile(fileobj=io.BytesIO(), mode="w")
        tar.fileobj = file
        size = os.fstat(file.fileno()).st_size
        at = archive = 0  # the next header; the beginning of this archive
        last = b""
        while True:
            parsed = _member_at(tar, file, at, size)
            if isinstance(parsed, tuple):
                member, at = parsed
                if member:
                    last = member.content
                    yield member
                continue
            start, at = at, _first_block(file, at, size, lambda block: block != bytes(len(block)))
            if at == start or (at < size and not _is_header(_read(file, at))):
                at = _first_block(file, at + _BLOCK, size, _is_header)
                yield _gap(file, start, at, size, cut=parsed)
            else:
                ends = _ends_archive((start, start - archive), at - start, final=at == size)
                if at < size or not ends:
                    # A hole may begin within the content before it.
                    clean, zeros = not last.endswith(b"\0"), at - start
                    where = f"bytes {start:,} to {at:,} are zeros: a stretch of {zeros:,} bytes"
                    yield Gap(reason=where, clean=clean, zeros=zeros, ends_archive=ends)
                archive = at if ends else archive
            if at >= size:
                return


def _member_at(
    tar: tarfile.TarFile, file: IO[bytes], at: int, size: int
) -> tuple[Member | None, int] | str | None:
    """Read the member whose header is at an offset, and return it with the offset of the next header.

    The member is None for a folder and for a file that belongs to no sample. In its place the name of a
    member that is not whole is returned, or None if there is no valid header.
    """
    file.seek(at)
    try:
        info = tar.tarinfo.fromtarfile(tar)
    except Exception:  # noqa: BLE001 - damaged headers raise many types of errors
        return None
    after = tar.offset
    if info.size < 0 or after <= at:
        return None
    if after > size and (info.issparse() or info.offset_data + info.size > size):
        return info.name
    fault, content = _fault(info), b""
    if not fault and not info.isdir():
        extensions = (
            _read(file, at, info.offset_data - _BLOCK - at) if info.offset_data > at + _BLOCK else b""
        )
        content = _read(file, info.offset_data, info.size)
        if _swallows(extensions, "") or _swallows(content, info.name):
            return info.name
    key, ending = _key_of(info.name)
    member = Member(key=key, ending=ending, offset=info.offset_data, content=content, fault=fault)
    passed_over = info.isdir() or (not fault and _is_no_part(info.name, ending, content))
    return None if passed_over else member, min(after, size)


def _is_no_part(name: str, ending: str, content: bytes) -> bool:
    """Return whether a file belongs to no sample, as README and what macOS puts beside each file."""
    if ending and not name.rpartition("/")[2].startswith("._"):
        return False
    if content.startswith(_APPLE_DOUBLE):
        return True
    try:
        return "\0" not in content.decode()
    except UnicodeDecodeError:
        return False


def _fault(info: tarfile.TarInfo) -> str:
    if info.issym() or info.islnk():
        return "a link, which is not followed"
    if info.issparse():
        return "a sparse file"
    if not info.isreg() and not info.isdir() and info.type in tarfile.SUPPORTED_TYPES:
        return "not a file"
    return "larger than 1 GiB" if info.size > LARGEST_MEMBER else ""


def _swallows(content: bytes, name: str) -> bool:
    """Return whether a content holds headers of members: the size in its own header is wrong."""
    if name.lower().endswith(".tar"):
        return False
    place = content.find(_MAGIC, _MAGIC_AT)
    while place >= 0:
        start = place - _MAGIC_AT
        if start % _BLOCK == 0 and _is_header(content[start : start + _BLOCK], but=_EXTENSIONS):
            return True
        place = content.find(_MAGIC, place + 1)
    return False


def _is_header(block: bytes, but: tuple[bytes, ...] = ()) -> bool:
    """Return whether a block is a header by its checksum, and not of one of some types."""
    if len(block) < _BLOCK or not set(block[148:156]) <= set(b"01234567 \0"):
        return False
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape").type not in but
    except (tarfile.TarError, ValueError, OverflowError):
        return False


def _first_block(file: IO[bytes], at: int, size: int, wanted: Callable[[bytes], bool]) -> int:
    """Return the offset of the first block from an offset on that is wanted, or the file's size."""
    while at < size and (chunk := _read(file, at, _CHUNK)):
        for place in range(0, len(chunk), _BLOCK):
            if wanted(chunk[place : place + _BLOCK]):
                return at + place
        at += len(chunk)
    return size


def _ends_archive(lengths: tuple[int, ...], zeros: int, *, final: bool) -> bool:
    """Return whether empty blocks may be the end of an archive of one of some lengths.

    Writers append two empty blocks, or fill the last record of 20 blocks; some append only one.
    """
    to_record = {-(length + 2 * _BLOCK) % tarfile.RECORDSIZE + 2 * _BLOCK for length in lengths}
    return zeros in {2 * _BLOCK, *to_record} or (final and zeros <= _BLOCK)


def _read(file: IO[bytes], at: int, size: int = _BLOCK) -> bytes:
    file.seek(at)
    return file.read(size)


def _gap(file: IO[bytes], start: int, stop: int, size: int, *, cut: str | None) -> Gap:
    block = _read(file, start)
    where = f"bytes {start:,} to {stop:,} are damaged"
    if start == 0 and not size:
        where = "empty file"
    elif packed := next((kind for mark, kind in _COMPRESSED.items() if block.startswith(mark)), None):
        where = f"compressed with {packed}; unpack it" if start == 0 else where
    elif stop == size and (cut is not None or size - start < _BLOCK):
        where = "unexpected end of data"
    clean = start >= size or cut is not None or block[_MAGIC_AT:].startswith(_MAGIC)
    key, ending = _key_of(cut or "")
    key += f".{ending}".rpartition(".")[0]
    return Gap(reason=where, key=key, begun=bool(cut), clean=clean)
