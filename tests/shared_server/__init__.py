"""The server of the tests that trials are forked from, also those of commands and of Ray's workers."""

from multiprocessing import forkserver
from pathlib import Path


def shared_server() -> dict[str, str]:
    """Return environment variables with which commands fork trials from the server of this process."""
    address: str = forkserver._forkserver._forkserver_address  # type: ignore[attr-defined]  # noqa: SLF001
    return {"STUDY_TEST_SERVER": address, "PYTHONPATH": str(Path(__file__).parent)}
