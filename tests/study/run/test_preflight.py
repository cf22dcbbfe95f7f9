"""`study check` tries a cluster before a run spends anything, and names the node that is broken."""

import json
import re
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from budgets.machine_cache import CACHE
from runners.scheduling.backend import Job
from runners.scheduling.local_backend import LocalBackend
from runners.store.location import Location
from runners.trials.throughput import Calibration, Throughput, read_calibration
from study.cli import main
from study.run.study_preflight import preflight
from study.run.try_kinds import run_jobs
from tests.runners.store.bucket import Bucket
from tests.study.ray_head import Head
from tests.study.tiny_study import TinyStudy

pytestmark = pytest.mark.slow


def check(tiny: TinyStudy, options: str = "--backend local", *, code: int = 0) -> list[dict[str, str]]:
    """Check a study, expect an exit code, and return what was found."""
    return [json.loads(line) for line in tiny.says(f"check {options} --json", code=code).splitlines()]


def verdicts(checks: list[dict[str, str]]) -> set[str]:
    return {each["verdict"] for each in checks}


@pytest.fixture(scope="module")
def two_nodes(head: Head) -> Iterator[str]:
    """Let a second node join; return the cluster's address."""
    with head.joined():
        yield head.address


OVER_TWO_NODES = {"resources": "cpus: 2, nodes: 2, ranks: 2"}


@pytest.mark.ray
@pytest.mark.usefixtures("on_ray")
def test_two_sound_nodes_pass_and_their_speeds_are_kept(tiny: TinyStudy, two_nodes: str) -> None:
    tiny.declare(strategies="clip, siglip")

    checks = check(tiny, f"--address {two_nodes}")

    assert verdicts(checks) <= {"ok", "slow"}
    names = [each["what"] for each in checks]
    assert names.count("versions") == names.count("clock") == names.count("storage") == 2
    assert names.count("locks") == 2
    assert {"mini-ViT-XXS-8 clip", "mini-ViT-XXS-8 siglip"} <= set(names)
    (clip,) = [each["found"] for each in checks if each["what"] == "mini-ViT-XXS-8 clip"]
    assert re.fullmatch(
        r"batch 16 in \w+: [\d,]+ samples/s, waits \d+ % of the time for data, \d+ MiB, \d+ MiB estimated, "
        r"checkpoint of [1-9]\d* MiB written in [\d.]+ s, read in [\d.]+ s",
        clip,
    )
    kept = read_calibration(tiny.study.calibration)
    assert kept is not None
    assert {each.strategy for each in kept.kinds} == {"clip", "siglip"}
    assert not (tiny.folder / "trials").exists(), "nothing was run"
    assert not list(tiny.folder.glob(".preflight*"))


@pytest.mark.ray
@pytest.mark.usefixtures("on_ray")
def test_kind_that_takes_two_nodes_computes_over_both(tiny: TinyStudy, two_nodes: str) -> None:
    tiny.declare(**OVER_TWO_NODES)

    checks = {each["what"]: each for each in check(tiny, f"--address {two_nodes}")}

    ranks, kind = checks["ranks of mini-ViT-XXS-8 clip"], checks["mini-ViT-XXS-8 clip"]
    assert ranks["found"].startswith("2 over gloo: sum 1,")
    assert "samples/s" in kind["found"]
    assert not list(tiny.folder.glob(".preflight*"))


@pytest.mark.parametrize(
    ("resources", "lacks"),
    [
        (OVER_TWO_NODES["resources"], "there are no 2 nodes that have room for a trial of 1 cpus"),
        ("cpus: 640", "no node has room for a trial of 640 cpus"),
    ],
)
def test_kind_for_which_nodes_have_no_room_fails_as_its_run_would(
    tiny: TinyStudy, resources: str, lacks: str
) -> None:
    tiny.declare(resources=resources)

    checks = check(tiny, code=1)

    (failed,) = [each for each in checks if each["verdict"] == "failed"]
    assert (failed["what"], failed["advice"]) == ("mini-ViT-XXS-8 clip", "see resources: in the declaration")
    assert re.fullmatch(rf"{lacks}; nodes have: \d+ cpus", failed["found"])
    assert failed["found"] in tiny.run(code=2)


@pytest.mark.ray
def test_address_without_a_cluster_fails_the_first_check_before_a_pool_is_built(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = ["--results", str(tmp_path / "results"), "--pools", str(tmp_path / "pools")]

    assert main(["check", "demo", *folders, "--address", "127.0.0.1:9", "--json"]) == 1

    only = json.loads(capsys.readouterr().out)
    assert (only["what"], only["verdict"]) == ("Ray", "failed")
    assert "127.0.0.1:9" in only["found"]
    assert not list(tmp_path.iterdir())


def test_kinds_are_tried_on_nodes_with_room_and_their_speeds_leave_calibrated_ones_at_every_width(
    tiny: TinyStudy,
) -> None:
    tiny.declare(strategies="clip, siglip", resources="cpus: 2")
    calibrated = tuple(
        Throughput(
            architecture="mini-ViT-XXS-8", strategy="clip", batch_size=16, precision="bf16", steps=10,
            samples_per_s=1000.0 * gpus, memory_bytes=1, gpus=gpus,
        )
        for gpus in (1, 2)
    )  # fmt: skip
    file = tiny.study.calibration
    file.parent.mkdir()
    Calibration(machine="here", device=None, side_by_side=1, kinds=calibrated).write(file)
    tried: dict[str, tuple[str, ...]] = {}

    class Unequal(LocalBackend):
        def start(self, job: Job) -> None:
            tried[job.trial] = job.nodes
            super().start(job)

    nodes = {"small": {"cpus": 1.0}, "large": {"cpus": 4.0}}
    checks = preflight(tiny.study, lambda: Unequal(nodes), where="backend")

    assert {each.verdict for each in checks} <= {"ok", "slow"}
    assert tried["mini-ViT-XXS-8 clip"] == tried["mini-ViT-XXS-8 siglip"] == ("large",)
    kept = read_calibration(file)
    assert kept is not None
    assert (kept.machine, kept.kinds[:2]) == ("here", calibrated)
    assert [each.strategy for each in kept.kinds[2:]] == ["siglip"]


def test_trials_to_which_a_rule_gives_other_resources_are_a_kind_of_their_own(tiny: TinyStudy) -> None:
    rules = "rules: [{levels: 9 GFLOP, cpus: 640}]"
    tiny.declare(levels="3 GFLOP, 9 GFLOP", resources=rules)

    named, first = check(tiny, code=1)[-2:]

    assert first["what"] == "mini-ViT-XXS-8 clip"
    assert first["verdict"] in {"ok", "slow"}
    assert named["what"] == "mini-ViT-XXS-8 clip on 512 pairs (top50) at 9 GFLOP"
    assert named["verdict"] == "failed"
    assert "640 cpus" in named["found"]
    kept = read_calibration(tiny.study.calibration)
    assert kept is not None
    assert len(kept.kinds) == 1


def test_check_of_a_study_in_a_bucket_needs_no_run_before_it_and_takes_no_trial_over(
    tiny: TinyStudy, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE, str(tiny.place / "cache"))
    tiny.declare(more=f"storage: {bucket.url}\n")
    (trial,) = tiny.plan.trials
    owner = f"results/tiny/trials/{trial.trial_id}/owner"
    Location(bucket.url).write(owner, b"a run elsewhere")

    assert verdicts(check(tiny)) <= {"ok", "slow"}

    assert Location(bucket.url).read(owner) == b"a run elsewhere"
    assert list(Location(bucket.url).list("results")) == [owner.removeprefix("results/")]
    assert not list((tiny.place / "cache").glob("*/results/tiny/trials/*"))

    bucket.go_away()
    found = {each["what"]: each for each in check(tiny, code=1)}
    assert found.keys() == {"backend", "storage", "pools"}
    for each in found["storage"], found["pools"]:
        assert each["verdict"] == "failed"
        assert re.match(rf"storage {bucket.url}\S* is unreachable: ", each["found"])


def test_a_node_that_does_not_answer_fails_its_check() -> None:
    task = Job(trial="node a", nodes=("this machine",), run=partial(time.sleep, 300), resources={})

    with LocalBackend(modules=()) as backend:
        ((found, reason),) = run_jobs(backend, [task], answer_s=1)

    assert found is task
    assert re.match(r"no answer in 1 s: .*firewall .*`ray start`", str(reason))
