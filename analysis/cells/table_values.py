"""Values of any table as numbers and as names."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from budgets.quantity import parse_quantity
from runners.data.build.table_file import MISSING


def scaled_number(value: object, times: float) -> float:
    """Return a value as a number times a factor; NaN if it is missing."""
    if is_absent(value) or value == "None":
        return float("nan")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value) * times
    number = parse_quantity(str(value))
    if times != 1 and isinstance(value, str) and value.rstrip().endswith("%"):
        raise ValueError(f"'{value}' is read as {number:g}; leave out times: {times:g}")
    return number * times


def find_name(value: object, names: Mapping[str, object] | tuple[str, ...]) -> str | None:
    """Return the map's text for a value, also ``true`` for True and ``4e8`` for 400000000."""
    if str(value) in names:
        return str(value)
    text = name_text(value)
    if text in names:
        return text
    if text.lower() in {"true", "false"}:
        return next((name for name in names if name.lower() == text.lower()), None)
    if isinstance(value, (int, float)):
        return next((name for name in names if _same_number(name, value)), None)
    return None


def _same_number(name: str, value: float) -> bool:
    try:
        return parse_quantity(name) == value
    except ValueError:
        return False


def name_text(value: object) -> str:
    """Return a value as text: 400000000 instead of 4e+08, 20 for 20.0, 1.4, True, and no spaces around it."""
    if isinstance(value, float) and np.isfinite(value):
        if value.is_integer():
            return str(int(value))
        return np.format_float_positional(value, precision=12, fractional=False, trim="-")
    return str(value).strip()


def is_absent(value: object) -> bool:
    """Return whether a value is missing."""
    if isinstance(value, str):
        return value.strip() in MISSING
    return value is None or value is pd.NaT or value is pd.NA or value != value  # noqa: PLR0124 (NaN)
