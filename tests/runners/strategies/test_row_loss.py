"""The loss by rows equals the loss of the whole batch, and each rank computes only its share."""

import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from budgets.cost.architecture import load_architecture
from budgets.cost.memory import memory_bytes
from budgets.cost.strategy import find_strategy
from budgets.declaration.recipe import Recipe
from runners.models.model import build_model
from runners.strategies import row_loss
from runners.strategies.registry import build_strategy
from runners.strategies.row_loss import RowLoss, simclr_row_loss, softmax_row_loss

WIDTH = 16


class Ranks:
    """Threads as ranks, with a gather like `runners.training.ranks.gather`."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._barrier, self._parts = threading.Barrier(count), [torch.empty(0)] * count

    def run(self, features: Sequence[Tensor], compute: Callable[..., RowLoss]) -> list[RowLoss]:
        """Compute each rank's share of the loss from its features."""
        parts = list(zip(*(each.chunk(self.count) for each in features), strict=True))
        with ThreadPoolExecutor(self.count) as pool:
            done = [
                pool.submit(compute, own, partial(self._gather, rank), rank * len(own[0]))
                for rank, own in enumerate(parts)
            ]
            return [each.result() for each in done]

    def _gather(self, rank: int, own: Tensor) -> Tensor:
        self._barrier.wait()
        self._parts[rank] = own
        self._barrier.wait()
        return torch.cat(self._parts)


def unit(pairs: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(pairs, WIDTH, generator=generator), dim=1)


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("name", ["clip", "siglip", "slip"])
def test_loss_and_gradients_of_ranks_equal_those_of_the_whole_batch(
    monkeypatch: pytest.MonkeyPatch, name: str, count: int
) -> None:
    monkeypatch.setattr(row_loss, "CHUNK_ENTRIES", 5 * 64)  # five rows at once, of 16 or 64
    config = load_architecture("mini-ViT-XXS-8").config
    model = build_model(config, sigmoid_loss=name == "siglip")
    how = build_strategy(find_strategy(name), load_architecture("mini-ViT-XXS-8"))
    features = [unit(64, seed).requires_grad_() for seed in range(4 if name == "slip" else 2)]
    loss = how.loss(model, *features)
    direct = [each for each in (model.logit_scale, model.logit_bias) if each is not None]
    expected = torch.autograd.grad(loss, [*features, *direct])

    def compute(own: Sequence[Tensor], gather: row_loss.Gather, first: int) -> RowLoss:
        with torch.no_grad():
            return how.row_loss(model, [each.detach() for each in own], gather, first)

    found = Ranks(count).run(features, compute)

    assert sum(float(each.share) for each in found) == pytest.approx(loss.item(), rel=1e-6)
    for number, whole in enumerate(expected[: len(features)]):
        joined = torch.cat([each.features[number] for each in found])
        assert float((joined - whole).norm() / whole.norm()) < 1e-6
    scale = sum(float(each.scale) for each in found) * model.logit_scale.exp().item()
    assert scale == pytest.approx(expected[len(features)].item(), rel=1e-4, abs=1e-7)
    if model.logit_bias is not None:
        bias = sum(float(each.bias) for each in found)
        assert bias == pytest.approx(expected[-1].item(), rel=1e-5)


class LiveBytes(TorchDispatchMode):
    """Mode that measures the peak of the bytes of all live tensors."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._known: set[int] = set()

    # The types of its arguments are not public in torch.
    def __torch_dispatch__(self, operation, _types, args=(), kwargs=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN204
        made = operation(*args, **(kwargs or {}))
        for each in made if isinstance(made, tuple | list) else (made,):
            if isinstance(each, Tensor):
                storage = each.untyped_storage()
                if storage.data_ptr() not in self._known and storage.nbytes():
                    self._known.add(storage.data_ptr())
                    self.live += storage.nbytes()
                    weakref.finalize(storage, self._gone, storage.data_ptr(), storage.nbytes())
        self.peak = max(self.peak, self.live)
        return made

    def _gone(self, pointer: int, size: int) -> None:
        self._known.discard(pointer)
        self.live -= size


def one_of(ranks: int, batch: Sequence[Tensor]) -> Callable[[Tensor], Tensor]:
    """Return a gather for rank 0 that returns the tensors the other ranks would send."""
    own = len(batch[0]) // ranks
    whole = {each[:own].data_ptr(): each for each in batch}

    def gather(part: Tensor) -> Tensor:
        found = whole.get(part.data_ptr())
        return part.repeat(ranks) if found is None else found

    return gather


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 8])
def test_rank_holds_a_few_chunks_and_never_the_matrix(monkeypatch: pytest.MonkeyPatch, ranks: int) -> None:
    chunk, pairs = 2**16, 4096
    monkeypatch.setattr(row_loss, "CHUNK_ENTRIES", chunk)
    batch = [unit(pairs, seed) for seed in range(2)]
    image, text = (each[: pairs // ranks] for each in batch)

    with LiveBytes() as clip, torch.no_grad():
        softmax_row_loss(image, text, torch.tensor(14.0), one_of(ranks, batch), 0)
    with LiveBytes() as simclr, torch.no_grad():
        simclr_row_loss(image, text, temperature=0.1, gather=one_of(ranks, batch), first=0)

    features = 8 * pairs * WIDTH * 4
    assert clip.peak <= 5 * chunk * 4 + features
    assert simclr.peak <= 5 * chunk * 4 + 2 * features
    assert clip.peak < pairs * pairs * 4 / 16  # the matrix alone would be 64 MiB


def test_work_of_a_rank_falls_with_the_number_of_ranks() -> None:
    batch = [unit(512, seed) for seed in range(2)]
    flops = {}
    for ranks in (1, 8):
        image, text = (each[: 512 // ranks] for each in batch)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            softmax_row_loss(image, text, torch.tensor(14.0), one_of(ranks, batch), 0)
        flops[ranks] = counter.get_total_flops()

    assert flops[1] == 8 * flops[8]


def test_vit_b_32_at_a_batch_of_64k_on_64_gpus_fits_one_of_40_gb() -> None:
    architecture = load_architecture("ViT-B-32")

    found = memory_bytes(architecture, find_strategy("clip"), Recipe(), batch_size=65_536, devices=64)

    loss = 5 * 2**25 * 4 + 2 * (65_536 + 2 * 1024) * 512 * 4  # chunks, then features of the whole batch
    towers = 16 * 151_277_313 + 1024 * 34 * 12 * (50 * 768 + 77 * 512)
    images = 1024 * 3 * 224**2 * (2 + 4 + 2)  # bytes, fp32, and the first layer's input
    assert found == pytest.approx(towers + loss + images, rel=0.06)
    assert found < 40e9
