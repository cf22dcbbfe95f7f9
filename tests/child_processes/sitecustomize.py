"""Settings of a Python process that a test starts, which imports this module at its start.

- Garbage is collected less often: most of such a process is imports, a fifth of whose time it takes.
- With STUDY_TEST_SERVER, its trials are forked from the server of the tests, which has loaded torch already:
  loading it takes some 4 s, which would be most of the time of a command.
- Its trials take no further step while a file says so (`tests.holding`).
"""

import gc
import os
import sys
import time

TYPE_CHECKING = False  # the module typing takes time
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from runners.trials.trial import Watch


def _share(address: str) -> None:
    from multiprocessing import forkserver, resource_tracker  # noqa: PLC0415 - few processes need it
    from typing import Any  # noqa: PLC0415 - as above

    server: Any = forkserver._forkserver  # noqa: SLF001 - has no public name
    server._forkserver_address = address  # noqa: SLF001 - as above
    server._forkserver_alive_fd = os.open(os.devnull, os.O_RDONLY)  # noqa: SLF001 - it ends with the tests
    server.ensure_running = resource_tracker.ensure_running


class _FindsWatch:
    """Finds the module that looks after a running trial, and lets it read the file that holds it."""

    @staticmethod
    def find_spec(name: str, path: "Sequence[str] | None", _target: object = None) -> "ModuleSpec | None":
        if name != "runners.trials.trial":
            return None
        from importlib.machinery import PathFinder  # noqa: PLC0415 - few processes need it

        spec = PathFinder.find_spec(name, path)
        assert spec is not None
        assert spec.loader is not None
        load = spec.loader.exec_module

        def exec_module(module: "ModuleType") -> None:
            load(module)
            _let_read(module)

        vars(spec.loader)["exec_module"] = exec_module
        return spec


def _let_read(module: "ModuleType") -> None:
    after = module.Watch.after_step

    def after_step(self: "Watch", done: int, **seconds: float) -> None:
        after(self, done, **seconds)
        while _is_held(self, done):
            time.sleep(0.02)
            after(self, done, **seconds)  # writes what is due, and leaves when asked to

    module.Watch.after_step = after_step


def _is_held(watch: "Watch", done: int) -> bool:
    folder, seed = watch._folder.absolute(), watch._trial.seed  # noqa: SLF001 - only tests know of it
    try:
        step, *seeds = map(int, (folder.parents[1] / "hold").read_text().split())
    except OSError:
        return False
    return done >= step and seed in (seeds or [seed])


gc.set_threshold(50_000, 20)
sys.meta_path.insert(0, _FindsWatch)
if "STUDY_TEST_SERVER" in os.environ:
    _share(os.environ["STUDY_TEST_SERVER"])
