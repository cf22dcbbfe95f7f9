"""Software versions and hardware that results depend on."""

import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from runners.host.process import CUDNN_BENCHMARK, FLOAT32_PRODUCTS

_DISTRIBUTION = "clip-scaling-study"
_CHECKOUT = Path(__file__).resolve().parents[2]
_PACKAGES = ("torch", "open_clip_torch", "timm", "ray", "numpy", "pandas", "scipy")


def own_version() -> str:
    """Return this project's version, with the commit if it runs from a git checkout."""
    try:
        release = version(_DISTRIBUTION)
    except PackageNotFoundError:
        release = "not installed"
    git = shutil.which("git")
    if git is None or not (_CHECKOUT / ".git").exists():
        return release
    command = [git, "-C", str(_CHECKOUT), "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"]
    described = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (fixed words)
    return f"{release}, commit {described.stdout.strip()}" if described.returncode == 0 else release


def environment() -> dict[str, str]:
    """Return versions and hardware by name, as written to ``environment.json``."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists() and (named := re.search("^model name.*?:(.*)", cpuinfo.read_text(), re.MULTILINE)):
        processor = named[1].strip()
    return {
        "version": own_version(),
        "python": platform.python_version(),
        "processor": processor,
        "cores": str(os.cpu_count()),
        "system": platform.system(),
        "gpu fp32 products": FLOAT32_PRODUCTS,
        "gpu cudnn benchmark": "on" if CUDNN_BENCHMARK else "off",
    } | {package: version(package) for package in _PACKAGES}
