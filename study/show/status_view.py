"""The output of ``status``: trials by level, running trials, failures, FLOPs spent and time left."""

import json
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict

from rich.console import Console
from rich.live import Live

from budgets.cost.flops import CONVENTION
from budgets.quantity import format_flops, format_seconds_range, format_share, plural
from study.show.terminal import can_update, say
from study.show.view import study_view
from study.state.study import Study
from study.state.study_status import StudyStatus, read_status

_LOOK_S = 2.0


def show_status(console: Console, study: Study, *, watch: bool = False, why: bool = False) -> None:
    """Print the status of a study; with ``watch``, update it until the run has ended.

    A terminal is updated in place; elsewhere one status follows the other.

    Raises:
        ValueError: The study has not been run.
    """
    if watch:
        study.await_run(*study.plan_tables, say=lambda line: say(console, line))
    live = Live(console=console, auto_refresh=False) if watch and can_update(console) else None
    with live or nullcontext():
        while True:
            status = read_status(study, why=why)
            lines = _lines(status)
            view = study_view(status.levels, status.running, lines, console, live=live is not None)
            if live is None:
                console.print(view)
            else:
                live.update(view, refresh=True)
            if not watch or status.run is None:
                return
            time.sleep(_LOOK_S)
            study.storage.refresh()
            if live is None:
                console.print()


def status_json(study: Study, *, why: bool = False) -> str:
    """Return the status of a study as JSON, with the fields of `study.state.study_status.StudyStatus`.

    Raises:
        ValueError: The study has not been run.
    """
    content = {"convention": CONVENTION} | asdict(read_status(study, why=why))
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)


def _lines(status: StudyStatus) -> Iterator[str]:
    running = sum(level.running for level in status.levels)
    if running > len(status.running):
        yield f"{plural(running - len(status.running), 'trial')} just started"
    for failure in status.failures:
        yield f"failed {failure.trial} {failure.what}: {failure.reason}"
    spent, cap = status.spent_flops, status.study_flops
    declared = (
        f" of {format_flops(status.planned_flops)} planned"
        if cap is None
        else f", {format_share(spent / cap)} of the study budget of {format_flops(cap)}"
    )
    held = status.reserved_flops
    reserved = f"; {format_flops(held)} more reserved for started trials" if held else ""
    yield f"{format_flops(spent)} spent{declared}{reserved}"
    if status.wasted_flops:
        lost = format_flops(status.wasted_flops)
        yield f"{lost} of it is in no result: computed after a last checkpoint, or in failed trials"
    if status.note:
        yield f"note: {status.note}"
    if status.copying:
        yield status.copying + ("; `run` continues it" if status.run is None else "")
    yield from status.design
    yield from status.found
    if status.slots is not None:
        taken = f"{running} of {status.slots} slots taken" if status.run else ""
        busy = status.slots_busy
        words = "busy" if taken else "slots busy"
        share = (
            ""
            if busy is None
            else f"{words} {format_share(busy)} of {'this' if taken else 'the last'} run's time"
        )
        if taken or share:
            yield ", ".join(part for part in (taken, share) if part)
    ahead = status.left_s
    left = "" if ahead is None else f"about {format_seconds_range(ahead.low, ahead.high)}"
    if status.run is not None:
        yield f"running: {status.run}" + (f"; {left} to go" if left else "")
    else:
        yield from _next_run(status, left)


def _next_run(status: StudyStatus, left: str) -> Iterator[str]:
    """Yield lines on the trials of the next run; ``left`` is the remaining time in words."""
    if status.ranked_anew:
        yield (
            "a score has changed the pool's ranking since the last run: the next run replaces "
            f"{plural(status.ranked_anew, 'trial')}; `run --dry-run` lists them"
        )
    waiting = sum(level.waiting for level in status.levels)
    if status.no_room:
        yield f"the budget has no room for {status.no_room} of {plural(waiting, 'waiting trial')}"
    # The grid is planned when its tuning has ended.
    tuning_alone = {level.name for level in status.levels} == {"tuning"}
    stuck = sum(level.failed for level in status.levels)
    if status.no_room == waiting:
        follows = "" if waiting else ", and no trial is waiting"
        if tuning_alone:
            follows = "; `run` continues with the grid"
            if waiting:
                follows = "; the grid can't start without them: raise tuning.share or budget.study"
            elif stuck:
                follows = "; the grid can't start without what failed: `run --retry-failed` tries it again"
        yield f"no run is active{follows}"
    else:
        begun = status.interrupted
        state = "its checkpoint" if begun == 1 else "their checkpoints"
        goes_on = f", {begun} of them from {state}" if begun else ""
        able = plural(waiting - status.no_room, "trial")
        follows = ", then with the grid" if tuning_alone and not stuck else ""
        yield (
            f"no run is active: `run` continues with {able}{goes_on}, "
            f"{left} on {plural(status.slots or 1, 'slot')}{follows}"
        )
