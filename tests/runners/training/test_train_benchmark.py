"""The training benchmark's open_clip-style reference follows the same loss curve."""

import re
import subprocess
import sys

import pytest

from tests.root import ROOT

pytestmark = pytest.mark.slow


def test_bf16_loop_follows_a_plain_fp32_loop() -> None:
    ended = subprocess.run(
        [
            sys.executable,
            "benchmarks/train.py",
            "--models",
            "mini-ViT-XXS-8",
            "--steps",
            "10",
            "--turns",
            "1",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    # Whether it is fast enough is for a quiet machine to say; that it measures is for a test.
    assert ended.returncode in (0, 1), ended.stderr
    off = re.search(r"its curve in fp32 is (\S+)% off ours at most", ended.stdout)
    assert off is not None, ended.stderr
    assert float(off[1]) < 1
    assert re.search(r"^train_mini-ViT-XXS-8_ratio \S+ 1\.5 (pass|fail)$", ended.stdout, re.MULTILINE)
