"""Parsing and formatting of counts (``10M``), FLOPs (``900 GFLOP``), shares (``10%``), times (``2 min``).

YAML readers disagree about ``1e18`` and ``3e-4`` (PyYAML reads both as text), so every number of a
declaration is kept as text and parsed here by one rule. Whole numbers are exact at any size.
"""

import math
import re
from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from fractions import Fraction
from typing import TypeVar

from budgets.devices import find_device
from budgets.names import unknown

T = TypeVar("T")

_DIGITS = "[0-9]+(?:_[0-9]+)*"
_MANTISSA = rf"[0-9]{{1,3}}(?:,[0-9]{{3}})+(?:\.[0-9]*)?|{_DIGITS}\.?(?:{_DIGITS})?|\.[0-9]+"
_NUMBER = rf"[+-]?(?:{_MANTISSA})(?:[eE][+-]?[0-9]+)?"
_QUANTITY = re.compile(rf"\s*({_NUMBER})\s*([^\s0-9_].*?)?\s*")

_COUNT_UNITS = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "B": 10**9, "G": 10**9, "T": 10**12}
_LARGE = ("T", 10**12), ("B", 10**9), ("M", 10**6), ("k", 10**3)
_SI_PREFIXES = {"": 0, "k": 3, "K": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18, "Z": 21, "Y": 24}
_FLOP_UNITS = {
    f"{prefix}{word}": 10**power for prefix, power in _SI_PREFIXES.items() for word in ("FLOP", "FLOPs")
}
_BYTE_UNITS = {"": 1} | {
    f"{prefix}{word}": base**power
    for power, prefix in enumerate("kMGT", 1)
    for word, base in (("B", 1000), ("iB", 1024))
}
_SECOND_UNITS = {"": 1, "s": 1, "min": 60, "h": 3600, "d": 86400}
_SHARE_UNITS: dict[str, int | Fraction] = {"": 1, "%": Fraction(1, 100)}
_TABLE_UNITS = {**_COUNT_UNITS, **_FLOP_UNITS, **_SHARE_UNITS}
_DEVICE_TIME = re.compile(
    rf"\s*(?P<number>{_NUMBER})\s*(?:gpu|tpu|device)-(?P<span>hour|day|week)s?\s+of\s+(?P<device>\S+)"
    r"(?:\s+at\s+(?P<share>.+?))?\s*",
    re.IGNORECASE,
)
_LONGEST_SHOWN = 60
_SPAN_SECONDS = {"hour": 3600, "day": 86400, "week": 7 * 86400}

MAX_COUNT = 10**15
"""Largest accepted count: a thousand times the largest known pool, and exact as a float in any table."""

_MAX_FLOPS = 10**36
_EXPONENTS = range(-400, 401)  # of the first digit; 1e999999999 as an exact integer would fill the memory


def parse_number(text: str) -> float:
    """Read a plain number such as ``3e-4``, ``1_000`` or ``0.1``.

    Raises:
        ValueError: The text is not a number, is out of a float's range, or has a unit.
    """
    value, unit = _split(text, example="3e-4")
    if unit:
        raise ValueError(f"'{text}' has a unit where a plain number is expected, such as 3e-4")
    return _float(value, text)


def parse_count(text: str) -> int:
    """Read a whole number of things: ``4096``, ``10M``, ``1_000_000``, ``1,000``, ``1e9``.

    Raises:
        ValueError: The text is not a number, not whole, negative, above `MAX_COUNT`, or its unit is not one
            of k, K, M, B, G, T.
    """
    return _whole(text, _COUNT_UNITS, kind="unit of a count", example="10M", most=MAX_COUNT)


def parse_flops(text: str) -> int:
    """Read an amount of compute in FLOPs (one multiply-add is two): ``1e18``, ``900 GFLOP``, ``2 EFLOP``.

    Time on a device is compute too, by its data sheet's peak: ``3 gpu-days of h100 at 40%``.

    Raises:
        ValueError: The text is not a number, not a whole number of FLOPs, negative, has another unit, or
            names time on an unknown device or without its utilisation.
    """
    time = _DEVICE_TIME.fullmatch(text)
    if time is not None:
        return _device_flops(text, time)
    return _whole(text, {"": 1, **_FLOP_UNITS}, kind="unit of compute", example="900 GFLOP", most=_MAX_FLOPS)


def parse_bytes(text: str) -> int:
    """Read an amount of storage in bytes: ``500 GB``, ``1.5 TB``, ``64 GiB``.

    Raises:
        ValueError: The text is not a number, not a whole number of bytes, negative, or has another unit.
    """
    return _whole(text, _BYTE_UNITS, kind="unit of storage", example="500 GB", most=MAX_COUNT)


def parse_share(text: str) -> float:
    """Read a share between 0 and 1: ``0.1`` or ``10%``.

    Raises:
        ValueError: The text is not a number, has a unit other than ``%``, or lies outside 0 to 1.
    """
    share = _exact(text, _SHARE_UNITS, kind="unit of a share", example="10%")
    if not 0 <= share <= 1:
        raise ValueError(f"'{text}' is outside 0 to 1 (0% to 100%)")
    return float(share)


def parse_seconds(text: str) -> float:
    """Read a duration in seconds: ``30``, ``30 s``, ``2 min``, ``1.5 h``.

    Raises:
        ValueError: The text is not a number, negative, or has another unit.
    """
    seconds = _exact(text, _SECOND_UNITS, kind="unit of time", example="30 s")
    if seconds < 0:
        raise ValueError(f"'{text}' is negative")
    return _float(seconds, text)


def parse_quantity(text: str) -> float:
    """Read a number of a table, with or without a unit: ``15T``, ``900 GFLOP``, ``63.2%``, ``3e-4``.

    Raises:
        ValueError: The text is not a number, is out of a float's range, or has another unit.
    """
    return _float(_exact(text, _TABLE_UNITS, kind="unit", example="15T, 900 GFLOP or 63.2%"), text)


def divide_count(total: int, shares: Sequence[int]) -> tuple[int, ...]:
    """Divide a count by shares: exact up to rounding, and no part shrinks when the total grows."""
    # Each part is its share of what the parts before it have left, so that all parts sum to the total.
    parts, left, rest = [], total, sum(shares)
    for share in shares:
        parts.append(left * share // max(rest, 1))
        left, rest = left - parts[-1], rest - share
    return tuple(parts)


def finite_or_none(value: T) -> T | None:
    """Return a value; None in place of a number that is not finite, which JSON does not have."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def format_times(ratio: float) -> str:
    """Return a ratio such as ``6 ×``."""
    return f"{format_number(ratio, '.2g')} ×"


def format_number(value: float, form: str) -> str:
    """Write a number in a format with digits, such as ``.1f``, ``,.0f`` or ``.3g``.

    Halves are rounded away from zero. A number counts by its first 12 digits, without the error of its
    arithmetic: 2.675 in ``.2f`` is 2.68, and so is 100·(1 − 0.97325).
    """
    exact = Decimal(f"{value:.12g}")
    digits = int(form.rpartition(".")[2][:-1])
    last = exact.adjusted() + 1 - max(digits, 1) if form[-1] == "g" else -digits
    if exact.is_finite() and exact != (whole := exact.scaleb(-last)).to_integral_value():
        value = float(whole.to_integral_value(ROUND_HALF_UP).scaleb(last))
    return format(value or 0.0, form)  # no −0


def format_share(share: float, digits: int = 0) -> str:
    """Write a share in percent: 0.545 → ``55 %``."""
    return f"{format_number(100 * share, f'.{digits}f')} %"


def format_count(count: float, *, digits: int = 4, from_: int = 10**6) -> str:
    """Write a count shortly: 1024 → ``1,024``, 25000000 → ``25M``, 3.4e9 → ``3.4B``.

    A count from ``from_``, at least 1,000, has a unit.
    """
    if count < from_:
        return format_number(count, ",.0f")
    rounded = float(format_number(count, f".{digits}g"))  # 999,999,999 is 1B, not 1000M
    unit, size = next((unit, size) for unit, size in _LARGE if rounded >= size)
    return f"{rounded / size:.{digits}g}{unit}"


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: ``1 run``, ``3 runs``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def format_range(low: str, high: str) -> str:
    """Return a range of written values: ``3 to 5``, or ``3`` if both ends read the same."""
    return low if low == high else f"{low} to {high}"


def format_flops(flops: float, *, digits: int = 4) -> str:
    """Write an amount of compute with its SI prefix: 9e11 → ``900 GFLOP``, 1.29e21 → ``1.29 ZFLOP``."""
    rounded = float(format_number(flops, f".{digits}g"))
    for prefix, power in reversed(_SI_PREFIXES.items()):
        if prefix != "K" and rounded >= 10.0**power:
            return f"{rounded / 10.0**power:g} {prefix}FLOP"
    return f"{rounded:g} FLOP"


def format_seconds(seconds: float) -> str:
    """Write a duration with a readable unit: ``42 s``, ``7 min``, ``3.5 h``, ``2.1 d``, ``9,230 years``."""
    if seconds < 100:  # noqa: PLR2004 - below this, seconds read best
        return f"{format_number(seconds, '.0f')} s"
    if seconds < 100 * 60:
        return f"{format_number(seconds / 60, '.0f')} min"
    if seconds < 100 * 3600:
        return f"{format_number(seconds / 3600, '.3g')} h"
    if seconds < 999.5 * 86400:
        return f"{format_number(seconds / 86400, '.3g')} d"
    return f"{float(format_number(seconds / (365.25 * 86400), '.3g')):,.12g} years"


def format_seconds_range(low: float, high: float) -> str:
    """Write a range of durations in the unit of the longer one if the shorter fills it: ``2.5 d to 10 d``."""
    first, last = format_seconds(low), format_seconds(high)
    unit = last.rpartition(" ")[2]
    units = low / {"s": 1, "min": 60, "h": 3600, "d": 86400, "years": 365.25 * 86400}[unit]
    return format_range(
        first if first.endswith(f" {unit}") or units < 1 else f"{format_number(units, '.3g')} {unit}", last
    )


def _device_flops(text: str, time: re.Match[str]) -> int:
    if time["share"] is None:
        raise ValueError(f"'{text}' does not say how much of the peak is reached; add it, such as 'at 40%'")
    number, _ = _split(time["number"], example="3")
    share = Fraction(parse_share(time["share"])).limit_denominator(10**6)
    seconds = number * _SPAN_SECONDS[time["span"].lower()]
    flops = seconds * find_device(time["device"]).peak_flops * share
    if not 0 <= flops <= _MAX_FLOPS:
        raise ValueError(f"'{text}' is out of range")
    return int(flops)


def _split(text: str, *, example: str) -> tuple[Fraction, str]:
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(f"'{_short(text)}' is not a number; write it like {example}")
    try:
        value = Decimal(re.sub("[_,]", "", match[1]))
    except InvalidOperation:
        raise ValueError(f"'{_short(text)}' is not a number; write it like {example}") from None
    if value and value.adjusted() not in _EXPONENTS:
        raise ValueError(f"'{_short(text)}' is out of range; write it like {example}")
    return Fraction(value) if value else Fraction(0), match[2] or ""


def _float(value: Fraction, text: str) -> float:
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"'{_short(text)}' is out of range") from None


def _exact(
    text: str, units: Mapping[str, int] | Mapping[str, int | Fraction], *, kind: str, example: str
) -> Fraction:
    value, unit = _split(text, example=example)
    if unit not in units:
        raise ValueError(f"'{_short(text)}': {unknown(kind, unit, filter(None, units))}")
    return value * Fraction(units[unit])


def _whole(text: str, units: Mapping[str, int], *, kind: str, example: str, most: int) -> int:
    exact = _exact(text, units, kind=kind, example=example)
    if exact < 0:
        raise ValueError(f"'{_short(text)}' is negative")
    if exact.denominator != 1:
        raise ValueError(f"'{_short(text)}' is not a whole number; write it like {example}")
    if exact > most:
        raise ValueError(f"'{_short(text)}' is out of range: at most {most:.0e}")
    return int(exact)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
