"""``python -m study data build`` on a real icon set: every command of docs/data.md, verbatim."""

import errno
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from runners.data.pool.pool import Pool
from runners.embedded import scorer
from tests.root import ROOT
from tests.runners.data.images import read_images
from tests.runners.data.indexed import indexed
from tests.study.commands.pools.conftest import PAIRS, command, write_retrieval_set
from tests.study.conftest import Run

pytestmark = pytest.mark.slow


def test_a_folder_of_images_becomes_a_pool_and_invalid_files_are_counted(user: Path, run: Run) -> None:
    said = run(command("--from icons.csv"))
    assert said == (
        "pools/icons: 300 pairs; left out: 1 duplicate, 1 empty image file, 1 no caption, "
        "1 no such image file, 1 unreadable image\n"
    )
    pool = Pool.open(user / "pools" / "icons")
    assert pool.count == PAIRS
    first = pool.frame.iloc[0]
    source = user / "png" / f"{first['caption'].removeprefix('an icon of ').replace(' ', '-')}.png"
    with Image.open(source) as image:
        expected = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(read_images(pool, np.array([0]), 48)[0], expected)
    assert (np.diff(pool.frame["hash"].to_numpy().astype(object)) > 0).all()
    left_out = pd.read_parquet(pool.path / "left-out.parquet").set_index("reason")
    assert str(left_out.loc["no such image file", "shard"]).endswith("nowhere.png")
    assert not list((user / "pools").glob(".*"))


def test_rebuilt_shards_leave_out_images_of_evaluation_sets(owner: Path, run: Run) -> None:
    shutil.copytree(owner / "pools" / "icons" / "shards", owner / "my-shards")
    write_retrieval_set(owner / "sets" / "icons", owner / "my-shards" / "00000.tar")
    said = run(command("--without"))
    assert said == (
        "pools/web: 260 pairs; left out: 20 in an evaluation set, "
        "20 nearly the same as an image of an evaluation set\n"
    )
    out = pd.read_parquet(owner / "pools" / "web" / "left-out.parquet").set_index("key")["reason"]
    names = [f"{n:09d}" for n in range(20)]
    assert out[names].tolist() == [f"in an evaluation set: {n}.png of icons/test/0.tar" for n in names]

    uids = sorted(int(uid, 16) for uid in Pool.open(owner / "pools" / "web").frame["uid"])[:25]
    np.save(owner / "subset.npy", np.array([(0, uid) for uid in uids], np.dtype("u8,u8")))
    assert "named subset basic: 25 pairs" in run(command("subset.npy"))
    rows = Pool.open(owner / "pools" / "web").subset(size=None, quality="subset:basic").rows()
    found = Pool.open(owner / "pools" / "web").frame["uid"].iloc[rows]
    assert sorted(int(uid, 16) for uid in found) == uids

    before = (owner / "my-shards" / "00000.tar").read_bytes()
    assert "my-shards: 300 pairs; left out: none" in run(command("data build my-shards"))
    assert (owner / "my-shards" / "00000.tar").read_bytes() == before
    assert indexed(owner / "my-shards").count == PAIRS


def test_a_full_disk_names_the_pool_and_the_same_command_continues(user: Path, run: Run) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runners.data.build.new_shards.write_sample", _fill)
        said = run(command("--from icons.csv"), code=2)
    assert said == (
        "study: pools/icons could not be written: No space left on device; free some space and run the same "
        "command again to continue\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runners.data.build.build.pairs_of", _stop)  # what was read is not read again
        run(command("--from icons.csv"))
    assert Pool.open(user / "pools" / "icons").count == PAIRS


def test_a_build_that_is_killed_again_and_again_ends_with_the_same_bytes(user: Path, run: Run) -> None:
    run(command("--from icons.csv"))
    pool = user / "pools" / "icons"
    whole = {path.relative_to(pool): path.read_bytes() for path in pool.rglob("*") if path.is_file()}
    shutil.rmtree(user / "pools")
    work = user / "pools" / ".icons.building"
    words = [sys.executable, "-m", "study", *shlex.split(command("--from icons.csv"))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    # Killed when it begins, when the source is read, and while it writes.
    for reached in ("source", "parts/000000.parquet", "pool/shards/*"):
        with subprocess.Popen(words, cwd=user, env=environment, stdout=subprocess.DEVNULL) as process:
            until = time.monotonic() + 60
            while not list(work.glob(reached)) and process.poll() is None and time.monotonic() < until:
                time.sleep(0.002)
            process.kill()
    if not pool.exists():
        run(command("--from icons.csv"))
    assert {path.relative_to(pool): path.read_bytes() for path in pool.rglob("*") if path.is_file()} == whole


def _fill(*_words: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _stop(*_words: object) -> None:
    raise RuntimeError("stopped")


def test_several_workers_build_the_same_pool(user: Path, run: Run) -> None:
    run(command("--from icons.csv"))
    run("data build pools/icons2 --from icons.csv --workers 2")
    one, two = (Pool.open(user / "pools" / name) for name in ("icons", "icons2"))
    assert one.fingerprint == two.fingerprint
    assert (one.path / "shards/00000.tar").read_bytes() == (two.path / "shards/00000.tar").read_bytes()


def test_the_embedded_pool_is_built_by_command(user: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer, "SAMPLES", 1024)  # little training: the scores themselves do not matter
    said = run(command("embedded:256"))
    assert "256 pairs; left out: none" in said
    assert Pool.open(user / "pools" / "emoji").scored
