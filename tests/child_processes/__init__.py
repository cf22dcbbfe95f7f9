"""Settings of the Python processes that tests start: `sitecustomize`, which they import from PYTHONPATH."""

from multiprocessing import forkserver
from pathlib import Path

FOLDER = Path(__file__).parent


def shared_server() -> dict[str, str]:
    """Return environment variables with which commands and Ray's workers fork trials from this server."""
    address: str = forkserver._forkserver._forkserver_address  # type: ignore[attr-defined]  # noqa: SLF001
    return {"STUDY_TEST_SERVER": address, "PYTHONPATH": str(FOLDER)}
