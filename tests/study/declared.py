"""Declarations that together have every key; tests modify the first one."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from budgets.declaration.marked_file import DeclarationError
from study.declare.load import load_declaration

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

MIXED = """
study: mixed
pools:
  web: pools/web
  icons: {embedded: {pairs: 4k, seed: 3}}
mixtures:
  union: {web: {quality: top20}, icons: {pairs: 1k}}
  half: {web: 0.5, icons: {weight: 0.5}}
budget: {levels: [100 GFLOP]}
grid:
  - {architectures: [mini-ViT-XXS-8], mixtures: [half], sizes: [2k, all]}
  - {architectures: [mini-ViT-XS-8]}
exclude:
  - {mixtures: [union], architectures: [mini-ViT-XS-8]}
training: {lr_peak: {mini-ViT-XXS-8: 2e-3, mini-ViT-XS-8: 1e-3}, schedule: trunk, warmup: 10k samples}
evaluation: {trunk: true}
"""

SPREAD = """
study: spread
pool: {embedded: {pairs: 8k, seed: 3}}
storage: /nfs/x
materialise_from: 4
budget: {study: 50 TFLOP, ladder: {levels: 3, ratio: 3.16}, count_scoring: true}
grid:
  - {architectures: [mini-ViT-XXS-8, mini-ViT-XS-8]}
training:
  preset: paper
  batch_size: 64
  lr_rule: sqrt
  optimizer: adafactor
  schedule: constant-with-cooldown
  cooldown: 15%
  accumulation: 4
  ema: 0.999
  unmasked_tail: 2%
  embedding_decay: true
  randaugment: 50%
  slip_views: small
  gradient_checkpointing: true
  compile: true
  diverged_after: 30%
  resized_images: 256
limits: {damage: 1%}
resources:
  cpus: 2
  ranks: 2
  nodes: 2
  custom: {disk: 1}
  backoff: 10 s
  checkpoint_steps: 500
  hang: 20 min
  loader_memory: 1 GiB
  wait: 10 min
tuning:
  {share: 10%, check: 5%, fields: {lr_peak: [1e-3, 2e-3]}, sizes: [mini-ViT-XXS-8, mini-ViT-XS-8],
   strategies: [clip], architectures: [mini-ViT-XXS-8, mini-ViT-XS-8]}
"""

CHOSEN = """
study: chosen
pool: {path: web}
catalogue: nets
strategy_files: [smooth.py, losses]
evaluation: {imagenet: {path: sets/imagenet, probe: true}}
metric: imagenet/top1
budget: {levels: [100 GFLOP, 300 GFLOP], study: 50 TFLOP}
grid:
  - {architectures: [mini-ViT-XXS-8, mine]}
training:
  lr_peak: {mini-ViT-XXS-8: 2e-3, mine: 1e-3}
  rules:
    - {architectures: mine, strategies: clip, levels: 300 GFLOP, batch_size: 128, lr_peak: 5e-4}
    - {architectures: mine, strategies: clip, tune: false}
resources:
  auto: true
  rules:
    - {architectures: mine, strategies: clip, levels: 300 GFLOP, cpus: 4, gpus: 4, nodes: 2}
    - {architectures: mini-ViT-XXS-8, accumulation: 4, gradient_checkpointing: true}
cluster: {device: h100, count: 64, node_gpus: 8, node_cpus: 192, scaling: 95%}
tuning: {share: 10%, fields: {lr_peak: [1e-3, 2e-3]}, levels: [100 GFLOP, 300 GFLOP]}
"""

DECLARATIONS = (FULL, MIXED, SPREAD, CHOSEN)
"""Paths are relative; `CHOSEN` needs a folder ``nets`` with ``mine.json``."""


_CONTENT: dict[str, object] = yaml.load(FULL, Loader=yaml.BaseLoader)  # noqa: S506 - reads texts alone


def full() -> dict[str, object]:
    """Return a copy of `FULL` as plain data, every value as text."""
    return copy.deepcopy(_CONTENT)


def places(content: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to each value inside plain data."""
    inner: Any = content.items() if isinstance(content, dict) else ()
    inner = enumerate(content) if isinstance(content, list) else inner
    return [path] * bool(path) + [place for key, value in inner for place in places(value, (*path, key))]


def write(folder: Path, text: str) -> Path:
    """Write a declaration to a file."""
    path = folder / "study.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def changed(old: str, new: str) -> str:
    """Return `FULL` with a text replaced, which must occur once in it."""
    assert FULL.count(old) == 1, f"'{old}' must occur once in the declaration"
    return FULL.replace(old, new)


def problems(folder: Path, text: str) -> list[str]:
    """Return the errors of a declaration, each from its line number on."""
    path = write(folder, text)
    with pytest.raises(DeclarationError) as error:
        load_declaration(path)
    return [line.removeprefix(f"{path}:") for line in str(error.value).splitlines()]
