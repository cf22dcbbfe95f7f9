"""Prefetching of batches while a GPU computes."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

Batch = tuple[Tensor, ...]

T = TypeVar("T")


def on_device(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Yield batches on a device; for a GPU, the next batch is gathered and pinned in the background.

    A copy from unpinned memory would wait until the GPU has finished all queued work.
    """
    if device.type != "cuda":
        yield from batches
        return
    # A new thread uses the first GPU by default, so without this each rank would open a context there.
    for batch in ahead(_pinned(batches), before=partial(torch.cuda.set_device, device)):
        yield tuple(each.to(device, non_blocking=True) for each in batch)


def ahead(batches: Iterator[T], *, before: Callable[[], None] = lambda: None) -> Iterator[T]:
    """Yield the same batches; a thread fetches the next one while the current one is used.

    Args:
        batches: The batches.
        before: Called once in that thread, before it fetches.
    """
    # One thread: generators cannot be advanced by two threads at once.
    with ThreadPoolExecutor(1, initializer=before) as thread:
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield batch


def empty_for(device: torch.device) -> Callable[..., Tensor]:
    """Return a function that allocates batches for a device, pinned for a GPU to avoid a second copy."""
    return partial(torch.empty, pin_memory=True) if device.type == "cuda" else torch.empty


def _pinned(batches: Iterator[Batch]) -> Iterator[Batch]:
    for batch in batches:
        yield tuple(each if each.is_pinned() else each.pin_memory() for each in batch)
