"""A bucket on loopback for each test."""

from collections.abc import Iterator

import pytest

from tests.runners.host.bucket import Bucket


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with pytest.MonkeyPatch.context() as environment:
        found = Bucket(environment)
        yield found
        found.go_away()
