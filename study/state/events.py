"""The trail of a study's runs, ``events.jsonl``: one line an event, appended as it happens."""

import os
import time
from pathlib import Path

from runners.results import event_line, read_events
from runners.store.files import read_bytes
from study.state.study import Study

EVENTS = "events.jsonl"
"""Name of the file in the study's folder."""


def add_event(study: Study, event: str, **facts: object) -> None:
    """Append an event, completely or not at all.

    Raises:
        OSError: Writing failed, for example on a full disk; the file keeps its former content.
    """
    with (study.folder / EVENTS).open("ab", buffering=0) as file:
        size = file.tell()
        content = memoryview(event_line({"time": time.time(), "event": event, **facts}, size))
        try:
            while content:
                content = content[file.write(content) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(size)
            raise


def drop_torn_event(study: Study) -> None:
    """Remove a last line torn by a crash, so that the next event starts on a line of its own."""
    path = study.folder / EVENTS
    content = read_bytes(path) if path.exists() else b""
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)
            os.fsync(file.fileno())


def trials_of_event(folder: Path, event: str) -> list[str]:
    """Return the trial of each event of a name, in the order in which they happened."""
    events = read_events(folder / EVENTS)
    if "trial" not in events:  # no event of a trial so far
        return []
    return events.loc[events["event"] == event, "trial"].astype(str).tolist()
