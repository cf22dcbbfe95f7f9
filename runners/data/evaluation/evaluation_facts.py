"""Facts about an evaluation set that a plan needs, and a check of all of it."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from operator import methodcaller
from pathlib import Path

from runners.data.evaluation.evaluation_set import SetFolder
from runners.data.pool.shards import image_size

ZERO_SHOT_METRICS = ("top1", "top5", "mean_per_class")
RETRIEVAL_METRICS = tuple(f"{way}_r{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10))
SHOTS = (5, 10)
"""Images per class that few-shot probes are fitted to."""


def _probe_metrics(*, most_shots: int) -> tuple[str, ...]:
    return "probe_top1", *(f"few_shot_{shots}_top1" for shots in SHOTS if shots <= most_shots)


METRICS = (*ZERO_SHOT_METRICS, *RETRIEVAL_METRICS, *_probe_metrics(most_shots=max(SHOTS)))
"""Every metric that a set may have."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SetFacts:
    """Facts about a set that a plan needs."""

    images: int  # that an evaluation encodes, including a probe's training split
    texts: int  # that it encodes: prompts or captions
    metrics: tuple[str, ...]
    choices: int  # classes, or images of a retrieval set
    content: str  # a hash of everything that a result depends on


def describe_evaluation_set(path: str | Path, *, probe: bool = False, decode: bool = False) -> SetFacts:
    """Read a whole set; whatever would stop an evaluation is an error, as far as it is known.

    With ``probe``, linear and few-shot probes are fitted to its training split. With ``decode``, images of
    all splits are decoded, one at a time; else only their headers are read.

    Raises:
        ValueError: The set, one of its files or a needed training split is missing or not valid.
    """
    data = SetFolder(path=Path(path))
    content = sha256(json.dumps([data.classnames, data.templates]).encode())

    def read(split: str) -> Iterator[str]:
        for where, image, truth in data.samples(split):
            size = image_size(image, methodcaller("load") if decode else None)
            if isinstance(size, str):
                raise ValueError(f"image {where}: {size}")  # noqa: TRY004 - a reason, not a type
            content.update(sha256(image).digest() + truth.encode())
            yield truth

    truths = [len(truth.splitlines()) for truth in read("test")]
    train = data.path / "train"
    counts = Counter[int]()
    if probe and data.is_retrieval:
        raise ValueError(f"evaluation set {path} is for retrieval; a probe needs classes")
    if probe and not (train / "nshards.txt").is_file():
        raise ValueError(f"a probe needs a training split, but {train / 'nshards.txt'} is missing")
    if probe or (decode and train.is_dir() and not data.is_retrieval):
        counts.update(map(int, read("train")))
        if len(counts) < 2:  # noqa: PLR2004 - a classifier needs two classes
            raise ValueError(f"a probe needs images of two classes, but {train} has {len(counts)}")
    most_shots = min(counts[label] for label in range(len(data.classnames))) if probe else 0
    return SetFacts(
        images=len(truths) + (counts.total() if probe else 0),
        texts=sum(truths) if data.is_retrieval else len(data.classnames) * len(data.templates),
        metrics=(RETRIEVAL_METRICS if data.is_retrieval else ZERO_SHOT_METRICS)
        + (_probe_metrics(most_shots=most_shots) if probe else ()),
        choices=len(truths) if data.is_retrieval else len(data.classnames),
        content=content.hexdigest()[:12],
    )
