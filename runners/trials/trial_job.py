"""The job that a driver hands to a trial's process, which does not load torch."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from budgets.planning.planned_trial import Trial
from runners.data.pool.damage import DAMAGE_TOLERANCE
from runners.store.location import Location


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialJob:
    """A trial with the settings to run it.

    ``trunk`` has the folders of the shorter trials of its trunk, the longest first; it may continue from
    their milestones.
    """

    trial: Trial
    pools: tuple[Path, ...]  # folder of the pool of each of its components
    evaluation: Mapping[str, Path]  # evaluation set → its folder
    folder: Path  # the trial's own
    cpus: int  # compute threads, over all ranks of this node
    gpus: int  # to use on this node, one per rank; 0 trains on the CPU
    checkpoint_s: float  # seconds between checkpoints
    loader_bytes: int  # of a rank's memory, which its loader workers fill ahead of training
    checkpoint_steps: int = 0  # most steps between checkpoints; 0 for no limit
    hang_s: float | None = None  # in which a step has to end; None for no limit
    damage_tolerance: float = DAMAGE_TOLERANCE  # share of the subset's pairs that may be damaged
    probes: Collection[str] = ()  # evaluation sets whose training split probes are fitted to
    ranks: int = 1  # processes of this node that train the model together
    evaluate_at: tuple[float, ...] = ()  # shares of the steps after which the model is evaluated, too
    trunk: tuple[Path, ...] = ()
    subsets: Location | None = None  # where subsets of large pools are kept for all trials of a study
