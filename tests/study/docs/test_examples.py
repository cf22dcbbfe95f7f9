"""examples/ and docs/cluster-tutorial.md: declarations can be planned, commands are accepted."""

import math
import os
import re
import shlex
import socket
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from runners.scheduling.nodes import has_room
from study.cli import make_parser
from study.declare.load import load_declaration
from study.state.plan_study import plan_study
from study.state.study import find_study, needs
from tests.root import ROOT
from tests.study import shown
from tests.study.conftest import Run

EXAMPLES = ROOT / "examples"
RUN = f"run with /disk/clip-scaling-study-{os.getuid()}"  # the cache on the node's own disk
DECLARATIONS = [path for path in EXAMPLES.glob("*.yaml") if "\nstudy: " in path.read_text(encoding="utf-8")]
TUTORIAL = "docs/cluster-tutorial.md"
# The declaration with a pool and evaluation sets that need not be here.
DESCRIBED = (
    (r"pool: .+", "pool: {name: web, pairs: 100M, scored: true}"),
    (r"imagenet: .+", "imagenet: {images: 50000, texts: 80000}"),
    (r"imagenet-v2: .+", "imagenet-v2: {images: 10000, texts: 80000}"),
    (r"flickr30k: .+", "flickr30k: {images: 1000, texts: 5000}"),
)


def described(example: Path, written: Path) -> Path:
    """Write an example's declaration with a pool and sets that need not be here."""
    text = example.read_text(encoding="utf-8")
    for pattern, described in DESCRIBED:
        text = re.sub(rf"(?m)^( *){pattern}$", rf"\1{described}", text)
    written.write_text(text, encoding="utf-8")
    return written


def kubernetes() -> tuple[dict[str, float], int, float]:
    """Return the resources of a worker of the manifest, the most workers, and GiB of shared memory."""
    job = yaml.safe_load((EXAMPLES / "kuberay.yaml").read_text(encoding="utf-8"))
    (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    pod = group["template"]["spec"]
    has = pod["containers"][0]["resources"]
    assert has["limits"] == has["requests"], "Ray counts the limits"
    (shared,) = [volume["emptyDir"]["sizeLimit"] for volume in pod["volumes"] if volume["name"] == "memory"]
    cpus, gpus = (float(has["limits"][name]) for name in ("cpu", "nvidia.com/gpu"))
    return {"cpus": cpus, "gpus": gpus}, group["maxReplicas"], float(shared.removesuffix("Gi"))


def slurm() -> tuple[dict[str, float], int, float]:
    """Return the same of the batch script, whose nodes are whole machines."""
    script = (EXAMPLES / "slurm.sh").read_text(encoding="utf-8")
    assert "#SBATCH --exclusive\n" in script
    gpus, nodes = (
        int(*re.findall(rf"#SBATCH --{name}=(\d+)", script)) for name in ("gpus-per-node", "nodes")
    )
    return {"cpus": math.inf, "gpus": gpus}, nodes, math.inf


@pytest.mark.parametrize("cluster", [kubernetes, slurm])
@pytest.mark.parametrize("example", DECLARATIONS, ids=lambda path: path.stem)
def test_every_trial_of_an_example_fits_on_the_nodes_of_each_example_of_a_cluster(
    tmp_path: Path, example: Path, cluster: Callable[[], tuple[dict[str, float], int, float]]
) -> None:
    study = find_study(
        load_declaration(described(example, tmp_path / example.name)), results=None, pools=None
    )
    node, nodes, shared_gib = cluster()

    for trial in plan_study(study).trials:
        assert has_room(node, needs(study, trial)), trial.cell
        assert trial.resources.nodes <= nodes
        loading = trial.resources.ranks_per_node * study.declaration.resources.loader_memory
        assert loading <= shared_gib * 2**30


def test_the_plan_at_real_scale_is_the_one_that_the_tutorial_shows(tmp_path: Path, run: Run) -> None:
    load_declaration(EXAMPLES / "vit-s-to-l.yaml")
    described(EXAMPLES / "vit-s-to-l.yaml", tmp_path / "big.yaml")

    planned = run(f"plan {tmp_path / 'big.yaml'}").splitlines()

    page = (ROOT / TUTORIAL).read_text(encoding="utf-8")
    (block,) = re.findall(r"```\n(vit-s-to-l: .+?)\n```", page, re.DOTALL)
    assert set(block.splitlines()) <= set(planned)
    (explain,) = [line for line in shown.commands(TUTORIAL) if "--explain" in line]
    explained = run(explain.replace("my-study.yaml", str(tmp_path / "big.yaml")))
    assert explained.startswith("ViT-L-16 clip on 40M pairs (top40) at 30 EFLOP\n")


@pytest.mark.parametrize("line", shown.commands(TUTORIAL))
def test_the_commands_of_the_cluster_tutorial_are_accepted(line: str) -> None:
    assert make_parser().parse_args(shlex.split(line)).command


def batch_job(tmp_path: Path, code: int) -> list[str]:
    """Run the batch script with stand-ins for Slurm, Ray and the study; return what it called."""
    called = tmp_path / "called"
    script = (EXAMPLES / "slurm.sh").read_text(encoding="utf-8").replace("source .venv/bin/activate", "")
    programs = {
        "scontrol": 'if [ "$1" = show ]; then echo localhost; else echo "scontrol $*" >> $CALLED; fi',
        "srun": "exit 0",
        "python": 'case "$*" in\n'
        f'  *" run "*) echo "run with $STUDY_CACHE" >> $CALLED; trap "exit {code}" USR1; '
        "echo $$ > $CALLED.driver; "
        # The limit is never near before the script listens: it catches USR1, bit 9 of the mask.
        'until grep -q "SigCgt:.*[2367abef]..$" /proc/$PPID/status; do sleep 0.05; done; '
        "kill -USR1 $PPID; while :; do sleep 0.1; done ;;\n"
        # It waits, as the command does, until the driver has ended.
        '  *" stop my.yaml --within 480s") echo stop >> $CALLED; kill -USR1 $(cat $CALLED.driver); '
        "while kill -0 $(cat $CALLED.driver); do sleep 0.1; done ;;\n"
        '  "-m study"*) echo "$3" >> $CALLED ;;\n'
        "  *) exit 0 ;;\nesac",
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(stat.S_IRWXU)
    environment = {
        "PATH": f"{tmp_path}:/usr/bin:/bin", "CALLED": str(called), "SLURM_JOB_NODELIST": "localhost",
        "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_ID": "7", "TMPDIR": "/home", "SLURM_TMPDIR": "/disk",
    }  # fmt: skip
    ended = subprocess.run(
        ["/bin/bash", "-c", f"{script}\n", "slurm.sh", "my.yaml"],
        env=environment, capture_output=True, text=True, timeout=240, check=False, start_new_session=True,
    )  # fmt: skip
    assert ended.returncode == code, ended.stderr
    return called.read_text().splitlines()


def test_the_batch_script_requeues_a_job_that_was_stopped_at_its_time_limit(tmp_path: Path) -> None:
    assert batch_job(tmp_path, code=4) == [RUN, "stop", "scontrol requeue 7"]


def test_the_batch_script_reports_when_all_trials_are_done(tmp_path: Path) -> None:
    assert batch_job(tmp_path, code=0) == [RUN, "stop", "report"]


def test_the_manifest_of_kubernetes_runs_the_study_on_workers_with_gpus() -> None:
    job = yaml.safe_load((EXAMPLES / "kuberay.yaml").read_text(encoding="utf-8"))
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    words = shlex.split(job["spec"]["entrypoint"])
    assert words[0] == "scaling-study"
    assert make_parser().parse_args(words[1:]).command == "run"
    cluster = job["spec"]["rayClusterSpec"]
    mounts = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert words[2].startswith(mounts[0]["mountPath"])
    (worker,) = cluster["workerGroupSpecs"][0]["template"]["spec"]["containers"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "8"
    (_, *hook) = worker["lifecycle"]["preStop"]["exec"]["command"]
    assert make_parser().parse_args(hook).node == socket.gethostname()
    assert {"name": "declaration", "mountPath": mounts[0]["mountPath"]} in worker["volumeMounts"]


def test_the_container_file_copies_what_the_wheel_is_built_from() -> None:
    text = (EXAMPLES / "Containerfile").read_text(encoding="utf-8")
    for name in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE):
        assert all((ROOT / each).exists() for each in name.split()), name
