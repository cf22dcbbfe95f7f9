"""A small study with evaluated trunks whose workers and drivers are killed at random times.

``python -m tests.study.run.faults.torture FOLDER KILLS [SEED]`` runs it twice on the same pool, quietly and
tortured, and prints as JSON what was done. Drivers are forked from one server, so that a start costs no
import.
"""

import json
import multiprocessing
import os
import random
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from multiprocessing import forkserver, resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from runners.host.process import load_ahead
from tests import child_processes
from tests.root import ROOT

STUDY = """
study: {name}
pool: {{path: {pool}}}
metric: held-out/top1
evaluation: {{trunk: true}}
budget: {{levels: [{levels}], study: 1 PFLOP}}
seeds: [{seeds}]
grid: [{{architectures: [mini-ViT-XXS-8], strategies: [clip]}}]
training:
  {{batch_size: 16, precision: fp32, lr_peak: {{mini-ViT-XXS-8: 2e-3}}, schedule: trunk, warmup: 320 samples,
    cooldown: 20%}}
resources: {{retries: 20, backoff: 0.05 s, checkpoint: 0.2 s}}
"""
_DRIVER_SHARE = 0.15
_NOTICE_SHARE = 0.15


def main(words: list[str]) -> None:
    """Run the study undisturbed, and again with kills."""
    folder, kills, seed = Path(words[0]), int(words[1]), int((*words, "0")[2])
    os.environ.update({"PYTHONPATH": f"{child_processes.FOLDER}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"})
    context = multiprocessing.get_context("forkserver")
    os.environ["STUDY_WITNESS"] = str(folder / "witness")
    load_ahead("study.run.pipeline", "runners.trials.trial", "runners.scheduling.local_backend")
    build = context.Process(target=_build, args=(folder / "pool",))
    build.start()
    build.join()

    began = time.monotonic()
    quiet = _declare(folder, "quiet", kills)
    driver = _drive(context, quiet, folder)
    driver.join()
    quiet_s = time.monotonic() - began
    (folder / "witness").write_text("")  # there before the first step is

    torture = Torture(context, _declare(folder, "tortured", kills), folder, random.Random(seed))
    while torture.kills < kills or torture.driver.is_alive() or torture.driver.exitcode:
        torture.go_on(wanted=kills)
    left = _left_behind(torture.server)
    steps = Counter(line.split()[0] for line in (folder / "witness").read_text().splitlines())
    sys.stdout.write(
        json.dumps(
            {
                "killed": torture.killed,
                "quiet_s": quiet_s,
                "tortured_s": time.monotonic() - began - quiet_s,
                "left_behind": left,
                "steps_computed": steps["computed"],
                "steps_announced": steps["announced"],
            }
        )
    )


class Torture:
    """A study under kills and its processes."""

    def __init__(self, context: Any, declaration: Path, folder: Path, draw: random.Random) -> None:  # noqa: ANN401 - a context's class is private
        self._context, self._declaration, self._folder, self._draw = context, declaration, folder, draw
        self.killed: dict[str, int] = Counter()
        self._seen: set[int] = set()
        self.driver: BaseProcess = _drive(context, declaration, folder)

    @property
    def server(self) -> int:
        """Process of the server from which drivers and trials are forked."""
        return forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined, no-any-return]  # noqa: SLF001 - has no public name

    @property
    def kills(self) -> int:
        """Number of kills so far."""
        return sum(self.killed.values())

    def go_on(self, *, wanted: int) -> None:
        """Let the study work for a moment, then kill a process; a killed driver is followed by another."""
        if not self.driver.is_alive():
            if self.driver.exitcode:
                raise SystemExit(f"the driver ended with {self.driver.exitcode}")
            raise SystemExit(f"the study ended after {self.kills} kills; it is too short for {wanted}")
        if self.kills >= wanted:
            self.driver.join(1)
            return
        found = self._at_work()
        if found is None:  # nobody has begun yet: there is nothing to lose
            time.sleep(0.02)
            return
        self._let_work(found, steps=self._draw.randrange(1, 35))
        without_driver = self.kills >= wanted // 2 and not self.killed["driver"]
        if self._draw.random() < _DRIVER_SHARE or without_driver:
            # It may die between its connection to the server and its request, which ends the server as well;
            # then the next one starts another server.
            self.driver.kill()
            self.driver.join()
            self.killed["driver"] += 1
            self.driver = _drive(self._context, self._declaration, self._folder)
            return
        notice = self._draw.random() < _NOTICE_SHARE
        with suppress(ProcessLookupError):  # it finished just now
            os.kill(found, signal.SIGTERM if notice else signal.SIGKILL)
            self.killed["notice" if notice else "worker"] += 1

    def _let_work(self, pid: int, steps: int) -> None:
        """Wait until a process has computed a number of steps or has ended."""
        line = f"computed {pid}\n"
        while (self._folder / "witness").read_text().count(line) < steps and Path(f"/proc/{pid}").exists():
            time.sleep(0.005)

    def _at_work(self) -> int | None:
        """Return a training process that has not been killed before."""
        running = list(self._folder.glob("tortured/trials/*/progress.json"))
        self._draw.shuffle(running)
        for path in running:
            with suppress(FileNotFoundError):
                pid: int = json.loads(path.read_text())["pid"]
                if pid not in self._seen and Path(f"/proc/{pid}").exists():
                    self._seen.add(pid)
                    return pid
        return None


def _declare(folder: Path, name: str, kills: int) -> Path:
    path = folder / f"{name}.yaml"
    seeds = ", ".join(str(seed) for seed in range(max(4, kills // 4)))
    path.write_text(STUDY.format(name=name, pool=folder / "pool", levels="5 GFLOP, 12 GFLOP", seeds=seeds))
    return path


def _build(pool: Path) -> None:
    from runners.embedded.embedded_pool import build_embedded_pool  # noqa: PLC0415 - in the server alone

    build_embedded_pool(pool, pairs=512, seed=5, score=None, evaluation_sizes={"held-out": 100})


def _drive(context: Any, declaration: Path, folder: Path) -> BaseProcess:  # noqa: ANN401
    words = ["run", str(declaration), "--results", str(folder), "--backend", "local"]
    driver: BaseProcess = context.Process(target=_run, args=(words, folder / "output"))
    try:
        driver.start()
    except (EOFError, OSError):  # the server was ending; the next start brings up another
        return _drive(context, declaration, folder)
    return driver


def _run(words: list[str], output: Path) -> None:
    from study.cli import main as command  # noqa: PLC0415

    # Trials are forked from the server of this driver, whose address it has inherited.
    server: Any = forkserver._forkserver  # noqa: SLF001 - has no public name
    server.ensure_running = resource_tracker.ensure_running
    with output.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.exit(command(words))


def _left_behind(server: int) -> list[str]:
    """Return the command lines of the server's processes that still exist after a while."""
    deadline = time.monotonic() + 10
    while (found := _children(server)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def _children(server: int) -> list[str]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            state, parent = status.read_text().rsplit(")", 1)[1].split()[:2]
            if int(parent) == server and state != "Z":
                found.append((status.parent / "cmdline").read_text())
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
