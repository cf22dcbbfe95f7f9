"""`study check` tries a cluster before a run spends anything, and names the node that is broken."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runners.trials.throughput import read_calibration
from study.cli import main
from tests.study.conftest import write_declaration

pytestmark = pytest.mark.ray


@pytest.fixture
def cluster() -> Iterator[Any]:
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    from ray.cluster_utils import Cluster  # noqa: PLC0415 - after the mode is set

    memory = 80_000_000
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "object_store_memory": memory, "include_dashboard": False},
    )
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=memory)
    cluster.wait_for_nodes()
    try:
        yield cluster
    finally:
        cluster.shutdown()


def checks_of(capsys: pytest.CaptureFixture[str]) -> list[dict[str, str]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_two_sound_nodes_pass_and_their_speeds_are_kept(
    pool: Path,
    tmp_path: Path,
    cluster: Any,  # noqa: ANN401 - Ray's has no type
    capsys: pytest.CaptureFixture[str],
) -> None:
    declaration = write_declaration(tmp_path, pool, strategies="clip, siglip")
    words = ["check", str(declaration), "--results", str(tmp_path), "--address", cluster.address, "--json"]

    assert main(words) == 0

    checks = checks_of(capsys)
    assert {each["verdict"] for each in checks} <= {"ok", "slow"}
    names = [each["what"] for each in checks]
    assert names.count("versions") == names.count("clock") == names.count("storage") == 2
    assert {"mini-ViT-XXS-8 clip", "mini-ViT-XXS-8 siglip"} <= set(names)
    kept = read_calibration(tmp_path / "tiny" / "throughput.json")
    assert kept is not None
    assert {each.kind for each in kept.kinds} == {("mini-ViT-XXS-8", "clip"), ("mini-ViT-XXS-8", "siglip")}
    assert not (tmp_path / "tiny" / "trials").exists(), "nothing was run"


def test_address_without_a_cluster_fails_the_first_check(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    declaration = write_declaration(tmp_path, pool)
    words = ["check", str(declaration), "--results", str(tmp_path), "--address", "127.0.0.1:9", "--json"]

    assert main(words) == 1

    (only,) = checks_of(capsys)
    assert (only["what"], only["verdict"]) == ("Ray", "failed")
    assert "127.0.0.1:9" in only["found"]
