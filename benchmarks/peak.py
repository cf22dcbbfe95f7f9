"""Peak memory of a benchmark's own process."""

from pathlib import Path


def own_peak() -> float:
    """Return this process's peak memory in GiB; that of ``wait4`` may be the parent's before the fork."""
    told = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in told.splitlines() if line.startswith("VmHWM")) / 2**20
