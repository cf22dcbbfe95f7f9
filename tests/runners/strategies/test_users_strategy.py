"""The strategy that the documentation shows trains at once, in parts and on two ranks, and is costed."""

import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from analysis.labels import strategy_text
from budgets.cost.architecture import load_architecture
from budgets.cost.flops import sample_cost
from budgets.cost.strategy import Strategy, find_strategy, strategies
from budgets.declaration.recipe import Recipe
from runners.models.model import build_model
from runners.trials.trial import run_trial
from tests.root import ROOT
from tests.runners.tiny import tiny_job, tiny_trial

PAGE = (ROOT / "docs" / "strategies.md").read_text(encoding="utf-8")


@pytest.fixture
def smooth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Strategy]:
    """The page's file, as the module of an installed package."""
    found = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    (tmp_path / "smooth.py").write_text(found[1])
    installed = tmp_path / "smooth-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: smooth\nVersion: 1\n")
    (installed / "entry_points.txt").write_text("[scaling_study.strategies]\nlosses = smooth\n")
    monkeypatch.syspath_prepend(tmp_path)
    strategies.cache_clear()
    yield find_strategy("smooth")
    monkeypatch.undo()
    strategies.cache_clear()


def test_its_loss_is_that_of_smoothed_labels_and_costs_as_clip(smooth: Strategy) -> None:
    architecture = load_architecture("mini-ViT-XXS-8")
    model, target = build_model(architecture.config), torch.arange(8)
    image, text = normalize(torch.randn(2, 8, 64), dim=-1)

    logits = model.logit_scale.exp() * image @ text.T
    expected = sum(cross_entropy(each, target, label_smoothing=0.1) for each in (logits, logits.T)) / 2
    torch.testing.assert_close(smooth.loss(model, image, text), expected)
    clip = find_strategy("clip")
    assert sample_cost(architecture, smooth, batch_size=64) == sample_cost(architecture, clip, batch_size=64)
    assert strategy_text("smooth") == "CLIP, smoothed labels"


@pytest.mark.slow
def test_it_trains_alike_at_once_in_parts_and_on_two_ranks(
    smooth: Strategy, pool: Path, tmp_path: Path
) -> None:
    curves = []
    for parts, ranks in ((1, 1), (4, 1), (2, 2)):
        trial = tiny_trial(strategy=smooth.name, recipe=Recipe(precision="fp32", accumulation=parts))
        job = tiny_job(trial, pool, tmp_path / f"{parts}-{ranks}", ranks=ranks)
        assert run_trial(job).row["status"] == "finished"
        curves.append(pd.read_parquet(job.folder / "curve.parquet")["loss"].to_numpy())

    assert len(curves[0]) == 30
    assert curves[0][-1] < curves[0][0]
    assert curves[1] == pytest.approx(curves[0], rel=2e-5)
    assert curves[2] == pytest.approx(curves[0], rel=2e-5)
