"""The commands of docs/data.md."""

from tests.study import shown

COMMANDS = shown.commands("docs/data.md")


def command(part: str) -> str:
    """Return the documented command that contains these words, with one worker process."""
    (found,) = (each for each in COMMANDS if part in each)
    return f"{found} --workers 1"
