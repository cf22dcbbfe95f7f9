"""Commands on a pool for this machine and for a cluster, and the death of a node half way."""

import io
import json
import os
import tarfile
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image
from ray.cluster_utils import Cluster

from runners.host.workers import Report
from runners.scheduling.ray_backend.ray_private import StartedNode
from study.cli import main as study
from study.show.view import WorkProgress

TARS, PAIRS = 6, 30
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


def content(pool: Path) -> dict[str, bytes]:
    """Return a pool's files without the one that names the last writer."""
    files = (path for path in pool.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(pool)): path.read_bytes() for path in files}


def killing(cluster: Cluster, node: StartedNode, task: str) -> Callable[[WorkProgress], Report]:
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
