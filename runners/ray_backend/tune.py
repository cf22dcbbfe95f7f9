"""Runs the trials of a tuning through Ray Tune, over the values that `budgets.tuning` chose.

What Tune knows of an experiment is thrown away: its restore starts finished trials again and takes no
new ones. A trial's folder tells what is done, and it goes on from its checkpoint; Tune starts again what
crashed.
"""

import logging
import pickle
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ray import tune
from ray.exceptions import RayTaskError

from runners.nodes import Resources
from runners.process import TRIAL_MODULES, Exit, FreshProcess, load_ahead
from runners.ray_backend.backend import by_rays_names
from runners.storage import Mark

if TYPE_CHECKING:
    from runners.trial_setup import TrialJob

_LOOK_S = 0.5


class Watcher(Protocol):
    """What is told of the trials as they run, each by its id."""

    def started(self, trial: str) -> None:
        """A trial was started."""

    def lost(self, trial: str, reason: str) -> None:
        """A trial crashed; it is started again."""

    def finished(self, trial: str) -> None:
        """A trial has a result."""

    def failed(self, trial: str, reason: str, *, keep: bool) -> None:
        """A trial has none, by its own fault or, where it may ``keep`` its work, after too many crashes."""

    def left(self, trial: str, reason: str) -> None:
        """A trial was told to leave; its state is kept."""

    def tick(self) -> None:
        """Something may have changed."""


def tune_trials(  # noqa: PLR0913 - what trials take, when they are tried again, when they leave
    jobs: "Sequence[TrialJob]",
    watcher: Watcher,
    *,
    resources: Resources,
    retries: int,
    pause_s: float,
    leave: Path | Mark,
) -> None:
    """Runs trials until each has a result, has failed or has left; Ray must be connected.

    Args:
        jobs: The trials.
        watcher: What is told of them.
        resources: What a trial occupies.
        retries: How often a trial is started again after a crash.
        pause_s: Seconds before that.
        leave: All trials write a checkpoint and leave once this is there, on storage that nodes share.
    """
    from runners.trial import run_trial  # noqa: PLC0415 - Tune's workers, which read this file, need no torch

    runs = {job.trial.trial_id: pickle.dumps(partial(run_trial, job)) for job in jobs}
    trainable = tune.with_resources(
        tune.with_parameters(_train, runs=runs, leave=leave, pause_s=pause_s), by_rays_names(resources)
    )
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the watcher tells what went wrong
    with tempfile.TemporaryDirectory(prefix="tuning-") as storage:
        tune.Tuner(
            trainable,
            param_space={"trial": tune.grid_search(list(runs))},
            tune_config=tune.TuneConfig(reuse_actors=True),  # each trial has a process of its own
            run_config=tune.RunConfig(
                storage_path=storage,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=retries),
                callbacks=[_Callback(watcher)],
            ),
        ).fit()


def _train(
    config: Mapping[str, Any], runs: Mapping[str, bytes], leave: Path | Mark, pause_s: float
) -> dict[str, str]:
    """Runs a trial. Tune starts again what raises: that is for what may pass, not for a trial's own error.

    Raises:
        RuntimeError: It crashed.
    """
    while not _told(leave):
        end = _run_in_fresh_process(runs[config["trial"]], leave)
        if end.how == "crashed":
            time.sleep(pause_s)
            if not _told(leave):
                raise RuntimeError(end.reason)
        if end.how != "left":  # by a notice of its own it goes on at once
            return {"how": end.how, "reason": end.reason}
    return {"how": "left", "reason": "told to leave"}


def _run_in_fresh_process(run: bytes, leave: Path | Mark) -> Exit:
    load_ahead(*TRIAL_MODULES, "ray")
    process = FreshProcess(run)
    while not process.connection.poll(_LOOK_S):
        if _told(leave):
            process.ask_to_leave()
    return process.wait()


def _told(leave: Path | Mark) -> bool:
    with suppress(OSError):  # storage that is away says nothing
        return leave.exists()
    return False


class _Callback(tune.Callback):
    """Tells the watcher what Tune tells."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._on_notice = signal.getsignal(signal.SIGUSR1)

    def __getstate__(self) -> dict[str, object]:
        # Tune pickles its callbacks for a restore that never is; the watcher stays in this process.
        return {}

    def setup(self, *_arguments: Any, **_info: Any) -> None:  # noqa: ANN401
        signal.signal(signal.SIGUSR1, self._on_notice)  # Tune took it, to drop what runs

    def on_step_end(self, iteration: int, trials: Sequence[Any], **_info: object) -> None:  # noqa: ARG002
        self._watcher.tick()

    def on_trial_start(self, iteration: int, trials: Sequence[Any], trial: Any, **_info: object) -> None:  # noqa: ANN401, ARG002
        self._watcher.started(trial.config["trial"])

    def on_trial_recover(self, iteration: int, trials: Sequence[Any], trial: Any, **_info: object) -> None:  # noqa: ANN401, ARG002
        self._watcher.lost(trial.config["trial"], _reason(trial))

    def on_trial_complete(self, iteration: int, trials: Sequence[Any], trial: Any, **_info: object) -> None:  # noqa: ANN401, ARG002
        which, end = trial.config["trial"], trial.last_result
        if end["how"] == "finished":
            self._watcher.finished(which)
        elif end["how"] == "failed":
            self._watcher.failed(which, end["reason"], keep=False)
        else:
            self._watcher.left(which, end["reason"])

    def on_trial_error(self, iteration: int, trials: Sequence[Any], trial: Any, **_info: object) -> None:  # noqa: ANN401, ARG002
        self._watcher.failed(trial.config["trial"], _reason(trial), keep=True)


def _reason(trial: Any) -> str:  # noqa: ANN401 - Tune's trials have no public type
    # `get_pickled_error` looks in Tune's storage, where it comes to lie later.
    error = pickle.loads(Path(trial.pickled_error_file).read_bytes())  # noqa: S301 - our own
    if isinstance(error, RayTaskError):  # of `_train`, whose words say all
        return str(error.cause)
    return f"its worker died ({type(error).__name__})"
