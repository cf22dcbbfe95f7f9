"""The training loop: exact samples, a resumed run equal to one that never stopped, divergence said."""

from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from budgets.architecture import load_architecture
from budgets.declaration import Recipe
from budgets.strategy import strategy
from runners.checkpoint import load_checkpoint, save_checkpoint
from runners.data.training_set import TrainingSet
from runners.model import build_model, compute_context
from runners.strategies.build import build_strategy
from runners.train import Diverged, Schedule, learning_rate, make_optimizer, train

STEPS, BATCH = 12, 8
CPU = torch.device("cpu")


class Run:
    """A short run of one strategy, from the same seed every time."""

    def __init__(self, name: str, *, lr_peak: float = 1e-3) -> None:
        architecture, cost = load_architecture("mini-ViT-XXS-8"), strategy(name)
        torch.manual_seed(1)
        self.model = build_model(architecture.config, kept_fraction=cost.kept_fraction)
        self.strategy = build_strategy(cost, architecture)
        parts = {"model": self.model} | ({} if self.strategy.head is None else {"head": self.strategy.head})
        self.modules = nn.ModuleDict(parts)
        self.optimizer = make_optimizer(self.modules, Recipe())
        self.losses = torch.full((STEPS,), float("nan"))
        self.lr_peak = lr_peak
        draw = np.random.default_rng(0)
        images = draw.integers(0, 256, (30, 3, 32, 32)).astype(np.uint8)
        tokens = draw.integers(1, 1023, (30, 16))
        tokens[:, -1] = 1023
        self.data = TrainingSet(images=torch.from_numpy(images), tokens=torch.from_numpy(tokens))

    def train(self, first_step: int = 0, stop_after: int = STEPS) -> None:
        def after_step(done: int) -> None:
            if done == stop_after:
                raise StopIteration

        schedule = Schedule(seed=3, steps=STEPS, batch_size=BATCH, lr_peak=self.lr_peak, recipe=Recipe())
        with suppress(StopIteration):
            train(
                model=self.model,
                strategy=self.strategy,
                optimizer=self.optimizer,
                data=self.data,
                schedule=schedule,
                losses=self.losses,
                first_step=first_step,
                context=partial(compute_context, "fp32", CPU),
                after_step=after_step,
            )

    @property
    def weights(self) -> dict[str, Tensor]:
        weights: dict[str, Tensor] = self.modules.state_dict()
        return weights


@pytest.mark.parametrize("name", ["clip", "clip-crop-flip", "flip-50", "slip"])
def test_a_resumed_run_equals_one_that_never_stopped_bit_for_bit(name: str, tmp_path: Path) -> None:
    whole = Run(name)
    whole.train()

    stopped = Run(name)
    stopped.train(stop_after=5)
    save_checkpoint(
        tmp_path, step=5, losses=stopped.losses, modules=stopped.modules, optimizer=stopped.optimizer
    )
    resumed = Run(name)
    first = load_checkpoint(
        tmp_path, losses=resumed.losses, modules=resumed.modules, optimizer=resumed.optimizer
    )
    resumed.train(first_step=first)

    assert first == 5
    assert torch.equal(resumed.losses, whole.losses)
    assert all(torch.equal(resumed.weights[key], value) for key, value in whole.weights.items())


def test_without_a_checkpoint_a_run_starts_at_its_first_step(tmp_path: Path) -> None:
    run = Run("clip")

    step = load_checkpoint(tmp_path, losses=run.losses, modules=run.modules, optimizer=run.optimizer)

    assert step == 0
    assert torch.isnan(run.losses).all()


def test_a_loss_that_is_no_number_ends_the_run_and_says_where() -> None:
    run = Run("clip")
    with torch.no_grad():
        run.model.text_projection.fill_(float("nan"))

    with pytest.raises(Diverged, match="the loss is not finite within steps 0 to 12 of 12"):
        run.train()


def test_the_learning_rate_rises_over_the_warmup_and_falls_to_zero_as_a_cosine() -> None:
    rates = [learning_rate(step, steps=100, peak=2.0, warmup=0.1) for step in range(100)]

    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert rates[10] == 2.0
    assert rates[55] == pytest.approx(1.0)
    assert rates[99] == pytest.approx(0, abs=1e-3)
    assert learning_rate(0, steps=3, peak=2.0, warmup=0.1) == 2.0


def test_gains_biases_and_the_temperature_are_not_decayed() -> None:
    run = Run("clip")

    decayed, plain = run.optimizer.param_groups

    assert decayed["weight_decay"] == 0.1
    assert {parameter.ndim for parameter in decayed["params"]} == {2, 4}
    assert plain["weight_decay"] == 0.0
    assert {parameter.ndim for parameter in plain["params"]} == {0, 1}
    assert len(decayed["params"]) + len(plain["params"]) == len(list(run.model.parameters()))
