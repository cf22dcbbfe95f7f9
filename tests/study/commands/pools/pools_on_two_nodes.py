"""Builds and scores a pool on this machine, and on a simulated cluster of two nodes, of which some die.

Ray reads its token when it is imported, so this is a process of its own. It prints facts as JSON.
"""

import io
import json
import os
import signal
import sys
import tarfile
import time
from argparse import Namespace
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from unittest.mock import patch

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # all on loopback

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from ray._private.node import Node
from ray.cluster_utils import Cluster

from budgets.hardware.machine_cache import CACHE
from runners.data.build import new_shards
from runners.data.build.info import summarise
from runners.evaluate import clip_score
from runners.host.storage import Storage
from runners.host.workers import Report
from study.cli import main as study
from study.run.pools.pool_site import PoolSite
from study.show.work_progress import WorkProgress
from tests.runners.host.bucket import Bucket
from tests.runners.scheduling.simulated import SMALL, simulated_cluster

TARS, PAIRS = 6, 30
BUCKET = "s3://pools"
MODEL = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
}


def write_tars(folder: Path) -> None:
    rng = np.random.default_rng(0)
    folder.mkdir()
    for number in range(TARS):
        with tarfile.open(folder / f"{number}.tar", "w") as tar:
            for place in range(PAIRS):
                drawn = io.BytesIO()
                Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(drawn, "JPEG")
                broken = place == number  # one of each tar is left out
                for ending, content in (
                    ("jpg", b"no image" if broken else drawn.getvalue()),
                    ("txt", f"picture {place} of {number}".encode()),
                ):
                    member = tarfile.TarInfo(f"{number}{place:03d}.{ending}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))


def write_model(folder: Path) -> str:
    (folder / "tiny.json").write_text(json.dumps(MODEL), encoding="utf-8")
    open_clip.add_model_config(folder / "tiny.json")
    torch.manual_seed(0)
    torch.save(open_clip.create_model("tiny").state_dict(), folder / "weights.pt")
    return f"{folder / 'tiny.json'}:{folder / 'weights.pt'}"


def run(*words: object) -> str:
    """Run a command and return what it prints."""
    with redirect_stdout(io.StringIO()) as said:
        code = study(["data", *map(str, words)])
    assert code == 0, (words, said.getvalue())
    return said.getvalue()


def work_in(folder: Path) -> Path:
    folder.mkdir()
    os.chdir(folder)
    return folder / "p"


def tell(**facts: object) -> None:
    print(json.dumps(facts), flush=True)  # noqa: T201 - to be read


def content(pool: Path) -> dict[str, bytes]:
    return {str(path.relative_to(pool)): path.read_bytes() for path in pool.rglob("*") if path.is_file()}


def process_of(folder: Path, item: int) -> int:
    """Return the process that works on an item, once two of them do."""
    (folder / str(os.getpid())).touch()
    while len(list(folder.iterdir())) < 2:
        time.sleep(0.01)
    return os.getpid() + 0 * item


def die(_item: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def fail_once(folder: Path, item: int) -> int:
    """Fail like a disk that is full for a moment."""
    if not (folder / str(item)).exists():
        (folder / str(item)).touch()
        raise OSError(28, "No space left on device")
    return item


def reason(do: Callable[[], object]) -> str:
    try:
        do()
    except ValueError as error:
        return str(error)
    return ""


def of_the_workers(cluster: Cluster, folder: Path, pool: Path, looked: str) -> None:
    """Tell how items are shared, what a node must see, and what becomes of items whose process dies."""
    folder.mkdir()
    with PoolSite(Namespace(address=cluster.address, workers=None), lambda _line: None) as site:
        workers = site.workers(folder)
        found = dict(workers.map(partial(process_of, folder), range(4)))
        tell(processes=len(set(found.values())), items=sorted(found))
        tell(unseen=reason(lambda: site.workers(folder / "nowhere")))
        tell(dies=reason(lambda: list(workers.map(die, range(1), "item {}".format))))
        tell(passes=sorted(workers.map(partial(fail_once, folder), range(3))))
        summary = dict(site.one(pool).map(partial(summarise, pool, None), range(1)))
        tell(info=summary[0] == looked.splitlines())


def killing(cluster: Cluster, node: Node, task: str) -> Callable[[WorkProgress], Report]:
    """Return the start of a progress that kills a node when half of a task's parts are finished."""
    begin = WorkProgress.__enter__

    def begins(progress: WorkProgress) -> Report:
        report = begin(progress)

        def reports(what: str, done: int, of: int, pairs: int) -> None:
            report(what, done, of, pairs)
            if what == task and done == of // 2:
                cluster.remove_node(node, allow_graceful=False)

        return reports

    return begins


def main(folder: Path) -> None:
    os.environ[CACHE] = str(folder / "cache")
    with pytest.MonkeyPatch.context() as environment:
        bucket = Bucket(environment, BUCKET.partition("://")[2])
        try:
            _in_folder(folder)
        finally:
            bucket.go_away()


def _in_folder(folder: Path) -> None:
    os.chdir(folder)
    write_tars(folder / "tars")
    model = write_model(folder)
    patch.object(new_shards, "PAIRS_PER_SHARD", 64).start()  # several new shards
    patch.object(clip_score, "_ROWS_PER_PART", 16).start()  # several parts
    build = ("build", "p", "--from", "../tars")
    score = ("score", "p", "--with", model, "--name", "mine", "--device", "cpu")

    here = work_in(folder / "here")
    run(*build, "--workers", 1)
    built = content(here)
    said, scored, looked = run(*score), content(here), run("info", "p")

    with simulated_cluster() as cluster:
        first, second = (cluster.add_node(num_cpus=1, **SMALL) for _ in range(2))
        cluster.wait_for_nodes()
        of_the_workers(cluster, folder / "meet", here, looked)
        there = ("--address", cluster.address)

        path = work_in(folder / "there")
        with patch.object(WorkProgress, "__enter__", killing(cluster, second, "reading")):
            nodes = run(*build, *there).splitlines()[0].rpartition(": ")[2]
        tell(nodes=nodes, built=content(path) == built, left_reading=len(cluster.worker_nodes))
        second = cluster.add_node(num_cpus=1, **SMALL)
        cluster.wait_for_nodes()
        with patch.object(WorkProgress, "__enter__", killing(cluster, first, "scoring")):
            tell(says=run(*score, *there).endswith(said))
        tell(scored=content(path) == scored, left_scoring=len(cluster.worker_nodes))
        below_a_url(cluster, folder, model, there)


def below_a_url(cluster: Cluster, folder: Path, model: str, there: tuple[str, str]) -> None:
    """Tell whether nodes that share a bucket write what one process writes to a folder, and one that dies."""
    for tar in (folder / "tars").iterdir():
        Storage(BUCKET).put(tar, f"tars/{tar.name}")
    path, source = work_in(folder / "alone"), f"{BUCKET}/tars"
    run("build", "p", "--from", source, "--workers", 1)
    score = ("--with", model, "--name", "mine", "--device", "cpu")
    run("score", "p", *score)
    node = cluster.add_node(num_cpus=1, **SMALL)
    cluster.wait_for_nodes()
    url = f"{BUCKET}/p"
    with patch.object(WorkProgress, "__enter__", killing(cluster, node, "reading")):
        run("build", url, "--from", source, *there)
    run("score", url, *score, *there)
    storage = Storage(url)
    found = {name: storage.read(name) for name in storage.list()}
    tell(shared_url=found == content(path), left_url=len(cluster.worker_nodes))
    written = [each.name for each in (folder / "cache" / "written").rglob("*") if each.is_file()]
    tell(left_on_the_driver=written)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
