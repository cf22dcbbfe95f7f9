"""How long a trial will probably take: from trials of its kind that were measured, else from its FLOPs.

The forecast orders the trials and gives an ETA; no decision about the budget rests on it.
"""

from collections.abc import Mapping

from budgets.plan import Trial

# A processor core, measured on small models: a cost that goes with samples and one that goes with FLOPs.
_SECONDS_PER_SAMPLE = 60e-6
_FLOPS_PER_SECOND = 150e9
_START_S = 1.0

Kind = tuple[str, str]


def kind(trial: Trial) -> Kind:
    """What decides a trial's samples a second: its architecture and strategy."""
    return trial.cell.architecture, trial.cell.strategy


def predict_s(trial: Trial, measured: Mapping[Kind, float]) -> float:
    """Predicts a trial's wall time in seconds.

    Args:
        trial: The trial.
        measured: Samples a second of each kind of trial that has run.
    """
    if kind(trial) in measured:
        return _START_S + trial.samples_seen / measured[kind(trial)]
    per_sample = _SECONDS_PER_SAMPLE + trial.train_flops_per_sample / _FLOPS_PER_SECOND
    return _START_S + trial.samples_seen * per_sample
