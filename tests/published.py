"""Published results that tests read."""

from pathlib import Path

DATA = Path(__file__).parent / "data"  # sources and licence: its README.md
