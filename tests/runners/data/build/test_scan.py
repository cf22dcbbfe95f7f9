"""A build holds its working folder."""

from pathlib import Path

import pytest

from runners.data.build.build import Build
from runners.data.build.build_pool import build_pool
from tests.runners.data.pool.test_pool import sample, write_tar


def test_second_build_of_the_same_pool_raises(tmp_path: Path) -> None:
    write_tar(tmp_path / "x" / "0.tar", [sample(n) for n in range(3)])

    def meanwhile(*_: object) -> None:
        with pytest.raises(ValueError, match=r"another build of the same pool is running in .*\.p\.building"):
            build_pool(tmp_path / "p", Build(source=tmp_path / "x"), lambda *_: None)

    assert build_pool(tmp_path / "p", Build(source=tmp_path / "x"), meanwhile).count == 3
