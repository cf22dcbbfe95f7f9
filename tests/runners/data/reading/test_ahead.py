"""Prefetched batches equal those fetched on demand."""

from collections.abc import Iterator
from threading import Event, current_thread, main_thread

import pytest
import torch

from runners.data.reading.training_data import Batch, ahead, on_device


def test_the_next_batch_is_fetched_by_another_thread_while_one_is_used() -> None:
    second = Event()

    def batches() -> Iterator[Batch]:
        for number in range(3):
            assert current_thread() is not main_thread()
            if number == 1:
                second.set()
            yield (torch.tensor(number),)

    taken = ahead(batches())
    first = next(taken)
    assert second.wait(10)
    assert [int(batch[0]) for batch in (first, *taken)] == [0, 1, 2]


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

    batches = on_device(iter([(OnGpu(),)]), device)  # type: ignore[list-item]

    ((moved,),) = batches
    arrived: object = moved
    assert arrived == (device, True)
    (first, where), (second, _) = calls
    assert where == device
    assert first == second != main_thread().name


def test_error_of_the_fetching_thread_is_raised_in_its_turn() -> None:
    def batches() -> Iterator[Batch]:
        yield (torch.tensor(0),)
        raise ValueError("damaged")

    taken = ahead(batches())
    assert int(next(taken)[0]) == 0
    with pytest.raises(ValueError, match="damaged"):
        next(taken)


def test_cpu_gets_the_batches_unchanged() -> None:
    batch = (torch.tensor(1), torch.tensor(2))
    assert next(on_device(iter([batch]), torch.device("cpu"))) is batch
