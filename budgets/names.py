"""Texts with names: the error for an unknown name, and forms that terminals and spreadsheets do not run."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import TypeVar

T = TypeVar("T")

_PASSWORD = re.compile(r"(://[^/@:\s'\"]*):[^/\s]*@")
_QUERY = re.compile(r"(?<=\?)(?:[^\s'\"?#=&]+=[^\s'\"#&]*&?)+")
_FORMULA = re.compile(r"[=+\-@\t\r]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_NUMBER = re.compile(r"[+-][\d.,]+(?:e[+-]?\d+)?\s?%?", re.IGNORECASE)

_MOST_SHOWN = 100
_NEAREST_SHOWN = 12
_LONGEST_SHOWN = 200


def unknown(kind: str, name: str, allowed: Iterable[str], *, meant: str | None = None) -> str:
    """Format the error for a name that is not one of the allowed ones, on one line.

    Such as ``unknown architecture 'ViT-B32'; did you mean 'ViT-B-32'? allowed: …``. If there are very many
    names, only the nearest are listed. The hint is for ``meant`` if that is given.
    """
    names, name = sorted(map(shortened, allowed)), shortened(name)
    if not names:
        return f"unknown {kind} '{name}'; no {kind} is defined"
    if len(names) > _MOST_SHOWN:
        near = get_close_matches(name, names, n=_NEAREST_SHOWN, cutoff=0) or names[:_NEAREST_SHOWN]
        shown = f"{', '.join(near)} and {len(names) - len(near):,} more"
    else:
        shown = ", ".join(names)
    near_one = nearest_name(meant or name, names)
    hint = ";" if near_one is None else f"; did you mean '{near_one}'?"
    return f"unknown {kind} '{name}'{hint} allowed: {shown}"


def shortened(text: str) -> str:
    """Return a text for a message: cut if it is very long."""
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def nearest_name(mistyped: str, names: Iterable[str]) -> str | None:
    """Return the name that a mistyped one was meant to be; None if it resembles none."""
    lower_case = {name.lower(): name for name in names}
    near = get_close_matches(mistyped.lower(), lower_case, n=1, cutoff=0.5)
    return lower_case[near[0]] if near else None


def neutral_cell(value: T) -> T | str:
    """Return a cell of a CSV file: on one line, and with an apostrophe if a spreadsheet would run it."""
    if not isinstance(value, str):
        return value
    formula = _FORMULA.match(value) and not _NUMBER.fullmatch(value)
    return one_line(f"'{value}" if formula else value)


def without_secrets(text: str) -> str:
    """Return a text without the passwords and the values of the queries of the URLs in it.

    ``ftp://me:secret@host`` → ``ftp://me@host``, and ``https://host/pool?token=secret`` →
    ``https://host/pool?token=…``.
    """
    hidden = _QUERY.sub(lambda query: re.sub("=[^&]*", "=…", query[0]), text)
    return _PASSWORD.sub(r"\1@", hidden)


def one_line(text: T) -> T | str:
    """Return a text with control characters and line breaks written out; anything else as it is."""
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text) if isinstance(text, str) else text


def printable(text: str) -> str:
    """Return a text with its control characters, such as a terminal's escape codes, written out."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode()
        for char in text
    )
