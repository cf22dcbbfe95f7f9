"""The job that a driver hands to a trial's process, which does not load torch."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from budgets.planning.planned_trial import Trial
from runners.data.pool.damage import DAMAGE_TOLERANCE


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialJob:
    """A trial with the settings to run it.

    Attributes:
        trial: The trial.
        pools: Folder of the pool of each of its components.
        evaluation: Evaluation set → its folder.
        folder: The trial's own folder.
        cpus: Compute threads, over all ranks of this node.
        gpus: GPUs to use on this node, one per rank; 0 trains on the CPU.
        checkpoint_s: Seconds between checkpoints.
        checkpoint_steps: Maximum steps between checkpoints; 0 for no limit.
        loader_bytes: Memory of a rank that its loader workers fill ahead of training.
        damage_tolerance: Share of the subset's pairs that may be damaged before the trial fails.
        probes: Evaluation sets whose training split probes are fitted to.
        ranks: Processes of this node that train the model together.
        evaluate_at: Shares of the steps after which the model is evaluated, besides the end.
        trunk: Folders of the shorter trials of its trunk, the longest first; it may continue from their
            milestones.
    """

    trial: Trial
    pools: tuple[Path, ...]
    evaluation: Mapping[str, Path]
    folder: Path
    cpus: int
    gpus: int
    checkpoint_s: float
    loader_bytes: int
    checkpoint_steps: int = 0
    damage_tolerance: float = DAMAGE_TOLERANCE
    probes: Collection[str] = ()
    ranks: int = 1
    evaluate_at: tuple[float, ...] = ()
    trunk: tuple[Path, ...] = ()
