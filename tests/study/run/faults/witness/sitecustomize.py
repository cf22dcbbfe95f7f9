"""Independent count of training steps: on `PYTHONPATH`, it records each step of any process.

It shares nothing with the meter that the project itself keeps: the line of a step is
written when the step draws its randomness, which every strategy's step does once.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence
from types import ModuleType

_FILE = os.environ.get("STUDY_WITNESS", "")


def _note(word: str) -> None:
    descriptor = os.open(_FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(descriptor, f"{word} {os.getpid()}\n".encode())
    os.close(descriptor)


def _watch_steps(module: ModuleType) -> None:
    original = module.step_generator

    def step_generator(seed: int, step: int, *, rank: int) -> object:
        _note("computed")
        return original(seed, step, rank=rank)

    vars(module)["step_generator"] = step_generator


def _watch_meter(module: ModuleType) -> None:
    original = module.Meter.add

    def add(meter: object, *, train_flops: int = 0, evaluation_flops: int = 0) -> None:
        if train_flops:
            _note("announced")  # so that a kill between the meter and the step can be told
        original(meter, train_flops=train_flops, evaluation_flops=evaluation_flops)

    module.Meter.add = add


_WATCHED = {"runners.training.train": _watch_steps, "runners.trials.meter": _watch_meter}


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in _WATCHED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            run(module)
            _WATCHED[name](module)

        vars(spec.loader)["exec_module"] = exec_module
        return spec


if _FILE:
    sys.meta_path.insert(0, _Finder())
