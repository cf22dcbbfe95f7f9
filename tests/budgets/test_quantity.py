"""Parsing of numbers with units, and YAML's pitfalls with numbers."""

import math
import re
from collections.abc import Callable
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgets.quantity import (
    MAX_COUNT,
    format_count,
    format_flops,
    format_number,
    format_seconds,
    format_seconds_range,
    parse_count,
    parse_flops,
    parse_number,
    parse_seconds,
    parse_share,
)

READERS: list[Callable[[str], float]] = [parse_count, parse_flops, parse_number, parse_seconds, parse_share]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e18", 10**18),  # PyYAML reads this as text, and 1.0e+18 as a float
        ("1.0e+18", 10**18),
        ("3.5e+18", 35 * 10**17),
        ("2 EFLOP", 2 * 10**18),
        ("2 EFLOPs", 2 * 10**18),
        ("900 GFLOP", 9 * 10**11),
        ("0.1 ZFLOP", 10**20),
        ("123456789012345678901234567891", 123456789012345678901234567891),
        # 989 TFLOPS of dense bf16, at 40 %.
        ("3 gpu-days of h100 at 40%", 3 * 86400 * 989 * 10**12 * 2 // 5),
        ("1 GPU-hour of A100 at 0.5", 3600 * 156 * 10**12),
        ("2 tpu-weeks of tpu-v4 at 50 %", 14 * 86400 * 275 * 10**12 // 2),
    ],
)
def test_compute_is_exact_at_any_size(text: str, value: int) -> None:
    assert parse_flops(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10M", 10**7),
        ("3.4B", 34 * 10**8),
        ("1_000_000", 10**6),
        ("16_384", 16384),
        ("16,384", 16384),
        ("1,000,000", 10**6),
        ("1,500.5 k", 1_500_500),
        ("50k", 50_000),
        ("1e9", 10**9),
    ],
)
def test_counts_are_whole(text: str, value: int) -> None:
    assert parse_count(text) == value


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (parse_count, "1.5", "'1.5' is not a whole number; write it like 10M"),
        (parse_count, "-3", "'-3' is negative"),
        (parse_count, "1e-5", "'1e-5' is not a whole number"),
        (parse_count, "10 million", "unknown unit of a count 'million'; allowed: B, G, K, M, T, k"),
        (parse_count, "1,00", "unknown unit of a count ',00'"),
        (parse_count, "1000,000", "unknown unit of a count ',000'"),
        (parse_count, "1e16", "out of range: at most 1e+15"),
        (parse_count, "nan", "'nan' is not a number"),
        (parse_count, "inf", "'inf' is not a number"),
        (parse_count, "", "'' is not a number"),
        (parse_count, "1e999999999999", "out of range"),
        (parse_count, "1e-999999999999", "out of range"),
        (parse_flops, "3 EFLOPS/s", "unknown unit of compute 'EFLOPS/s'; did you mean 'EFLOPs'?"),
        (parse_flops, "0.5 FLOP", "is not a whole number"),
        (parse_flops, "3 gpu-days of h100", "does not say how much of the peak is reached"),
        (parse_flops, "3 gpu-days of h1000 at 40%", "unknown device 'h1000'; did you mean 'h100'?"),
        (parse_flops, "3 gpu-days of h100 at 140%", "'140%' is outside 0 to 1"),
        (parse_flops, "-3 gpu-days of h100 at 40%", "is out of range"),
        (parse_number, "3 %", "has a unit where a plain number is expected"),
        (parse_number, "1e309", "is out of range"),
        (parse_share, "120%", "is outside 0 to 1"),
        (parse_share, "9e99999 %", "is out of range"),
        (parse_seconds, "9e305 h", "is out of range"),
        (parse_seconds, "3 weeks", "unknown unit of time 'weeks'"),
        (parse_seconds, "-1 s", "is negative"),
    ],
)
def test_parse_errors_name_the_problem_and_what_is_allowed(
    read: Callable[[str], float], text: str, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        read(text)


@pytest.mark.slow
@given(
    st.text(max_size=12)
    | st.from_regex(r"[-+]?[0-9_.]{1,9}([eE][-+]?[0-9]{1,9})? ?(GFLOP|%|h|M|s)?", fullmatch=True)
)
def test_any_text_parses_or_raises_value_error(text: str) -> None:
    for read in READERS:
        try:
            value = read(text)
        except ValueError as error:
            assert str(error)  # noqa: PT017 - either is right, a traceback of another kind is not
        else:
            assert math.isfinite(value)


@given(st.integers(min_value=0, max_value=MAX_COUNT))
def test_whole_number_parses_to_itself(number: int) -> None:
    assert parse_count(str(number)) == number == parse_flops(f"{number:_}")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (format_count(1024), "1,024"),
        (format_count(25_000_000), "25M"),
        (format_count(3.4e9), "3.4B"),
        (format_count(999_999), "999,999"),
        (format_count(999_999_999), "1B"),
        (format_count(10**13), "10T"),
        (format_count(12_345_678, digits=3, from_=100_000), "12.3M"),
        (format_count(114_688, digits=3, from_=100_000), "115k"),
        (format_count(99_999, digits=3, from_=100_000), "99,999"),
        (format_count(12_800_000_000_000, digits=3, from_=100_000), "12.8T"),
        (format_flops(9e11), "900 GFLOP"),
        (format_flops(1.29e21), "1.29 ZFLOP"),
        (format_seconds(42), "42 s"),
        (format_seconds(7 * 60), "7 min"),
        (format_seconds(4 * 3600), "4 h"),
        (format_seconds(30 * 86400), "30 d"),
        (format_seconds(999.4 * 86400), "999 d"),
        (format_seconds(86_391_360), "2.74 years"),
        (format_seconds(3.37e6 * 86400), "9,230 years"),
        (format_seconds_range(59.9 * 3600, 9.98 * 86400), "2.5 d to 9.98 d"),
        (format_seconds_range(95 * 60, 3 * 3600), "1.58 h to 3 h"),
        (format_seconds_range(100, 300), "2 min to 5 min"),
        (format_seconds_range(42, 300), "42 s to 5 min"),
        (format_seconds_range(3600, 3601), "60 min"),
    ],
)
def test_formatting_of_counts_flops_and_seconds(written: str, expected: str) -> None:
    assert written == expected


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (2.675, ".2f", "2.68"), (100 * (1 - 0.7325), ".1f", "26.8"), (-0.25, ".1f", "-0.3"),
        (-0.04, ".1f", "0.0"), (12.5, ",.0f", "13"),
        (1234.5, ",.0f", "1,235"), (0.00125, ".2g", "0.0013"), (9.995, ".3g", "10"), (2.5, "+.0f", "+3"),
        (0.35, ".1g", "0.4"), (math.nan, ".1f", "nan"), (1e30, ".0f", f"{1e30:.0f}"), (0.0, ".3g", "0"),
    ],
)  # fmt: skip
def test_halves_are_rounded_away_from_zero(value: float, form: str, text: str) -> None:
    assert format_number(value, form) == text


@given(st.integers(-(10**9), 10**9), st.integers(0, 6))
def test_every_half_of_a_decimal_is_rounded_away_from_zero(number: int, digits: int) -> None:
    half = float(f"{number}5e-{digits + 1}")
    away = Decimal(number + (1 if number >= 0 else -1)).scaleb(-digits)
    assert Decimal(format_number(half, f".{digits}f")) == away
