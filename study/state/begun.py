"""How far the trials are that were begun and have no result yet, from what they left in their folders."""

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from study.state.lock import running


def begun(folder: Path, trials: Iterable[str]) -> dict[str, str]:
    """Looks how far trials are.

    Args:
        folder: The study's folder.
        trials: Ids of trials without a result.

    Returns:
        Trial id → how far it is, in words; trials that were never begun are left out.
    """
    now = running(folder) is not None
    found = {trial: _how_far(folder / "trials" / trial, under_way=now) for trial in trials}
    return {trial: words for trial, words in found.items() if words}


def _how_far(folder: Path, *, under_way: bool) -> str:
    progress = None
    with suppress(OSError):
        progress = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
    if (folder / "result.json").exists():  # the tables are written now and then
        return "finished; the next `run` puts it among the results"
    if progress is None:
        return ""
    planned = progress["samples_planned"]
    if under_way:
        return f"begun; {progress['samples_seen'] / planned:.0%} of its samples seen"
    kept = progress.get("checkpoint_samples", 0)
    if kept:
        return f"interrupted; goes on from its checkpoint at {kept / planned:.0%} of its samples"
    return "interrupted before its first checkpoint; starts anew"
