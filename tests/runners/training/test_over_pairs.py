"""A loss is written once, for all pairs: in chunks and over ranks it is the same, each rank has a share."""

import warnings
import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from open_clip.loss import ClipLoss
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from budgets.cost.strategy import Strategy, find_strategy
from runners.strategies.clip import Clip
from runners.training import over_pairs as over_pairs_module
from runners.training.backward import joint_loss
from runners.training.over_pairs import over_pairs
from runners.training.ranks import gather, rank, rank_count, run_ranks, sum_over_ranks
from tests.fresh import in_fresh_process

PAIRS, WIDTH = 64, 16


class Curved(Clip):
    """A loss that is not linear in its sum, has a part that each rank computes in full, and compares ids."""

    def loss(self, model: SimpleNamespace, *features: Tensor) -> Tensor:
        image, text, ids = features
        assert ids.tolist() == list(range(PAIRS))
        total = over_pairs(ids, lambda rows: (model.logit_scale * image[rows] @ text.T).exp().sum())
        curved: Tensor = total.log().square() + model.logit_scale * (image.mean(0) * text.mean(0)).sum()
        return curved


class OpenClip(Clip):
    """open_clip's own way over ranks: each the loss of its pairs, with the gradients of gathered features."""

    def loss(self, model: SimpleNamespace, *features: Tensor) -> Tensor:
        theirs = ClipLoss(local_loss=True, gather_with_grad=True, rank=rank(), world_size=rank_count())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # it gathers by a deprecated function
            loss: Tensor = theirs(*features, model.logit_scale.exp())
        return loss


def gradients(strategy: Strategy, *, jointly: bool = True) -> list[Tensor]:
    """Return the gradients of a loss by all ranks' features; the loss, its slopes by scale and bias."""
    scale, bias = torch.tensor(2.0).requires_grad_(), torch.tensor(-3.0).requires_grad_()
    model = SimpleNamespace(logit_scale=scale, logit_bias=bias)
    count = strategy.image_views + strategy.text_views
    own = [unit(PAIRS, seed).chunk(rank_count())[rank()].clone().requires_grad_() for seed in range(count)]
    if jointly:
        ids = torch.arange(PAIRS).chunk(rank_count())[rank()]
        given = [*own, ids] if isinstance(strategy, Curved) else own
        loss, of_features, of_parameters = joint_loss(strategy, model, given, [scale, bias])
        slopes, direct = (
            [each for each in of_features if each is not None],
            [each for _, each in of_parameters],
        )
    else:
        loss = strategy.loss(model, *own)
        *slopes, of_scale = torch.autograd.grad(loss, [*own, scale])
        slopes, direct = [slope / rank_count() for slope in slopes], [of_scale, torch.zeros(())]
    means = [sum_over_ranks(each.detach()) / rank_count() for each in (loss, *direct)]
    return [*map(gather, slopes), *means]


def every_loss() -> Mapping[str, Sequence[Tensor]]:
    shipped = {name: gradients(find_strategy(name)) for name in ("clip", "siglip", "slip")}
    theirs = gradients(OpenClip(name="open_clip"), jointly=rank_count() == 1)
    return {**shipped, "curved": gradients(Curved(name="curved")), "open_clip": theirs}


def unit(pairs: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(pairs, WIDTH, generator=generator), dim=1)


@pytest.mark.slow
def test_loss_and_gradients_in_chunks_and_over_two_ranks_are_those_of_the_whole_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = every_loss()
    five_rows = 5 * PAIRS
    monkeypatch.setattr(over_pairs_module, "CHUNK_ENTRIES", five_rows)
    run = partial(run_ranks, every_loss, count=2, gpus=False)
    chunked = every_loss()
    ranks = in_fresh_process(run, {f"{over_pairs_module.__name__}.CHUNK_ENTRIES": five_rows})

    for found in (chunked, ranks):
        for name, values in found.items():
            expected = whole["clip" if name == "open_clip" else name]
            assert len(values) == len(expected) == (7 if name == "slip" else 5)
            for value, exact in zip(values, expected, strict=True):
                assert float((value - exact).norm()) <= 1e-6 * max(float(exact.norm()), 0.1), name


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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clip", "siglip", "slip"])
def test_loss_holds_a_few_chunks_and_never_the_matrix(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    chunk, pairs = 2**16, 2048
    monkeypatch.setattr(over_pairs_module, "CHUNK_ENTRIES", chunk)
    strategy, one = find_strategy(name), torch.ones(())
    model = SimpleNamespace(logit_scale=one, logit_bias=one)
    own = [unit(pairs, seed).requires_grad_() for seed in range(strategy.image_views + strategy.text_views)]

    with LiveBytes() as memory:
        joint_loss(strategy, model, own, ())

    assert memory.peak <= 5 * chunk * 4 + 3 * len(own) * pairs * WIDTH * 4
    assert memory.peak < pairs * pairs * 4 / 6  # the matrix alone would be 16 MiB, 64 in SLIP


@pytest.mark.parametrize("ranks", [1, 8])
def test_work_of_a_rank_falls_with_the_number_of_ranks(monkeypatch: pytest.MonkeyPatch, ranks: int) -> None:
    monkeypatch.setattr(over_pairs_module, "rank_count", lambda: ranks)
    monkeypatch.setattr(over_pairs_module, "sum_over_ranks", lambda own: own.clone())
    image, text = unit(512, 0), unit(512, 1)

    with FlopCounterMode(display=False) as counter:
        find_strategy("clip").loss(SimpleNamespace(logit_scale=torch.ones(())), image, text)

    assert counter.get_total_flops() == 2 * 2 * 512 * 512 * WIDTH // ranks
