"""Sections of a declaration about data: pools, their parts of a mixture, and evaluation sets."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from budgets.declaration import values
from budgets.declaration.keys import A_VALUE, Clashes, Given
from budgets.names import unknown

EMBEDDED_VERSION = 1
"""Version of the embedded pool's generator; raised if the same (seed, index) gives another pair."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddedPool:
    """The pool that comes with the project."""

    pairs: Annotated[int, values.positive]
    """Number of image-text pairs."""
    seed: Annotated[int, values.positive_or_zero] = 0
    """Seed of the pairs; another seed gives other scenes of the same kind."""

    @property
    def name(self) -> str:
        """A name that identifies the pool's content."""
        return f"embedded-v{EMBEDDED_VERSION}-{self.pairs}-seed{self.seed}"


@dataclass(frozen=True, kw_only=True, slots=True)
class DeclaredPool:
    """A pool of one kind: ``embedded``, ``path``, or only described by ``name``, ``pairs`` and ``scored``.

    A folder alone is its ``path``.
    """

    embedded: EmbeddedPool | None = None
    """The pool that comes with the project: captioned emoji scenes, generated from a seed."""
    path: Annotated[str | None, values.place] = None
    """The folder of a pool of webdataset shards, or the fsspec URL of one that has an index."""
    name: Annotated[str | None, values.name] = None
    """Name that identifies the content of a pool that is only described, which is enough to plan and price a
    study, not to run it; part of each trial's id."""
    pairs: Annotated[int | None, values.positive] = None
    """Number of its image-text pairs; required with ``name``."""
    scored: bool = False
    """True if its pairs have a quality score."""

    in_short: ClassVar[Mapping[str, str]] = {A_VALUE: "path"}

    def clashes(self, given: Given) -> Clashes:
        """Yield a pool of no kind or of several."""
        if sum(map(given, ("embedded", "path", "name"))) != 1:
            kinds = "embedded: {pairs, seed}, path: FOLDER, or name: NAME with pairs and scored"
            yield "", f"needs one of {kinds} for a pool that is only described"
        elif given("name") and not given("pairs"):
            yield "pairs", "pairs is missing"
        for key in () if given("name") else ("pairs", "scored"):
            if given(key):
                yield key, f"{key} needs name: it is for a pool that is only described"

    @property
    def described(self) -> bool:
        """True if the pool is only described."""
        return self.embedded is None and self.path is None

    @property
    def content(self) -> str:
        """Name of the content of a pool that is generated or described."""
        return (self.name or "") if self.embedded is None else self.embedded.name


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


Mixtures = Mapping[str, Mapping[str, MixedPool]]
"""Name → the pools of a mixture."""


def pool_clashes(pool: DeclaredPool | None, pools: Mapping[str, DeclaredPool], mixtures: Mixtures) -> Clashes:
    """Yield pools without mixtures, mixtures without pools, and pools that can't be mixed."""
    if pool is not None:
        for key, given in (("pools", pools), ("mixtures", mixtures)):
            if given:
                yield key, f"{key} is not allowed with pool: name each pool under pools"
    elif not (pools and mixtures):
        missing = "mixtures" if pools else "pools" if mixtures else "pool"
        yield missing, f"{missing} is missing: declare a pool, or pools and mixtures of them"
    described = [declared.described for declared in (pools.values() if pool is None else (pool,))]
    if any(described) and not all(described):
        yield "pools", "pools: either all of them are described (name, pairs, scored), or none"
    for name, parts in mixtures.items():
        yield from _clashes_of_parts(f"mixtures.{name}", parts, pools)


def _clashes_of_parts(at: str, parts: Mapping[str, MixedPool], pools: Mapping[str, DeclaredPool]) -> Clashes:
    """Yield errors of a mixture: no pools, unknown ones, or weights for only some of them."""
    if not parts:
        yield at, f"{at} names no pool"
    for pool in parts:
        if pool not in pools:
            yield f"{at}.{pool}", f"{at}: {unknown('pool', pool, pools)}"
    bare = [pool for pool, part in parts.items() if part.weight is None]
    if bare and len(bare) < len(parts):
        key = f"{at}.{bare[0]}"
        yield f"{key}.weight", f"{key}.weight is missing: give each pool of the mixture one, or none of them"
