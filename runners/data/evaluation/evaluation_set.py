"""Evaluation sets in CLIP_benchmark's webdataset layout, which its ``build_wds_dataset`` also reads.

<set>/dataset_type.txt                          ``classification`` (default if missing) or ``retrieval``
<set>/classnames.txt                            one per line; zero-shot only
<set>/zeroshot_classification_templates.txt     one per line, ``{c}`` for the class name; zero-shot only
<set>/test/nshards.txt, 0.tar, 1.tar …          png/jpg/webp, and cls (a number) or txt (one caption per line)
<set>/train/nshards.txt, 0.tar, 1.tar …         the same; linear and few-shot probes are fitted to it

Numbers of shards may be padded with zeros (``00.tar``).
A folder of shards with captions (``txt``, or ``caption`` in the ``json``), for example held-out shards of a
pool, is a retrieval set too.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from operator import methodcaller
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from budgets.names import unknown
from runners.data.pool.samples import IMAGE_KINDS, read_samples
from runners.data.pool.shards import (
    close_shard,
    encode_image,
    facts_of,
    image_kind,
    image_size,
    write_sample,
)
from runners.store.files import is_hidden, new_folder

LAYOUT = (
    "a set is a folder with test/0.tar, test/1.tar …, their number in test/nshards.txt, and either "
    "classnames.txt and zeroshot_classification_templates.txt, or dataset_type.txt with the word retrieval"
)
"""The layout in a sentence, for errors; `docs/evaluation.md` describes it."""

_TYPES = ("classification", "retrieval")
_TEMPLATES = "zeroshot_classification_templates.txt"
_LONGEST_LABEL = 20

ZERO_SHOT_METRICS = ("top1", "top5", "mean_per_class")
RETRIEVAL_METRICS = tuple(f"{way}_r{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10))
SHOTS = (5, 10)
"""Images per class that few-shot probes are fitted to."""

PROBE_METRICS = {"probe_top1": 0, **{f"few_shot_{shots}_top1": shots for shots in SHOTS}}
"""Metric → images of each class that it needs."""

METRICS = (*ZERO_SHOT_METRICS, *RETRIEVAL_METRICS, *PROBE_METRICS)
"""Every metric that a set may have."""

Decode = Callable[[bytes], NDArray[np.uint8]]
"""Image file → uint8 (3, S, S), RGB; raises OSError if it cannot be decoded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationSet:
    """Images with their classes (zero-shot classification) or their captions (retrieval)."""

    images: NDArray[np.uint8]  # (n, 3, S, S), RGB
    labels: NDArray[np.int64] | None = None  # (n,), indices into ``classnames``; None for retrieval
    classnames: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()  # prompts with ``{c}`` for the class name
    captions: tuple[tuple[str, ...], ...] | None = None  # one or more per image; None for classification


def write_evaluation_set(path: str | Path, data: EvaluationSet) -> None:
    """Write a set atomically, as one shard of PNGs.

    Raises:
        ValueError: ``path`` already exists, or there are neither labels nor captions.
    """
    if data.captions is not None:
        kind, truths = "retrieval", [{"txt": "\n".join(captions).encode()} for captions in data.captions]
    elif data.labels is not None:
        kind, truths = "classification", [{"cls": str(label).encode()} for label in data.labels]
    else:
        raise ValueError("an evaluation set needs labels or captions")
    with new_folder(Path(path)) as folder:
        (folder / "dataset_type.txt").write_text(kind + "\n", encoding="utf-8")
        if data.captions is None:
            _write_lines(folder / "classnames.txt", data.classnames)
            _write_lines(folder / _TEMPLATES, data.templates)
        write_split(folder / "test", data.images, truths)


def write_split(folder: Path, images: NDArray[np.uint8], truths: Sequence[dict[str, bytes]]) -> None:
    """Write a split: images, uint8 (n, 3, S, S), and the contents of their ``cls`` or ``txt`` by ending."""
    folder.mkdir()
    (folder / "nshards.txt").write_text("1\n", encoding="utf-8")
    with (folder / "0.tar").open("wb") as file:
        for place, (image, truth) in enumerate(zip(images, truths, strict=True)):
            png = encode_image(np.ascontiguousarray(image.transpose(1, 2, 0)))
            write_sample(file, f"{place:09d}", {"png": png} | truth)
        close_shard(file)


# Without slots: cached_property stores its value in the instance's dict.
@dataclass(frozen=True, kw_only=True)
class SetFolder:
    """An evaluation set on disk, or a folder of shards. Whatever is missing or not valid is a ValueError."""

    path: Path

    @cached_property
    def is_retrieval(self) -> bool:
        """True if the truth of an image is its captions, False if it is a class."""
        file = self.path / "dataset_type.txt"
        if not file.is_file():
            return not (self.path / "test").is_dir()
        kind = file.read_text(encoding="utf-8-sig", errors="replace").strip().lower()
        if kind not in _TYPES:
            raise ValueError(f"{file}: {unknown('type', kind, _TYPES)}")
        return kind == "retrieval"

    @cached_property
    def classnames(self) -> tuple[str, ...]:
        """Names of the classes by label; empty for retrieval."""
        names = self._lines("classnames.txt")
        for number, line in enumerate(names):
            if not line:
                where = f"{self.path / 'classnames.txt'}:{number + 1}"
                raise ValueError(f"{where}: the line is empty; label {number} needs a name")
        return names

    @cached_property
    def templates(self) -> tuple[str, ...]:
        """Prompts with ``{c}`` for the class name, once; empty for retrieval."""
        templates = tuple(filter(None, self._lines(_TEMPLATES)))
        for template in templates:
            try:
                names = {template.replace("{c}", "{}").format(name) for name in "ab"}
            except (IndexError, KeyError, ValueError):
                names = set()
            if len(names) < 2:  # noqa: PLR2004 - the prompts of two names differ
                raise ValueError(
                    f"{self.path / _TEMPLATES}: template '{template}' needs {{c}} for the class name, once, "
                    "and no other braces"
                )
        return templates

    def _lines(self, name: str) -> tuple[str, ...]:
        """Return the lines of a text file, without empty ones at its end; none for retrieval."""
        path = self.path / name
        if self.is_retrieval:
            return ()
        if not path.is_file():
            raise ValueError(
                f"an evaluation set for classification needs {path}, which is missing; if this one has "
                f"captions, write the word retrieval into {path.with_name('dataset_type.txt')}"
            )
        try:
            text = path.read_text(encoding="utf-8-sig").rstrip()
        except UnicodeDecodeError:
            raise ValueError(f"{path} is not UTF-8") from None
        if not text:
            raise ValueError(f"an evaluation set for classification needs lines in {path}, which is empty")
        return tuple(line.strip() for line in text.splitlines())

    def samples(self, split: str) -> Iterator[tuple[str, bytes, str]]:
        """Yield each sample's location in words, its image's bytes and its truth.

        The truth is the number of a class, or captions, one a line.
        """
        some, ending = False, "txt" if self.is_retrieval else "cls"
        for shard in split_shards(self.path, split):
            for key, members in read_samples(shard):
                some, kind = True, image_kind(members)
                try:
                    truth = _truth(members, ending)
                except UnicodeDecodeError:
                    raise ValueError(f"the .{ending} of sample {key} of {shard} is not UTF-8") from None
                if kind is None or truth is None:
                    raise ValueError(f"sample {key} of {shard} lacks an image or its .{ending}")
                if fault := self._fault(truth):
                    raise ValueError(f"image {key} of {shard}: {fault}")
                yield f"{key} of {shard}", members[kind][1], truth
        if not some:
            raise ValueError(f"evaluation set {self.path} holds no images")

    def _fault(self, truth: str) -> str:
        """Return what is wrong with a truth, or an empty string."""
        label = truth.strip()
        if not self.is_retrieval:
            classes = len(self.classnames)
            sound = label.isdecimal() and len(label) < _LONGEST_LABEL and int(label) < classes
            return "" if sound else f"its label '{label[:_LONGEST_LABEL]}' is outside the {classes} classes"
        if not label:
            return "it has no caption"
        sound = all(map(str.strip, truth.splitlines()))
        return "" if sound else "it has an empty caption: a line between or after others"

    def image_files(self) -> Iterator[tuple[str, bytes]]:
        """Yield the name and unchanged bytes of each image of the split ``test``."""
        for shard in split_shards(self.path, "test"):
            name = shard.relative_to(self.path).as_posix()
            for key, members in read_samples(shard):
                for kind in IMAGE_KINDS:
                    if kind in members:
                        yield f"{key}.{kind} of {self.path.name}/{name}", members[kind][1]


def _truth(members: Mapping[str, tuple[int, bytes]], ending: str) -> str | None:
    """Return the class or captions of a sample; None if it has none."""
    if ending in members:
        return members[ending][1].decode()
    caption = facts_of(members).get("caption") if ending == "txt" else None
    return " ".join(caption.split()) if isinstance(caption, str) else None


def split_shards(path: Path, split: str) -> list[Path]:
    """Return the shards of a split, in their order; ValueError if the set or split does not exist."""
    folder = path / split
    count = folder / "nshards.txt"
    if count.is_file():
        text = count.read_text(encoding="utf-8", errors="replace").strip()
        # By number, as img2dataset and others write 00.tar, 01.tar …
        named = (shard for shard in folder.glob("*.tar") if shard.stem.isdecimal())
        numbered = sorted(named, key=lambda shard: (int(shard.stem), shard.name))
        if text != str(len(numbered)) or not numbered:
            raise ValueError(
                f"{count} says '{text[:20]}' shards, but {folder} holds {len(numbered)} tars named by number"
            )
        for number, shard in enumerate(numbered):
            if int(shard.stem) != number:
                raise ValueError(
                    f"{shard}: expected number {number}: shards are 0.tar, 1.tar … or 00.tar, 01.tar …"
                )
        return numbered
    if split != "test" or folder.is_dir():
        raise ValueError(f"{count} is missing: the number of shards in {folder}, as one line; {LAYOUT}")
    shards = sorted(
        shard for shard in path.rglob("*.[tT][aA][rR]") if not is_hidden(shard.relative_to(path).as_posix())
    )
    if not shards:
        raise ValueError(
            f"{path} is not an evaluation set: it has neither {count} nor any .tar shard; {LAYOUT}"
        )
    return shards


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


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
    fewest = min(counts[label] for label in range(len(data.classnames))) if probe else -1
    return SetFacts(
        images=len(truths) + (counts.total() if probe else 0),
        texts=sum(truths) if data.is_retrieval else len(data.classnames) * len(data.templates),
        metrics=(
            *(RETRIEVAL_METRICS if data.is_retrieval else ZERO_SHOT_METRICS),
            *(metric for metric, needed in PROBE_METRICS.items() if needed <= fewest),
        ),
        choices=len(truths) if data.is_retrieval else len(data.classnames),
        content=content.hexdigest()[:12],
    )
