"""The strategy that the documentation shows computes what it says, and costs what CLIP does."""

import re
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy, normalize

from budgets.cost.architecture import load_architecture
from budgets.cost.flops import sample_cost
from budgets.cost.strategy import find_strategy
from budgets.cost.strategy_files import load_strategy_files
from runners.models.model import build_model
from tests.root import ROOT

PAGE = (ROOT / "docs" / "strategies.md").read_text(encoding="utf-8")


def test_its_loss_is_that_of_smoothed_labels_and_costs_as_clip(tmp_path: Path) -> None:
    found = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    (tmp_path / "smooth.py").write_text(found[1])
    smooth = load_strategy_files([tmp_path])["smooth"]
    architecture = load_architecture("mini-ViT-XXS-8")
    model, target = build_model(architecture.config), torch.arange(8)
    image, text = normalize(torch.randn(2, 8, 64), dim=-1)

    logits = model.logit_scale.exp() * image @ text.T
    expected = sum(cross_entropy(each, target, label_smoothing=0.1) for each in (logits, logits.T)) / 2
    torch.testing.assert_close(smooth.loss(model, image, text), expected)
    clip = find_strategy("clip")
    assert sample_cost(architecture, smooth, batch_size=64) == sample_cost(architecture, clip, batch_size=64)
