"""Event log of a study's runs, ``events.jsonl``: one line an event, appended as it happens."""

import os
import time
from pathlib import Path

from runners.results import event_line, read_events
from runners.store.files import read_bytes
from study.state.study import Study

EVENTS = "events.jsonl"
"""Name of the file in the study's folder."""


def add_event(study: Study, event: str, **facts: object) -> None:
    """Append an event, completely or not at all; a last line that a crash has torn is removed.

    Raises:
        OSError: Writing failed, for example on a full disk; the file keeps its former content.
    """
    path = study.folder / EVENTS
    with path.open("a+b", buffering=0) as file:
        size = file.tell()
        if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
            size = file.truncate(read_bytes(path).rfind(b"\n") + 1)
        content = memoryview(event_line({"time": time.time(), "event": event, **facts}, size))
        try:
            while content:
                content = content[file.write(content) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(size)
            raise


def trials_of_event(folder: Path, event: str) -> list[str]:
    """Return the trial of each event of a name, in the order in which they happened."""
    events = read_events(folder / EVENTS)
    if "trial" not in events:  # no event of a trial so far
        return []
    return events.loc[events["event"] == event, "trial"].astype(str).tolist()
