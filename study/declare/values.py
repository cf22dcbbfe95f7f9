"""Readers of a declaration's single values: text → value, or a `ValueError` that says what is allowed."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from budgets.devices import devices
from budgets.names import unknown
from budgets.quality import check_quality
from budgets.quantity import parse_count, parse_flops, parse_number, parse_share

T = TypeVar("T", int, float)

_LONGEST_PATH, _LONGEST_NAME = 4000, 255  # bytes, as Linux has it
MAX_BATCH = 10**8
MAX_DEVICES = 10**6
MAX_LEVELS = 100


def _checked(
    read: Callable[[str], T], accept: Callable[[T], bool], what: str, example: str = ""
) -> Callable[[str], T]:
    def checked(text: str) -> T:
        value = read(text)
        if not accept(value):
            raise ValueError(f"'{text}' must be {what}{example}")
        return value

    return checked


positive = _checked(parse_count, lambda value: value > 0, "more than 0")
positive_or_zero = parse_count
compute = _checked(parse_flops, lambda value: value > 0, "more than 0")
positive_number = _checked(parse_number, lambda value: 0 < value < float("inf"), "more than 0")
not_negative = _checked(parse_number, lambda value: 0 <= value < float("inf"), "0 or more")
positive_share = _checked(parse_share, lambda value: value > 0, "more than 0, at most 1")
share_below_one = _checked(parse_share, lambda value: value < 1, "0 or more, below 1")
batch = _checked(positive, lambda value: value <= MAX_BATCH, f"at most {MAX_BATCH:,}")
device_count = _checked(positive, lambda value: value <= MAX_DEVICES, f"at most {MAX_DEVICES:,}")
devices_of_a_trial = _checked(parse_count, lambda value: value <= MAX_DEVICES, f"at most {MAX_DEVICES:,}")
level_count = _checked(positive, lambda value: value <= MAX_LEVELS, f"at most {MAX_LEVELS}")
ratio = _checked(positive_number, lambda value: 1.01 <= value <= 10**6, "between 1.01 and 1,000,000")  # noqa: PLR2004


def size(text: str) -> int:
    """Reads a subset's size; 0 stands for ``all``."""
    return 0 if text == "all" else positive(text)


def quality(text: str) -> str:
    """Reads ``all``, ``topNN`` or ``subset:NAME``."""
    return check_quality(text)


def name(text: str) -> str:
    """Reads a name that can name a folder."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", text):
        raise ValueError(
            f"'{text[:100]}' names a folder: up to 100 letters, digits, '.', '_' and '-', the first no sign"
        )
    return text


def resource(text: str) -> str:
    """Reads the name of a cluster's own resource."""
    if text.lower() in {"cpu", "cpus", "gpu", "gpus", "memory", "object_store_memory"}:
        raise ValueError(f"'{text}' is none of a cluster's own; cpus and gpus are keys of resources:")
    return text


def metric(text: str) -> str:
    """Reads ``<evaluation set>/<metric>``."""
    if not re.fullmatch(r"[^/\s]+/[^/\s]+", text):
        raise ValueError(f"'{text}' is not <evaluation set>/<metric>, such as held-out/top1")
    return text


@dataclass(frozen=True, slots=True)
class OrOff:
    """A reader that also takes ``off``, as 0.

    Attributes:
        read: Reads anything else.
    """

    read: Callable[[str], float]

    def __call__(self, text: str) -> float:
        """Gives the value; 0 for ``off``."""
        return 0.0 if text == "off" else self.read(text)


def warmup(text: str) -> float:
    """Reads a warm-up: a share of the run as a float, or samples (``10k samples``) as an int."""
    count, word, rest = text.partition("sample")
    if word and rest in {"", "s"}:
        return positive(count.strip())
    try:
        return parse_share(text)
    except ValueError as error:
        raise ValueError(f"{error}; or give samples, such as 10k samples") from None


def path(text: str) -> str:
    """Reads the path of a file or folder."""
    if not text.isprintable():
        raise ValueError("a path has no line breaks or control characters")
    if len(text.encode()) > _LONGEST_PATH or any(
        len(part.encode()) > _LONGEST_NAME for part in text.split("/")
    ):
        raise ValueError(f"'{text[:20]}…' is longer than a path can be")
    return text


def storage(text: str) -> str:
    """Reads what nodes share: an absolute path, or an fsspec URL, of which ``file://`` is a path."""
    scheme, separator, rest = text.partition("://")
    if separator and scheme != "file":
        from fsspec import available_protocols  # noqa: PLC0415 - few studies ask

        if scheme not in available_protocols():
            raise ValueError(unknown("protocol", scheme, available_protocols()))
        if not rest.strip("/"):
            raise ValueError(
                f"'{text}' names no place: a bucket, perhaps with a folder in it, follows {scheme}://"
            )
        return path(text.rstrip("/"))
    found = path(rest if separator else text)
    if not found.startswith("/"):
        raise ValueError(f"'{text}' must be an absolute path, the same on every node")
    return found


def yes_or_no(text: str) -> bool:
    """Reads ``true`` or ``false``."""
    if text not in {"true", "false"}:
        raise ValueError(f"'{text}' is not true or false")
    return text == "true"


def device_name(text: str) -> str:
    """Reads a device's name."""
    if text.lower() not in devices():
        raise ValueError(unknown("device", text, devices()))
    return devices()[text.lower()].name
