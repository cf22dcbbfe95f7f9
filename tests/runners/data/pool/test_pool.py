"""Opening of pools, and in-place indexing of shards from other tools."""

import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runners.data.build.build import Build
from runners.data.build.build_pool import build_pool
from runners.data.build.source import not_indexed
from runners.data.index.selection import bins
from runners.data.pool.pool import Pool
from runners.data.pool.shards import content_hash
from runners.embedded.embedded_pool import TrainingPairs
from tests.runners.data.images import captions, read_images, write_pool
from tests.runners.data.indexed import indexed

Sample = tuple[str, dict[str, bytes]]


def encoded(width: int, height: int, kind: str = "JPEG", colour: int = 128) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (colour, 60, 200)).save(file, kind)
    return file.getvalue()


def write_tar(path: Path, samples: list[Sample]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for key, members in samples:
            for ending, content in members.items():
                member = tarfile.TarInfo(f"{key}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def sample(number: int, **facts: object) -> Sample:
    members = {
        "jpg": encoded(40 + number, 30, colour=10 * number),
        "json": json.dumps({"caption": f"Number {number}!", **facts}).encode(),
        "txt": f"  Number\n{number}! ".encode(),
    }
    return f"{number:09d}", members


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tar(tmp_path / "web" / "00000.tar", [sample(n, similarity=n / 10) for n in range(6)])
    write_tar(tmp_path / "web" / "more" / "00001.tar", [sample(n, similarity=n / 10) for n in range(6, 10)])
    return tmp_path / "web"


def test_folder_of_shards_is_indexed_in_place_on_opening(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*.tar")}
    pool = indexed(folder)
    assert {path: path.read_bytes() for path in folder.rglob("*.tar")} == before
    assert (pool.name, pool.count, pool.scored) == ("web", 10, 10)
    row = pool.frame.iloc[7]
    assert (row["key"], row["shard"], row["caption"]) == ("000000007", "more/00001.tar", "Number 7!")
    assert (row["width"], row["height"]) == (47, 30)
    assert row["hash"] == content_hash(encoded(47, 30, colour=70), "Number 7!")
    assert np.concatenate([*bins(pool.index, "score")]).tolist() == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    assert pool.vocabulary[0] == "number"
    best = pool.subset(size=None, quality="top20").rows()
    assert captions(pool, best) == ["Number 8!", "Number 9!"]
    assert read_images(pool, best, 24)[:, 0].mean(axis=(1, 2)) == pytest.approx([80, 90], abs=3)


def test_a_folder_without_index_is_not_opened_and_nothing_is_written(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    with pytest.raises(ValueError, match=r"it has no pool\.json; .*build .*/web --in-place` indexes them"):
        Pool.open(folder)
    assert sorted(folder.rglob("*")) == before


def test_without_scores_only_quality_all_is_offered(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [sample(n) for n in range(5)])
    pool = indexed(tmp_path)
    assert pool.scored == 0
    assert set(np.concatenate([*bins(pool.index, "score")])) == {-1}
    assert len(pool.subset(size=None, quality="all")) == 5
    with pytest.raises(ValueError, match=r"'top20' needs scores, but 0 of the pool's 5 pairs have one"):
        pool.subset(size=1, quality="top20")


def test_png_webp_and_captions_in_json_alone_count_as_pairs(tmp_path: Path) -> None:
    caption = json.dumps({"caption": "from json"}).encode()
    samples = [
        ("a", {"png": encoded(8, 8, "PNG"), "txt": b"one"}),
        ("b", {"webp": encoded(8, 8, "WEBP"), "json": caption}),
        ("c", {"jpeg": encoded(8, 8), "json": b"not json", "txt": b"three"}),
    ]
    write_tar(tmp_path / "0.tar", samples)
    assert indexed(tmp_path).frame["caption"].tolist() == ["one", "from json", "three"]


def test_indexing_a_written_pool_anew_gives_the_same_pool(tmp_path: Path) -> None:
    scores = np.linspace(-1, 1, 25).astype(np.float32)
    written = write_pool(tmp_path / "p", TrainingPairs(seed=5, count=25), scores)
    (written.path / "pool.json").unlink()
    again = indexed(written.path)
    assert again.fingerprint == written.fingerprint
    assert again.frame.equals(written.frame)
    assert again.vocabulary == written.vocabulary


def test_shards_that_changed_since_they_were_indexed_are_not_read(folder: Path) -> None:
    indexed(folder)
    (folder / "00000.tar").write_bytes(b"\0" * 512)
    with pytest.raises(ValueError, match=r"00000\.tar is missing or not as it was indexed .*delete"):
        Pool.open(folder)


def test_tars_added_after_indexing_are_reported_but_not_those_of_sets_and_hidden_folders(
    folder: Path,
) -> None:
    pool = indexed(folder)
    assert not_indexed(pool) is None
    write_tar(folder / "more" / "00002.tar", [sample(20)])
    write_tar(folder / "evaluation" / "mine" / "test" / "0.tar", [sample(50)])
    write_tar(folder / ".other.partial-x" / "0.tar", [sample(60)])
    message = not_indexed(Pool.open(folder))
    assert message is not None
    assert message.startswith(f"1 tars in {folder} are not in its index, the first is more/00002.tar")
    (folder / "pool.json").unlink()
    assert indexed(folder).count == 11


def test_built_index_includes_tars_without_pairs_and_links(folder: Path) -> None:
    write_tar(folder / "empty.tar", [])
    shutil.copy(folder / "00000.tar", folder.parent / "elsewhere.tar")
    (folder / "00000.tar").unlink()
    (folder / "00000.tar").symlink_to(folder.parent / "elsewhere.tar")
    pool = build_pool(folder, Build(source=folder, in_place=True), lambda *_: None)
    assert not_indexed(pool) is None
    assert set(pool.frame["shard"]) == {"00000.tar", "more/00001.tar"}
    assert read_images(pool, np.arange(10), 24).shape == (10, 3, 24, 24)


def test_a_folder_that_is_no_pool_says_why(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"no such pool: .*nowhere is not a folder"):
        Pool.open(folder / "nowhere")
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match=r"neither a pool\.json nor any \.tar shard"):
        indexed(folder / "empty")
    indexed(folder)
    file = folder / "pool.json"
    whole = json.loads(file.read_text(encoding="utf-8"))
    needed = whole.keys() - {"data_columns"}
    without = (({name: each for name, each in whole.items() if name != key}, key) for key in needed)
    for content, message in (
        *((text, "") for text in ("", "[]", "{}", "{")),
        *((json.dumps(facts), rf": KeyError\('{key}'\)") for facts, key in without),
    ):
        file.write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=rf"pool\.json does not describe a pool{message}"):
            Pool.open(folder)
    file.write_text(json.dumps(whole | {"format": 99}), encoding="utf-8")
    with pytest.raises(ValueError, match="a pool of format 99; this version reads 1"):
        Pool.open(folder)
