"""Damage in a pool's shards: records of damaged samples, and the tolerance for them."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from budgets.quantity import format_share

DAMAGE_TOLERANCE = 0.001
"""Default share of pairs that may be damaged before reading stops."""

NOT_READABLE = "shard not readable after this"
"""Prefix of the reason for a shard whose end is missing."""

_MOST_SHOWN = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    """One damaged sample."""

    shard: str  # its path below the pool, or the source's file
    key: str  # empty if the whole shard is damaged
    reason: str  # a short text, the same for the same kind of damage, so that it can be counted

    def __str__(self) -> str:
        return f"{self.key or 'all'} of shard {self.shard}: {self.reason}"


def damage_table(damage: Iterable[Damage]) -> pd.DataFrame:
    """Return damage as a table of ``shard``, ``key`` and ``reason``."""
    return pd.DataFrame([asdict(pair) for pair in damage], columns=["shard", "key", "reason"], dtype="str")


def check_tolerance(damage: Collection[Damage], *, pool: Path, of: int, tolerance: float) -> None:
    """Raise ValueError if more than tolerated of ``of`` pairs are damaged; ``damage`` has each pair once."""
    if len(damage) <= tolerance * of:
        return
    reasons = Counter(pair.reason for pair in damage).most_common()
    counts = ", ".join(f"{count:,} {reason}" for reason, count in reasons)
    first = "; ".join(str(pair) for pair in list(damage)[:_MOST_SHOWN])
    more = f"; and {len(damage) - _MOST_SHOWN:,} more" if len(damage) > _MOST_SHOWN else ""
    raise ValueError(
        f"{pool}: {len(damage):,} of {of:,} pairs are damaged, more than the tolerated "
        f"{format_share(tolerance, 2)} ({counts}): {first}{more}"
    )
