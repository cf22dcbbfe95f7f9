"""Ranges and whole copies of shards below a URL, fetched without a cache."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from budgets.quantity import parse_count
from runners.host.faults import patiently
from runners.store.cache import set_by
from runners.store.copies import PATIENCE_S, until_reached
from runners.store.location import Location

PREFETCH_REQUESTS = "STUDY_PREFETCH_REQUESTS"
"""Environment variable with the number of requests that a process makes at the same time (default: 16)."""

LARGEST = 8 * 2**20
"""Bytes that one request fetches at most."""

NEAR = 2**18
"""Bytes between two ranges from which on they are fetched by two requests."""

_REQUESTS, _MOST_REQUESTS = 16, 256


def requests_at_once() -> int:
    """Return how many requests a process makes at once; ValueError if the variable for it is not valid."""
    return set_by(PREFETCH_REQUESTS, _parse_requests) or _REQUESTS


@contextmanager
def downloaded(url: str, shard: str, size: int) -> Iterator[Path]:
    """Context manager: a temporary copy of a whole shard.

    Raises:
        FileNotFoundError: There is no such shard.
        OSError: The place is still unreachable after ten minutes, or the shard has another size.
    """
    storage = Location(url)
    with TemporaryDirectory() as folder:
        get = partial(storage.get, {shard: size}, "", Path(folder))
        try:
            until_reached(get)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{url}/{shard}") from error
        yield Path(folder) / shard


def read_range(storage: Location, shard: str, start: int, stop: int, patience_s: float) -> bytes:
    """Return a range of a shard, fewer bytes if the shard has become shorter.

    Raises:
        FileNotFoundError: There is no such shard.
        PermissionError: The place refuses.
        OSError: The place is still unreachable after ``patience_s`` seconds.
    """
    final = (FileNotFoundError, PermissionError)

    def request() -> bytes:
        try:
            content = storage.read_range(shard, start, stop)
        except final:
            raise
        except OSError:
            # A range behind the end of a shard is another error with each protocol.
            if storage.size(shard) > start:
                raise
            content = b""
        if len(content) < stop - start and storage.size(shard) >= stop:
            raise OSError(f"{storage.url}/{shard} was cut short on its way")
        return content

    return patiently(request, patience_s=patience_s, final=final)


def ranges_at(url: str, ranges: Sequence[tuple[str, int, int]]) -> list[bytes]:
    """Return ranges of shards below a URL, without a cache; fewer bytes where a shard is shorter or missing.

    Each range is a shard, an offset and a length. Neighbours in the list with less than `NEAR` bytes between
    them are fetched by one request of up to `LARGEST` bytes, with what lies between: another request would
    take longer.

    Raises:
        OSError: The place refuses, or is still unreachable after ten minutes.
    """
    storage = Location(url)

    def read(near: Sequence[tuple[str, int, int]]) -> list[bytes]:
        shard, start, _ = near[0]
        stop = max(offset + length for _, offset, length in near)
        try:
            content = read_range(storage, shard, start, stop, PATIENCE_S)
        except FileNotFoundError:
            content = b""
        return [content[offset - start : offset - start + length] for _, offset, length in near]

    with ThreadPoolExecutor(requests_at_once()) as threads:
        return [each for contents in threads.map(read, _near(ranges)) for each in contents]


def _near(ranges: Sequence[tuple[str, int, int]]) -> list[list[tuple[str, int, int]]]:
    """Group ranges that one request fetches."""
    groups: list[list[tuple[str, int, int]]] = []
    stop = 0  # of the last group
    for shard, offset, length in ranges:
        first, start, _ = groups[-1][0] if groups else ("", 0, 0)
        size = offset + length - start
        if first == shard and start <= offset < stop + NEAR and size <= LARGEST:
            groups[-1].append((shard, offset, length))
            stop = max(stop, offset + length)
        else:
            groups.append([(shard, offset, length)])
            stop = offset + length
    return groups


def _parse_requests(text: str) -> int:
    count = parse_count(text)
    if not 1 <= count <= _MOST_REQUESTS:
        raise ValueError(f"'{text}' must be from 1 to {_MOST_REQUESTS}")
    return count
