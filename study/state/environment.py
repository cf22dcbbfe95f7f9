"""Software versions and hardware that results depend on."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

from runners.host.gpu_arithmetic import CUDNN_BENCHMARK, FLOAT32_PRODUCTS

_PACKAGES = ("torch", "open_clip_torch", "timm", "ray", "numpy", "pandas", "scipy")


def environment() -> dict[str, str]:
    """Return versions and hardware by name, as written to ``environment.json``."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":", 1)[1].strip()
            for line in cpuinfo.read_text().splitlines()
            if line.startswith("model name")
        ]
        processor = names[0] if names else processor
    return {
        "python": platform.python_version(),
        "processor": processor,
        "cores": str(os.cpu_count()),
        "system": platform.system(),
        "gpu fp32 products": FLOAT32_PRODUCTS,
        "gpu cudnn benchmark": "on" if CUDNN_BENCHMARK else "off",
    } | {package: version(package) for package in _PACKAGES}
