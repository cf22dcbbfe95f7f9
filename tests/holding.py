"""Trials of child processes that are held in their middle, so that a test is never too late to disturb them.

`tests.child_processes.sitecustomize` lets them read the file.
"""

from pathlib import Path

_HOLD = "hold"


def hold(folder: Path, *, step: int, seeds: tuple[int, ...] = ()) -> None:
    """Let trials take no further step after some; they still write what is due, and leave when asked to.

    Args:
        folder: The folder two levels above the trials' own: that of their study.
        step: The last step that they take.
        seeds: Seeds of the trials that are held; by default all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{_HOLD}"
    partial.write_text(" ".join(map(str, (step, *seeds))))
    partial.rename(folder / _HOLD)


def let_go(folder: Path) -> None:
    """Let the trials take their other steps."""
    (folder / _HOLD).unlink()
