"""Damage in a pool's shards: records of damaged samples, and the tolerance for them."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

DAMAGE_TOLERANCE = 0.001
"""Default share of pairs that may be damaged before reading stops."""

NOT_READABLE = "shard not readable after this"
"""Prefix of the reason for a shard whose end is missing."""

_MOST_SHOWN = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    """One damaged sample.

    Attributes:
        shard: The shard's path below the pool, or the source's file.
        key: The sample's key; empty if the whole shard is damaged.
        reason: A short text, the same for the same kind of damage, so that it can be counted.
    """

    shard: str
    key: str
    reason: str

    def __str__(self) -> str:
        return f"{self.key or 'all'} of shard {self.shard}: {self.reason}"


def by_reason(damage: Iterable[Damage]) -> dict[str, int]:
    """Count the damage by reason, most frequent first."""
    return dict(Counter(each.reason for each in damage).most_common())


def damage_table(damage: Iterable[Damage]) -> pd.DataFrame:
    """Return damage as a table of ``shard``, ``key`` and ``reason``."""
    return pd.DataFrame([asdict(each) for each in damage], columns=["shard", "key", "reason"], dtype="str")


def check_tolerance(damage: Collection[Damage], *, pool: Path, of: int, tolerance: float) -> None:
    """Raise an error if too much is damaged.

    ``damage`` has each pair once; ``of`` is the number of all pairs.

    Raises:
        ValueError: More are damaged; the message names the pool, counts them by reason and names the first.
    """
    if len(damage) <= tolerance * of:
        return
    counts = ", ".join(f"{count:,} {reason}" for reason, count in by_reason(damage).items())
    first = "; ".join(str(each) for each in list(damage)[:_MOST_SHOWN])
    more = f"; and {len(damage) - _MOST_SHOWN:,} more" if len(damage) > _MOST_SHOWN else ""
    raise ValueError(
        f"{pool}: {len(damage):,} of {of:,} pairs are damaged, more than the tolerated {tolerance:.2%} "
        f"({counts}): {first}{more}"
    )
