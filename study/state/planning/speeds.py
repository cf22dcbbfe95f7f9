"""Samples/s of a study's kinds of trials, as its own runs or ``calibrate`` measured them."""

from budgets.hardware.devices import device
from budgets.planning.plan import Plan
from budgets.planning.planned_trial import Combination
from budgets.planning.price import Speeds
from runners.results import read_json_lines
from runners.trials.speed.throughput import plain_speed, read_calibration
from study.state.study import Study


def measured_throughput(study: Study, plan: Plan) -> dict[Combination, float]:
    """Return samples/s on one device by kind of trial: of the last finished one here, else calibrated.

    Raises:
        ValueError: ``throughput.json`` can't be read.
    """
    found = read_calibration(study.calibration)
    calibrated = {} if found is None else found.speeds
    events = read_json_lines(study.folder / "events.jsonl")
    if events.empty or "samples_per_s" not in events:
        return calibrated
    speeds = events.dropna(subset=["samples_per_s"]).set_index("trial")["samples_per_s"].to_dict()
    return calibrated | {
        trial.cell.combination: plain_speed(trial, speeds[trial.trial_id])
        for trial in plan.all_trials
        if speeds.get(trial.trial_id)
    }


def device_throughput(study: Study) -> Speeds:
    """Return samples/s by kind of trial, if calibrated on the device of the declared cluster.

    Raises:
        ValueError: ``throughput.json`` can't be read.
    """
    found, cluster = read_calibration(study.calibration), study.declaration.cluster
    if found is None or cluster is None or found.device != device(cluster.device).name:
        return {}
    return found.by_width
