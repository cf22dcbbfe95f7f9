"""Prefetched batches equal those fetched on demand."""

from collections.abc import Iterator
from dataclasses import replace
from threading import Event, current_thread, main_thread
from typing import Any

import pytest
import torch

from budgets.cost.strategy import Batch
from runners.data.reading.training_data import ahead, on_device


def test_the_next_batch_is_fetched_by_another_thread_while_one_is_used() -> None:
    second = Event()

    def batches() -> Iterator[int]:
        for number in range(3):
            assert current_thread() is not main_thread()
            if number == 1:
                second.set()
            yield number

    taken = ahead(batches())
    first = next(taken)
    assert second.wait(10)
    assert [first, *taken] == [0, 1, 2]


def test_fetching_thread_belongs_to_the_ranks_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, object]] = []

    class OnGpu:
        def is_pinned(self) -> bool:
            return False

        def pin_memory(self) -> "OnGpu":
            calls.append((current_thread().name, "pin"))
            return self

        def to(self, device: torch.device, *, non_blocking: bool) -> tuple[torch.device, bool]:
            return device, non_blocking

    monkeypatch.setattr(
        torch.cuda, "set_device", lambda device: calls.append((current_thread().name, device))
    )
    device = torch.device("cuda", 3)

    there: Any = OnGpu()
    batch: Any = Batch(images=there, tokens=there, ids=there, columns={"teacher": there})

    (moved,) = on_device(iter([batch]), device)
    assert moved == replace(
        batch,
        **dict.fromkeys(("images", "tokens", "ids"), (device, True)),
        columns={"teacher": (device, True)},
    )
    (first, where), *pinned = calls
    assert where == device
    assert pinned == [(first, "pin")] * 4
    assert first != main_thread().name


def test_error_of_the_fetching_thread_is_raised_in_its_turn() -> None:
    def batches() -> Iterator[int]:
        yield 0
        raise ValueError("damaged")

    taken = ahead(batches())
    assert next(taken) == 0
    with pytest.raises(ValueError, match="damaged"):
        next(taken)


def test_cpu_gets_the_batches_unchanged() -> None:
    batch = Batch(images=torch.zeros(1), tokens=torch.zeros(1), ids=torch.zeros(1))
    assert next(on_device(iter([batch]), torch.device("cpu"))) is batch
