"""Ray's workers run this checkout's code, whatever else is installed under the same names."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("study", "analysis", "runners", "budgets")

# In a process of its own: Ray leaves it to the system to collect the processes that it started.
SCRIPT = """
import importlib, json
from runners.ray_backend import RayBackend  # before Ray: it sets how Ray authenticates
import ray

def origins():
    return {name: importlib.import_module(name).__file__ for name in PACKAGES}

PACKAGES = %r
with RayBackend(cpus=1, gpus=0) as backend:
    worker = ray.get(ray.remote(origins).remote())
    slots = backend.slots
with RayBackend(cpus=1000, gpus=0) as backend:
    too_wide = backend.slots
print(json.dumps({"driver": origins(), "worker": worker, "slots": slots, "too wide": too_wide}))
"""


def test_the_projects_packages_resolve_inside_the_checkout_and_slots_fit_the_machine() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT % (PACKAGES,)], cwd=ROOT, capture_output=True, text=True, check=True
    )

    found = json.loads(ended.stdout.splitlines()[-1])
    expected = {name: str(ROOT / name / "__init__.py") for name in PACKAGES}
    assert found["driver"] == expected
    assert found["worker"] == expected
    assert found["slots"] >= 1
    assert found["too wide"] == 0
