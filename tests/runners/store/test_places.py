"""A pool whose shards stay below a URL: the same samples as from a folder, through a bounded cache."""

import os
import shutil
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from fsspec import get_filesystem_class
from torch import Tensor

from budgets.machine_cache import CACHE
from runners.data.build.build import Build
from runners.data.build.build_pool import build_pool
from runners.data.build.source import not_indexed
from runners.data.pool.pool import Pool
from runners.data.pool.reader import READ_COLUMNS, read_once, read_pairs
from runners.data.pool.shards import close_shard, encode_image, write_sample
from runners.data.reading import order
from runners.data.reading.training_data import Source
from runners.data.reading.training_set import StreamedSet
from runners.embedded.embedded_pool import TrainingPairs
from runners.host import faults
from runners.store import shard_reader
from runners.store.cache import CACHE_SIZE, Cache
from runners.store.copies import pool_at, set_at
from runners.store.location import Location
from runners.store.shard_reader import PREFETCH_REQUESTS, PREFETCH_SIZE
from tests.fresh import in_fresh_process
from tests.runners.data.images import read_images
from tests.runners.data.reading.test_training_set import lengths
from tests.runners.store.bucket import Bucket
from tests.runners.tiny import tiny_pool

pytestmark = pytest.mark.slow

SHARDS, EACH, BATCH, PIECE = 4, 100, 50, 2**14
ALL = np.arange(SHARDS * EACH)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """Return four shards of a user, indexed in their folder."""
    path = tmp_path_factory.mktemp("pools") / "theirs"
    path.mkdir()
    pairs = list(TrainingPairs(seed=6, count=SHARDS * EACH))
    for number in range(SHARDS):
        with (path / f"{number}.tar").open("wb") as file:
            for place, pair in enumerate(pairs[number * EACH : (number + 1) * EACH]):
                members = {"png": encode_image(pair.image), "txt": pair.caption.encode(), "json": b"{}"}
                write_sample(file, f"{number}{place:03d}", members)
            close_shard(file)
    return build_pool(path, Build(source=path, in_place=True), lambda *_: None)


@pytest.fixture(scope="module")
def uploaded(bucket: Bucket, folder: Pool) -> str:
    """Return the URL of the shards alone."""
    storage, url = Location(bucket.url), f"{bucket.url}/theirs"
    for shard in folder.shards:
        storage.put(folder.path / shard, f"theirs/{shard}")
    return url


@pytest.fixture(scope="module")
def index(uploaded: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the index of the shards below the URL."""
    path = tmp_path_factory.mktemp("pools") / "index"
    return build_pool(path, Build(source=path, url=uploaded, in_place=True), lambda *_: None).path


@pytest.fixture
def away(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pool:
    """Return the pool below the URL, with an empty cache, small pieces and small windows."""
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    monkeypatch.setattr(shard_reader, "PIECE", PIECE)
    monkeypatch.setattr(order, "BLOCK", 16)
    monkeypatch.setattr(order, "WINDOW", 4)
    return Pool.open(index)


def seen_by_workers(pool: Pool, **how: int) -> list[Tensor]:
    """Return what `seen` does in a process that forks two workers, with the small sizes of `away`."""
    small = {
        f"{shard_reader.__name__}.PIECE": PIECE,
        f"{order.__name__}.BLOCK": 16,
        f"{order.__name__}.WINDOW": 4,
    }
    return in_fresh_process(partial(seen, pool, workers=2, **how), small)


def seen(pool: Pool, *, workers: int = 0, rank: int = 0, ranks: int = 1, first: int = 0) -> list[Tensor]:
    data = StreamedSet(
        sources=[Source(pool=pool, rows=ALL[::2])],
        image_size=32,
        tokens=lengths,
        workers=workers,
        rank=rank,
        ranks=ranks,
    )
    batches = data.batches(seed=5, batch_size=BATCH, first_step=first, steps=8)
    return [image for batch in batches for image in batch.images]


class AtOnce:
    """A queue whose tasks are done as they come, so that their number and order are always the same."""

    def put(self, task: Callable[[], None]) -> None:
        task()


class Requests:
    """The requests of this process, each with its first and last byte."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[tuple[str, int, int]] = []
        read = Location._range  # noqa: SLF001 - each call is a request

        def count(storage: Location, name: str, start: int, stop: int) -> bytes:
            self.made.append((name, start, stop))
            return read(storage, name, start, stop)

        monkeypatch.setattr(Location, "_range", count)


def test_the_index_is_the_same_and_the_shards_stay_away(away: Pool, folder: Pool) -> None:
    assert away.fingerprint == folder.fingerprint
    assert away.frame.equals(folder.frame)
    assert away.shards == folder.shards
    assert not list(away.path.rglob("*.tar"))
    assert not_indexed(away) is None


@pytest.mark.parametrize(("workers", "ranks", "first"), [(0, 1, 0), (2, 2, 3)])
def test_order_ranks_and_resume_are_those_of_a_folder(
    away: Pool, folder: Pool, workers: int, ranks: int, first: int
) -> None:
    for rank in range(ranks):
        see = seen_by_workers if workers else seen
        found = see(away, rank=rank, ranks=ranks, first=first)
        expected = seen(folder, rank=rank, ranks=ranks, first=first)
        assert len(found) == (8 - first) * BATCH // ranks
        assert all(map(torch.equal, found, expected))


def test_each_byte_is_fetched_once_for_all_trials_and_neighbours_come_together(
    away: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = Requests(monkeypatch)
    first = seen(away)
    fetched = sum(stop - start for _, start, stop in requests.made)
    assert fetched <= sum(away.shards.values())
    assert len({(name, start) for name, start, _ in requests.made}) == len(requests.made)
    again = len(requests.made)
    assert all(map(torch.equal, seen(Pool.open(away.path)), first))
    assert len(requests.made) == again

    shutil.rmtree(os.environ[CACHE])
    requests.made.clear()
    monkeypatch.setattr(shard_reader, "_tasks", lambda *_: AtOnce())
    assert all(map(torch.equal, seen(Pool.open(away.path)), first))
    # The windows of 64 of 200 pairs divide the 140 pieces of 16 kB, up to 32 of which are one request.
    assert len(requests.made) < 140 / 7


def test_two_nodes_fetch_their_parts_of_the_windows_alone(
    away: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order, "BLOCK", 32)
    monkeypatch.setattr(order, "WINDOW", 6)
    monkeypatch.setattr(shard_reader, "PIECE", 2**12)
    monkeypatch.setattr(shard_reader, "_tasks", lambda *_: AtOnce())
    requests = Requests(monkeypatch)

    def fetched(*, rank: int, ranks: int) -> tuple[int, list[Tensor]]:
        """Return the bytes that a node with an empty cache fetches in an epoch, and its images."""
        monkeypatch.setenv(CACHE, str(tmp_path / f"{rank} of {ranks}"))
        requests.made.clear()
        source = Source(pool=Pool.open(away.path), rows=ALL)
        data = StreamedSet(sources=[source], image_size=32, tokens=lengths, rank=rank, ranks=ranks)
        batches = data.batches(seed=5, batch_size=200, first_step=0, steps=2)
        images = [batch.images for batch in batches]
        return sum(stop - start for _, start, stop in requests.made), images

    whole, every = fetched(rank=0, ranks=1)
    nodes = [fetched(rank=rank, ranks=2) for rank in range(2)]
    assert whole >= sum(away.shards.values()) * 0.9
    assert max(size for size, _ in nodes) <= 0.65 * whole
    for batch, *halves in zip(every, *(images for _, images in nodes), strict=True):
        assert torch.equal(batch, torch.cat(halves))


def test_what_is_read_once_is_fetched_alone_and_not_kept(
    away: Pool, folder: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = Requests(monkeypatch)
    scattered = folder.index.rows(ALL[::20], READ_COLUMNS)
    together = folder.index.rows(ALL, READ_COLUMNS)

    images, damage = read_once(away.place, scattered)
    every, _ = read_once(away.place, together)

    fetched = [stop - start for _, start, stop in requests.made]
    assert not damage
    assert images == read_once(folder.place, scattered)[0]
    assert images == every[::20]
    assert sum(fetched[: len(images)]) == scattered["length"].sum()
    assert len(fetched) - len(images) <= SHARDS * 2, "neighbours come together"
    assert not [*(tmp_path / "cache").rglob("pieces/[0-9]*/*")]


def test_failing_requests_are_repeated(away: Pool, folder: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "_PAUSES_S", (0.001,))
    read, turn, calls = Location._range, threading.Lock(), [0, 0]  # noqa: SLF001 - each call is a request

    def sometimes(storage: Location, name: str, start: int, stop: int) -> bytes:
        with turn:
            calls[0] += 1
            failing = calls[0] % 3 == 0
            calls[1] += failing
        if failing:
            raise OSError("connection reset")
        content = read(storage, name, start, stop)
        return content[:-1] if calls[0] % 4 == 0 else content  # cut on its way

    monkeypatch.setattr(Location, "_range", sometimes)
    pairs = read_pairs(away, ALL, ALL, 32)
    assert pairs.damage == ()
    assert np.array_equal(pairs.images, read_images(folder, ALL, 32))
    assert calls[1] > 3


def test_missing_and_changed_shards_are_damage_and_counted(away: Pool, uploaded: str, folder: Pool) -> None:
    storage = Location(uploaded)
    content = (folder.path / "1.tar").read_bytes()
    other = bytearray(content)
    other[folder.frame["offset"][EACH + 7] + 100] ^= 1
    try:
        storage.write("1.tar", bytes(other))
        storage.delete(["2.tar"])
        with pytest.raises(ValueError, match=rf"shard {uploaded}/2.tar is missing .* 100 of 400 pairs"):
            Pool.open(away.path)
        pool = Pool.open(away.path, tolerance=0.3)
        found = {(each.shard, each.key, each.reason) for each in read_pairs(pool, ALL, ALL, 32).damage}
        assert ("1.tar", "1007", "not the bytes that were indexed") in found
        assert {each for each in found if each[0] == "2.tar"} == {
            ("2.tar", f"2{place:03d}", "shard missing") for place in range(EACH)
        }
        assert len(found) == 1 + EACH
        storage.write("2.tar", b"")
        storage.write("1.tar", content[: folder.frame["offset"][EACH + 90] + 5])
        shutil.rmtree(os.environ[CACHE])
        pool = Pool.open(away.path, tolerance=1)
        cut = {(each.shard, each.reason) for each in read_pairs(pool, ALL, ALL, 32).damage}
        assert cut == {("1.tar", "shard cut short"), ("2.tar", "shard cut short")}
    finally:
        for shard in ("1.tar", "2.tar"):
            storage.put(folder.path / shard, shard)


def test_batches_do_not_look_up_pieces_that_their_window_has_queued(
    away: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    has = Cache.has

    def count(cache: Cache, name: str, size: int | None = None) -> bool:
        looked.append(name)
        return has(cache, name, size)

    monkeypatch.setattr(Cache, "has", count)
    requests = Requests(monkeypatch)
    images = len(seen(away))
    pieces = sum(-(-(stop - start) // PIECE) for _, start, stop in requests.made)
    assert images == 400
    assert len(looked) < 1.5 * pieces


def test_damaged_pieces_of_the_cache_are_fetched_again(away: Pool, folder: Pool) -> None:
    expected = read_images(folder, ALL, 32)
    assert np.array_equal(read_images(away, ALL, 32), expected)
    pieces = [path for path in Path(os.environ[CACHE]).rglob("*") if path.is_file() and path.stat().st_size]
    assert len(pieces) > SHARDS * 20
    for number, path in enumerate(pieces):
        content = path.read_bytes()
        path.write_bytes((content[:-7], bytes(len(content)), b"")[number % 3])  # after a power failure
    assert np.array_equal(read_images(away, ALL, 32), expected)


@pytest.mark.parametrize("size", ["0", "1 MB"])
def test_a_small_cache_keeps_its_size_and_gives_the_same_samples(
    size: str, away: Pool, folder: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_SIZE, size)
    pool = Pool.open(away.path)
    assert all(map(torch.equal, seen_by_workers(pool), seen(folder)))
    taken = sum(path.stat().st_size for path in Path(os.environ[CACHE]).rglob("*") if path.is_file())
    assert taken <= {"0": 0, "1 MB": 1_250_000}[size]


def test_the_environment_sets_how_much_is_fetched_ahead(
    away: Pool, folder: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(CACHE_SIZE)
    assert Pool.open(away.path).place.ahead_bytes == 25 * 10**9  # a quarter of the cache
    for size, expected in (("3 MB", 3_000_000), ("900 GB", 50 * 10**9), ("0", 0)):
        monkeypatch.setenv(PREFETCH_SIZE, size)
        assert Pool.open(away.path).place.ahead_bytes == expected
    before = set(threading.enumerate())
    monkeypatch.setenv(PREFETCH_REQUESTS, "3")
    pool = Pool.open(away.path)
    assert np.array_equal(read_images(pool, ALL, 32), read_images(folder, ALL, 32))
    assert len(set(threading.enumerate()) - before) == 3
    for variable, text, message in (
        (PREFETCH_SIZE, "3 pears", "STUDY_PREFETCH_SIZE: .*pears"),
        (PREFETCH_REQUESTS, "0", "STUDY_PREFETCH_REQUESTS: '0' must be from 1 to 256"),
    ):
        monkeypatch.setenv(variable, text)
        with pytest.raises(ValueError, match=f"^{message}"):
            _ = Pool.open(away.path).place


def test_the_copy_of_a_pool_has_its_index_and_evaluation_sets_and_follows_it(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = Pool.open(tiny_pool(tmp_path / "tiny"))
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    storage, url = Location(f"{bucket.url}/built"), f"{bucket.url}/built"
    with pytest.raises(ValueError, match=rf"^pool {url} can't be read: no file is below this URL$"):
        pool_at(url, tmp_path / "none")
    storage.put(pool.path / "shards" / "00000.tar", "shards/00000.tar")
    with pytest.raises(
        ValueError, match=rf"^{url} has no pool.json. Index its shards with `data build {url} "
    ):
        pool_at(url, tmp_path / "none")
    for path in pool.path.rglob("*"):
        if path.is_file():
            storage.put(path, path.relative_to(pool.path).as_posix())
    copy = tmp_path / Location(url).copy_name
    found = Pool.open(pool_at(url, copy))
    assert (found.fingerprint, found.copy_of) == (pool.fingerprint, url)
    assert not (copy / "shards").exists()
    assert (copy / "evaluation" / "held-out" / "test" / "0.tar").exists()
    rows = np.arange(pool.count)
    assert np.array_equal(read_images(found, rows, 32), read_images(pool, rows, 32))
    (part,) = Path(os.environ[CACHE]).rglob("00000.parquet")
    assert not list(copy.glob("index/0*")), "the cache has the parts, and may remove them"
    assert part.stat().st_size

    with pytest.MonkeyPatch.context() as late:
        late.setattr(bucket, "lag_s", 3600)
        assert Pool.open(pool_at(url, tmp_path / "late")).fingerprint == pool.fingerprint

    (copy / "vocabulary.txt").unlink()
    pool_at(url, copy)
    assert not (copy / "vocabulary.txt").exists(), "an unchanged copy is not copied again"
    storage.write("shards/new.tar", b"tar")
    storage.write("left-out.parquet", b"new")
    assert (pool_at(url, copy) / "vocabulary.txt").exists()
    message = not_indexed(Pool.open(copy))
    assert message is not None
    assert message.startswith(f"1 tars in {url} are not in its index, the first is shards/new.tar")


def test_missing_credentials_are_one_line(away: Pool, uploaded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    client = get_filesystem_class("s3")
    client.clear_instance_cache()
    with pytest.raises(
        ValueError, match=rf"^pool {uploaded} can't be read: .*: no credentials were found; set the"
    ) as found:
        Pool.open(away.path)
    assert "\n" not in str(found.value)
    client.clear_instance_cache()


def test_a_copied_set_is_copied_again_if_a_file_changes_without_a_change_of_size(tmp_path: Path) -> None:
    there = tmp_path / "there" / "test"
    there.mkdir(parents=True)
    (there / "labels").write_text("0 1")
    copy = set_at(f"file://{there.parent}", tmp_path / "copy")
    assert (copy / "test" / "labels").read_text() == "0 1"

    (there / "labels").write_text("1 0")
    os.utime(there / "labels", (1e9, 1e9))

    assert (set_at(f"file://{there.parent}", tmp_path / "copy") / "test" / "labels").read_text() == "1 0"
