"""The declarations that come with the project, by name; imports nothing, for the help of the command line."""

from pathlib import Path

DECLARATIONS = Path(__file__).parent / "declarations"
TEMPLATE = Path(__file__).parent / "template.yaml"


def shipped_studies() -> dict[str, Path]:
    """Return the name and the file of each, sorted by name."""
    return {path.stem: path for path in sorted(DECLARATIONS.glob("*.yaml"))}
