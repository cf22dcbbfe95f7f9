"""Reader of an evaluation set: batch by batch, from images that are decoded once on a node, if they fit."""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np

from runners.data.evaluation.evaluation_set import Decode, SetFolder, split_shards
from runners.data.pool.decoded import Images, decoded_images, kept_images
from runners.data.pool.reader import decode_image
from runners.store.cache import Cache

BATCH = 256
"""Images that are decoded and encoded at once; rows of features depend on it in their last bits."""


@dataclass(frozen=True, kw_only=True)
class SetReader(SetFolder):
    """An evaluation set as a model sees it; images are uint8 (n, 3, S, S), RGB, with n up to `BATCH`.

    ``decode`` is a decoder of images; or the side S in pixels, as in `runners.data.pool.reader.decode_rows`.
    Only in the latter case does the cache keep decoded splits. Of several ranks each reads a batch in turn:
    those of the others have their truths, and no images.
    """

    decode: Decode | int
    threads: int = 1
    cache: Cache | None = None
    rank: int = 0
    ranks: int = 1

    def labelled(self, split: str = "test") -> Iterator[tuple[Images, list[int]]]:
        """Yield batches of a split's images and their classes, as indices into ``classnames``."""
        for images, truths in self._batches(split):
            yield images, [*map(int, truths)]

    def captioned(self) -> Iterator[tuple[Images, list[tuple[str, ...]]]]:
        """Yield batches of images and their captions, one or more each."""
        for images, truths in self._batches("test"):
            yield images, [tuple(truth.splitlines()) for truth in truths]

    def is_filled(self, split: str = "test") -> bool:
        """Return whether the cache has a split."""
        return self._kept(split) is not None

    def fill(self, split: str = "test", *, wait: bool = True) -> None:
        """Decode a split into the cache, unless it is there.

        While another process fills the split, it is waited for, or nothing is done.
        """
        if self.cache is None or not isinstance(self.decode, int):
            return
        key, _ = self._key(split), self.templates
        with self.cache.turn(key, wait_s=math.inf if wait else 0) as mine:
            if mine:
                decoded_images(self.cache, key, self.decode, partial(self._decoded, split, whole=True))

    def _batches(self, split: str) -> Iterator[tuple[Images, Sequence[str]]]:
        """Yield batches of images and their truths, from the cache or decoded.

        It never waits for another process: a process of low priority may be filling the cache for a trial in
        training.
        """
        if cached := self._kept(split):
            images, truths = cached
            for number, start in enumerate(range(0, len(images), BATCH)):
                # Copied: read from the disk by the thread that reads ahead.
                mine = images[start : start + BATCH * (number % self.ranks == self.rank)].copy()
                yield mine, truths[start : start + BATCH]
        else:
            yield from self._decoded(split)

    def _kept(self, split: str) -> tuple[Images, list[str]] | None:
        if self.cache is None or not isinstance(self.decode, int):
            return None
        return kept_images(self.cache, self._key(split), self.decode)

    def _decoded(self, split: str, *, whole: bool = False) -> Iterator[tuple[Images, list[str]]]:
        """Yield a split's images and truths in batches; with ``whole``, the images of other ranks as well."""
        source = self.samples(split)
        how = partial(decode_image, image_size=self.decode) if isinstance(self.decode, int) else self.decode

        def decoded(sample: tuple[str, bytes, str]) -> Images:
            try:
                return how(sample[1])
            except Exception as error:  # decoders raise many types of errors
                raise ValueError(f"cannot decode image {sample[0]}: {error}") from error

        with ThreadPoolExecutor(self.threads) if self.threads > 1 else nullcontext() as workers:
            for number, batch in enumerate(iter(lambda: list(islice(source, BATCH)), [])):
                mine = batch if whole or number % self.ranks == self.rank else []
                images = list((workers.map if workers else map)(decoded, mine))
                yield np.array(images or np.empty((0, 3, 1, 1), np.uint8)), [truth for _, _, truth in batch]

    def _key(self, split: str) -> str:
        """Return what determines a split's images and truths."""
        shards = [
            (shard.name, facts.st_size, facts.st_mtime_ns)
            for shard in split_shards(self.path, split)
            for facts in [shard.stat()]
        ]
        truths = "captions" if self.is_retrieval else f"labels of {len(self.classnames)} classes"
        return f"{self.path.resolve()} {split} {truths} {shards}"
