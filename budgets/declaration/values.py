"""Readers of a declaration's single values, named by the fields of its data classes."""

import os
import re
from dataclasses import replace
from functools import partial

from budgets.declaration.value_forms import OneOf, Reader
from budgets.devices import devices, find_device
from budgets.names import unknown
from budgets.quality import check_quality
from budgets.quantity import parse_bytes, parse_count, parse_flops, parse_number, parse_seconds, parse_share

CHECK_SHARE = 0.1
"""Share of the study budget that ``tuning.check: true`` means."""
_LONGEST_PATH, _LONGEST_NAME = 4000, 255  # bytes, as Linux has it
_MAX_BATCH, _MAX_DEVICES = 10**8, 10**6
_DAY_S = 86400.0
_READ_ONLY = {"http", "https", "data", "github", "git", "zip", "tar", "libarchive", "reference"}


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", text):
        raise ValueError(
            f"'{text[:100]}' names a folder: up to 100 letters, digits, '.', '_' and '-'; "
            "it must start with a letter or digit"
        )
    return text


def _resource(text: str) -> str:
    if text.lower() in {"cpu", "cpus", "gpu", "gpus", "memory", "object_store_memory"}:
        raise ValueError(f"'{text}' is not a custom resource; cpus and gpus are keys of resources:")
    return text


def _metric(text: str) -> str:
    if not re.fullmatch(r"[^/\s]+/[^/\s]+", text):
        raise ValueError(f"'{text}' is not <evaluation set>/<metric>, such as held-out/top1")
    return text


def _warmup(text: str) -> float:
    """Read a share of the run as a float, or samples as an int."""
    count, word, rest = text.partition("sample")
    if word and rest in {"", "s"}:
        return int(positive(count.strip()))
    try:
        return parse_share(text)
    except ValueError as error:
        raise ValueError(f"{error}; or give samples, such as 10k samples") from None


def _check(text: str) -> float:
    """Read a share, or ``true`` for the usual one."""
    if text == "true":
        return CHECK_SHARE
    try:
        return parse_share(text)
    except ValueError as error:
        raise ValueError(f"{error}; or true for {CHECK_SHARE:.0%}, or false") from None


def _path(text: str) -> str:
    if not text.isprintable():
        raise ValueError("a path has no line breaks or control characters")
    if len(text.encode()) > _LONGEST_PATH or any(
        len(part.encode()) > _LONGEST_NAME for part in text.split("/")
    ):
        raise ValueError(f"'{text[:20]}…' is longer than a path can be")
    return text


def _place(text: str) -> str:
    return _storage(text) if "://" in text else _path(text)


def _storage(text: str) -> str:
    scheme, separator, rest = text.partition("://")
    if separator and scheme != "file":
        from fsspec import available_protocols  # noqa: PLC0415 - few studies ask

        if scheme not in available_protocols():
            raise ValueError(unknown("protocol", scheme, available_protocols()))
        if scheme in _READ_ONLY:
            raise ValueError(f"'{text}' can't be written to: {scheme}:// is read-only")
        if not rest.strip("/"):
            raise ValueError(f"'{text}' has no bucket; write {scheme}://BUCKET or {scheme}://BUCKET/FOLDER")
        if {".", ".."} & set(rest.split("/")):
            raise ValueError(f"'{text}': a URL has no . or .. in its path; write the folder itself")
        return _path(text.rstrip("/"))
    folder = _path(rest if separator else text)
    if folder.startswith("/") and not folder.strip("/."):
        raise ValueError(f"'{text}' is the top of the file system; name a folder, such as /shared/clip")
    if not folder.startswith("/"):
        raise ValueError(f"'{text}' must be an absolute path, the same on every node")
    if os.path.normpath(folder).lstrip("/").split("/")[0] in {"proc", "sys"}:
        raise ValueError(
            f"'{text}' can't be written to: it is the kernel's; name a folder, such as /shared/clip"
        )
    return folder


_number = partial(Reader, parse=parse_number, noun="a number")
_share = partial(Reader, parse=parse_share, noun="a share")
_count = partial(Reader, parse=parse_count, noun="a whole number")
_text = partial(Reader, json="string")

positive = _count(examples=("4096", "10M"), above=0)
positive_or_zero = _count(at_least=0)
pairs_or_all = _count(noun="a number of pairs", examples=("10M",), above=0, word=("all", None))
batch = Reader(parse=positive, noun="a whole number above 0", at_most=_MAX_BATCH)
device_count = Reader(parse=positive, noun="a whole number above 0", at_most=_MAX_DEVICES)
devices_of_a_trial = _count(noun="a whole number from 0", at_most=_MAX_DEVICES)
level_count = Reader(parse=positive, noun="a whole number above 0", at_most=100)
side_or_off = _count(
    noun="a number of pixels", examples=("256",), at_least=16, at_most=4096, word=("off", None)
)
retries = _count(at_least=0, at_most=1000, why="each one starts the trial again", usual=(0, 30))

rate = _number(
    examples=("1e-3",), above=0, at_most=10, usual=(1e-7, 0.1),
    why="a step of Adam moves each weight by about the learning rate",
)  # fmt: skip
decay = _number(
    at_least=0, at_most=1000, usual=(0, 2),
    why="it is multiplied by the learning rate, and a product of 1 clears the weights at each step",
)  # fmt: skip
epsilon = _number(
    examples=("1e-6",), at_least=1e-37, at_most=1, usual=(1e-12, 1e-3),
    why="32-bit floats are no smaller, and above 1 AdamW no longer adapts",
)  # fmt: skip
norm = _number(
    examples=("1",), at_least=1e-6, at_most=1e6, usual=(0.01, 100),
    why="a smaller norm stops the training, a larger one is never reached (off)",
)  # fmt: skip
norm_or_off = replace(norm, word=("off", None))
bytes_over_images = _number(noun="a factor", examples=("2",), at_least=1, word=("off", None))
price = _number(examples=("2.5",), above=0, at_most=1e9, why="no device costs more an hour")
epochs = _number(examples=("1000",), above=0, at_most=1e9)
amount = _number(examples=("1",), above=0, at_most=1e9)
positive_number = _number(examples=("2.5", "1e-3"), above=0)
ratio = _number(examples=("2",), at_least=1.01, at_most=10**6)

share = _share(noun="a share from 0 to 1", examples=("10%", "0.1"))
positive_share = _share(examples=("10%",), above=0, at_most=1)
share_within = _share(examples=("25%",), above=0, below=1)
share_or_off = replace(positive_share, word=("off", None))
share_of_the_check = _share(parse=_check, examples=("5%", "true"), above=0, at_most=1, word=("false", 0.0))
share_of_the_peak = _share(noun="a share of the peak", examples=("40%",), above=0, at_most=1)
share_below_one = _share(examples=("0.98", "98%"), at_least=0, below=1)
decay_or_off = _share(examples=("0.999",), at_least=0, below=1, word=("off", 0.0))
tail = _share(examples=("10%",), at_least=0, below=1, usual=(0, 0.5))
tail_or_strategys = replace(tail, word=("strategy", None))
warmup = Reader(parse=_warmup, noun="a share, or samples", examples=("10%", "10k samples"))

compute = Reader(parse=parse_flops, noun="compute", examples=("900 GFLOP", "1e18"), above=0)
memory = Reader(parse=parse_bytes, noun="an amount of memory", examples=("2 GiB", "500 MB"), above=0)
seconds = Reader(
    parse=parse_seconds, noun="a time", examples=("30 s", "2 min"), at_most=365 * _DAY_S,
    why="longer than a year", usual=(0, 7 * _DAY_S),
)  # fmt: skip
hang = replace(seconds, examples=("10 min",), above=0, word=("off", None), usual=(60, 7 * _DAY_S))
pause = Reader(
    parse=parse_seconds, noun="a time", examples=("5 s",), at_most=_DAY_S, usual=(0, 600),
    why="each further retry waits four times as long",
)  # fmt: skip

name = _text(parse=_name, noun="letters, digits, `.`, `_`, `-`")
resource = _text(parse=_resource, noun="a resource's name")
metric = _text(parse=_metric, noun="`<evaluation set>/<metric>`", examples=("held-out/top1",))
quality = _text(
    parse=check_quality, examples=("top40",),
    noun="`all`, `topNN`, `topNN by SCORE`, `topNN by EXPRESSION`, or `subset:NAME`",
)  # fmt: skip
path = _text(parse=_path, noun="a folder", relative=True)
python = _text(parse=_path, noun="a `.py` file, or a folder", relative=True)
place = _text(
    parse=_place, noun="a folder, or an fsspec URL", examples=("pools/web", "s3://bucket/web"), relative=True
)
storage = _text(
    parse=_storage, noun="an absolute path, or an fsspec URL", examples=("/shared/clip", "s3://bucket/clip")
)
device = _text(
    parse=lambda text: find_device(text).name,
    noun=", ".join(f"`{name}`" for name in sorted({d.name for d in devices().values()})),
)
architecture = OneOf(kind="architecture")
strategy = OneOf(kind="strategy")
