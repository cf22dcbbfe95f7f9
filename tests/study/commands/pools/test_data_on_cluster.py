"""``python -m study data … --address`` on a simulated cluster of two nodes gives what this machine gives."""

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.root import ROOT

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what the commands gave; all of them share a cluster, whose start takes long."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    script = Path(__file__).with_name("pools_on_two_nodes.py")
    ended = subprocess.run(
        [sys.executable, script, tmp_path_factory.mktemp("two-nodes")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=480,
    )
    assert ended.returncode == 0, ended.stderr
    facts: dict[str, Any] = {}
    for line in ended.stdout.splitlines():
        if line.startswith("{"):
            facts |= json.loads(line)
    return facts


def test_pool_built_on_two_nodes_of_which_one_dies_half_way_has_the_bytes_of_one_process(
    found: dict[str, Any],
) -> None:
    assert found["nodes"] == "2 nodes", "the head has no core to offer"
    assert (found["built"], found["scored"]) == (True, True)
    assert (found["left_reading"], found["left_scoring"]) == (1, 1)
    assert (found["says"], found["info"]) == (True, True)


def test_nodes_share_the_items(found: dict[str, Any]) -> None:
    assert found["processes"] == 2
    assert found["items"] == [0, 1, 2, 3]


def test_nodes_that_share_a_bucket_alone_write_what_one_process_writes_to_a_folder(
    found: dict[str, Any],
) -> None:
    assert found["shared_url"] is True
    assert found["left_url"] == 1, "one of two died"
    assert found["left_on_the_driver"] == [".lock"]


def test_a_folder_that_a_node_does_not_see_is_refused(found: dict[str, Any]) -> None:
    assert "does not see" in found["unseen"]
    assert found["unseen"].endswith(
        "all nodes of the cluster must share it. Use a folder that they share, or leave out --address"
    )


def test_item_whose_processes_die_is_named_and_a_passing_fault_is_not_the_end(found: dict[str, Any]) -> None:
    assert found["dies"].startswith("the process that worked on item 0 was killed 3 times, maybe because")
    assert found["passes"] == [[item, item] for item in range(3)]
