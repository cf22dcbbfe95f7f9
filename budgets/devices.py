"""Devices: peak FLOP/s, memory and measured throughput; each number's source is in the data files.

``devices.json`` holds peaks from vendors' data sheets (dense bf16), and what is assumed without a measurement
of utilisation, loading and start-up; ``throughput.csv`` holds measured samples a second.
"""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from budgets.names import unknown

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """An accelerator: dense bf16 FLOPs a second according to its data sheet, and memory."""

    name: str
    peak_flops: int
    memory_bytes: int


@cache
def devices() -> Mapping[str, Device]:
    """Return every device by its name and by its short names."""
    by_name: dict[str, Device] = {}
    for name, entry in _table()["devices"].items():
        device = Device(name=name, peak_flops=entry["peak_flops"], memory_bytes=entry["memory_bytes"])
        by_name |= dict.fromkeys([name, *entry["also"]], device)
    return by_name


def find_device(name: str) -> Device:
    """Return the device of a given name, in upper or lower case.

    Raises:
        ValueError: The name is unknown; the message gives the nearest name and all valid ones.
    """
    if name.lower() not in devices():
        raise ValueError(unknown("device", name, devices()))
    return devices()[name.lower()]


def usual_range(of: Literal["utilisation", "loading"]) -> tuple[float, float]:
    """Return the lowest and highest of what is assumed where no throughput was measured.

    ``utilisation`` is the share of the peak, ``loading`` the pictures a second that a core loads.
    """
    return _table()[of]["low"], _table()[of]["high"]


def start_seconds(*, group: bool, compiled: bool) -> float:
    """Return the seconds that a trial on GPUs takes before its first step: a ``group`` has several."""
    costs = _table()["start"]
    return float(costs["process"] + group * costs["group"] + compiled * costs["compilation"])


@cache
def measured_samples_per_s() -> Mapping[tuple[str, str, str], tuple[float, float]]:
    """Return measured samples/s of one device: (device, architecture, strategy) → (lowest, highest)."""
    with (_FOLDER / "throughput.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    speeds: dict[tuple[str, str, str], tuple[float, float]] = {}
    for row in rows:
        kind = find_device(row["device"]).name, row["architecture"], row["strategy"]
        speed = float(row["samples_per_s"])
        low, high = speeds.get(kind, (speed, speed))
        speeds[kind] = min(low, speed), max(high, speed)
    return speeds


@cache
def _table() -> Mapping[str, Any]:
    table: dict[str, Any] = json.loads((_FOLDER / "devices.json").read_text(encoding="utf-8"))
    return table
