"""`study check` tries a cluster before a run spends anything, and names the node that is broken."""

import json
import re
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from runners.scheduling.backend import Job
from runners.scheduling.local_backend import LocalBackend
from runners.trials.speed.throughput import Calibration, Throughput, read_calibration
from study.cli import main
from study.run.measure.study_preflight import run_tasks
from tests.study.conftest import write_declaration
from tests.study.ray_head import Head

pytestmark = pytest.mark.slow


def checks_of(capsys: pytest.CaptureFixture[str]) -> list[dict[str, str]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture(scope="module")
def two_nodes(head: Head) -> Iterator[str]:
    """Let a second node join; return the cluster's address."""
    with head.joined():
        yield head.address


def over_two_nodes(folder: Path, pool: Path) -> Path:
    """Declare trials of two ranks, one on each of two nodes."""
    path = write_declaration(folder, pool)
    text = path.read_text(encoding="utf-8")
    text = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("resources:"))
    path.write_text(text + "resources: {cpus: 2, nodes: 2, ranks: 2}\n", encoding="utf-8")
    return path


@pytest.mark.ray
@pytest.mark.usefixtures("on_ray")
def test_two_sound_nodes_pass_and_their_speeds_are_kept(
    pool: Path, tmp_path: Path, two_nodes: str, capsys: pytest.CaptureFixture[str]
) -> None:
    declaration = write_declaration(tmp_path, pool, strategies="clip, siglip")
    words = ["check", str(declaration), "--results", str(tmp_path), "--address", two_nodes, "--json"]

    assert main(words) == 0

    checks = checks_of(capsys)
    assert {each["verdict"] for each in checks} <= {"ok", "slow"}
    names = [each["what"] for each in checks]
    assert names.count("versions") == names.count("clock") == names.count("storage") == 2
    assert {"mini-ViT-XXS-8 clip", "mini-ViT-XXS-8 siglip"} <= set(names)
    (clip,) = [each["found"] for each in checks if each["what"] == "mini-ViT-XXS-8 clip"]
    assert re.fullmatch(
        r"batch 16 in \w+: [\d,]+ samples/s, waits \d+% of the time for data, \d+ MiB, \d+ MiB estimated, "
        r"checkpoint of [1-9]\d* MiB written in [\d.]+ s, read in [\d.]+ s",
        clip,
    )
    kept = read_calibration(tmp_path / "tiny" / "throughput.json")
    assert kept is not None
    assert {each.combination for each in kept.kinds} == {
        ("mini-ViT-XXS-8", "clip"),
        ("mini-ViT-XXS-8", "siglip"),
    }
    assert not (tmp_path / "tiny" / "trials").exists(), "nothing was run"
    assert not list((tmp_path / "tiny").glob(".preflight*"))


@pytest.mark.ray
@pytest.mark.usefixtures("on_ray")
def test_kind_that_takes_two_nodes_computes_over_both(
    pool: Path, tmp_path: Path, two_nodes: str, capsys: pytest.CaptureFixture[str]
) -> None:
    declaration = over_two_nodes(tmp_path, pool)
    words = ["check", str(declaration), "--results", str(tmp_path), "--address", two_nodes, "--json"]

    assert main(words) == 0

    checks = {each["what"]: each for each in checks_of(capsys)}
    ranks, kind = checks["ranks of mini-ViT-XXS-8 clip"], checks["mini-ViT-XXS-8 clip"]
    assert ranks["found"].startswith("2 over gloo: sum 1, loss within ")
    assert "samples/s" in kind["found"]
    assert not list((tmp_path / "tiny").glob(".preflight*"))


def test_kind_that_takes_more_nodes_than_there_are_is_named(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    declaration = over_two_nodes(tmp_path, pool)
    words = ["check", str(declaration), "--results", str(tmp_path), "--backend", "local", "--json"]

    assert main(words) == 1

    (failed,) = [each for each in checks_of(capsys) if each["verdict"] == "failed"]
    assert (failed["what"], failed["found"]) == ("mini-ViT-XXS-8 clip", "takes 2 nodes, the cluster has 1")


@pytest.mark.ray
def test_address_without_a_cluster_fails_the_first_check(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    declaration = write_declaration(tmp_path, pool)
    words = ["check", str(declaration), "--results", str(tmp_path), "--address", "127.0.0.1:9", "--json"]

    assert main(words) == 1

    (only,) = checks_of(capsys)
    assert (only["what"], only["verdict"]) == ("Ray", "failed")
    assert "127.0.0.1:9" in only["found"]


@pytest.mark.ray
def test_address_without_a_cluster_is_refused_before_a_pool_is_built(tmp_path: Path) -> None:
    folders = ["--results", str(tmp_path / "results"), "--pools", str(tmp_path / "pools")]

    assert main(["check", "demo", *folders, "--address", "127.0.0.1:9"]) == 1

    assert not list(tmp_path.iterdir())


def test_speeds_of_a_check_leave_calibrated_ones_at_every_width(pool: Path, tmp_path: Path) -> None:
    declaration = write_declaration(tmp_path, pool, strategies="clip, siglip")
    calibrated = tuple(
        Throughput(
            architecture="mini-ViT-XXS-8", strategy="clip", batch_size=16, precision="bf16", steps=10,
            samples_per_s=1000.0 * gpus, memory_bytes=1, gpus=gpus,
        )
        for gpus in (1, 2)
    )  # fmt: skip
    file = tmp_path / "tiny" / "throughput.json"
    file.parent.mkdir()
    Calibration(machine="here", device=None, side_by_side=1, kinds=calibrated).write(file)

    assert main(["check", str(declaration), "--results", str(tmp_path), "--backend", "local"]) == 0

    kept = read_calibration(file)
    assert kept is not None
    assert (kept.machine, kept.kinds[:2]) == ("here", calibrated)
    assert [each.strategy for each in kept.kinds[2:]] == ["siglip"]


def test_a_node_that_does_not_answer_fails_its_check() -> None:
    task = Job(trial="node a", nodes=("this machine",), run=partial(time.sleep, 5), resources={})

    with LocalBackend(modules=()) as backend:
        ((found, reason),) = run_tasks(backend, [task], answer_s=1)

    assert found is task
    assert re.fullmatch(r"no answer in 1 s: a firewall .* ports of `ray start` .*", str(reason))
