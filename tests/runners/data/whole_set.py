"""A whole evaluation set in memory, as tests compare it."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runners.data.evaluation.evaluation_set import EvaluationSet, write_split
from runners.data.evaluation.set_reader import SetReader


def whole_set(path: Path, size: int) -> EvaluationSet:
    """Read a set as it is written, without a cache."""
    reader = SetReader(path=path, decode=size)
    if reader.is_retrieval:
        batches = list(reader.captioned())
        captions = tuple(own for _, texts in batches for own in texts)
        return EvaluationSet(images=np.concatenate([images for images, _ in batches]), captions=captions)
    images, labels = map(np.concatenate, zip(*reader.labelled(), strict=True))
    return EvaluationSet(
        images=images, labels=labels, classnames=reader.classnames, templates=reader.templates
    )


def write_training_split(path: Path, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    """Write a training split beside the test split of a set."""
    write_split(path / "train", images, [{"cls": str(label).encode()} for label in labels])
