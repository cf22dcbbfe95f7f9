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
from runners.data.index.parts import SCORE, Index
from runners.data.index.selection import SCORE_PREFIX, Subset, kept_subset, select
from runners.data.index.writing import VERSIONS, index_of_pool
from runners.data.pool.damage import DAMAGE_TOLERANCE
from runners.store.copies import SHARDS_AT, copied_from
from runners.store.location import Location
from runners.store.shard_reader import ShardReader, shard_reader

FORMAT = 2

COMPUTED = "computed: "
"""Prefix of the convention of a score that was computed from others; its expression follows."""

COPY_OF = "subsets_of"
"""Field of the provenance of a copy (`runners.data.build.subset_copy`) with the place of the original."""

_FEW = 2_000_000
"""Pairs of a pool whose subsets are chosen again each time, in a second."""


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
class PoolScore:
    """A score of a pool's pairs, in the column ``score:NAME`` of the index."""

    scorer: Scorer
    fingerprint: str  # a hash of all pairs, their scores and their order by it
    pairs: int  # that have it


@dataclass(frozen=True, kw_only=True, slots=True)
class AddedColumn:
    """A column of the index that was added for strategies."""

    content: str  # a hash of its values
    width: int  # as in `ColumnFacts`
    scorer: Scorer | None = None  # the model that computed it, and its cost


# Without slots: cached_property stores its value in the instance's dict.
@dataclass(frozen=True, kw_only=True)
class Pool:
    """An opened pool.

    ``columns`` has the columns that were added to the index for strategies.
    """

    path: Path
    name: str
    provenance: Mapping[str, Any] = field(default_factory=dict)  # source of the pairs, as JSON
    index: Index
    unranked: str  # the fingerprint when its pairs were indexed; adding scores keeps it
    scores: Mapping[str, PoolScore] = field(default_factory=dict)
    ranked_by: str = ""  # name of the score that ranks the pairs; empty without scores
    vocabulary_file: str = "vocabulary.txt"
    left_out_files: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)  # reason → samples that are not pairs
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
    def place(self) -> ShardReader:
        """The place of the shards: the folder itself, or a URL."""
        location = Location(self.provenance.get(SHARDS_AT) or self.copy_of or self.path)
        return shard_reader(location, self.shards)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The index with one row per pair, for up to some million pairs."""
        return pd.concat(self.index.frames(), ignore_index=True)

    @property
    def ranking(self) -> PoolScore | None:
        """The score that ranks the pairs."""
        return self.scores.get(self.ranked_by)

    @property
    def scored(self) -> int:
        """Number of pairs that have the score that ranks them."""
        return self.ranking.pairs if self.ranking else 0

    @property
    def fingerprint(self) -> str:
        """A hash of all pairs, of the score that ranks them and of their order."""
        return self.ranking.fingerprint if self.ranking else self.unranked

    @property
    def computed(self) -> dict[str, str]:
        """Expression → name of each score that was computed from others."""
        return {
            without_spaces(score.scorer.convention.removeprefix(COMPUTED)): name
            for name, score in self.scores.items() if score.scorer.convention.startswith(COMPUTED)
        }  # fmt: skip

    def models_behind(self, names: Collection[str]) -> tuple[Scorer, ...]:
        """Return the scorers with a model behind some scores, each once."""
        used = (score.scorer for name, score in self.scores.items() if name in names)
        return tuple(dict.fromkeys(model for scorer in used for model in scorer.models))

    @property
    def score_costs(self) -> dict[str, tuple[ScoreCost, ...]]:
        """Name or expression of each score, empty for the one that ranks → costs of the models behind it."""
        names = {name: name for name in self.scores} | self.computed
        names |= {"": self.ranked_by} if self.ranked_by else {}
        return {text: scorer_costs(self.scores[name].scorer, self.unranked) for text, name in names.items()}

    @property
    def column_facts(self) -> dict[str, ColumnFacts]:
        """The columns that all pairs have in the index: later shards may lack some that were added before."""
        facts = {
            **{name: ColumnFacts(width=0) for name in ("shard", "key", "caption", "uid")},
            SCORE: ColumnFacts(content=self.fingerprint),
            **{SCORE_PREFIX + name: ColumnFacts(content=of.fingerprint) for name, of in self.scores.items()},
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
            quality = quality.partition(BY)[0] + BY + self.computed.get(score, score)
        if self.count <= _FEW:
            return select(self.index, size=size, quality=quality)
        # Named subsets and scores may be replaced by others of the same name: their files then differ.
        identity = json.dumps([self.unranked, self.fingerprint, self.index.added, size, quality])
        choose = partial(select, self.index, size=size, quality=quality)
        return kept_subset(identity, self.count, choose, shared)

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """The captions' words by falling frequency, then alphabetically."""
        return tuple((self.path / self.vocabulary_file).read_text(encoding="utf-8").split())

    @classmethod
    def without_pairs(cls, path: Path, name: str, provenance: Mapping[str, Any] | None = None) -> "Pool":
        """Return a new pool, for `describe_pool` to add pairs to."""
        return cls(path=path, name=name, provenance=provenance or {}, index=Index(path, (), ()), unranked="")

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
        pool = _read(path)
        if holding and holding not in pool.ids:
            files = sorted((path / VERSIONS).glob("*.json"))
            earlier = (_read(path, file.relative_to(path)) for file in files)
            pool = next((version for version in earlier if holding in version.ids), pool)
        _check_shards(pool, tolerance)
        return pool

    def at(self, path: Path) -> "Pool":
        """Return this pool in another folder with the same files, as another node has it."""
        return replace(self, path=path, index=replace(self.index, folder=path))

    @property
    def ids(self) -> set[str]:
        """Content ids of the pool's pairs, in the order of each of its scores."""
        return {self.unranked, *(score.fingerprint for score in self.scores.values())}


def scorer_costs(scorer: Scorer, pool: str) -> tuple[ScoreCost, ...]:
    """Return the costs of the models behind a score of the pool with a content id."""
    return tuple(
        ScoreCost(
            score=by.name, model=by.model, pool=pool, pairs=by.pairs,
            train_flops=by.train_flops, scoring_flops=by.scoring_flops,
        )
        for by in scorer.models
    )  # fmt: skip


def read_facts(path: Path, name: str | Path = "pool.json") -> dict[str, Any]:
    """Return the facts of a pool from one of its files; those of format 1 as of the present one.

    Raises:
        ValueError: The file is missing, does not describe a pool, or is of a later format.
    """
    file = path / name
    try:
        facts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        version = facts["format"]
        if version == 1:
            return _of_format_1(facts)
    except FileNotFoundError:
        raise ValueError(
            f"{path} is not a pool: it has no pool.json; if it holds tar shards, `python -m study data build "
            f"{path} --in-place` indexes them"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} does not describe a pool: {error!r}") from error
    if version != FORMAT:
        raise ValueError(
            f"{path} is a pool of format {version}; this version reads 1 and {FORMAT}: use the version that "
            "wrote it"
        )
    return facts


def _of_format_1(facts: dict[str, Any]) -> dict[str, Any]:
    """Return facts in which a column ``score`` may be that of the first score or of the one that ranks."""
    # Of a scorer that is not recorded, the scores came with the shards.
    field = facts["provenance"].get("options", {}).get("--score", "similarity")
    named, scorer = facts["named"], facts["scorer"] or {"name": field}
    ranked_by = scorer["name"] if facts["scored_pairs"] else ""
    rankings = {ranked_by: facts, **facts["rankings"]} if ranked_by else {}
    scores = {
        name: {
            "scorer": facts["scorers"].get(name, scorer),
            "fingerprint": ranking["fingerprint"],
            "pairs": ranking["scored_pairs"],
        }
        for name, ranking in rankings.items()
    }
    # The score that the files of the parts call ``score``: the first one, unless another has taken its name.
    first = next((name for name, column in named.items() if column == SCORE), "")
    if ranked_by and SCORE not in named:
        first = SCORE_PREFIX + ranked_by
    columns = [first if name == SCORE else name for name in facts["columns"]] if first else facts["columns"]
    return {**facts, "scores": scores, "ranked_by": ranked_by, "first": first, "columns": columns}


def _read(path: Path, name: str | Path = "pool.json") -> Pool:
    """Read a pool, or an earlier version of it, from one of its files."""
    facts = read_facts(path, name)
    try:
        return _described(path, name, facts)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path / name} does not describe a pool: {error!r}") from error


def _described(path: Path, name: str | Path, facts: Mapping[str, Any]) -> Pool:
    """Return the pool that the facts of a file describe."""
    index = index_of_pool(path, facts)
    if index.count != facts["count"]:
        raise ValueError(f"the index of {path} has {index.count} rows, {name} says {facts['count']}")
    return Pool(
        path=path,
        name=facts["name"],
        provenance=facts["provenance"],
        index=index,
        unranked=facts["unranked"],
        scores={
            name: PoolScore(**{**score, "scorer": Scorer.read(score["scorer"])})
            for name, score in facts["scores"].items()
        },
        ranked_by=facts["ranked_by"],
        sources=facts["sources"],
        copy_of=copied_from(path),
        vocabulary_file=facts["vocabulary"],
        left_out_files=tuple(facts["left_out_files"]),
        left_out=dict(facts["left_out"]),
        subsets=dict(facts["subsets"]),
        columns={
            name: AddedColumn(**{**column, "scorer": column["scorer"] and Scorer.read(column["scorer"])})
            for name, column in facts.get("data_columns", {}).items()
        },
    )


def _check_shards(pool: Pool, tolerance: float) -> None:
    """Raise ValueError if more pairs than tolerated lie in shards that have changed since indexing."""
    sizes = pool.place.sizes(list(pool.shards))
    changed = {shard for shard, size in pool.shards.items() if sizes[shard] != size}
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
    facts = read_facts(path)
    if COPY_OF in facts["provenance"]:
        return str(facts["unranked"])
    names = sorted(facts["scores"])
    fingerprint = facts["scores"][facts["ranked_by"]]["fingerprint"] if names else facts["unranked"]
    columns = [f"{name} {column['content']}" for name, column in facts.get("data_columns", {}).items()]
    names += columns
    if len(names) <= 1 and not columns and facts["unranked"] == fingerprint:
        return declared
    return f"{fingerprint}-{blake2b(json.dumps(names).encode(), digest_size=4).hexdigest()}"
