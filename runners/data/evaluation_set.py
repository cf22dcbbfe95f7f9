"""Evaluation sets in CLIP_benchmark's webdataset layout; its ``build_wds_dataset`` reads them as well.

<set>/dataset_type.txt                          ``classification`` (also where it is missing) or ``retrieval``
<set>/classnames.txt                            one a line; zero-shot only
<set>/zeroshot_classification_templates.txt     one a line, ``{c}`` for the class name; zero-shot only
<set>/test/nshards.txt, 0.tar, 1.tar …          png/jpg/webp, and cls (a number) or txt (one caption a line)

A folder of nothing but shards with captions, such as some of a pool kept apart, is a retrieval set too.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runners.data.reader import decode_image
from runners.data.shards import IMAGE_KINDS, close_shard, image_size, read_samples, write_sample
from runners.data.write import encode_image
from runners.files import new_folder

ZERO_SHOT_METRICS = ("top1", "top5")
RETRIEVAL_METRICS = ("image_to_text_r1", "text_to_image_r1")


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationSet:
    """Images with their classes (zero-shot classification) or their captions (retrieval).

    Attributes:
        images: uint8 (n, 3, S, S), RGB.
        labels: int64 (n,), places in ``classnames``; ``None`` for retrieval.
        classnames: Empty for retrieval.
        templates: With ``{c}`` for the class name; empty for retrieval.
        captions: One or more for each image; ``None`` for classification.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None = None
    classnames: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    captions: tuple[tuple[str, ...], ...] | None = None


def write_evaluation_set(path: str | Path, data: EvaluationSet) -> None:
    """Writes a set as one shard of PNGs; it appears whole or not at all.

    Raises:
        ValueError: If something is at ``path``.
    """
    with new_folder(Path(path)) as folder:
        kind = "classification" if data.captions is None else "retrieval"
        (folder / "dataset_type.txt").write_text(kind + "\n", encoding="utf-8")
        if data.captions is None:
            _write_lines(folder / "classnames.txt", data.classnames)
            _write_lines(folder / "zeroshot_classification_templates.txt", data.templates)
        (folder / "test").mkdir()
        (folder / "test" / "nshards.txt").write_text("1\n", encoding="utf-8")
        with (folder / "test" / "0.tar").open("wb") as file:
            for place, image in enumerate(data.images):
                truth = _truth(data, place)
                png = encode_image(np.ascontiguousarray(image.transpose(1, 2, 0)))
                write_sample(file, f"{place:09d}", {"png": png} | truth)
            close_shard(file)


def load_evaluation_set(path: str | Path, image_size: int) -> EvaluationSet:
    """Reads a set whole.

    Args:
        path: Its folder.
        image_size: Side S in pixels that images are brought to (``runners.data.reader.read_images``).

    Raises:
        ValueError: If there is no such set, or a file of it is missing or not as it should be.
    """
    path = Path(path)
    retrieval = _is_retrieval(path)
    images, truths = [], []
    for where, image, truth in _samples(path, "txt" if retrieval else "cls"):
        try:
            images.append(decode_image(image, image_size))
        except OSError as error:
            raise ValueError(f"cannot decode image {where}: {error}") from error
        truths.append(truth)
    if not images:
        raise ValueError(f"evaluation set {path} holds no images")
    if retrieval:
        return EvaluationSet(
            images=np.stack(images), captions=tuple(tuple(truth.splitlines()) for truth in truths)
        )
    classnames = _read_lines(path / "classnames.txt")
    labels = np.array([int(truth) for truth in truths], np.int64)
    if labels.min() < 0 or labels.max() >= len(classnames):
        raise ValueError(f"{path}: a label is outside of the {len(classnames)} classes in classnames.txt")
    return EvaluationSet(
        images=np.stack(images),
        labels=labels,
        classnames=classnames,
        templates=_read_lines(path / "zeroshot_classification_templates.txt"),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class SetFacts:
    """What a plan must know of a set.

    Attributes:
        images: How many images evaluating on it encodes.
        texts: How many texts, prompts or captions, it encodes.
        metrics: What an evaluation measures, higher is better.
        content: A hash of all that a result depends on.
    """

    images: int
    texts: int
    metrics: tuple[str, ...]
    content: str


def describe_evaluation_set(path: str | Path) -> SetFacts:
    """Reads a set through, without decoding its images.

    Raises:
        ValueError: As ``load_evaluation_set``, short of decoding.
    """
    path = Path(path)
    retrieval = _is_retrieval(path)
    classnames = () if retrieval else _read_lines(path / "classnames.txt")
    templates = () if retrieval else _read_lines(path / "zeroshot_classification_templates.txt")
    content = sha256(json.dumps([classnames, templates]).encode())
    images = captions = 0
    for where, image, truth in _samples(path, "txt" if retrieval else "cls"):
        if not retrieval and not (truth.strip().isdigit() and int(truth) < len(classnames)):
            raise ValueError(
                f"{path}: label '{truth}' of {where} is outside of the {len(classnames)} classes"
            )
        images += 1
        captions += len(truth.splitlines())
        content.update(sha256(image).digest() + truth.encode())
    if not images:
        raise ValueError(f"evaluation set {path} holds no images")
    return SetFacts(
        images=images,
        texts=captions if retrieval else len(classnames) * len(templates),
        metrics=RETRIEVAL_METRICS if retrieval else ZERO_SHOT_METRICS,
        content=content.hexdigest()[:12],
    )


def check_evaluation_set(path: str | Path) -> tuple[str, int, int]:
    """Reads a set through and decodes its images, one at a time.

    Returns:
        ``classification`` or ``retrieval``, and how many images and texts evaluating on it encodes.

    Raises:
        ValueError: As ``load_evaluation_set``.
    """
    path = Path(path)
    facts = describe_evaluation_set(path)
    retrieval = _is_retrieval(path)
    for where, image, _ in _samples(path, "txt" if retrieval else "cls"):
        size = image_size(image, decode=True)
        if isinstance(size, str):
            raise ValueError(f"image {where} of {path}: {size}")  # noqa: TRY004 - a reason, not a type
    return "retrieval" if retrieval else "classification", facts.images, facts.texts


def image_files(path: str | Path) -> Iterator[bytes]:
    """Yields the bytes of each image of a set, or of a folder of shards, as they lie there.

    Raises:
        ValueError: If there is no such set, or a shard of it cannot be read.
    """
    for shard in _shards(Path(path)):
        for _, members in read_samples(shard):
            yield from (members[kind][1] for kind in IMAGE_KINDS if kind in members)


def _truth(data: EvaluationSet, place: int) -> dict[str, bytes]:
    if data.captions is not None:
        return {"txt": "\n".join(data.captions[place]).encode()}
    if data.labels is not None:
        return {"cls": str(data.labels[place]).encode()}
    raise ValueError("an evaluation set needs labels or captions")


def _is_retrieval(path: Path) -> bool:
    kind = path / "dataset_type.txt"
    if kind.is_file():
        return kind.read_text(encoding="utf-8").strip().lower() == "retrieval"
    return not (path / "test").is_dir()


def _shards(path: Path) -> list[Path]:
    count = path / "test" / "nshards.txt"
    if count.is_file():
        return [path / "test" / f"{number}.tar" for number in range(int(count.read_text(encoding="utf-8")))]
    shards = sorted(path.rglob("*.tar"))
    if (path / "test").is_dir() or not shards:
        raise ValueError(f"{path} is not an evaluation set: there is neither {count} nor any .tar shard")
    return shards


def _samples(path: Path, truth_ending: str) -> Iterator[tuple[str, bytes, str]]:
    """Yields each sample's place in words, its image's bytes and its truth."""
    for shard in _shards(path):
        for key, members in read_samples(shard):
            ending = next((kind for kind in IMAGE_KINDS if kind in members), None)
            if ending is None or truth_ending not in members:
                raise ValueError(f"sample {key} of {shard} lacks an image or its .{truth_ending}")
            yield f"{key} of {shard}", members[ending][1], members[truth_ending][1].decode()


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _read_lines(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        raise ValueError(f"an evaluation set for classification needs {path}")
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return tuple(line for line in lines if line)
