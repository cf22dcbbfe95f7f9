"""Reader of an evaluation set: decoded batch by batch, each image once on a node.

Decoded batches stay in a bounded cache on the node's disk that all trials share.
"""

import json
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from itertools import count, islice
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray

from runners.data.evaluation.evaluation_set import (
    Decode,
    is_retrieval,
    read_classnames,
    read_templates,
    samples,
    split_shards,
)
from runners.data.pool.reader import DECODING, decode_image
from runners.store.cache import Cache

BATCH = 256
"""Images that are decoded, kept and encoded at once; rows of features depend on it in their last bits."""

_Undecoded = tuple[str, bytes, str]
"""A sample's location in words, its image's bytes and its truth."""

Images = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True)
class SetReader:
    """An evaluation set on disk; images are uint8 (n, 3, S, S), RGB, with n up to `BATCH`.

    ``decode`` is a decoder of images; or the side S in pixels, as in `runners.data.pool.reader.decode_rows`.
    Only in the latter case does the cache keep decoded batches.
    """

    path: Path
    decode: Decode | int
    threads: int = 1
    cache: Cache | None = None

    @property
    def is_retrieval(self) -> bool:
        """True if the truth of an image is its captions, False if it is a class."""
        return is_retrieval(self.path)

    @property
    def classnames(self) -> tuple[str, ...]:
        """Names of the classes; empty for retrieval."""
        return () if self.is_retrieval else read_classnames(self.path)

    @property
    def templates(self) -> tuple[str, ...]:
        """Prompts with ``{c}`` for the class name; empty for retrieval."""
        return () if self.is_retrieval else read_templates(self.path)

    def labelled(self, split: str = "test") -> Iterator[tuple[Images, NDArray[np.int64]]]:
        """Yield batches of a split's images and their classes, as indices into ``classnames``.

        Raises:
            ValueError: The set or split does not exist, or one of its files is missing or not valid.
        """
        classes = len(self.classnames)
        for images, truths in self._batches(split):
            yield images, self._labels(truths, classes)

    def captioned(self) -> Iterator[tuple[Images, list[tuple[str, ...]]]]:
        """Yield batches of images and their captions, one or more each; ValueError as `labelled`."""
        for images, truths in self._batches("test"):
            yield images, [tuple(truth.splitlines()) for truth in truths]

    def is_filled(self, split: str = "test") -> bool:
        """Return whether some process has read a split to its end into the cache."""
        return self.cache is not None and self._batches_in(self.cache, self._key(split)) is not None

    def fill(self, split: str = "test", *, wait: bool = True) -> None:
        """Decode a split into the cache, unless it is there; a killed process leaves whole batches.

        While another process fills the split, it is waited for, or nothing is done. ValueError as `labelled`.
        """
        if self.cache is None or not isinstance(self.decode, int):
            return
        key, classes, _ = self._key(split), len(self.classnames), self.templates
        with self.cache.turn(key, wait_s=math.inf if wait else 0) as mine:
            if mine and not self.is_filled(split):
                for _, truths in self._batches(split, if_kept=True):
                    if classes:
                        self._labels(truths, classes)

    def _batches(self, split: str, *, if_kept: bool = False) -> Iterator[tuple[Images, list[str]]]:
        """Yield batches of images and their truths, from the cache or decoded and kept.

        It never waits for another process: a process of low priority may be filling the cache for a trial in
        training. With ``if_kept`` it ends where the cache takes no more.
        """
        cache, key = self.cache if isinstance(self.decode, int) else None, self._key(split)
        last = None if cache is None else self._batches_in(cache, key)
        source, at = self._undecoded(split), 0  # ``at`` is the number of batches taken from ``source``
        for number in count():
            if number == last:
                return
            name = f"{key} {number}"
            found = None if cache is None else _unpacked(cache.whole(name))
            # Until the number of batches is known, only the shards show where the split ends.
            if found is None or last is None:
                batch = next(islice(source, number - at, None), None)
                at = number + 1
                if batch is None:
                    if cache is not None:
                        cache.write(key, str(number).encode())
                    return
                if found is None:
                    found = self._decoded(batch), [truth for _, _, truth in batch]
                    if cache is not None and not cache.write(name, _packed(*found)) and if_kept:
                        return
            yield found

    def _undecoded(self, split: str) -> Iterator[list[_Undecoded]]:
        """Yield a split's samples in batches."""
        source, some = samples(self.path, split, "txt" if self.is_retrieval else "cls"), False
        while batch := list(islice(source, BATCH)):
            some = True
            yield batch
        if not some:
            raise ValueError(f"evaluation set {self.path} holds no images")

    def _decoded(self, batch: Sequence[_Undecoded]) -> Images:
        how = partial(decode_image, image_size=self.decode) if isinstance(self.decode, int) else self.decode

        def decoded(sample: _Undecoded) -> Images:
            try:
                return how(sample[1])
            except Exception as error:  # decoders raise many types of errors
                raise ValueError(f"cannot decode image {sample[0]}: {error}") from error

        with ThreadPoolExecutor(self.threads) if self.threads > 1 else nullcontext() as workers:
            return np.stack(list((workers.map if workers else map)(decoded, batch)))

    def _labels(self, truths: Sequence[str], classes: int) -> NDArray[np.int64]:
        labels = np.array([int(truth) for truth in truths], np.int64)
        if labels.min() < 0 or labels.max() >= classes:
            raise ValueError(f"{self.path}: a label is outside the {classes} classes of classnames.txt")
        return labels

    def _key(self, split: str) -> str:
        """Return the name of a split's batches; it changes with its shards and the way of decoding."""
        shards = [
            (shard.name, facts.st_size, facts.st_mtime_ns)
            for shard in split_shards(self.path, split)
            for facts in [shard.stat()]
        ]
        truth = "captions" if self.is_retrieval else "labels"
        how = f"{self.decode} {PIL.__version__} {DECODING} {BATCH} {truth}"
        return blake2b(f"{self.path.resolve()} {split} {how} {shards}".encode(), digest_size=16).hexdigest()

    @staticmethod
    def _batches_in(cache: Cache, key: str) -> int | None:
        """Return the number of batches of a split; None before a process has read it to its end."""
        found = cache.whole(key) or b""
        return int(found) if found.isdigit() else None


def _packed(images: Images, truths: Sequence[str]) -> bytes:
    """Return a batch as one file: a line of JSON with the shape and the truths, then the images' bytes."""
    return json.dumps([images.shape, truths]).encode() + b"\n" + images.tobytes()


def _unpacked(content: bytearray | None) -> tuple[Images, list[str]] | None:
    """Return a batch that ``_packed`` made; None if there is none or a part of it."""
    if content is None:
        return None
    try:
        line = content.index(b"\n")
        shape, truths = json.loads(content[:line])
        return np.frombuffer(content, np.uint8, offset=line + 1).reshape(shape), truths
    except (ValueError, TypeError):
        return None
