"""Quality subsets of a pool.

``all``; ``topN``, the best N % by the score in force; ``topN by SCORE``, by a named score; ``subset:NAME``, a
named subset. Where a study mixes pools, ``mixture:NAME`` stands in the place of a quality.
"""

import re

NAMED = "subset:"
"""Prefix of a named subset's quality."""

MIXTURE = "mixture:"
"""Prefix of a mixture of pools."""

BY = " by "
"""Separates the name of a score: ``top40 by mine``."""

_EXPRESSION = re.compile(r"[-+*/<>=]| if ")
_TOP = re.compile(rf"top([1-9][0-9]?)(?:{BY}\S+)?")


def quality_percent(quality: str) -> int:
    """Return the share of a pool that a quality keeps, in whole percent: 20 for ``top20``, 100 for ``all``.

    Raises:
        ValueError: ``quality`` is neither ``all`` nor ``top1`` to ``top99``, with or without a score.
    """
    if quality == "all":
        return 100
    found = _TOP.fullmatch(quality)
    if found is None:
        computed = "; `data score --with '=EXPRESSION' --name SCORE` computes a score from others"
        raise ValueError(
            f"unknown quality '{quality}'; allowed: 'all', 'top1' to 'top99' (best N %), "
            f"'top40 by SCORE', 'subset:NAME'{computed if _EXPRESSION.search(quality) else ''}"
        )
    return int(found[1])


def check_quality(quality: str) -> str:
    """Return the quality unchanged if it is well formed.

    Raises:
        ValueError: It is none of ``all``, ``top1`` to ``top99`` and ``subset:NAME``.
    """
    if not re.fullmatch(f"{NAMED}[A-Za-z0-9][A-Za-z0-9._-]*", quality):
        quality_percent(quality)
    return quality


def score_of_quality(quality: str) -> str | None:
    """Return the name of the score that a quality names; None if it names none."""
    _, found, name = quality.partition(BY)
    return name if found else None


def available(count: int, quality: str) -> int:
    """Count the pairs that a quality keeps of a pool's ``count``: the exact percentage, rounded up."""
    return -(-count * quality_percent(quality) // 100)
