"""A trial's evaluation sets: decoded into the node's cache beside training, on the processor before it."""

import os
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from runners.data.evaluation.set_reader import SetReader
from runners.data.places.piece_cache import decoded_sets
from runners.host.process import FreshProcess
from runners.trials.trial_job import TrialJob
from runners.trials.trial_setup import architecture_of

_THREADS_EACH = 8  # decoding threads of a process: more of them wait for Python's lock
_LOWEST_PRIORITY = 19


class EvaluationData:
    """Readers of a trial's sets, and the processes that decode them ahead.

    On a GPU, training needs few cores: processes of the lowest priority decode meanwhile, so that they take
    what loader workers leave. On the processor, training takes every core, and decoding comes first. Trials
    of a node share the work: no two processes decode the same split.

    Raises:
        ValueError: ``STUDY_EVALUATION_CACHE_SIZE`` is not a number of bytes.
    """

    def __init__(self, job: TrialJob) -> None:
        size, cache = architecture_of(job.trial).costs.image_size, decoded_sets()
        self.readers = {
            name: SetReader(path=path, decode=size, threads=max(1, job.cpus), cache=cache)
            for name, path in job.evaluation.items()
        }
        self._beside = bool(job.gpus)
        self._splits = [(reader, "test") for reader in self.readers.values()]
        self._splits += [(self.readers[name], "train") for name in self.readers if name in job.probes]
        self._processes: list[FreshProcess] = []

    @contextmanager
    def decoding(self) -> Iterator[None]:
        """Context manager: sets are decoded meanwhile, or on the processor before it begins.

        Raises:
            ValueError: A set can't be read.
        """
        todo = [(reader, split) for reader, split in self._splits if not reader.is_filled(split)]
        if not self._beside:
            _fill(todo, wait=True)
        elif todo:
            threads = todo[0][0].threads
            several = min(len(todo), max(1, threads // _THREADS_EACH))
            todo = [(replace(reader, threads=max(1, threads // several)), split) for reader, split in todo]
            call = pickle.dumps(partial(_fill_beside, todo))
            self._processes = [FreshProcess(call, fork=True) for _ in range(several)]
        try:
            yield
        finally:
            for process in self._processes:
                process.kill()
                process.wait()

    def check(self) -> None:
        """Raise an error that the processes found, so that it does not cost a whole training.

        Raises:
            ValueError: A set can't be read.
        """
        for process in [process for process in self._processes if process.ended(0)]:
            self._processes.remove(process)
            end = process.wait()
            if end.how == "failed":
                raise ValueError(end.reason.removeprefix("ValueError: "))


def _fill_beside(todo: Sequence[tuple[SetReader, str]]) -> None:
    os.nice(_LOWEST_PRIORITY)
    _fill(todo, wait=False)


def _fill(todo: Sequence[tuple[SetReader, str]], *, wait: bool) -> None:
    for reader, split in todo:
        reader.fill(split, wait=wait)
