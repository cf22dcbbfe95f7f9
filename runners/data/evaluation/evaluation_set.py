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

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from budgets.names import unknown
from runners.data.pool.samples import IMAGE_KINDS, read_samples
from runners.data.pool.shards import close_shard, encode_image, facts_of, image_kind, write_sample
from runners.store.files import is_hidden, new_folder

LAYOUT = (
    "a set is a folder with test/0.tar, test/1.tar …, their number in test/nshards.txt, and either "
    "classnames.txt and zeroshot_classification_templates.txt, or dataset_type.txt with the word retrieval"
)
"""The layout in a sentence, for errors; `docs/data.md` describes it."""

_TYPES = ("classification", "retrieval")

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
        kind, truths = "retrieval", [{"txt": "\n".join(each).encode()} for each in data.captions]
    elif data.labels is not None:
        kind, truths = "classification", [{"cls": str(label).encode()} for label in data.labels]
    else:
        raise ValueError("an evaluation set needs labels or captions")
    with new_folder(Path(path)) as folder:
        (folder / "dataset_type.txt").write_text(kind + "\n", encoding="utf-8")
        if data.captions is None:
            _write_lines(folder / "classnames.txt", data.classnames)
            _write_lines(folder / "zeroshot_classification_templates.txt", data.templates)
        write_split(folder / "test", data.images, truths)


def image_files(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and unchanged bytes of each image of a set or folder of shards; errors of `samples`."""
    for shard in split_shards(path, "test"):
        name = shard.relative_to(path).as_posix()
        for key, members in read_samples(shard):
            for kind in IMAGE_KINDS:
                if kind in members:
                    yield f"{key}.{kind} of {path.name}/{name}", members[kind][1]


def write_split(folder: Path, images: NDArray[np.uint8], truths: Sequence[dict[str, bytes]]) -> None:
    """Write a split: images, uint8 (n, 3, S, S), and the contents of their ``cls`` or ``txt`` by ending."""
    folder.mkdir()
    (folder / "nshards.txt").write_text("1\n", encoding="utf-8")
    with (folder / "0.tar").open("wb") as file:
        for place, (image, truth) in enumerate(zip(images, truths, strict=True)):
            png = encode_image(np.ascontiguousarray(image.transpose(1, 2, 0)))
            write_sample(file, f"{place:09d}", {"png": png} | truth)
        close_shard(file)


def is_retrieval(path: Path) -> bool:
    """Return whether a set has captions as truth; ValueError if its file of the type holds another word."""
    file = path / "dataset_type.txt"
    if file.is_file():
        kind = file.read_text(encoding="utf-8-sig", errors="replace").strip().lower()
        if kind not in _TYPES:
            raise ValueError(f"{file}: {unknown('type', kind, _TYPES)}")
        return kind == "retrieval"
    return not (path / "test").is_dir()


def samples(path: Path, split: str, truth_ending: str) -> Iterator[tuple[str, bytes, str]]:
    """Yield each sample's location in words, its image's bytes and its truth.

    Raises:
        ValueError: The set or split does not exist, or one of its shards or samples is not valid.
    """
    for shard in split_shards(path, split):
        for key, members in read_samples(shard):
            ending = image_kind(members)
            try:
                truth = _truth(members, truth_ending)
            except UnicodeDecodeError:
                raise ValueError(f"the .{truth_ending} of sample {key} of {shard} is not UTF-8") from None
            if ending is None or truth is None:
                raise ValueError(f"sample {key} of {shard} lacks an image or its .{truth_ending}")
            yield f"{key} of {shard}", members[ending][1], truth


def _truth(members: Mapping[str, tuple[int, bytes]], ending: str) -> str | None:
    """Return the class or captions of a sample; None if it has none."""
    if ending in members:
        return members[ending][1].decode()
    caption = facts_of(members).get("caption") if ending == "txt" else None
    return " ".join(caption.split()) if isinstance(caption, str) else None


def read_lines(path: Path) -> tuple[str, ...]:
    """Return the non-empty lines of a set's text file; ValueError if it is missing, empty or not UTF-8."""
    if not path.is_file():
        raise ValueError(
            f"an evaluation set for classification needs {path}, which is missing; if this one has captions, "
            f"write the word retrieval into {path.with_name('dataset_type.txt')}"
        )
    try:
        lines = (line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines())
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8") from None
    found = tuple(line for line in lines if line)
    if not found:
        raise ValueError(f"an evaluation set for classification needs lines in {path}, which is empty")
    return found


def read_classnames(path: Path) -> tuple[str, ...]:
    """Return the class names of a set in its folder, by label.

    Raises:
        ValueError: As `read_lines`; or a line between others is empty, which would shift the labels.
    """
    file = path / "classnames.txt"
    found = read_lines(file)
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").rstrip().splitlines(), start=1):
        if not line.strip():
            raise ValueError(f"{file}:{number}: the line is empty; label {number - 1} needs a name")
    return found


def read_templates(path: Path) -> tuple[str, ...]:
    """Return the prompt templates of a set for classification.

    Raises:
        ValueError: As `read_lines`; or a template has no place for the class name.
    """
    file = path / "zeroshot_classification_templates.txt"
    templates = read_lines(file)
    for template in templates:
        try:
            names = {template.replace("{c}", "{}").format(each) for each in "ab"}
        except (IndexError, KeyError, ValueError):
            names = set()
        if len(names) < 2:  # noqa: PLR2004 - the prompts of two names differ
            raise ValueError(
                f"{file}: template '{template}' needs {{c}} for the class name, once, and no other braces"
            )
    return templates


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
