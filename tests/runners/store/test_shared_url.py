"""Pools that are built and scored by workers that share nothing but a URL."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from budgets.machine_cache import CACHE
from runners.data.build import new_shards
from runners.data.build.build import Build
from runners.data.build.build_pool import build_pool
from runners.data.build.known_scores import json_facts
from runners.data.build.rescore import set_score
from runners.data.pool.pool import Pool, Scorer
from runners.data.pool.reader import read_pairs
from runners.host.workers import Report
from runners.store.copies import pool_at
from runners.store.location import Location
from runners.store.shared_folder import SCORING, open_shared
from tests.runners.data.index.test_index import EACH, SHARDS, write_shards
from tests.runners.data.indexed import field
from tests.runners.store.bucket import Bucket
from tests.runners.store.other_machines import OtherMachines
from tests.runners.tiny import tiny_pool

pytestmark = pytest.mark.slow


@pytest.fixture
def url(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URL of tars, of which one has damage, in shards and parts of a few pairs."""
    monkeypatch.setattr("runners.data.build.build_pool.PAIRS_PER_SHARD", 64)
    monkeypatch.setattr(new_shards, "ROWS_PER_PART", 2 * EACH)
    (tmp_path / "driver").mkdir()
    monkeypatch.setenv(CACHE, str(tmp_path / "driver"))
    write_shards(tmp_path / "tars", range(SHARDS))
    (tmp_path / "tars" / "6.tar").write_bytes((tmp_path / "tars" / "5.tar").read_bytes()[:-20_000])
    where = f"{bucket.url}/{tmp_path.name}"
    for tar in sorted((tmp_path / "tars").iterdir()):
        Location(where).put(tar, f"tars/{tar.name}")
    return where


@pytest.fixture
def machines(tmp_path: Path) -> OtherMachines:
    return OtherMachines(tmp_path / "driver", tmp_path / "machines")


def below(url: str) -> dict[str, bytes]:
    storage = Location(url)
    return {name: storage.read(name) or b"" for name in storage.list()}


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def silent(*_: object) -> None:
    """Report nothing."""


def build(to: str, source: str, machines: OtherMachines, report: Report = silent, **options: Any) -> None:  # noqa: ANN401
    with open_shared(to) as shared:
        build_pool(
            shared.path, Build(source=shared.path, url=source, to=to, workers=machines, **options), report
        )


def score(to: str, machines: OtherMachines) -> None:
    with open_shared(to) as shared:
        facts = json_facts(Pool.open(shared.path), machines, silent, shared, ["similarity"])
        set_score(Pool.open(shared.path), facts.numbers("similarity"), Scorer(name="mine"))
        shared.publish()
        shared.delete(SCORING)


@pytest.mark.parametrize("in_place", [False, True])
def test_a_pool_below_a_url_has_the_bytes_of_a_folder(
    url: str, machines: OtherMachines, tmp_path: Path, *, in_place: bool
) -> None:
    folder = build_pool(tmp_path / "p", Build(source=tmp_path, url=f"{url}/tars", in_place=in_place), silent)
    build(f"{url}/p", f"{url}/tars", machines, in_place=in_place)
    assert below(f"{url}/p") == content(folder.path)
    assert folder.left_out["duplicate"] > 0
    assert not list((tmp_path / "driver" / "written").rglob("*.parquet"))

    copy = Pool.open(pool_at(f"{url}/p"))
    rows = copy.subset(size=40, quality="top60").rows()
    pairs = [read_pairs(pool, rows, np.arange(40), 32) for pool in (copy, folder)]
    assert np.array_equal(pairs[0].images, pairs[1].images)
    assert pairs[0].rows.equals(pairs[1].rows)


def test_tars_are_indexed_in_their_bucket_and_later_ones_are_taken_up(
    url: str, machines: OtherMachines, tmp_path: Path
) -> None:
    place = f"{url}/tars"
    build(place, place, machines, in_place=True)
    first, tars = Pool.open(pool_at(place)), {name for name in below(place) if name.endswith(".tar")}
    assert len(tars) == SHARDS + 1
    others = {name for name in below(place) if not name.startswith("index/")} - tars
    assert others == {"pool.json", "vocabulary.txt", "left-out.parquet"}
    before = below(place)
    build(place, place, machines, in_place=True)
    assert below(place) == before, "there is nothing new"

    write_shards(tmp_path / "more", range(1), seed=9)
    Location(place).put(tmp_path / "more" / "0.tar", "later/0.tar")
    build(place, place, machines, in_place=True)
    second = Pool.open(pool_at(place))
    assert second.count == first.count + EACH
    assert Pool.open(pool_at(place), holding=first.unranked).count == first.count
    after = below(place)
    assert all(after[name] == before[name] for name in before if name.startswith("index/"))


def test_the_command_that_wrote_a_pool_below_a_url_takes_up_later_shards(
    url: str, machines: OtherMachines, tmp_path: Path
) -> None:
    how = Build(source=tmp_path, url=f"{url}/tars")
    build_pool(tmp_path / "p", how, silent)
    build(f"{url}/p", f"{url}/tars", machines)
    before = below(f"{url}/p")
    write_shards(tmp_path / "more", range(2), seed=9)
    Location(url).put(tmp_path / "more" / "1.tar", "tars/later/1.tar")
    build(f"{url}/p", f"{url}/tars", machines)
    after = below(f"{url}/p")
    assert after == content(build_pool(tmp_path / "p", how, silent).path)
    assert len(after) > len(before)
    assert {name for name in before if after[name] != before[name]} == {"pool.json"}
    Location(url).put(tmp_path / "tars" / "6.tar", "tars/later/1.tar")  # shorter
    with pytest.raises(ValueError, match=rf"^{url}/tars/later/1.tar has changed since .+ bytes, now "):
        build(f"{url}/p", f"{url}/tars", machines)


@pytest.mark.parametrize("fails_at", [5, 13])
def test_a_build_that_ends_half_way_goes_on_where_it_stopped(
    url: str, machines: OtherMachines, tmp_path: Path, fails_at: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(f"{url}/p", f"{url}/tars", OtherMachines(machines.driver, machines.own, fails_at))
    assert "pool.json" not in below(f"{url}/p")
    kept = {name for name in Location(url).list("p/.p.building/parts") if name.endswith(".parquet")}
    assert len(kept) == min(fails_at - 1, SHARDS + 1)
    read = list[int]()

    def report(what: str, done: int, *_: int) -> None:
        if what == "reading":
            read.append(done)

    build(f"{url}/p", f"{url}/tars", machines, report)
    assert read == list(range(len(kept) + 1, SHARDS + 2))
    folder = build_pool(tmp_path / "p", Build(source=tmp_path, url=f"{url}/tars"), silent)
    assert below(f"{url}/p") == content(folder.path)


def test_a_pool_below_a_url_is_scored_there_and_a_stopped_scoring_goes_on(
    url: str, machines: OtherMachines, tmp_path: Path
) -> None:
    build(f"{url}/p", f"{url}/tars", machines)
    folder = build_pool(tmp_path / "p", Build(source=tmp_path, url=f"{url}/tars"), silent)
    before = below(f"{url}/p")
    with pytest.raises(KeyboardInterrupt):
        score(f"{url}/p", OtherMachines(machines.driver, machines.own, 4))
    assert {name: text for name, text in below(f"{url}/p").items() if not name.startswith(SCORING)} == before
    machines.calls.clear()
    score(f"{url}/p", machines)
    assert machines.calls == [3, 4]
    scored = set_score(folder, field(folder, "similarity"), Scorer(name="mine"))
    assert below(f"{url}/p") == {
        name: text for name, text in content(scored.path).items() if not name.startswith(SCORING)
    }


def test_other_objects_below_a_url_are_left_alone(url: str, machines: OtherMachines) -> None:
    with pytest.raises(ValueError, match=rf"^{url} already exists; remove it or choose another path"):
        build(url, f"{url}/tars", machines)


def test_a_score_is_uploaded_though_a_killed_command_left_a_file_of_its_name_and_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    path = tiny_pool(tmp_path / "there")
    count = Pool.open(path).count
    rising = np.arange(count, dtype=np.float32)

    def score_by(scores: NDArray[np.float32]) -> None:
        with open_shared(f"file://{path}") as shared:
            set_score(Pool.open(shared.path), scores, Scorer(name="mine"))
            shared.publish()

    def killed(self: Location, file: Path, name: str) -> None:
        if name == "pool.json":
            raise KeyboardInterrupt
        put(self, file, name)

    put = Location.put
    with monkeypatch.context() as patch:
        patch.setattr(Location, "put", killed)
        with pytest.raises(KeyboardInterrupt):
            score_by(rising)
    (left,) = path.glob("index/*added-1*")
    left.write_bytes(bytes(left.stat().st_size))  # as another score whose file has this size

    score_by(rising)

    assert Pool.open(path).frame["score"].tolist() == rising.tolist()
