"""What a device computes at most, and what was measured on it; the files give each number's source.

``devices.json`` holds peaks of vendors' data sheets (dense bf16) and the range of utilisation that stands in
for a measurement; ``throughput.csv`` holds measured samples a second.
"""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from budgets.names import unknown

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """An accelerator.

    Attributes:
        name: As in the table.
        peak_flops: Dense bf16 FLOPs a second by its data sheet.
        memory_bytes: Memory of one device.
        source: Where the numbers are from.
    """

    name: str
    peak_flops: int
    memory_bytes: int
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Utilisation:
    """Share of the peak that training reaches, lowest and highest, and where that is from."""

    low: float
    high: float
    source: str


@cache
def devices() -> Mapping[str, Device]:
    """Every device by its name and by its short names."""
    found: dict[str, Device] = {}
    for name, entry in _table()["devices"].items():
        device = Device(
            name=name,
            peak_flops=entry["peak_flops"],
            memory_bytes=entry["memory_bytes"],
            source=entry["source"],
        )
        found |= dict.fromkeys([name, *entry["also"]], device)
    return found


def device(name: str) -> Device:
    """The device of that name, in any case.

    Raises:
        ValueError: There is none; the message gives the nearest name and all of them.
    """
    if name.lower() not in devices():
        raise ValueError(unknown("device", name, devices()))
    return devices()[name.lower()]


@cache
def usual_utilisation() -> Utilisation:
    """What stands in where no throughput was measured."""
    return Utilisation(**_table()["utilisation"])


@cache
def measured_samples_per_s() -> Mapping[tuple[str, str, str], tuple[float, float]]:
    """Lowest and highest samples a second of one device: (device, architecture, strategy) → (low, high)."""
    with (_FOLDER / "throughput.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    found: dict[tuple[str, str, str], tuple[float, float]] = {}
    for row in rows:
        kind = device(row["device"]).name, row["architecture"], row["strategy"]
        speed = float(row["samples_per_s"])
        low, high = found.get(kind, (speed, speed))
        found[kind] = min(low, speed), max(high, speed)
    return found


@cache
def _table() -> Mapping[str, Any]:
    table: dict[str, Any] = json.loads((_FOLDER / "devices.json").read_text(encoding="utf-8"))
    return table
