"""Progress files: the state that each running trial writes every second."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def read_progress(folder: Path, running_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Read the progress of a study's running trials.

    Args:
        folder: The study's folder.
        running_ids: Ids of the running trials.

    Returns:
        Trial id → progress as written by `runners.trials.watch`; a trial that has just started or ended, or
        whose file is damaged, may be missing.
    """
    found = {}
    for trial in sorted(running_ids):
        try:
            progress = json.loads((folder / "trials" / trial / "progress.json").read_bytes())
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(progress, dict) and isinstance(progress.get("samples_seen"), int):
            found[trial] = progress
    return found
