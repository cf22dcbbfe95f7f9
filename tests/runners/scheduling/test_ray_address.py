"""Choice of the Ray cluster, and unreachable addresses."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runners.scheduling.ray_backend.address import (
    _reason,
    accepts_connections,
    cluster_address,
    guard_token,
    require_cluster,
)

pytestmark = pytest.mark.ray


@pytest.mark.parametrize(
    ("option", "environment", "chosen"),
    [
        (None, {}, None),
        (None, {"RAY_ADDRESS": "10.0.0.1:6379"}, "10.0.0.1:6379"),
        ("10.0.0.2:6379", {"RAY_ADDRESS": "10.0.0.1:6379"}, "10.0.0.2:6379"),
        ("local", {"RAY_ADDRESS": "10.0.0.1:6379"}, None),
    ],
)
def test_address_option_precedes_environment_and_defaults_to_this_machine(
    option: str | None, environment: dict[str, str], chosen: str | None
) -> None:
    assert cluster_address(option, environment) == chosen
    with pytest.raises(ValueError, match="--address is empty"):
        cluster_address(" ", environment)


@pytest.fixture
def listener() -> Iterator[str]:
    """Return the address of a listener that is not Ray."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_dead_or_wrong_address_raises_within_seconds(listener: str) -> None:
    before = time.monotonic()
    for address, problem in (
        ("127.0.0.1:1", "refused"),
        ("ray://head:10001", "HOST:PORT"),
        (listener, "6379"),
    ):
        with pytest.raises(ValueError, match=f"{address}.*{problem}"):
            require_cluster(address, patience_s=2)
    assert time.monotonic() - before < 15


def test_a_refusal_says_what_to_do_without_addresses_of_a_stack() -> None:
    trace = (
        "[2026-11-26 18:21:52,561 C 1 1] authentication_token_loader.cc:115: Check failed: has_token Token "
        "authentication is enabled but Ray couldn't find an authentication token. Create a token file\n"
        "*** StackTrace Information ***\n/usr/lib/libc.so.6(+0x29ca8) [0x7f3a4be35ca8]\n"
    )
    assert _reason(trace) == "it has no token"
    refused = "Traceback\nray.exceptions.X: InvalidAuthToken. Ask\n"
    assert _reason(refused) == "ray.exceptions.X: InvalidAuthToken"
    assert _reason("/lib/libc.so.6(+0x29ca8) [0x7f3a4be35ca8]\n") == "no reason given"


def test_rays_token_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / ".ray"
    guard_token(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    (folder / "auth_token").write_text("secret")
    (folder / "auth_token").chmod(0o644)
    folder.chmod(0o755)

    guard_token(folder)

    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "auth_token").stat().st_mode & 0o777 == 0o600


def test_a_head_that_is_gone_does_not_answer() -> None:
    with socket.socket() as head:
        head.bind(("127.0.0.1", 0))
        head.listen()
        address = f"127.0.0.1:{head.getsockname()[1]}"
        assert accepts_connections(address, patience_s=0)
    assert not accepts_connections(address, patience_s=0)
