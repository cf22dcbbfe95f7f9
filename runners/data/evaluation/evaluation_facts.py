"""Facts about an evaluation set that a plan needs, read without decoding images; and a full check."""

import json
from collections import Counter
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from runners.data.evaluation.evaluation_set import is_retrieval, read_classnames, read_templates, samples
from runners.data.pool.pictures import load
from runners.data.pool.shards import image_size

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

ZERO_SHOT_METRICS = ("top1", "top5", "mean_per_class")
RETRIEVAL_METRICS = tuple(f"{way}_r{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10))
SHOTS = (5, 10)
"""Images per class that few-shot probes are fitted to."""


def _probe_metrics(*, most_shots: int) -> tuple[str, ...]:
    return "probe_top1", *(f"few_shot_{shots}_top1" for shots in SHOTS if shots <= most_shots)


METRICS = (*ZERO_SHOT_METRICS, *RETRIEVAL_METRICS, *_probe_metrics(most_shots=max(SHOTS)))
"""Every metric that a set may have."""
_LONGEST_LABEL = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class SetFacts:
    """Facts about a set that a plan needs."""

    images: int  # that an evaluation encodes, including a probe's training split
    texts: int  # that it encodes: prompts or captions
    metrics: tuple[str, ...]
    choices: int  # classes, or images of a retrieval set
    content: str  # a hash of everything that a result depends on


def describe_evaluation_set(path: str | Path, *, probe: bool = False) -> SetFacts:
    """Read a whole set without decoding its images; whatever would stop an evaluation is an error.

    With ``probe``, linear and few-shot probes are fitted to its training split.

    Raises:
        ValueError: The set, one of its files or a needed training split is missing or not valid, as far as
            can be known without decoding.
    """
    path = Path(path)
    retrieval = is_retrieval(path)
    classnames = () if retrieval else read_classnames(path)
    templates = () if retrieval else read_templates(path)
    content = sha256(json.dumps([classnames, templates]).encode())
    images = captions = 0
    for where, image, truth in samples(path, "test", "txt" if retrieval else "cls"):
        if not retrieval:
            _check_label(path, where, truth, len(classnames))
        elif not truth.strip():
            raise ValueError(f"image {where} of {path} has no caption")
        elif not all(map(str.strip, truth.splitlines())):
            raise ValueError(f"image {where} of {path} has an empty caption: a line between or after others")
        _check_image(path, where, image, decode=False)
        images += 1
        captions += len(truth.splitlines())
        content.update(sha256(image).digest() + truth.encode())
    if not images:
        raise ValueError(f"evaluation set {path} holds no images")
    metrics, choices = (RETRIEVAL_METRICS, images) if retrieval else (ZERO_SHOT_METRICS, len(classnames))
    if probe:
        counts = _training_counts(path, len(classnames), content)
        images += sum(counts)
        metrics += _probe_metrics(most_shots=min(counts))
    return SetFacts(
        images=images,
        texts=captions if retrieval else len(classnames) * len(templates),
        metrics=metrics,
        choices=choices,
        content=content.hexdigest()[:12],
    )


def check_evaluation_set(path: str | Path) -> tuple[str, int, int]:
    """Read a whole set and decode its images one at a time, including a training split.

    Returns ``classification`` or ``retrieval``, and the number of images and texts that an evaluation without
    a probe encodes.

    Raises:
        ValueError: As `describe_evaluation_set`, or an image can't be decoded.
    """
    path = Path(path)
    facts = describe_evaluation_set(path)
    retrieval = is_retrieval(path)
    splits = ["test"]
    if not retrieval and (path / "train").is_dir():
        _training_counts(path, len(read_classnames(path)), sha256())
        splits.append("train")
    for split in splits:
        for where, image, _ in samples(path, split, "txt" if retrieval else "cls"):
            _check_image(path, where, image, decode=True)
    return "retrieval" if retrieval else "classification", facts.images, facts.texts


def _training_counts(path: Path, classes: int, content: "Hash") -> list[int]:
    """Count the images of each class in a set's training split, and add the split to a hash."""
    if is_retrieval(path):
        raise ValueError(f"evaluation set {path} is for retrieval; a probe needs classes")
    if not (path / "train" / "nshards.txt").is_file():
        raise ValueError(f"a probe needs a training split, but {path / 'train' / 'nshards.txt'} is missing")
    counts: Counter[int] = Counter()
    for where, image, truth in samples(path, "train", "cls"):
        _check_label(path, where, truth, classes)
        _check_image(path, where, image, decode=False)
        counts[int(truth)] += 1
        content.update(sha256(image).digest() + truth.encode())
    if len(counts) < 2:  # noqa: PLR2004 - a classifier needs two classes
        raise ValueError(f"a probe needs images of two classes, but {path / 'train'} has {len(counts)}")
    return [counts[label] for label in range(classes)]


def _check_image(path: Path, where: str, image: bytes, *, decode: bool) -> None:
    size = image_size(image, load if decode else None)
    if isinstance(size, str):
        raise ValueError(f"image {where} of {path}: {size}")  # noqa: TRY004 - a reason, not a type


def _check_label(path: Path, where: str, truth: str, classes: int) -> None:
    label = truth.strip()
    if not (label.isdecimal() and len(label) < _LONGEST_LABEL and int(label) < classes):
        found = f"label '{label[:_LONGEST_LABEL]}' of {where}"
        raise ValueError(f"{path}: {found} is outside the {classes} classes")
