"""Measured speeds of kinds of trials, and the file that ``study calibrate`` writes."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from math import inf
from pathlib import Path

from budgets.declaration.recipe import PLAIN_PASSES
from budgets.planning.planned_trial import Combination, Trial
from runners.store.files import read_json, write_json

_LOADER_MARGIN = 1.1  # a loader less than 10 % faster than training was probably the bottleneck
_ABOVE_ZERO = {"samples_per_s", "passes", "gpus"}  # forecasts divide by them


@dataclass(frozen=True, kw_only=True, slots=True)
class Throughput:
    """Measured speed of a kind of trial, with others beside it as in a run.

    ``memory_bytes`` is the peak of the first rank: allocated by torch on its GPU, or the resident set of its
    process. ``worker_samples_per_s`` is what one loader worker reads and decodes; 0 if not measured, as on
    the processor, where training has no loader workers.
    """

    architecture: str
    strategy: str
    batch_size: int  # the strategy's factor included
    precision: str
    steps: int  # timed ones, after a few untimed
    samples_per_s: float
    memory_bytes: int
    passes: int = PLAIN_PASSES  # time of a step in forward passes (`Recipe.passes`)
    gpus: int = 1  # that the trial had together; 1 on the processor
    worker_samples_per_s: float = 0.0
    waited: float = 0.0  # share of the time in which training waited for its data

    @property
    def combination(self) -> Combination:
        """Architecture and strategy that were measured together."""
        return self.architecture, self.strategy


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """Measurements of ``study calibrate`` on one machine."""

    machine: str  # name of the GPU or CPU as the system reports it
    device: str | None  # name of the GPU in `budgets.devices`; None for a CPU
    side_by_side: int  # trials that ran at once
    kinds: tuple[Throughput, ...]

    @property
    def speeds(self) -> dict[tuple[str, str, int], float]:
        """Samples a second of each kind on one or several GPUs together, without recomputation."""
        return {
            (*kind.combination, kind.gpus): kind.samples_per_s * kind.passes / PLAIN_PASSES
            for kind in self.kinds
        }

    def write(self, path: Path) -> None:
        """Write the measurements as JSON."""
        write_json(path, asdict(self))


def read_calibration(path: Path) -> Calibration | None:
    """Read a calibration, or return None if there is none; ValueError if the file is damaged."""
    advice = "delete it, and measure again with `python -m study calibrate`"
    try:
        content = read_json(path, advice)
    except FileNotFoundError:
        return None
    try:
        kinds = tuple(Throughput(**kind) for kind in content.pop("kinds"))
        for number, kind in enumerate(kinds):
            _require_sound(kind, f"kinds[{number}]")
        return Calibration(**content, kinds=kinds)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}); {advice}") from None


def _require_sound(kind: Throughput, where: str) -> None:
    """Check that each field of a measurement is text, or a number that forecasts can use; name it if not."""
    for field in fields(kind):
        value = getattr(kind, field.name)
        if field.type is str:
            allowed, sound = "a text", isinstance(value, str)
        elif field.name in _ABOVE_ZERO:
            allowed, sound = "a number above 0", isinstance(value, int | float) and 0 < value < inf
        else:
            allowed, sound = "a number, 0 or more", isinstance(value, int | float) and 0 <= value < inf
        if not sound:
            raise ValueError(f"{where}.{field.name} is {value!r}, and must be {allowed}")


def slow_loading(trials: Iterable[Trial], measured: Calibration | None) -> Iterator[str]:
    """Yield a note for each kind of trial on GPUs whose loader workers are no faster than its training."""
    if measured is None:
        return
    workers = {kind.combination: kind.worker_samples_per_s for kind in measured.kinds}
    for trial in {trial.cell.combination: trial for trial in trials}.values():
        resources = trial.resources
        kind, speeds = trial.cell.combination, measured.speeds
        alone = speeds.get((*kind, 1), 0.0) * resources.devices
        needed = speeds.get((*kind, resources.devices), alone) / trial.recipe.slowdown
        loaded = workers.get(kind, 0.0) * resources.cpus
        if resources.gpus and 0 < loaded < _LOADER_MARGIN * needed:
            yield (
                f"{' '.join(kind)}: {resources.cpus:,} loader workers load about "
                f"{loaded:,.0f} samples/s, training was measured at {needed:,.0f}: to speed it up, give each "
                "trial more CPUs (resources: cpus) or store smaller images"
            )
