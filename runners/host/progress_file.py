"""Progress files: the state that each running trial writes every second."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

PROGRESS = "progress.json"
"""File in the folder of a running trial."""


def read_progress(folder: Path, running_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Read the progress of a study's running trials.

    Args:
        folder: The study's folder.
        running_ids: Ids of the running trials.

    Returns:
        Trial id → progress as written by `runners.trials.trial`; a trial that has just started or ended, or
        whose file is damaged, may be missing.
    """
    found = {}
    for trial in sorted(running_ids):
        try:
            progress = json.loads((folder / "trials" / trial / PROGRESS).read_bytes())
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(progress, dict) and _is_whole(progress):
            found[trial] = progress
    return found


def _is_whole(progress: Mapping[str, Any]) -> bool:
    counts = (progress.get(key) for key in ("samples_seen", "samples_planned", "train_flops"))
    measured = (progress.get(key, "missing") for key in ("loss", "samples_per_s"))
    lists = (progress.get(key) for key in ("losses", "curve"))
    return (
        all(isinstance(count, int) for count in counts)
        and all(isinstance(value, int | float | None) for value in measured)
        and all(isinstance(each, list) and all(isinstance(x, int | float) for x in each) for each in lists)
    )
