"""Checkpoints: all state that a trial needs to resume as if it had never stopped.

A file is named ``checkpoint-<step>-<digest>.pt`` after its content, so a damaged file does not match its
name. The last two are kept, so that one damaged file costs only the steps between them.
"""

import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import torch
from torch import Tensor

from runners.store.files import put
from runners.training.learner import Learner
from runners.training.ranks import decided_by_first
from runners.trials.trial_files import (
    CHECKPOINTS_KEPT,
    DIGITS,
    checkpoints,
    drop_damaged,
    drop_milestone,
    is_whole,
    milestone,
    state_name,
    step_of,
)

MOST_OF_THE_TIME = 0.02
"""Largest share of the time for which checkpoints that are due by the clock hold up training on a GPU."""

_AGAIN_S = 10.0  # delay after a checkpoint that could not be written

Notes = Mapping[str, Any]
"""Facts that a trial keeps beside the learner's state, by name: numbers, texts, lists, mappings."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SavedState:
    """A state from which a trial continues, after some optimiser steps."""

    step: int
    own: bool  # a checkpoint of the trial itself, not the milestone of a shorter one
    notes: Notes  # of the trial that wrote it
    state: Mapping[str, Any]  # the learner's, and its losses


def save_checkpoint(folder: Path, learner: Learner, *, step: int, notes: Notes | None = None) -> None:
    """Write a trial's state after some steps atomically, and delete all but the last two checkpoints."""
    write_checkpoint(folder, _state(learner, step, notes))


def write_checkpoint(folder: Path, state: Mapping[str, Any]) -> None:
    """Write a state as `save_checkpoint` does."""
    _write(folder, "checkpoint", state)
    for old in checkpoints(folder)[CHECKPOINTS_KEPT:]:
        old.unlink(missing_ok=True)


def save_milestone(folder: Path, learner: Learner, *, step: int, notes: Notes | None = None) -> None:
    """Write a trial's state at its milestone, and keep it as a checkpoint as well; one that exists stays."""
    if milestone(folder) is None:
        _write(folder, "milestone", _state(learner, step, notes))


def _write(folder: Path, kind: Literal["checkpoint", "milestone"], state: Mapping[str, Any]) -> None:
    partial = folder / f".{kind}.partial-{secrets.token_hex(4)}"
    try:
        digest = save_hashed(state, partial)
        if kind == "milestone":
            with suppress(OSError):  # without hard links the trial continues from an earlier checkpoint
                os.link(partial, folder / state_name("checkpoint", state["step"], digest))
        put(partial, folder / state_name(kind, state["step"], digest))
    finally:
        partial.unlink(missing_ok=True)


def _state(learner: Learner, step: int, notes: Notes | None) -> dict[str, Any]:
    losses = learner.losses[:step].cpu()
    return {"step": step, "losses": losses, "notes": dict(notes or {}), **learner.state_dict()}


def _copied(state: Any) -> Any:  # noqa: ANN401 - nested as torch's state dicts
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {name: _copied(value) for name, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(_copied(value) for value in state)
    return state


def load_checkpoint(folder: Path, learner: Learner) -> int:
    """Read a trial's own checkpoint as `read_start` does, and restore it; return the steps done."""
    return restore_state(learner, read_start(folder, learner.losses.device))


def read_start(folder: Path, device: torch.device, trunk: Sequence[Path] = ()) -> SavedState | None:
    """Read a trial's newest undamaged checkpoint, which rank 0 chooses for all ranks; None if there is none.

    Without a checkpoint of its own, the trial continues from the first undamaged milestone in the folders of
    the shorter trials of its trunk, which come the longest first.

    Raises:
        OSError: The chosen file is not on this rank's storage, or has another step's content there.
    """
    chosen = decided_by_first(lambda: _start_of(folder, trunk))
    if chosen is None:
        return None
    place, name, step = chosen
    path = (folder if place is None else trunk[place]) / name  # each node may have a copy of its own
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    if state["step"] != step:
        raise OSError(f"{path} is of step {state['step']}, rank 0 resumes at step {step}")
    return SavedState(step=step, own=place is None, notes=state["notes"], state=state)


def restore_state(learner: Learner, start: SavedState | None) -> int:
    """Restore a state; return the optimiser steps done: 0, with nothing changed, if there is no state."""
    if start is None:
        return 0
    state = dict(start.state)
    if not start.own and learner.average is not None and learner.average.multi_avg_fn is None:
        state["average"] = learner.average.state_dict()  # the mean of a trial's own steps alone
    learner.load_state_dict(state)
    learner.losses[: start.step] = start.state["losses"]
    return start.step


def _start_of(folder: Path, trunk: Sequence[Path]) -> tuple[int | None, str, int] | None:
    """Return a file's place in the trunk, if it is not the trial's own, its name and its step."""
    checkpoint = newest_checkpoint(folder)
    if checkpoint is not None:
        return None, *checkpoint
    for place, shorter in enumerate(trunk):
        path = milestone(shorter)
        if path is None:
            continue
        if is_whole(path):
            return place, path.name, step_of(path)
        drop_milestone(shorter)
    return None


def newest_checkpoint(folder: Path) -> tuple[str, int] | None:
    """Return name and step of the newest undamaged checkpoint; damaged ones are removed."""
    drop_damaged(folder)
    saved = checkpoints(folder)
    return (saved[0].name, step_of(saved[0])) if saved else None


def save_hashed(content: object, path: Path) -> str:
    """Write ``content`` in torch's format; return the first digits of its SHA-256, computed meanwhile.

    Raises:
        OSError: Writing failed; the message has the file's size and what is free. torch itself raises a
            RuntimeError, which does not show that it is the disk.
    """
    hashed = None
    try:
        with path.open("wb") as file:
            hashed = _Hashed(file)
            torch.save(content, hashed)  # type: ignore[arg-type] # torch writes from front to back
        return hashed.digest()
    except (OSError, RuntimeError) as error:
        cause = error if hashed is None or hashed.error is None else hashed.error
        why = getattr(cause, "strerror", None) or str(cause).splitlines()[0]
        needed, free = _bytes(content) / 1e6, shutil.disk_usage(path.parent).free / 1e6
        full = OSError(f"cannot write {path}: it needs {needed:,.1f} MB, {free:,.1f} MB are free ({why})")
        full.errno = getattr(cause, "errno", None)
        raise full from error


def _bytes(content: Any) -> int:  # noqa: ANN401 - nested as torch's state dicts
    """Return the size of all tensors."""
    if isinstance(content, Tensor):
        return content.numel() * content.element_size()
    inside = content.values() if isinstance(content, dict) else content
    return sum(map(_bytes, inside)) if isinstance(content, dict | list | tuple) else 0


class _Hashed:
    """A file that is hashed while it is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._hash = file, hashlib.sha256()
        self.error: OSError | None = None
        self.flush = file.flush

    def write(self, content: Any) -> int:  # noqa: ANN401 - a buffer of any kind
        self._hash.update(content)
        try:
            return self._file.write(content)
        except OSError as error:
            self.error = error
            raise

    def digest(self) -> str:
        return self._hash.hexdigest()[:DIGITS]


class CheckpointWriter:
    """Writer of checkpoints that are due after some seconds or steps; 0 steps are no limit.

    On a GPU, training stops only for the copy to main memory, and a thread in the ``background`` writes. On a
    CPU it would compete with the training for cores and need a copy too, so the training writes.
    """

    def __init__(  # noqa: PLR0913 - settings of checkpoints
        self,
        folder: Path,
        learner: Learner,
        *,
        seconds: float,
        steps: int,
        first_step: int,
        notes: Callable[[], Notes] = dict,
        background: bool | None = None,
    ) -> None:
        self._folder, self._learner, self._seconds, self._steps = folder, learner, seconds, steps
        self.step, self._notes = first_step, notes
        self._due = time.monotonic() + seconds
        gpu = learner.losses.device.type == "cuda"
        self._thread = ThreadPoolExecutor(1) if (gpu if background is None else background) else None
        self._writing: tuple[int, Future[None]] | None = None

    def is_due(self, done: int) -> bool:
        """Return whether a checkpoint is due after ``done`` steps."""
        self._look()
        if 0 < self._steps <= done - self._last:
            return True
        return time.monotonic() >= self._due and self._writing is None

    def write(self, done: int) -> None:
        """Write a checkpoint, or begin to; one that cannot be written is tried again later."""
        if done <= self._last:
            self._due = time.monotonic() + self._seconds
            return
        began = time.monotonic()
        self.settle()
        try:
            state = _state(self._learner, done, self._notes())
            if self._thread is None:
                write_checkpoint(self._folder, state)
                self.step = done
            else:  # further training does not change a copy
                self._writing = done, self._thread.submit(write_checkpoint, self._folder, _copied(state))
        except OSError:
            self._try_again()
            return
        now = time.monotonic()
        # On a CPU, where the write itself is part of it, the declared seconds hold: models are small there.
        least = 0.0 if self._thread is None else (now - began) / MOST_OF_THE_TIME
        self._due = now + max(self._seconds, least)

    def settle(self) -> None:
        """Wait until nothing is being written."""
        if self._writing is not None:
            wait([self._writing[1]])
            self._look()

    @property
    def _last(self) -> int:
        """Step of the newest checkpoint, one that is being written included."""
        return self.step if self._writing is None else self._writing[0]

    def _look(self) -> None:
        if self._writing is None or not self._writing[1].done():
            return
        (step, future), self._writing = self._writing, None
        try:
            future.result()
        except OSError:  # the previous checkpoint remains
            self._try_again()
        else:
            self.step = step

    def _try_again(self) -> None:
        self._due = time.monotonic() + min(_AGAIN_S, self._seconds)
