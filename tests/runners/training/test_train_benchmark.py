"""The training benchmark's open_clip-style reference follows the same loss curve."""

import re
import sys
import warnings
from pathlib import Path

import pytest

from benchmarks import train
from runners.data.pool.pool import Pool
from runners.embedded.embedded_pool import build_embedded_pool

pytestmark = pytest.mark.slow


def smaller_pool(folder: Path, *, pairs: int, seed: int, **_options: object) -> Pool:
    return build_embedded_pool(folder, pairs=pairs // 8, seed=seed, score=None, evaluation_sizes={})


def test_bf16_loop_follows_a_plain_fp32_loop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train, "build_embedded_pool", smaller_pool)
    monkeypatch.setattr(train, "_LONG_PRODUCT_S", 0)  # the smallest product is enough
    words = ["train.py", "--models", "mini-ViT-XXS-8", "--steps", "10", "--turns", "1", "--loss-pairs", "64"]
    monkeypatch.setattr(sys, "argv", words)

    with warnings.catch_warnings():
        code = train.main()

    # Whether it is fast enough is for a quiet machine to say; that it measures is for a test.
    assert code in (0, 1)
    printed = capsys.readouterr().out
    off = re.search(r"its curve in fp32 is (\S+)% off ours at most", printed)
    assert off is not None, printed
    assert float(off[1]) < 1
    assert len(re.findall(r"^train_loss_(?:clip|siglip)_[12]_(?:products|gib) ", printed, re.MULTILINE)) == 8
    assert re.search(r"^train_mini-ViT-XXS-8_ratio \S+ 1\.5 (pass|fail)$", printed, re.MULTILINE)
