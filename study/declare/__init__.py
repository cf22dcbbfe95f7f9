"""Conversion of YAML files to declarations and back; column maps of imported tables."""

from pathlib import Path

DECLARATIONS = Path(__file__).parent / "declarations"
TEMPLATE = Path(__file__).parent / "template.yaml"


def shipped_studies() -> dict[str, Path]:
    """Return name and file of each shipped study, sorted by name."""
    return {path.stem: path for path in sorted(DECLARATIONS.glob("*.yaml"))}
