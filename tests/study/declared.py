"""A declaration with every key, for tests to modify."""

import copy
from pathlib import Path

import pytest
import yaml

from study.declare.load import load_declaration
from study.declare.yaml_reader import DeclarationError

FULL = """
study: full
pool: {name: described, pairs: 100k, scored: true}
metric: imagenet/top1
evaluation:
  {at: [25%, 50%], imagenet: {images: 5k, texts: 8k}}
budget:
  levels: [100 GFLOP, 300 GFLOP, 900 GFLOP]
  study: 50 TFLOP
  fit: drop
seeds: [0, 1]
grid:
  - architectures: [mini-ViT-XXS-8, mini-ViT-XS-8, mini-RN]
    strategies: [clip, flip-50, slip]
    sizes: [20k, all]
    quality: [top40, all]
  - architectures: [mini-ViT-S-8]
    levels: [300 GFLOP]
    seeds: [2]
  - {architectures: [mini-ViT-S-8], regime: one-epoch}
  - {architectures: [mini-ViT-S-8], regime: equal-samples, samples: [10k, 64k]}
exclude:
  - {architectures: [mini-RN], strategies: [slip], sizes: [20k], quality: [all]}
  - {levels: [900 GFLOP], regimes: [fixed-compute], strategies: [slip]}
training:
  batch_size: 64
  lr_peak: {mini-ViT-XXS-8: 2e-3, mini-ViT-XS-8: 1.5e-3, mini-ViT-S-8: 1e-3, mini-RN: 1e-3}
  weight_decay: 0.1
  beta1: 0.9
  beta2: 98%
  eps: 1e-6
  warmup: 10%
  gradient_clip: 1.0
  precision: bf16
limits: {min_steps: 20, max_epochs: 100}
resources: {cpus: 2, gpus: 1, retries: 1, checkpoint: 2 min}
cluster: {device: H100, count: 8, utilisation: [20%, 50%], price_per_hour: 2.5}
tuning:
  share: 20%
  fields: {lr_peak: [1e-3, 2e-3], beta2: [0.95, 98%]}
  seeds: [7]
  metric: imagenet/top5
loggers: [tensorboard, wandb]
design: {adaptive: true, best: [300 GFLOP], indifference: 2%, forecast: 3 TFLOP, width: 1%, confidence: 95%}
"""


_CONTENT: dict[str, object] = yaml.load(FULL, Loader=yaml.BaseLoader)  # noqa: S506 - reads texts alone


def full() -> dict[str, object]:
    """Return a copy of the declaration as plain data, every value as text."""
    return copy.deepcopy(_CONTENT)


def write(folder: Path, text: str) -> Path:
    """Write a declaration to a file."""
    path = folder / "study.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def changed(old: str, new: str) -> str:
    """Return the declaration with a text replaced that stands once in it."""
    assert FULL.count(old) == 1, f"'{old}' stands once in the declaration"
    return FULL.replace(old, new)


def problems(folder: Path, text: str) -> list[str]:
    """Return the errors of a declaration, each from its line number on."""
    path = write(folder, text)
    with pytest.raises(DeclarationError) as error:
        load_declaration(path)
    return [line.removeprefix(f"{path}:") for line in str(error.value).splitlines()]
