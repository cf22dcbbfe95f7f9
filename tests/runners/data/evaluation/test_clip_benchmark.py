"""CLIP_benchmark reads our evaluation sets with the same content."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.runners.data.whole_set import whole_set

builder: Any = pytest.importorskip("clip_benchmark.datasets.builder", reason="a test dependency")

# webdataset leaves closing its shards to the garbage collector, and warns of what CLIP_benchmark leaves out.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:WebDataset.shardshuffle"),
]


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


def test_a_classification_set_is_the_same_to_clip_benchmark(evaluation: Path) -> None:
    ours = whole_set(evaluation / "held-out", 32)
    theirs = builder.build_wds_dataset("any", pixels, data_dir=str(evaluation / "held-out"))
    images, labels = zip(*theirs, strict=True)
    assert np.array_equal(np.stack(images), ours.images)
    assert ours.labels is not None
    assert list(labels) == ours.labels.tolist()
    assert tuple(theirs.classes) == ours.classnames
    assert tuple(theirs.templates) == ours.templates


def test_a_retrieval_set_is_the_same_to_clip_benchmark(evaluation: Path) -> None:
    ours = whole_set(evaluation / "retrieval", 32)
    theirs = builder.build_wds_dataset("any", pixels, data_dir=str(evaluation / "retrieval"))
    images, captions = zip(*theirs, strict=True)
    assert np.array_equal(np.stack(images), ours.images)
    assert ours.captions is not None
    assert [tuple(each) for each in captions] == list(ours.captions)
