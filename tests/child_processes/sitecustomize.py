"""Settings of a Python process that a test starts, which imports this module at its start.

- Garbage is collected less often: most of such a process is imports, a fifth of whose time it takes.
- With STUDY_TEST_SERVER, its trials are forked from the server of the tests, which has loaded torch already:
  loading it takes some 4 s, which would be most of the time of a command.
"""

import gc
import os


def _share(address: str) -> None:
    from multiprocessing import forkserver, resource_tracker  # noqa: PLC0415 - few processes need it
    from typing import Any  # noqa: PLC0415 - as above

    server: Any = forkserver._forkserver  # noqa: SLF001 - has no public name
    server._forkserver_address = address  # noqa: SLF001 - as above
    server._forkserver_alive_fd = os.open(os.devnull, os.O_RDONLY)  # noqa: SLF001 - it ends with the tests
    server.ensure_running = resource_tracker.ensure_running


gc.set_threshold(50_000, 20)
if "STUDY_TEST_SERVER" in os.environ:
    _share(os.environ["STUDY_TEST_SERVER"])
