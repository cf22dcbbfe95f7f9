"""How long a trial will probably take: from trials of its kind that were measured, else from its FLOPs.

The forecast orders the trials and gives an ETA and a price; no decision about the budget rests on it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from budgets.planning.plan import Trial
from runners.host.files import write_json

# A processor core, measured on small models: a cost that goes with samples and one that goes with FLOPs.
_SECONDS_PER_SAMPLE = 60e-6
_FLOPS_PER_SECOND = 150e9
_START_S = 1.0

Kind = tuple[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Throughput:
    """What the first steps of a trial of a kind took.

    Attributes:
        architecture: Its architecture.
        strategy: Its strategy.
        batch_size: Pairs in its batch, the strategy's factor included.
        precision: What it computed in.
        steps: Steps that were timed, after a few that were not.
        samples_per_s: Samples a second of one trial, others beside it as in a run.
        memory_bytes: Greatest memory: what torch held on the GPU, or the resident set of the process.
    """

    architecture: str
    strategy: str
    batch_size: int
    precision: str
    steps: int
    samples_per_s: float
    memory_bytes: int

    @property
    def kind(self) -> Kind:
        """What it is a measurement of."""
        return self.architecture, self.strategy


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """What ``study calibrate`` measured on one machine.

    Attributes:
        machine: The GPU's or the processor's name as the system gives it.
        device: The GPU's name in `budgets.devices`, or None for a processor.
        side_by_side: Trials that ran at once.
        kinds: What was measured.
    """

    machine: str
    device: str | None
    side_by_side: int
    kinds: tuple[Throughput, ...]

    @property
    def speeds(self) -> dict[Kind, float]:
        """Samples a second of each kind."""
        return {each.kind: each.samples_per_s for each in self.kinds}

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        write_json(path, asdict(self))


def read_calibration(path: Path) -> Calibration | None:
    """Read what was measured, or gives None where nothing was.

    Raises:
        ValueError: The file is damaged.
    """
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        kinds = tuple(Throughput(**each) for each in content.pop("kinds"))
        return Calibration(**content, kinds=kinds)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}); `python -m study calibrate` writes it anew") from None


def kind(trial: Trial) -> Kind:
    """What decides a trial's samples a second: its architecture and strategy."""
    return trial.cell.architecture, trial.cell.strategy


def predict_s(trial: Trial, measured: Mapping[Kind, float]) -> float:
    """Predict a trial's wall time in seconds.

    Args:
        trial: The trial.
        measured: Samples a second of each kind of trial that has run.
    """
    if kind(trial) in measured:
        return _START_S + trial.samples_seen / measured[kind(trial)]
    per_sample = _SECONDS_PER_SAMPLE + trial.train_flops_per_sample / _FLOPS_PER_SECOND
    return _START_S + trial.samples_seen * per_sample
