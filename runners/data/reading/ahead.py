"""Prefetching of batches while a GPU computes."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

Batch = tuple[Tensor, ...]


def on_device(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Yield batches on a device; for a GPU, the next batch is gathered and pinned in the background.

    A copy from unpinned memory would wait until the GPU has finished all queued work.
    """
    if device.type != "cuda":
        yield from batches
        return
    for batch in ahead(_pinned(batches)):
        yield tuple(each.to(device, non_blocking=True) for each in batch)


def ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Yield the same batches; a thread fetches the next one while the current one is used."""
    # One thread: generators cannot be advanced by two threads at once.
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield batch


def _pinned(batches: Iterator[Batch]) -> Iterator[Batch]:
    for batch in batches:
        yield tuple(each.pin_memory() for each in batch)
