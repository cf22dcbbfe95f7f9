"""What each running trial writes down every second of how far it is, read by those who watch it."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def read_progress(folder: Path, running_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Read how far the running trials of a study are.

    Args:
        folder: The study's folder.
        running_ids: The trials' ids.

    Returns:
        Trial id → what `runners.trials.watch` wrote; trials that just started or ended wrote nothing.
    """
    found = {}
    for trial in sorted(running_ids):
        try:
            text = (folder / "trials" / trial / "progress.json").read_text(encoding="utf-8")
        except OSError:
            continue
        found[trial] = json.loads(text)
    return found
