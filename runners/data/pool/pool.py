"""A pool of image-text pairs: webdataset tar shards with description files beside them.

    <pool>/shards/00000.tar …   as img2dataset writes them: <key>.png or .jpg, <key>.txt, <key>.json
    <pool>/index/               one row per pair, in the order of the shards (``runners.data.index``)
    <pool>/vocabulary.txt       words by falling frequency, one per line
    <pool>/left-out.parquet     shard, key and reason of each sample that is not a pair; absent if none
    <pool>/pool.json            facts about the pool and its origin; written last: without it there is no pool
    <pool>/versions/            pool.json as it was before later shards were taken up

Existing shards are indexed in place, in their own order (`runners.data.build.source`);
`runners.data.build.build_pool` writes new ones.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pandas as pd

from budgets.planning.facts import ColumnFacts, ScoreCost
from budgets.quality import BY, NAMED, score_of_quality, without_spaces
from budgets.quantity import format_share
from runners.data.index.parts import Index
from runners.data.index.selection import SCORE_PREFIX, Subset, kept_subset, select
from runners.data.index.writing import VERSIONS, index_of_pool
from runners.data.pool.damage import DAMAGE_TOLERANCE
from runners.store.copies import SHARDS_AT, copied_from
from runners.store.location import Location
from runners.store.place import Place, place_of

FORMAT = 1
FIRST = "first"
"""Name given to a score of an unknown scorer when further scores are added."""

COMPUTED = "computed: "
"""Prefix of the convention of a score that was computed from others; its expression follows."""

COPY_OF = "subsets_of"
"""Field of the provenance of a copy (`runners.data.build.subset_copy`) with the place of the original."""

_FEW = 2_000_000
"""Pairs of a pool whose subsets are chosen anew each time, in a second."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scorer:
    """The scorer of a pool's pairs, and its cost.

    Attributes:
        name: Name of the score.
        model: The model that gave it: a trial by its id, else as it was named; empty if none did.
        pairs: Number of pairs that the model scored.
        train_flops: Training FLOPs of the model, 0 unless it is a trial of this project.
        scoring_flops: Forward FLOPs spent on scoring these pairs.
        convention: Convention of counting these FLOPs, or the expression that computed the score.
        sources: Scorers with a model whose scores the expression used.
    """

    name: str
    model: str = ""
    pairs: int = 0
    train_flops: int = 0
    scoring_flops: int = 0
    convention: str = ""
    sources: tuple["Scorer", ...] = ()

    @property
    def models(self) -> tuple["Scorer", ...]:
        """The scorers with a model behind this score: itself, or those that it was computed from."""
        return (self,) if self.model else self.sources

    @classmethod
    def read(cls, facts: Mapping[str, Any]) -> "Scorer":
        """Return a scorer from its facts in ``pool.json``."""
        return cls(**{**facts, "sources": tuple(map(cls.read, facts.get("sources", ())))})


@dataclass(frozen=True, kw_only=True, slots=True)
class AddedColumn:
    """A column of the index that was added for strategies."""

    content: str  # a hash of its values
    width: int  # as in `ColumnFacts`
    scorer: Scorer | None = None  # the model that computed it, and its cost


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Facts about a pool that do not follow from its pairs."""

    name: str
    scorer: Scorer | None = None  # whose scores rank the pool; None if there is none or it is unknown
    provenance: Mapping[str, Any] = field(default_factory=dict)  # source of the pairs, as JSON


# Without slots: cached_property stores its value in the instance's dict.
@dataclass(frozen=True, kw_only=True)
class Pool:
    """An opened pool.

    ``scorers`` has the scorer of each score with a column of its own; the one in ``origin`` ranks the pool.
    ``rankings`` has, for each name of a score, the fingerprint of the pool when this score ranks it, and the
    number of pairs that have the score. ``columns`` has the columns that were added to the index for
    strategies.
    """

    path: Path
    origin: Origin
    scored: int  # number of pairs with a quality score
    fingerprint: str  # a hash of all pairs, scores and their order
    index: Index
    vocabulary_file: str = "vocabulary.txt"
    left_out_files: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)  # reason → samples that are not pairs
    scorers: Mapping[str, Scorer] = field(default_factory=dict)
    unranked: str = ""  # the fingerprint before scores were added; adding scores keeps it
    rankings: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    subsets: Mapping[str, int] = field(default_factory=dict)  # number of pairs in each named subset
    columns: Mapping[str, AddedColumn] = field(default_factory=dict)
    sources: str = ""  # name of the record of the source files read into its own shards; empty if none
    copy_of: str = ""  # URL of the pool that this one is a copy of; empty if it is not a copy

    @property
    def count(self) -> int:
        """Number of pairs."""
        return self.index.count

    @cached_property
    def shards(self) -> Mapping[str, int]:
        """Path below the folder → bytes of the shard."""
        return {shard: size for part in self.index.parts for shard, size in part.shards.items()}

    @cached_property
    def place(self) -> Place:
        """The place of the shards: the folder itself, or a URL."""
        location = Location(self.origin.provenance.get(SHARDS_AT) or self.copy_of or self.path)
        return place_of(location, self.shards)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The index with one row per pair, for up to some million pairs."""
        return pd.concat(self.index.frames(), ignore_index=True)

    @property
    def computed(self) -> dict[str, str]:
        """Expression → name of each score that was computed from others."""
        return {
            without_spaces(scorer.convention.removeprefix(COMPUTED)): name
            for name, scorer in self.scorers.items() if scorer.convention.startswith(COMPUTED)
        }  # fmt: skip

    @property
    def named_scorers(self) -> dict[str, Scorer]:
        """The scorer of each score by name, also of the one in force if it has no column of its own."""
        own = self.origin.scorer
        return {**({own.name: own} if own and self.scored else {}), **self.scorers}

    def models_behind(self, names: Collection[str]) -> tuple[Scorer, ...]:
        """Return the scorers with a model behind some scores, each once."""
        used = (scorer for name, scorer in self.named_scorers.items() if name in names)
        return tuple(dict.fromkeys(model for scorer in used for model in scorer.models))

    @property
    def score_costs(self) -> dict[str, tuple[ScoreCost, ...]]:
        """Name or expression of each score, empty for the one in force → costs of the models behind it."""
        own, named = self.origin.scorer, self.named_scorers
        known = {"": own, **named, **{text: named[name] for text, name in self.computed.items()}}
        return {name: scorer_costs(scorer, self.unranked) for name, scorer in known.items() if scorer}

    @property
    def column_facts(self) -> dict[str, ColumnFacts]:
        """The columns that all pairs have in the index: later shards may lack some that were added before."""
        facts = {
            **{name: ColumnFacts(width=0) for name in ("shard", "key", "caption", "uid")},
            "score": ColumnFacts(content=self.fingerprint),
            **{SCORE_PREFIX + name: ColumnFacts(content=of) for name, (of, _) in self.rankings.items()},
            **{
                name: ColumnFacts(
                    content=column.content,
                    width=column.width,
                    costs=scorer_costs(column.scorer, self.unranked) if column.scorer else (),
                )
                for name, column in self.columns.items()
            },
        }
        lacking = {name for name in self.index.added for part in self.index.parts if name not in part.added}
        names = (name for name in self.index.columns if name not in lacking)
        return {name: facts.get(name, ColumnFacts()) for name in names}

    def subset(self, *, size: int | None, quality: str, shared: Location | None = None) -> Subset:
        """Return a subset as `select` does; a large pool's is kept on this machine and in a shared place."""
        score = score_of_quality(quality)
        if (copied := copied_subset(size, quality)) in self.subsets:
            size, quality = None, NAMED + copied
        elif score is not None:
            top, name = quality.partition(BY)[0], self.computed.get(score, score)
            in_force = self.origin.scorer is not None and name == self.origin.scorer.name
            quality = top if in_force else top + BY + name  # the score in force may have no column of its own
        if self.count <= _FEW:
            return select(self.index, size=size, quality=quality)
        # Named subsets and scores may be replaced by others of the same name: their files then differ.
        identity = json.dumps(
            [self.unranked, self.fingerprint, self.index.added, self.index.named, size, quality]
        )
        choose = partial(select, self.index, size=size, quality=quality)
        return kept_subset(identity, self.count, choose, shared)

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """The captions' words by falling frequency, then alphabetically."""
        return tuple((self.path / self.vocabulary_file).read_text(encoding="utf-8").split())

    @classmethod
    def open(cls, path: str | Path, *, tolerance: float = DAMAGE_TOLERANCE, holding: str = "") -> "Pool":
        """Open a pool that has an index.

        ``tolerance`` is the share of the pairs that may lie in missing or changed shards; reading reports
        each of them. ``holding`` is the content id of the pairs of a trial: if the present version of the
        pool has other pairs and an earlier one has these, the earlier version is opened.

        Raises:
            ValueError: The folder does not exist, is not a pool, or its files have changed.
        """
        path = Path(path)
        if not path.is_dir():
            raise ValueError(f"no such pool: {path} is not a folder")
        pool = _read(path, path / "pool.json")
        if holding and holding not in pool.ids:
            earlier = (_read(path, each) for each in sorted((path / VERSIONS).glob("*.json")))
            pool = next((each for each in earlier if holding in each.ids), pool)
        _check_shards(pool, tolerance)
        return pool

    def at(self, path: Path) -> "Pool":
        """Return this pool in another folder with the same files, as another node has it."""
        return replace(self, path=path, index=replace(self.index, folder=path))

    @property
    def ids(self) -> set[str]:
        """Content ids of the pool's pairs, in the order of each of its scores."""
        return {self.fingerprint, self.unranked, *(name for name, _ in self.rankings.values())}


def scorer_costs(scorer: Scorer, pool: str) -> tuple[ScoreCost, ...]:
    """Return the costs of the models behind a score of the pool with a content id."""
    return tuple(
        ScoreCost(
            score=by.name, model=by.model, pool=pool, pairs=by.pairs,
            train_flops=by.train_flops, scoring_flops=by.scoring_flops,
        )
        for by in scorer.models
    )  # fmt: skip


def _read(path: Path, file: Path) -> Pool:
    """Read the facts of a pool, or of an earlier version of it."""
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        found = facts["format"]
    except FileNotFoundError:
        raise ValueError(
            f"{path} is not a pool: it has no pool.json; if it holds tar shards, `python -m study data build "
            f"{path} --in-place` indexes them"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} does not describe a pool: {error!r}") from error
    if found != FORMAT:
        raise ValueError(
            f"{path} is a pool of format {found}; this version reads {FORMAT}: use the version that wrote it"
        )
    try:
        return _described(path, file.name, facts)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} does not describe a pool: {error!r}") from error


def _described(path: Path, name: str, facts: Mapping[str, Any]) -> Pool:
    """Return the pool that the facts of a file describe."""
    index = index_of_pool(path, facts)
    if index.count != facts["count"]:
        raise ValueError(f"the index of {path} has {index.count} rows, {name} says {facts['count']}")
    scorer = Scorer.read(facts["scorer"]) if facts["scorer"] else None
    return Pool(
        path=path,
        origin=Origin(name=facts["name"], scorer=scorer, provenance=facts["provenance"]),
        scored=facts["scored_pairs"],
        fingerprint=facts["fingerprint"],
        index=index,
        sources=facts["sources"],
        copy_of=copied_from(path),
        vocabulary_file=facts["vocabulary"],
        left_out_files=tuple(facts["left_out_files"]),
        left_out=dict(facts["left_out"]),
        scorers={name: Scorer.read(scorer) for name, scorer in facts["scorers"].items()},
        unranked=facts["unranked"],
        rankings={
            name: (each["fingerprint"], each["scored_pairs"]) for name, each in facts["rankings"].items()
        },
        subsets=dict(facts["subsets"]),
        columns={
            name: AddedColumn(**{**each, "scorer": each["scorer"] and Scorer.read(each["scorer"])})
            for name, each in facts.get("data_columns", {}).items()
        },
    )


def _check_shards(pool: Pool, tolerance: float) -> None:
    """Raise ValueError if more pairs than tolerated lie in shards that have changed since indexing."""
    found = pool.place.sizes(list(pool.shards))
    changed = {shard for shard, size in pool.shards.items() if found[shard] != size}
    if not changed:
        return
    lost = sum(
        int(part["shard"].isin(changed).sum()) for part in pool.index.frames(["shard"], having=changed)
    )
    if lost > tolerance * pool.count:
        first = next(shard for shard in pool.shards if shard in changed)
        raise ValueError(
            f"shard {pool.place.path(first)} is missing or not as it was indexed "
            f"({pool.shards[first]} bytes)"
            f"{f', and so are {len(changed) - 1} more' if len(changed) > 1 else ''}: {lost:,} of "
            f"{pool.count:,} pairs, more than the tolerated {format_share(tolerance, 2)}; "
            f"restore what is missing, or delete {pool.copy_of or pool.path}/pool.json "
            "to index what is there, without added scores"
        )


def copied_subset(size: int | None, quality: str) -> str:
    """Return the name of a subset in a copy of subsets; the user's own names have no spaces."""
    return f"{size} {quality}"


def tree_name(path: Path, declared: str) -> str:
    """Return a name for copies of a pool, which differs between copies with different scores or columns.

    ``declared`` is the pool's id in a trial, which is the name as long as the pool has one score.
    """
    facts = json.loads((path / "pool.json").read_text(encoding="utf-8"))
    if COPY_OF in facts["provenance"]:
        return str(facts["fingerprint"])
    names, found = sorted(facts["rankings"]), facts["fingerprint"]
    columns = [f"{name} {each['content']}" for name, each in facts.get("data_columns", {}).items()]
    names += columns
    if len(names) <= 1 and not columns and facts["unranked"] == found:
        return declared
    return f"{found}-{blake2b(json.dumps(names).encode(), digest_size=4).hexdigest()}"
