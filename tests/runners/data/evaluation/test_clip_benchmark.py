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


@pytest.mark.parametrize("name", ["held-out", "retrieval"])
def test_a_set_is_the_same_to_clip_benchmark(evaluation: Path, name: str) -> None:
    ours = whole_set(evaluation / name, 32)
    theirs = builder.build_wds_dataset("any", pixels, data_dir=str(evaluation / name))
    images, truths = zip(*theirs, strict=True)
    assert np.array_equal(np.stack(images), ours.images)
    if ours.labels is None:
        assert tuple(map(tuple, truths)) == ours.captions
    else:
        assert list(truths) == ours.labels.tolist()
        assert (tuple(theirs.classes), tuple(theirs.templates)) == (ours.classnames, ours.templates)
