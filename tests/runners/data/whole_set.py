"""A whole evaluation set in memory, as tests compare it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runners.data.evaluation.evaluation_set import EvaluationSet, write_evaluation_set, write_split
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


def write_plain_set(path: Path, captions: Sequence[tuple[str, ...]] = (("a",),)) -> None:
    """Write a set of black images of 16 pixels with the given captions each."""
    images = np.zeros((len(captions), 3, 16, 16), np.uint8)
    write_evaluation_set(path, EvaluationSet(images=images, captions=tuple(captions)))


def write_training_split(path: Path, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    """Write a training split beside the test split of a set."""
    write_split(path / "train", images, [{"cls": str(label).encode()} for label in labels])
