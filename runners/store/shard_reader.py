"""Places that a pool's shards can be in: a folder, or a URL, read by pieces that a cache keeps."""

import math
import os
import stat
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice, pairwise
from operator import itemgetter
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

import numpy as np
from numpy.typing import NDArray

from budgets.quantity import parse_bytes, parse_count
from runners.store.cache import local_cache, set_by
from runners.store.copies import listed
from runners.store.location import PATIENCE_S, Location

PIECE = 2**18
"""Bytes of a piece: what is cached, and what a range is rounded to."""

PREFETCH_REQUESTS = "STUDY_PREFETCH_REQUESTS"
"""Environment variable with the number of requests that a process makes at the same time (default: 16)."""

PREFETCH_SIZE = "STUDY_PREFETCH_SIZE"
"""Environment variable with the bytes that a process fetches ahead (default: 256 MiB where shards are read
one after the other, a quarter of the cache in training)."""

_REQUESTS, _MOST_REQUESTS = 16, 256
_LATE = 100  # shards that are looked for by name, one request each
_PIECES_PER_REQUEST = 32
_MOST_LATELY = 2**16  # pieces: 16 GiB, remembered in some 10 MiB
_AHEAD_BYTES = 256 * 2**20
_MISSING_S = 60.0  # until a missing shard is requested again; a request for each of its pairs would take long
_LONGEST_FETCH_S = 120.0  # time that another process may take for a fetch before this one fetches as well

Read = Callable[..., bytes]
"""Offset and length → bytes of a shard, fewer if it ends before; ``again=True`` bypasses any cache.

Raises FileNotFoundError if the shard is missing, and another OSError if the place is unreachable."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardRanges:
    """Ranges of a shard that are read together."""

    shard: str
    offsets: NDArray[np.int64]  # first byte of each range, ascending, (n,)
    lengths: NDArray[np.int64]  # bytes of each range, (n,)


class ShardReader:
    """A folder with a pool's shards, and the interface of every place of them.

    Attributes:
        location: The folder or URL.
        ahead_bytes: Bytes that may be fetched ahead; 0 where `ahead` does nothing.
    """

    def __init__(self, location: Location) -> None:
        self.location, self.ahead_bytes = location, 0

    def path(self, shard: str) -> str:
        """Return a shard's path or URL for messages."""
        return str(self.location / shard)

    def sizes(self, shards: Sequence[str]) -> Mapping[str, int]:
        """Return the bytes of each shard; -1 if there is none, or it is not a regular file."""
        folder = self.location.address  # a Path for each of some 100,000 shards would take most of the time
        return {shard: size_of(os.path.join(folder, shard)) for shard in shards}  # noqa: PTH118

    def versions(self, shards: Sequence[str]) -> list[int]:
        """Return numbers that change when a shard is replaced or repaired: times of its last change in ns."""
        paths = [Path(self.location.address, shard) for shard in shards]
        return [path.stat().st_mtime_ns if path.exists() else 0 for path in paths]

    def ahead(self, wanted: Sequence[ShardRanges]) -> None:
        """Fetch ranges in the background, if that makes reading them faster; the system reads files ahead."""

    def reading(self, wanted: Sequence[ShardRanges], *, once: bool = False) -> Iterator[Read]:  # noqa: ARG002 - no cache
        """Yield a reader for each shard, valid until the next one.

        Ranges that are read ``once`` are not kept in any cache, and nothing around them is fetched for it.
        """
        folder = Path(self.location.address)
        for ranges in wanted:
            file = None
            with suppress(FileNotFoundError):
                file = os.open(folder / ranges.shard, os.O_RDONLY)
            if file is None and not folder.exists():  # unreachable; the shard is not damaged
                raise FileNotFoundError(f"{folder} is unreachable")
            try:
                yield partial(_read, file)
            finally:
                if file is not None:
                    os.close(file)


def shard_reader(location: Location, sizes: Mapping[str, int]) -> ShardReader:
    """Return the place of a pool's shards, given their bytes when they were indexed."""
    return ShardReader(location) if location.local is not None else UrlShardReader(location, sizes)


def size_of(path: Path | str) -> int:
    """Return a file's bytes; -1 if there is none, or it is not a regular file."""
    try:
        facts = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return -1
    return facts.st_size if stat.S_ISREG(facts.st_mode) else -1


def _read(file: int | None, offset: int, length: int, *, again: bool = False) -> bytes:  # noqa: ARG001 - no cache
    if file is None:
        raise FileNotFoundError
    return os.pread(file, length, offset)


def _read_spans(
    fetch: Callable[[int, int], bytes],
    spans: Sequence[tuple[int, Future[bytes]]],
    offset: int,
    length: int,
    *,
    again: bool = False,
) -> bytes:
    if again:
        return fetch(offset, offset + length)
    start, content = spans[bisect_right(spans, offset, key=itemgetter(0)) - 1]
    return content.result()[offset - start : offset - start + length]


class UrlShardReader(ShardReader):
    """Shards below a URL, with their bytes when they were indexed. Safe to use after a fork.

    Raises:
        ValueError: ``STUDY_PREFETCH_REQUESTS``, ``STUDY_PREFETCH_SIZE`` or ``STUDY_CACHE_SIZE`` is not valid.
    """

    def __init__(self, location: Location, sizes: Mapping[str, int]) -> None:
        super().__init__(location)
        self._sizes, self._cache = sizes, local_cache()
        self._requests = set_by(PREFETCH_REQUESTS, _parse_requests) or _REQUESTS
        ahead = set_by(PREFETCH_SIZE, parse_bytes)
        # A quarter: two windows of samples, what they replace, and those of another trial.
        self.ahead_bytes = self._cache.limit // 4 if ahead is None else min(ahead, self._cache.limit // 2)
        self._most_recent = min(self.ahead_bytes // PIECE, _MOST_LATELY)
        self._in_turn_bytes = _AHEAD_BYTES if ahead is None else self.ahead_bytes
        self._queued: dict[tuple[str, int], list[int]] = {}  # shard and request → pieces to fetch ahead
        self._recent: dict[tuple[str, int], None] = {}  # shard and piece, of the latest ones queued
        self._missing: dict[str, float] = {}  # shard → when it was last found to be missing

    def sizes(self, shards: Sequence[str]) -> Mapping[str, int]:
        """Return the bytes of each shard; -1 if there is none."""
        sizes = listed("pool", self.location)
        # A list may lack what was written lately, which is known by its name.
        for shard in [shard for shard in shards if shard not in sizes][:_LATE]:
            with suppress(FileNotFoundError):
                sizes[shard] = self.location.size(shard)
        return {shard: sizes.get(shard, -1) for shard in shards}

    def versions(self, shards: Sequence[str]) -> list[int]:
        """Return the size of each shard; what is decoded is checked against the hashes of the index."""
        return [self._sizes[shard] for shard in shards]

    def ahead(self, wanted: Sequence[ShardRanges]) -> None:
        """Fetch the missing pieces of ranges in the background."""
        tasks = _tasks(os.getpid(), self._requests)
        for ranges in wanted:
            for number, pieces in pieces_by_request(ranges).items():
                # Each batch reads a part of a window that was queued before, so its pieces are in the cache
                # or on their way. Looking for each in the cache again would take a tenth of a worker's time.
                new = [piece for piece in pieces if (ranges.shard, piece) not in self._recent]
                if new:
                    self._recent |= dict.fromkeys((ranges.shard, piece) for piece in new)
                    self._queued[ranges.shard, number] = sorted(
                        {*self._queued.get((ranges.shard, number), []), *new}
                    )
                    tasks.put(partial(self._fetch_quietly, ranges.shard, number))
        # Forget the oldest: the cache may have removed them, so they may be queued again.
        for piece in [*islice(self._recent, max(0, len(self._recent) - self._most_recent))]:
            del self._recent[piece]

    def reading(self, wanted: Sequence[ShardRanges], *, once: bool = False) -> Iterator[Read]:
        """Yield a reader for each shard; the next shards are fetched in the background meanwhile.

        What is read ``once`` is in memory as a whole.
        """
        if once:
            fetch = partial(self.location.await_range, patience_s=PATIENCE_S)
            with ThreadPoolExecutor(self._requests) as threads:
                coming = [
                    [(start, threads.submit(fetch, part.shard, start, stop)) for start, stop in _spans(part)]
                    for part in wanted
                ]
                for part, spans in zip(wanted, coming, strict=True):
                    yield partial(_read_spans, partial(fetch, part.shard), spans)
            return
        sizes = [int(part.lengths.sum()) for part in wanted]
        before = np.cumsum([0, *sizes])
        queued = 0
        for number, part in enumerate(wanted):
            while queued < len(wanted) and before[queued] - before[number] < self._in_turn_bytes:
                self.ahead([wanted[queued]])
                queued += 1
            yield partial(self._read, part.shard)

    def _read(self, shard: str, offset: int, length: int, *, again: bool = False) -> bytes:
        """Return a range of a shard."""
        if time.monotonic() - self._missing.get(shard, -math.inf) < _MISSING_S:
            raise FileNotFoundError(self.path(shard))
        first, last = offset // PIECE, (offset + length - 1) // PIECE
        fetched: dict[int, bytes] = {}
        if again:
            fetched = self._fetch(shard, range(first, last + 1), again=True)
        content = b""
        for piece in range(first, last + 1):
            start, stop = max(offset - piece * PIECE, 0), min(offset + length - piece * PIECE, PIECE)
            part = None
            if piece not in fetched:
                part = self._cache.read(self._name(shard, piece), self._size(shard, piece), start, stop)
            if part is None and piece not in fetched:
                # Take over the queued request, so that the background does not repeat it.
                queued = self._queued.pop((shard, piece // _PIECES_PER_REQUEST), [])
                fetched |= self._fetch(shard, queued if piece in queued else range(piece, last + 1))
                part = self._cache.read(self._name(shard, piece), self._size(shard, piece), start, stop)
                # Another process fetched the piece, and the cache has removed it since.
                if part is None and piece not in fetched:
                    fetched |= self._fetch(shard, range(piece, piece + 1), again=True)
            content += fetched[piece][start:stop] if part is None else part
        return content

    def _fetch_quietly(self, shard: str, number: int) -> None:
        with suppress(OSError, ValueError):  # raised again where the pieces are needed
            if pieces := self._queued.pop((shard, number), None):
                self._fetch(shard, pieces, wait=False)

    def _fetch(
        self, shard: str, pieces: Sequence[int], *, wait: bool = True, again: bool = False
    ) -> dict[int, bytes]:
        """Fetch adjacent or nearly adjacent pieces that are not in the cache into it, and return them.

        Without ``wait`` what another process is fetching is left out; ``again`` also fetches what is in the
        cache.
        """
        fetched: dict[int, bytes] = {}
        longest_s, patience_s = (_LONGEST_FETCH_S, PATIENCE_S) if wait else (0.0, 0.0)
        name = f"{self.location.address}/{shard} {pieces[0] // _PIECES_PER_REQUEST}"
        with self._cache.turn(name, wait_s=longest_s) as mine:
            if not mine and not wait:
                return fetched
            missing = [
                piece
                for piece in pieces
                if again or not self._cache.has(self._name(shard, piece), self._size(shard, piece))
            ]
            for run in _runs(missing):
                start = run.start * PIECE
                stop = min(run.stop * PIECE, self._sizes[shard])
                try:
                    content = self.location.await_range(shard, start, stop, patience_s)
                except FileNotFoundError:
                    self._missing[shard] = time.monotonic()
                    raise
                for piece in run:
                    part = content[piece * PIECE - start : (piece + 1) * PIECE - start]
                    fetched[piece] = part
                    if len(part) == self._size(shard, piece):
                        self._cache.write(self._name(shard, piece), part)
        return fetched

    def _name(self, shard: str, piece: int) -> str:
        return f"{self.location.address}/{shard} {self._sizes[shard]} {piece}"

    def _size(self, shard: str, piece: int) -> int:
        return min(PIECE, self._sizes[shard] - piece * PIECE)


@cache
def _tasks(_process: int, threads: int) -> SimpleQueue[Callable[[], None]]:
    """Return a queue of what threads of this process do; a forked one has not its parent's threads."""
    tasks: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def work() -> None:
        while True:
            tasks.get()()

    for _ in range(threads):
        Thread(target=work, daemon=True).start()
    return tasks


def pieces_by_request(wanted: ShardRanges) -> Mapping[int, list[int]]:
    """Return the pieces that are fetched for ranges: number of the request in the shard → pieces."""
    firsts, lasts = wanted.offsets // PIECE, (wanted.offsets + wanted.lengths - 1) // PIECE
    groups: dict[int, list[int]] = defaultdict(list)
    known = -math.inf
    for first, last in sorted(set(zip(firsts.tolist(), lasts.tolist(), strict=True))):
        for piece in range(first, last + 1):
            # A gap of one piece is fetched as well: that takes less time than another request.
            for needed in (piece - 1, piece) if piece - known == 2 else (piece,):  # noqa: PLR2004
                if needed > known:
                    groups[needed // _PIECES_PER_REQUEST].append(needed)
            known = max(known, piece)
    return groups


def _spans(wanted: ShardRanges) -> Iterator[tuple[int, int]]:
    """Yield the first byte of each request for ranges, and the one behind its last.

    Ranges with less than a piece between them are one request, which takes less time than two.
    """
    stops = np.maximum.accumulate(wanted.offsets + wanted.lengths)
    largest = _PIECES_PER_REQUEST * PIECE
    apart = wanted.offsets[1:] - stops[:-1] >= PIECE
    apart |= np.diff(wanted.offsets // largest) > 0  # a long run takes several requests at a time
    for first, end in pairwise([0, *np.flatnonzero(apart) + 1, len(stops)]):
        yield int(wanted.offsets[first]), int(stops[end - 1])


def _runs(numbers: Sequence[int]) -> Iterator[range]:
    """Yield the runs of adjacent numbers, each of as many as one request fetches at most."""
    start = 0
    for place in range(1, len(numbers) + 1):
        ended = place == len(numbers) or numbers[place] != numbers[place - 1] + 1
        if ended or place - start == _PIECES_PER_REQUEST:
            yield range(numbers[start], numbers[place - 1] + 1)
            start = place


def _parse_requests(text: str) -> int:
    count = parse_count(text)
    if not 1 <= count <= _MOST_REQUESTS:
        raise ValueError(f"'{text}' must be from 1 to {_MOST_REQUESTS}")
    return count
