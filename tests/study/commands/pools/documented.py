"""The commands about pools and evaluation sets that docs/data.md and docs/evaluation.md show."""

from tests.study import shown

COMMANDS = [
    line
    for page in ("data", "evaluation")
    for line in shown.commands(f"docs/{page}.md")
    if line[:4] == "data"
]


def command(part: str) -> str:
    """Return the documented command that contains these words, with one worker process."""
    (found,) = (each for each in COMMANDS if part in each)
    return f"{found} --workers 1"
