"""Measurements that benchmarks share, and the last lines of each: name, value, target, and pass or fail."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]


class Result(NamedTuple):
    """A measured value with its target, as printed, and whether it reaches the target."""

    name: str
    value: float
    target: str
    good: bool


def at_most(name: str, value: float, target: float) -> Result:
    """Return the line of a value that must not exceed its target."""
    return Result(name, value, f"{target:g}", value <= target)


def at_least(name: str, value: float, target: float) -> Result:
    """Return the line of a value that must reach its target."""
    return Result(name, value, f"{target:g}", value >= target)


def between(name: str, value: float, low: float, high: float) -> Result:
    """Return the line of a value that must lie in a range."""
    return Result(name, value, f"{low:g}..{high:g}", low <= value <= high)


def reported(name: str, value: float) -> Result:
    """Return the line of a value without a target."""
    return Result(name, value, "none", good=True)


def verdict(lines: Sequence[Result], form: str = ".3g") -> int:
    """Print the lines, with values in a format, and return the exit code: 1 if one fails."""
    print()
    for line in lines:
        print(f"{line.name} {line.value:{form}} {line.target} {'pass' if line.good else 'fail'}")
    return int(not all(line.good for line in lines))


def best_of(runs: int, command: Sequence[str]) -> tuple[float, float, str]:
    """Run a process a few times; return the best wall and processor seconds, and the last output."""
    walls, cpus, output = [], [], ""
    for _ in range(runs):
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        output = process.stdout.read() if process.stdout is not None else ""
        _, status, usage = os.wait4(process.pid, 0)
        walls.append(time.perf_counter() - began)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
        cpus.append(usage.ru_utime + usage.ru_stime)
    return min(walls), min(cpus), output


def printed(*words: object) -> str:
    """Run Python with some arguments, such as a script and its options, and return what it prints."""
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout


def own_peak() -> float:
    """Return this process's peak memory in GiB; that of ``wait4`` may be the parent's before the fork."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 2**20
