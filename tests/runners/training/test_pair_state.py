"""State by pair: FastCLIP equals a plain loop of its equations, and a resumed trial an uninterrupted one."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from budgets.cost.strategy import Strategy, find_strategy
from budgets.declaration.recipe import Recipe
from runners.strategies.fastclip import FastClip
from runners.training.backward import joint_loss
from runners.training.pair_state import PairState
from runners.training.ranks import gather, rank, rank_count, run_ranks, sum_over_ranks
from runners.trials.trial import run_trial
from tests.runners.tiny import stop_at, tiny_job, tiny_trial

PAIRS, BATCH, STEPS, WIDTH = 48, 16, 20, 8
PEAK, RATE = 0.05, 0.5
CPU = torch.device("cpu")


def start() -> tuple[list[Tensor], list[Tensor]]:
    """Return tables of image and text features, and the ids of each step's pairs."""
    draw = torch.Generator().manual_seed(3)
    tables = [torch.randn(PAIRS, WIDTH, generator=draw) for _ in range(2)]
    order = torch.cat([torch.randperm(PAIRS, generator=draw) for _ in range(7)])
    return tables, list(order.split(BATCH)[:STEPS])


def trained(how: Strategy) -> list[Tensor]:
    """Train the tables by the strategy; return them, and logarithms of temperature and estimates."""
    tables, steps = start()
    tables = [table.requires_grad_() for table in tables]
    scale = torch.tensor(-math.log(0.1)).requires_grad_()
    model, of_scale = SimpleNamespace(logit_scale=scale, logit_bias=None), torch.optim.AdamW([scale])
    state = PairState(how.pair_state(), PAIRS, CPU)
    for step, ids in enumerate(steps):
        mine = ids.chunk(rank_count())[rank()]
        own = [nn.functional.normalize(table[mine], dim=1) for table in tables]
        values = state.look_up(gather(mine), progress=step / STEPS, epochs=STEPS * BATCH / PAIRS)
        _, slopes, ((_, of_temperature),) = joint_loss(how, model, own, [scale], values=values)
        state.update(ids, values.after)
        torch.autograd.backward(own, [rank_count() * slope for slope in slopes if slope is not None])
        with torch.no_grad():
            for table in tables:
                assert table.grad is not None
                table.sub_(RATE * sum_over_ranks(table.grad) / rank_count())
                table.grad = None
        rate = how.temperature_rate(PEAK, scale.detach())
        assert rate is not None
        of_scale.param_groups[0].update(lr=rate, weight_decay=0.0)
        scale.grad = sum_over_ranks(of_temperature) / rank_count()
        of_scale.step()
    return [each.detach() for each in (*tables, scale, *state.state_dict().values())]


def by_equations(counts: float) -> list[Tensor]:
    """Train the tables by the equations of arXiv 2407.01445, in float64; for τ, g ``counts`` times."""
    tables, steps = start()
    images, texts = (table.double().requires_grad_() for table in tables)
    scale = torch.tensor(-math.log(0.1), dtype=torch.float64).requires_grad_()
    estimates, adam = torch.zeros(2, PAIRS, dtype=torch.float64), torch.optim.AdamW([scale], weight_decay=0.0)
    epochs, epsilon, rho = STEPS * BATCH / PAIRS, 1e-14, 6.5
    for step, ids in enumerate(steps):
        done = min(1.0, (step * BATCH // PAIRS) / (epochs / 2))
        gamma = (1 + math.cos(math.pi * done)) / 2 * (1 - 0.2) + 0.2
        tau = (-scale).exp()
        image, text = (nn.functional.normalize(table[ids], dim=1) for table in (images, texts))
        cosines, others = image @ text.T, 1 - torch.eye(BATCH, dtype=torch.float64)
        own = cosines.diagonal()[:, None]
        g = torch.stack(
            [(((side - own) / tau).exp() * others).sum(1) / (BATCH - 1) for side in (cosines, cosines.T)]
        )
        before = estimates[:, ids]
        u = torch.where(before == 0, g, (1 - gamma) * before + gamma * g).detach()
        estimates[:, ids] = u
        mean = (g / (epsilon + u)).sum(0).mean() / 2
        of_images, of_texts, of_g = torch.autograd.grad(mean, [images, texts, tau])
        with torch.no_grad():
            images -= RATE * tau * of_images
            texts -= RATE * tau * of_texts
            slope = (epsilon + u).log().sum(0).mean() / 2 + rho + counts * tau * of_g
            scale.grad = slope * -tau  # τ = exp(-scale)
            adam.param_groups[0]["lr"] = 0.2 * PEAK / (3 if tau < 0.03 else 1)
            adam.step()
    return [each.detach() for each in (images, texts, scale, *estimates.log())]


@pytest.mark.slow
@pytest.mark.parametrize(("count", "g_counts"), [(1, 1.0), (1, 2.0), (2, 2.0)])
def test_fastclip_equals_a_plain_loop_of_its_equations_for_twenty_steps(count: int, g_counts: float) -> None:
    how = find_strategy("fastclip")
    assert isinstance(how, FastClip)
    assert how.g_counts == 2.0  # as in the authors' code
    run = partial(trained, replace(how, g_counts=g_counts))
    found = run() if count == 1 else run_ranks(run, count=count, gpus=False)

    for value, expected in zip(found, by_equations(g_counts), strict=True):
        assert float((value - expected).norm() / expected.norm()) < 1e-6


def test_inner_rate_falls_by_epoch_from_one_in_half_of_the_epochs() -> None:
    how = find_strategy("fastclip")
    assert isinstance(how, FastClip)
    rates = [how.inner_rate(step / 80, 8.0) for step in range(80)]
    assert rates[:10] == [1.0] * 10
    assert rates[20:30] == pytest.approx([0.6] * 10)  # two of four epochs
    assert rates[40:] == pytest.approx([0.2] * 40)


def test_pair_that_a_batch_has_twice_keeps_its_last_value() -> None:
    state = PairState({"seen": 0.0}, 5, CPU)
    ids = torch.tensor([3, 1, 3, 4, 1])
    values = state.look_up(ids, progress=0.0, epochs=1.0)
    values.after["seen"].copy_(torch.arange(1.0, 6.0))
    assert values.before["seen"].tolist() == [0.0] * 5

    state.update(ids, values.after)

    assert state.look_up(torch.arange(5), progress=0.0, epochs=1.0).before["seen"].tolist() == [0, 5, 0, 3, 4]


def _looked_up(saved: Mapping[str, Tensor]) -> list[float]:
    state = PairState({"seen": 0.0}, 5, CPU)
    state.load_state_dict(saved)
    found: list[float] = (
        state.look_up(torch.tensor([4, 0, 2]), progress=0.0, epochs=1.0).before["seen"].tolist()
    )
    return gather(torch.tensor(found)).tolist()


@pytest.mark.slow
def test_state_of_one_rank_is_that_of_two_after_a_resume() -> None:
    saved = {"seen": torch.arange(5.0)}
    assert run_ranks(partial(_looked_up, saved), count=2, gpus=False) == [4, 0, 2] * 2


@pytest.mark.slow
def test_resumed_trial_with_state_by_pair_equals_an_uninterrupted_one(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tiny_job(tiny_trial(strategy="fastclip", recipe=Recipe(precision="fp32")), pool, tmp_path / "whole")
    whole, cut = run_trial(job), replace(job, folder=tmp_path / "cut")

    stop_at(monkeypatch, partial(run_trial, cut), 17)

    assert json.dumps(run_trial(cut).row) == json.dumps(whole.row)
    weights = [(each / "weights.pt").read_bytes() for each in (job.folder, cut.folder)]
    assert weights[0] == weights[1]
