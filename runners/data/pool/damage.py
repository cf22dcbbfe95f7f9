"""Damage in a pool's shards: what was found where, and how much of it is too much."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import pandas as pd

DAMAGE_TOLERANCE = 0.001
"""The share of pairs that may be damaged before reading stops, unless a caller declares another."""

NOT_READABLE = "shard not readable after this"
"""How the reason begins where a shard's end is missing."""

_MOST_SHOWN = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    """One sample that is not what it should be.

    Attributes:
        shard: The shard's path below the pool, or the source's file.
        key: The sample's; empty where a whole shard is meant.
        reason: In a few words that are the same for the same kind of damage, so that it can be counted.
    """

    shard: str
    key: str
    reason: str

    def __str__(self) -> str:
        return f"{self.key or 'all'} of shard {self.shard}: {self.reason}"


def by_reason(damage: Sequence[Damage]) -> dict[str, int]:
    """How many there are of each reason, most frequent first."""
    return dict(Counter(each.reason for each in damage).most_common())


def damage_table(damage: Iterable[Damage]) -> pd.DataFrame:
    """Damage as a table of ``shard``, ``key`` and ``reason``."""
    return pd.DataFrame([asdict(each) for each in damage], columns=["shard", "key", "reason"], dtype="str")


def check_tolerance(damage: Sequence[Damage], *, of: int, tolerance: float) -> None:
    """Stop where too much is damaged.

    Args:
        damage: What was found, each pair once.
        of: Pairs in all.
        tolerance: The share of them that may be damaged.

    Raises:
        ValueError: If more are; the message counts them by reason and names the first ones.
    """
    if len(damage) <= tolerance * of:
        return
    counts = ", ".join(f"{count:,} {reason}" for reason, count in by_reason(damage).items())
    first = "; ".join(str(each) for each in damage[:_MOST_SHOWN])
    more = f"; and {len(damage) - _MOST_SHOWN:,} more" if len(damage) > _MOST_SHOWN else ""
    raise ValueError(
        f"{len(damage):,} of {of:,} pairs are damaged, more than the tolerated {tolerance:.2%} "
        f"({counts}): {first}{more}"
    )
