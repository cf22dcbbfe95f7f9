"""Settings of a Python process that a test starts, which imports this module at its start.

- Garbage is collected less often: most of such a process is imports, a fifth of whose time it takes.
- With STUDY_TEST_SERVER, its trials are forked from the server of the tests, which has loaded torch already:
  loading it takes some 4 s, which would be most of the time of a command.
- Its trials take no further step while a file says so (`tests.holding`).
- With STUDY_WITNESS, each training step is a line of that file, written when the step draws its randomness,
  which every strategy's step does once: a count that shares nothing with the project's own meter.
"""

import gc
import os
import sys
import time

TYPE_CHECKING = False  # the module typing takes time
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
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


class _FindsChanged:
    """Finds the modules that are changed here, and changes them once they are loaded."""

    @staticmethod
    def find_spec(name: str, path: "Sequence[str] | None", _target: object = None) -> "ModuleSpec | None":
        if name not in _CHANGES:
            return None
        from importlib.machinery import PathFinder  # noqa: PLC0415 - few processes need it

        spec = PathFinder.find_spec(name, path)
        assert spec is not None
        assert spec.loader is not None
        load = spec.loader.exec_module

        def exec_module(module: "ModuleType") -> None:
            load(module)
            _CHANGES[name](module)

        vars(spec.loader)["exec_module"] = exec_module
        return spec


def _let_read(module: "ModuleType") -> None:
    """Let the module that looks after a running trial read the file that holds it."""
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


def _note(word: str) -> None:
    descriptor = os.open(os.environ["STUDY_WITNESS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(descriptor, f"{word} {os.getpid()}\n".encode())
    os.close(descriptor)


def _watch_steps(module: "ModuleType") -> None:
    original = module.step_generator

    def step_generator(seed: int, step: int, *, rank: int) -> object:
        _note("computed")
        return original(seed, step, rank=rank)

    vars(module)["step_generator"] = step_generator


def _watch_meter(module: "ModuleType") -> None:
    original = module.Meter.add

    def add(meter: object, *, train_flops: int = 0, evaluation_flops: int = 0) -> None:
        if train_flops:
            _note("announced")  # so that a kill between the meter and the step can be told
        original(meter, train_flops=train_flops, evaluation_flops=evaluation_flops)

    module.Meter.add = add


_CHANGES: "dict[str, Callable[[ModuleType], None]]" = {"runners.trials.trial": _let_read}
if "STUDY_WITNESS" in os.environ:
    _CHANGES |= {"runners.training.train": _watch_steps, "runners.trials.meter": _watch_meter}

gc.set_threshold(50_000, 20)
sys.meta_path.insert(0, _FindsChanged)
if "STUDY_TEST_SERVER" in os.environ:
    _share(os.environ["STUDY_TEST_SERVER"])
