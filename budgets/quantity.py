"""Numbers as people write them: counts (``10M``), FLOPs (``900 GFLOP``), shares (``10%``), seconds (``2 min``).

YAML readers disagree about ``1e18`` and ``3e-4`` (PyYAML reads both as text), so every number of a
declaration arrives here as its text and is read by one rule. Decimal keeps integers exact at any size.
"""

import re
from decimal import Decimal, InvalidOperation

from budgets.names import unknown

_NUMBER = r"[+-]?(?:\d[\d_]*\.?[\d_]*|\.\d+)(?:[eE][+-]?\d+)?"
_QUANTITY = re.compile(rf"\s*({_NUMBER})\s*([^\s\d].*?)?\s*")

_COUNT_UNITS = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "B": 10**9, "G": 10**9}
_SI_PREFIXES = {"": 0, "k": 3, "K": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18, "Z": 21, "Y": 24}
_FLOP_UNITS = {
    f"{prefix}{word}": 10**power for prefix, power in _SI_PREFIXES.items() for word in ("FLOP", "FLOPs")
}
_SECOND_UNITS = {"": 1, "s": 1, "min": 60, "h": 3600, "d": 86400}
_SHARE_UNITS = {"": Decimal(1), "%": Decimal("0.01")}


def parse_number(text: str) -> float:
    """Reads a plain number such as ``3e-4``, ``1_000`` or ``0.1``.

    Raises:
        ValueError: The text is no number, or carries a unit.
    """
    value, unit = _split(text, example="3e-4")
    if unit:
        raise ValueError(f"'{text}' has a unit where a plain number is expected, such as 3e-4")
    return float(value)


def parse_count(text: str) -> int:
    """Reads a whole number of things: ``4096``, ``10M``, ``1_000_000``, ``1e9``.

    Raises:
        ValueError: The text is no number, not whole, negative, or its unit is not one of k, M, B.
    """
    return _whole(text, _COUNT_UNITS, kind="unit of a count", example="10M")


def parse_flops(text: str) -> int:
    """Reads an amount of compute in FLOPs (one multiply-add is two): ``1e18``, ``900 GFLOP``, ``2 EFLOP``.

    Raises:
        ValueError: The text is no number, not a whole number of FLOPs, negative, or has another unit.
    """
    return _whole(text, {"": 1, **_FLOP_UNITS}, kind="unit of compute", example="900 GFLOP")


def parse_share(text: str) -> float:
    """Reads a share between 0 and 1: ``0.1`` or ``10%``.

    Raises:
        ValueError: The text is no number, has another unit than ``%``, or lies outside 0 to 1.
    """
    value, unit = _split(text, example="10%")
    if unit not in _SHARE_UNITS:
        raise ValueError(f"'{text}': {unknown('unit of a share', unit, _SHARE_UNITS)}")
    share = value * _SHARE_UNITS[unit]
    if not 0 <= share <= 1:
        raise ValueError(f"'{text}' is outside 0 to 1 (0% to 100%)")
    return float(share)


def parse_seconds(text: str) -> float:
    """Reads a duration in seconds: ``30``, ``30 s``, ``2 min``, ``1.5 h``.

    Raises:
        ValueError: The text is no number, negative, or has another unit.
    """
    value, unit = _split(text, example="30 s")
    if unit not in _SECOND_UNITS:
        raise ValueError(f"'{text}': {unknown('unit of time', unit, _SECOND_UNITS)}")
    if value < 0:
        raise ValueError(f"'{text}' is negative")
    return float(value * _SECOND_UNITS[unit])


def format_count(count: float) -> str:
    """Writes a count shortly: 1024 → ``1,024``, 25000000 → ``25M``, 3.4e9 → ``3.4B``."""
    for unit, size in (("B", 10**9), ("M", 10**6)):
        if count >= size:
            return f"{count / size:.4g}{unit}"
    return f"{count:,.0f}"


def format_flops(flops: float) -> str:
    """Writes an amount of compute with its SI prefix: 9e11 → ``900 GFLOP``, 1.29e21 → ``1.29 ZFLOP``."""
    for prefix, power in reversed(_SI_PREFIXES.items()):
        if prefix != "K" and flops >= 10.0**power:
            return f"{flops / 10.0**power:.4g} {prefix}FLOP"
    return f"{flops:.4g} FLOP"


def format_seconds(seconds: float) -> str:
    """Writes a duration as a person says it: ``42 s``, ``7 min``, ``3.5 h``, ``2.1 d``."""
    if seconds < 100:  # noqa: PLR2004 - below this, seconds read best
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 100 * 3600:
        return f"{seconds / 3600:.3g} h"
    return f"{seconds / 86400:.3g} d"


def _split(text: str, *, example: str) -> tuple[Decimal, str]:
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(f"'{text}' is not a number; write it like {example}")
    try:
        value = Decimal(match[1].replace("_", ""))
    except InvalidOperation:
        raise ValueError(f"'{text}' is not a number; write it like {example}") from None
    return value, match[2] or ""


def _whole(text: str, units: dict[str, int], *, kind: str, example: str) -> int:
    value, unit = _split(text, example=example)
    if unit not in units:
        raise ValueError(f"'{text}': {unknown(kind, unit, [name for name in units if name])}")
    if value < 0:
        raise ValueError(f"'{text}' is negative")
    if value.adjusted() > 60:  # noqa: PLR2004 - more than any computer will do; keeps 1e999999 from filling memory
        raise ValueError(f"'{text}' is out of range; write it like {example}")
    exact = value * units[unit]
    if exact != exact.to_integral_value():
        raise ValueError(f"'{text}' is not a whole number; write it like {example}")
    return int(exact)
