"""A bucket on loopback for the tests of a file."""

from collections.abc import Iterator

import pytest

from tests.runners.host.bucket import Bucket


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with pytest.MonkeyPatch.context() as environment:
        found = Bucket(environment)
        yield found
        found.go_away()
