"""Let this command fork its trials from the server of the tests, which has loaded torch already.

Python imports this module at its start, from PYTHONPATH. Loading torch takes some 4 s, which would be most of
the time of a command that a test starts.
"""

import os
from multiprocessing import forkserver, resource_tracker
from typing import Any

_server: Any = forkserver._forkserver  # noqa: SLF001 - has no public name
_server._forkserver_address = os.environ["STUDY_TEST_SERVER"]  # noqa: SLF001 - as above
_server._forkserver_alive_fd = os.open(os.devnull, os.O_RDONLY)  # noqa: SLF001 - the server ends with the tests
_server.ensure_running = resource_tracker.ensure_running
