"""The output of ``status``: trials by level, running trials, failures, FLOPs spent and time left."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from analysis.labels import plural
from budgets.cost.flops import CONVENTION
from budgets.quantity import format_flops
from study.show.view import level_table, range_words, running_lines
from study.state.status.standing import Standing, read_standing
from study.state.study import Study

_LOOK_S = 2.0


def show_status(console: Console, study: Study, *, watch: bool = False) -> None:
    """Print the status of a study.

    Args:
        console: The console to write to.
        study: The study.
        watch: Whether to update until the run has ended: in place in a terminal, else below each other.

    Raises:
        ValueError: The study has not been run.
    """
    standing = read_standing(study)
    if not watch:
        console.print(_view(standing, bars=console.is_terminal))
        return
    if not console.is_terminal:
        console.print(_view(standing, bars=False))
        while standing.run is not None:
            time.sleep(_LOOK_S)
            standing = read_standing(study)
            console.print(Text("\n"), _view(standing, bars=False), sep="", end="")
        return
    with Live(_view(standing, bars=True), console=console, auto_refresh=False) as live:
        while standing.run is not None:
            time.sleep(_LOOK_S)
            standing = read_standing(study)
            live.update(_view(standing, bars=True), refresh=True)


def status_json(study: Study) -> str:
    """Return the status of a study as JSON, with the fields of `study.state.status.standing.Standing`.

    Raises:
        ValueError: The study has not been run.
    """
    content = {"convention": CONVENTION} | asdict(read_standing(study))
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)


def _view(standing: Standing, *, bars: bool) -> RenderableType:
    return Group(level_table(standing.levels, bars=bars), *map(Text, _lines(standing)))


def _lines(standing: Standing) -> Iterator[str]:
    for line in running_lines(standing.running):
        yield f"  {line}"
    running = sum(level.running for level in standing.levels)
    if running > len(standing.running):
        yield f"  {plural(running - len(standing.running), 'trial')} just started"
    for failure in standing.failures:
        yield f"  failed {failure.trial} {failure.what}: {failure.reason}"
    spent, cap = standing.spent_flops, standing.study_flops
    declared = (
        f" of {format_flops(standing.planned_flops)} planned"
        if cap is None
        else f", {spent / cap:.0%} of the study budget of {format_flops(cap)}"
    )
    held = standing.reserved_flops
    reserved = f"; {format_flops(held)} more reserved for started trials" if held else ""
    yield f"{format_flops(spent)} spent{declared}{reserved}"
    if standing.wasted_flops:
        yield f"{format_flops(standing.wasted_flops)} of it was lost to crashes and repeated"
    yield from standing.design
    if standing.slots is not None:
        taken = f"{running} of {standing.slots} slots taken" if standing.run else ""
        busy = standing.slots_busy
        words = "busy" if taken else "slots busy"
        share = "" if busy is None else f"{words} {busy:.0%} of {'this' if taken else 'the last'} run's time"
        if taken or share:
            yield ", ".join(part for part in (taken, share) if part)
    left = "" if standing.left_s is None else f"about {range_words(standing.left_s)}"
    if standing.run is not None:
        yield f"running: {standing.run}" + (f"; {left} to go" if left else "")
    else:
        yield from _next_run(standing, left)


def _next_run(standing: Standing, left: str) -> Iterator[str]:
    """Yield lines on what the next run would do, with the remaining time in words."""
    if standing.ranked_anew:
        yield (
            "a score has changed the pool's ranking since the last run: the next run has others in place of "
            f"{plural(standing.ranked_anew, 'trial')}; `run --dry-run` lists them"
        )
    waiting = sum(level.waiting for level in standing.levels)
    if standing.no_room:
        yield f"the budget has no room for {standing.no_room} of {plural(waiting, 'waiting trial')}"
    if standing.no_room == waiting:
        yield "no run is active" + ("" if waiting else ", and no trial is waiting")
    else:
        begun = standing.interrupted
        goes_on = (
            f", {begun} of them from {'its checkpoint' if begun == 1 else 'their checkpoints'}"
            if begun
            else ""
        )
        able = plural(waiting - standing.no_room, "trial")
        yield (
            f"no run is active: `run` continues with {able}{goes_on}, "
            f"{left} on {plural(standing.slots or 1, 'slot')}"
        )
