"""A bucket on loopback, and a small pool, for the tests of a file."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runners.store.bucket import Bucket


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with pytest.MonkeyPatch.context() as environment:
        found = Bucket(environment)
        yield found
        found.go_away()


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.runners.tiny import tiny_pool  # noqa: PLC0415 - loads torch, which most tests below do not need

    return tiny_pool(tmp_path_factory.mktemp("pools") / "tiny")
