"""Reader of an evaluation set: decoded batch by batch, each image once on a node.

Decoded batches stay in a bounded cache on the node's disk that all trials share. Of a split larger than half
of the cache, the first part is kept and the rest is decoded each time.
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
from runners.data.places.piece_cache import PieceCache
from runners.data.pool.reader import DECODING, decode_image

BATCH = 256
"""Images that are decoded, kept and encoded at once; rows of features depend on it in their last bits."""

_LARGEST_SHARE = 2  # a split takes at most half of the cache


_Kept = tuple[int, bool]
"""Number of a split's batches that the cache keeps, from the first on, and True if these are all."""

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
    cache: PieceCache | None = None

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
        """Return whether some process has filled the cache with a split."""
        return self.cache is not None and self._kept(self.cache, self._key(split)) is not None

    def fill(self, split: str = "test", *, wait: bool = True) -> None:
        """Decode a split into the cache, unless it is there; a killed process leaves whole batches.

        While another process fills the split, it is waited for, or nothing is done. ValueError as `labelled`.
        """
        if self.cache is None or not isinstance(self.decode, int):
            return
        key, classes, _ = self._key(split), len(self.classnames), self.templates
        with self.cache.turn(key, wait_s=math.inf if wait else 0) as mine:
            if mine and self._kept(self.cache, key) is None:
                self.cache.write(key, json.dumps(self._fill(self.cache, key, split, classes)).encode())

    def _fill(self, cache: PieceCache, key: str, split: str, classes: int) -> _Kept:
        number = 0
        for number, batch in enumerate(self._undecoded(split)):
            truths = [truth for _, _, truth in batch]
            if classes:
                self._labels(truths, classes)
            name = f"{key} {number}"
            if not self._has_room(cache, number) or not (
                cache.has(name) or cache.write(name, _packed(self._decoded(batch), truths))
            ):
                return number, False
        return number + 1, True

    def _batches(self, split: str) -> Iterator[tuple[Images, list[str]]]:
        """Yield batches of images and their truths, from the cache or decoded and kept.

        It never waits for another process: a process of low priority may be filling the cache for a trial in
        training.
        """
        cache, key = self.cache if isinstance(self.decode, int) else None, self._key(split)
        kept = None if cache is None else self._kept(cache, key)
        # ``at`` is the number of batches taken from ``source``; ``first`` that of batches in the cache
        # without a gap.
        source, at, first = self._undecoded(split), 0, 0
        for number in count():
            if kept == (number, True):
                return
            keeps = cache is not None and (
                self._has_room(cache, number) if kept is None else number < kept[0]
            )
            found = _unpacked(cache.whole(f"{key} {number}")) if cache is not None and keeps else None
            # Without a mark in the cache only the shards show where the split ends, so they are read as well.
            if found is None or kept is None:
                batch = next(islice(source, number - at, None), None)
                if batch is None:
                    if cache is not None and kept is None:
                        cache.write(key, json.dumps([first, first == number]).encode())
                    return
                at = number + 1
                if found is None:
                    found = self._decoded(batch), [truth for _, _, truth in batch]
                    if cache is not None and keeps:
                        keeps = cache.write(f"{key} {number}", _packed(*found))
            first += keeps and first == number
            yield found

    def _has_room(self, cache: PieceCache, number: int) -> bool:
        """Return whether a batch lies in the part of a split that the cache may keep."""
        assert isinstance(self.decode, int)
        return 3 * self.decode**2 * BATCH * (number + 1) * _LARGEST_SHARE <= cache.limit

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
    def _kept(cache: PieceCache, key: str) -> _Kept | None:
        """Return what a process that filled the cache kept; None before."""
        try:
            batches, whole = json.loads(cache.whole(key) or b"")
        except (ValueError, TypeError):
            return None
        return batches, whole


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
