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
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
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
    found: dict[str, Any] = {}
    for line in ended.stdout.splitlines():
        if line.startswith("{"):
            found |= json.loads(line)
    return found


def test_pool_built_on_two_nodes_has_the_bytes_of_one_process(told: dict[str, Any]) -> None:
    assert told["nodes"] == "3 nodes"  # the head, which has no core to offer, and two
    assert (told["built"], told["says"], told["info"]) == (True, True, True)


def test_nodes_share_the_items(told: dict[str, Any]) -> None:
    assert told["processes"] == 2
    assert told["items"] == [0, 1, 2, 3]


def test_a_node_killed_half_way_changes_no_byte(told: dict[str, Any]) -> None:
    assert (told["killed_reading"], told["killed_scoring"]) == (True, True)
    assert (told["left_reading"], told["left_scoring"]) == (1, 1)


def test_nodes_that_share_a_bucket_alone_write_what_one_process_writes_to_a_folder(
    told: dict[str, Any],
) -> None:
    assert told["shared_url"] is True
    assert told["left_url"] == 1, "one of two died"
    assert told["left_on_the_driver"] == [".lock"]


def test_a_folder_that_a_node_does_not_see_is_refused(told: dict[str, Any]) -> None:
    assert "does not see" in told["unseen"]
    assert told["unseen"].endswith(
        "all nodes of the cluster must share it. Use a folder that they share, or leave out --address"
    )


def test_item_whose_processes_die_is_named_and_a_passing_fault_is_not_the_end(told: dict[str, Any]) -> None:
    assert told["dies"].startswith("the process that worked on item 0 was killed 3 times, maybe because")
    assert told["passes"] == [[item, item] for item in range(3)]
