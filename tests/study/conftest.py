"""Fixtures: a small pool of a user, and studies of it that run in seconds."""

import shlex
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import numpy as np
import pytest
from numpy.typing import NDArray

from budgets.declaration.declaration import Declaration
from runners.embedded.embedded_pool import build_embedded_pool
from study.cli import main
from study.show import study_report
from study.state.study import Study
from study.storage.folder_storage import FolderStorage
from tests.runners.store.bucket import Bucket
from tests.study.tiny_study import TinyStudy

if TYPE_CHECKING:
    from tests.study.ray_head import Head

Run = Callable[..., str]
"""Words of a command line, and perhaps the exit code that is expected → what it said."""

SIZES = {"held-out": 200, "retrieval": 32}


def _by_length(_images: NDArray[np.uint8], captions: list[str]) -> NDArray[np.float32]:
    """Score by length: full captions are longer."""
    return np.array([len(caption) for caption in captions], np.float32)


@pytest.fixture(scope="session", autouse=True)
def one_drawing_process() -> Iterator[None]:
    """Let reports draw in the process of the test: the cores are busy, and a helper takes 2 s to start."""
    with patch.object(study_report, "_MOST_PROCESSES", 1):
        yield


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pools") / "small"
    build_embedded_pool(path, pairs=1024, seed=5, score=_by_length, evaluation_sizes=SIZES)
    return path


@pytest.fixture
def tiny(tmp_path: Path, pool: Path) -> TinyStudy:
    """Return a study of one trial, declared and not run."""
    return TinyStudy(tmp_path, pool)


@pytest.fixture(scope="session")
def run_once(pool: Path, tmp_path_factory: pytest.TempPathFactory) -> TinyStudy:
    """Return a study of two trials that has been run, for tests that leave it as it is or copy it."""
    ran = TinyStudy(tmp_path_factory.mktemp("ran"), pool, seeds="0, 1")
    ran.run("--quiet")
    return ran


@pytest.fixture
def done(run_once: TinyStudy, tmp_path: Path) -> TinyStudy:
    """Return a copy of a study of two trials that has been run."""
    shutil.copytree(run_once.place, tmp_path / "done", copy_function=shutil.copyfile)
    return TinyStudy(tmp_path / "done", run_once.pool, seeds="0, 1")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command line in this process and returns its output, or its error."""

    def run(words: str, *, code: int = 0) -> str:
        capsys.readouterr()
        found = main(shlex.split(words))
        said = capsys.readouterr()
        assert found == code, said.err
        return said.err if code else said.out

    return run


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    """Return a bucket on loopback, whose address the environment holds."""
    with pytest.MonkeyPatch.context() as environment:
        found = Bucket(environment)
        yield found
        found.go_away()


_WHILE_RAY_IS_SHARED = ExitStack()


@pytest.fixture(scope="session")
def head() -> "Iterator[Head]":
    """Start a Ray for the tests that are not about the start of one, which takes long."""
    from tests.study.ray_head import running_head  # noqa: PLC0415 - Ray's import takes seconds

    with _WHILE_RAY_IS_SHARED:
        yield _WHILE_RAY_IS_SHARED.enter_context(running_head())


@pytest.hookimpl(trylast=True)  # after that of pytest, which ends the fixtures that use it
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """End that Ray after the last test with Ray in this package: idle, it takes 5 % of a core."""
    here = Path(__file__).parent
    if nextitem is None or not (nextitem.get_closest_marker("ray") and nextitem.path.is_relative_to(here)):
        _WHILE_RAY_IS_SHARED.close()


@pytest.fixture
def on_ray(head: "Head") -> "Iterator[Head]":
    """Let the commands of a test use that Ray unless they name another."""
    from tests.runners.scheduling.simulated import rays_environment  # noqa: PLC0415 - as above

    with rays_environment({**head.environment, "RAY_ADDRESS": head.address}):
        yield head


def study_in(folder: Path, declaration: Declaration, pools: Path) -> Study:
    """Return a study whose folder is the given one."""
    return Study(declaration=declaration, folder=folder, pools=pools, storage=FolderStorage(folder))


@pytest.fixture
def default_signals() -> Iterator[None]:
    """Handle SIGHUP and SIGINT by default, also in tests that run under `nohup` or in the background."""
    hang_up = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGHUP, hang_up)
    signal.signal(signal.SIGINT, interrupt)
