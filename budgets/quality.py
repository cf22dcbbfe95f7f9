"""Quality subsets of a pool, and the names of scores that they rank by.

``all``; ``topN``: the best N % by the score that ranks the pool; ``topN by SCORE``: by a named score, or by
the expression that computed it; ``subset:NAME``: a named subset. In a study that mixes pools,
``mixture:NAME`` replaces the quality.
"""

import re
from functools import cache

from budgets.names import one_line, shortened

NAMED = "subset:"
"""Prefix of a named subset's quality."""

MIXTURE = "mixture:"
"""Prefix of a mixture of pools."""

BY = " by "
"""Separates the name of a score: ``top40 by mine``."""

OF_PAIR = ("width", "height", "tokens", "caption")
"""Facts of each pair that an expression can use besides its scores and subsets."""

_SCORE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}")
_OTHER_MEANING = re.compile(
    # Numbers and constants; words of qualities; facts of each pair; prefixes of qualities and of columns.
    r"[\d._:-]+(e[\d.-]+)?|0[box][\da-f_]+|true|false|null|nan|inf|infinity|all|by|top\d+|"
    rf"{'|'.join(OF_PAIR)}|key|shard|offset|length|hash|uid|(subset|mixture|score|in):.*",
    re.IGNORECASE,
)

_OPERATOR = re.compile(r" ?([-+*/<>=!&|(),]) ?")
_TOP = re.compile(rf"top([1-9][0-9]?)(?:{BY}\S.*)?")


@cache
def quality_percent(quality: str) -> int:
    """Return the share of a pool that a quality keeps, in whole percent: 20 for ``top20``, 100 for ``all``.

    Raises:
        ValueError: ``quality`` is neither ``all`` nor ``top1`` to ``top99``, with or without a score.
    """
    if quality == "all":
        return 100
    top = _TOP.fullmatch(quality)
    if top is None:
        raise ValueError(
            f"unknown quality '{quality}'; allowed: 'all', 'top1' to 'top99' (best N %), "
            "'top40 by SCORE', 'top40 by EXPRESSION', 'subset:NAME'"
        )
    return int(top[1])


def check_quality(quality: str) -> str:
    """Return the quality if it is well formed, an expression in its `without_spaces` form.

    Raises:
        ValueError: The quality is not ``all``, ``top1`` to ``top99``, or ``subset:NAME``.
    """
    if not re.fullmatch(f"{NAMED}[A-Za-z0-9][A-Za-z0-9._-]*", quality):
        quality_percent(quality)
    top, by, score = quality.partition(BY)
    return top + by + without_spaces(score)


def check_score_name(name: str, option: str) -> str:
    """Return the name that an option gives a score, as declarations, expressions and tables have it.

    Raises:
        ValueError: The name is malformed, or means something else in a quality or an expression.
    """
    if not _SCORE_NAME.fullmatch(name) or _OTHER_MEANING.fullmatch(name):
        raise ValueError(
            f"{option}: '{shortened(one_line(name))}' can't name a score; names have up to 100 letters, "
            "digits, '.', '_', '-' and ':', start with a letter or digit, and mean nothing else, as 1e3, "
            "all, by, top50, null, uid, width and subset:NAME do"
        )
    return name


def without_spaces(expression: str) -> str:
    """Return an expression without the spaces that do not matter; a name stays as it is."""
    return _OPERATOR.sub(r"\1", " ".join(expression.split()))


def is_expression(score: str) -> bool:
    """Return whether a score that a quality names is an expression, or looks like one."""
    return " " in score or bool(re.search(r"[+*/<>=(]", score))


def score_of_quality(quality: str) -> str | None:
    """Return the score that a quality names, by its name or expression; None if it names none."""
    _, by, name = quality.partition(BY)
    return name if by else None


def count_available(count: int, quality: str) -> int:
    """Count the pairs that a quality keeps of a pool's ``count``: the exact percentage, rounded up."""
    return -(-count * quality_percent(quality) // 100)
