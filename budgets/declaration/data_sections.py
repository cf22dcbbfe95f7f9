"""Sections of a declaration about data: pools, their parts of a mixture, and evaluation sets."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from budgets.declaration import values
from budgets.declaration.keys import A_VALUE, Clashes, Given

EMBEDDED_VERSION = 1
"""Version of the embedded pool's generator; raised if the same (seed, index) gives another pair."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddedPool:
    """The pool that comes with the project: captioned emoji scenes, generated from a seed."""

    pairs: Annotated[int, values.positive]
    """Number of image-text pairs."""
    seed: Annotated[int, values.positive_or_zero] = 0
    """Seed of the pairs; another seed gives other scenes of the same kind."""

    @property
    def name(self) -> str:
        """A name that identifies the pool's content."""
        return f"embedded-v{EMBEDDED_VERSION}-{self.pairs}-seed{self.seed}"


@dataclass(frozen=True, kw_only=True, slots=True)
class FolderPool:
    """A pool of webdataset shards, in the layout that img2dataset writes, in a folder or below a URL."""

    path: Annotated[str, values.place]
    """The folder of a pool of webdataset shards, or the fsspec URL of one that has an index."""

    in_short: ClassVar[Mapping[str, str]] = {A_VALUE: "path"}


@dataclass(frozen=True, kw_only=True, slots=True)
class DescribedPool:
    """A pool that is only described: enough to plan and price a study, not to run it."""

    name: Annotated[str, values.name]
    """Name that identifies the content of a pool that is only described; part of each trial's id."""
    pairs: Annotated[int, values.positive]
    """Number of its image-text pairs."""
    scored: bool = False
    """True if its pairs have a quality score."""


DeclaredPool = EmbeddedPool | FolderPool | DescribedPool


@dataclass(frozen=True, kw_only=True, slots=True)
class MixedPool:
    """A pool of a mixture; a number alone is its ``weight``.

    All pools of a mixture have a weight, or none.
    """

    weight: Annotated[float | None, values.positive_number] = None
    """Its share of the samples seen, relative to the other pools of the mixture; without weights each pair of
    the mixture is seen equally often."""
    quality: Annotated[str, values.quality] = "all"
    """Quality of the pairs that are taken."""
    pairs: Annotated[int | None, values.pairs_or_all] = None
    """Number of these pairs; ``all`` (None) takes all."""

    in_short: ClassVar[Mapping[str, str]] = {A_VALUE: "weight"}


@dataclass(frozen=True, kw_only=True, slots=True)
class DeclaredSet:
    """An evaluation set of the user's own; a folder alone is its ``path``.

    A set of a described pool may be described as well: ``images`` and ``texts`` in place of ``path``.
    """

    path: Annotated[str | None, values.place] = None
    """Its folder in CLIP_benchmark's webdataset layout, or an fsspec URL of one."""
    probe: bool = False
    """Fit linear and few-shot probes to its training split."""
    images: Annotated[int | None, values.positive] = None
    """Number of images, if the pool is only described."""
    texts: Annotated[int | None, values.positive] = None
    """Number of texts, if the pool is only described."""

    in_short: ClassVar[Mapping[str, str]] = {A_VALUE: "path"}

    def clashes(self, given: Given) -> Clashes:
        """Yield keys that are missing or contradict another."""
        described = not (given("path") or self.probe)
        for key in ("images", "texts") if described else ("path",):
            if not given(key):
                yield key, f"{key} is missing"
        for key in () if described else ("images", "texts"):
            if given(key):
                yield key, f"{key} is not allowed with path or probe: it is for a set that is only described"
