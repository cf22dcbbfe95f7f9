"""Runs the trials of a tuning through Ray Tune, over the values that `budgets.tuning` chose.

Beside `runners.ray_backend`, whose connection it uses, the only file that imports Ray. What Tune knows of an
experiment is thrown away: its restore starts finished trials again and takes no new ones. A trial's folder
tells what is done, and goes on from its checkpoint; Tune starts again what a dead worker left.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import runners.ray_backend  # noqa: F401 - before Ray: it sets how Ray authenticates
from runners.faults import fault_of, words_of
from runners.trial import run_trial
from runners.trial_setup import TrialJob

os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")

from ray import tune


class Watcher(Protocol):
    """What is told of the trials as they run, each by its id."""

    def started(self, trial: str) -> None:
        """A trial was started."""

    def lost(self, trial: str) -> None:
        """A trial's worker died; it is started again."""

    def ended(self, trial: str, reason: str) -> None:
        """A trial has a result, or none for a reason."""

    def left(self, trial: str, reason: str) -> None:
        """A trial was told to leave; its state is kept."""

    def tick(self) -> None:
        """Something may have changed."""


def tune_trials(jobs: Sequence[TrialJob], watcher: Watcher, *, cpus: int, gpus: int, retries: int) -> None:
    """Runs trials until each has a result or has failed; Ray must be connected.

    Args:
        jobs: The trials.
        watcher: What is told of them.
        cpus: Processor cores of a trial.
        gpus: GPUs of a trial.
        retries: How often a trial is started again after its worker died.
    """
    by_id = {job.trial.trial_id: job for job in jobs}
    trainable = tune.with_resources(
        tune.with_parameters(_train, jobs=by_id), {"cpu": float(cpus), "gpu": float(gpus)}
    )
    with tempfile.TemporaryDirectory(prefix="tuning-") as storage:
        tune.Tuner(
            trainable,
            param_space={"trial": tune.grid_search(list(by_id))},
            # A fresh process a trial gives GPU memory back; on the processor, its imports would cost more.
            tune_config=tune.TuneConfig(reuse_actors=not gpus),
            run_config=tune.RunConfig(
                storage_path=storage,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=retries),
                callbacks=[_Callback(watcher)],
            ),
        ).fit()


def _train(config: Mapping[str, Any], jobs: Mapping[str, TrialJob]) -> dict[str, str]:
    """Runs a trial. Tune starts again what raises: that is for what may pass, not for a trial's own error."""
    try:
        run_trial(jobs[config["trial"]])
    except Exception as error:
        fault = fault_of(error)
        if fault == "crashed":
            raise
        return {"fault": fault, "reason": words_of(error)}
    return {"fault": "", "reason": ""}


class _Callback(tune.Callback):
    """Tells the watcher what Tune tells."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def __getstate__(self) -> dict[str, object]:
        # Tune pickles its callbacks for a restore that never is; the watcher stays in this process.
        return {}

    def on_step_end(self, iteration: int, trials: Sequence[Any], **_info: object) -> None:  # noqa: ARG002
        self._watcher.tick()

    def on_trial_start(self, iteration: int, trials: Sequence[Any], trial: Any, **_info: object) -> None:  # noqa: ANN401, ARG002
        self._watcher.started(trial.config["trial"])

    def on_trial_recover(self, iteration: int, trials: Sequence[Any], trial: Any, **_info: object) -> None:  # noqa: ANN401, ARG002
        self._watcher.lost(trial.config["trial"])

    def on_trial_complete(self, iteration: int, trials: Sequence[Any], trial: Any, **_info: object) -> None:  # noqa: ANN401, ARG002
        tell = self._watcher.left if trial.last_result["fault"] == "left" else self._watcher.ended
        tell(trial.config["trial"], trial.last_result["reason"])

    def on_trial_error(self, iteration: int, trials: Sequence[Any], trial: Any, **_info: object) -> None:  # noqa: ANN401, ARG002
        self._watcher.ended(trial.config["trial"], "the worker process died")
