"""A pool of image-text pairs: webdataset tar shards, and beside them what describes them.

    <pool>/shards/00000.tar …   what img2dataset writes: <key>.png or .jpg, <key>.txt, <key>.json
    <pool>/index.parquet        one row a pair, in the order of the shards (``runners.data.index``)
    <pool>/vocabulary.txt       words by falling frequency, one a line
    <pool>/pool.json            what the pool is and where it came from; written last: no pool without it

Shards that others wrote are indexed where they lie, in their own order; `runners.data.write` makes new ones.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from runners.data.index import fingerprint_of, index_of, vocabulary_of
from runners.data.shards import Entry, all_entries
from runners.files import new_file

SCORE_FIELD = "similarity"

_FORMAT = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Scorer:
    """Who gave a pool's scores, and what that cost.

    Attributes:
        name: Of the scorer.
        train_flops: Training FLOPs spent on making it.
        scoring_flops: Forward FLOPs spent on scoring the pool.
        convention: How those FLOPs are counted.
    """

    name: str
    train_flops: int = 0
    scoring_flops: int = 0
    convention: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """What is recorded of a pool beside its pairs.

    Attributes:
        name: As reports call it.
        scorer: Who scored it; ``None`` if nobody did, or if nobody said.
        provenance: Where the pairs came from, as JSON.
    """

    name: str
    scorer: Scorer | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)


# Without slots: cached_property keeps what it read in the instance's dict.
@dataclass(frozen=True, kw_only=True)
class Pool:
    """An opened pool.

    Attributes:
        path: Its folder.
        origin: Its name, who scored it and where its pairs came from.
        count: How many pairs it holds.
        scored: Whether any of them has a quality score.
        fingerprint: A hash of all pairs, scores and their order.
        left_out: How many samples of the shards are no pairs, by reason.
    """

    path: Path
    origin: Origin
    count: int
    scored: bool
    fingerprint: str
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As reports call it."""
        return self.origin.name

    @cached_property
    def index(self) -> pd.DataFrame:
        """One row a pair: key, shard, offset, length, caption, width, height, hash, score, bin."""
        return pd.read_parquet(self.path / "index.parquet")

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """The captions' words by falling frequency, then by alphabet."""
        return tuple((self.path / "vocabulary.txt").read_text(encoding="utf-8").split())

    @classmethod
    def open(cls, path: str | Path) -> "Pool":
        """Opens a pool that has its index.

        Raises:
            ValueError: If there is no such folder, or it is no pool, or its files changed since.
        """
        path = Path(path)
        if not path.is_dir():
            raise ValueError(f"no such pool: {path} is not a folder")
        try:
            facts = json.loads((path / "pool.json").read_text(encoding="utf-8"))
            found = facts["format"]
        except FileNotFoundError:
            raise ValueError(f"{path} is not a pool: it has no pool.json") from None
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path / 'pool.json'} does not describe a pool: {error!r}") from error
        if found != _FORMAT:
            raise ValueError(f"{path} is a pool of format {found}; this version reads {_FORMAT}")
        for shard, size in facts["shards"].items():
            if not (path / shard).is_file() or (path / shard).stat().st_size != size:
                raise ValueError(
                    f"shard {path / shard} is missing or not as it was indexed ({size} bytes); "
                    f"to index the folder as it is now, delete {path / 'pool.json'}"
                )
        rows = pq.read_metadata(path / "index.parquet").num_rows
        if rows != facts["count"]:
            raise ValueError(f"{path / 'index.parquet'} has {rows} rows, pool.json says {facts['count']}")
        scorer = Scorer(**facts["scorer"]) if facts["scorer"] else None
        return cls(
            path=path,
            origin=Origin(name=facts["name"], scorer=scorer, provenance=facts["provenance"]),
            count=rows,
            scored=facts["scored"],
            fingerprint=facts["fingerprint"],
            left_out=facts["left_out"],
        )


def open_pool(path: str | Path) -> Pool:
    """Opens a pool; a folder of shards that has no index yet is indexed first, where it lies.

    Raises:
        ValueError: As ``Pool.open`` and ``index_shards``.
    """
    path = Path(path)
    return index_shards(path) if path.is_dir() and not (path / "pool.json").exists() else Pool.open(path)


def index_shards(path: str | Path, *, score_field: str = SCORE_FIELD, origin: Origin | None = None) -> Pool:
    """Indexes a folder of webdataset or img2dataset tars where it lies; only small files are added beside.

    Args:
        path: The folder; tars in folders below it count too, save those in ``evaluation/`` and hidden ones.
        score_field: The field of a sample's json to take the quality score from, where there is one.
        origin: What to record; by default the folder's name alone.

    Raises:
        ValueError: If there is no such folder or no tar in it, a tar cannot be read or holds no pair, or the
            folder cannot be written to.
    """
    path = Path(path)
    if not path.is_dir():
        raise ValueError(f"no such pool: {path} is not a folder")
    shards = sorted(shard for shard in path.rglob("*.tar") if _is_training(shard.relative_to(path)))
    if not shards:
        raise ValueError(f"{path} is not a pool: there is neither a pool.json nor any .tar shard in it")
    left_out = Counter[str]()
    index = index_of(_pairs(all_entries(path, shards, score_field=score_field), left_out))
    try:
        describe_pool(path, index, origin or Origin(name=path.resolve().name), left_out)
    except OSError as error:
        raise ValueError(f"cannot write the index of {path} beside its shards: {error}") from error
    return Pool.open(path)


def describe_pool(folder: Path, index: pd.DataFrame, origin: Origin, left_out: Mapping[str, int]) -> None:
    """Writes what stands beside the shards, ``pool.json`` last."""
    words = vocabulary_of(index["caption"])
    facts = {
        "format": _FORMAT,
        **asdict(origin),
        "count": len(index),
        "scored": bool(index["score"].notna().any()),
        "fingerprint": fingerprint_of(index),
        "left_out": dict(left_out),
        "shards": {shard: (folder / shard).stat().st_size for shard in index["shard"].unique()},
    }
    with new_file(folder / "index.parquet") as file:
        index.to_parquet(file, index=False)
    with new_file(folder / "vocabulary.txt") as file:
        file.write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    with new_file(folder / "pool.json") as file:
        file.write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _is_training(shard: Path) -> bool:
    """Whether a shard below a pool holds its pairs, not evaluation sets or a half-written folder's."""
    return shard.parts[0] != "evaluation" and not any(part.startswith(".") for part in shard.parts)


def _pairs(found: Iterable[Entry | str], left_out: Counter[str]) -> Iterator[Entry]:
    """Passes the pairs on, and counts the samples that are none by reason."""
    for entry in found:
        if isinstance(entry, Entry):
            yield entry
        else:
            left_out[entry] += 1
