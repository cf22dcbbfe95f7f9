"""A whole evaluation set in memory, as tests compare it."""

from pathlib import Path

import numpy as np

from runners.data.evaluation.evaluation_set import EvaluationSet
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
