"""Column widths of a paper, and how series are told apart: Okabe and Ito's colours, a marker, a line."""

from dataclasses import dataclass
from pathlib import Path

from matplotlib.typing import LineStyleType

COLUMN_IN = 3.4
"""Width of one column of a two-column page, inches."""

PAGE_IN = 7.0
"""Width of both."""

STYLE = Path(__file__).with_name("paper.mplstyle")
"""Sizes, widths and fonts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """How one series is told apart, in colour and without it."""

    colour: str
    marker: str
    dashes: LineStyleType


_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D1F")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
_DASHES: tuple[LineStyleType, ...] = (
    "-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (6, 1.5, 1.5, 1.5)),
    (0, (3, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 2)), (0, (4, 2, 1, 2)),
)  # fmt: skip

TENTATIVE: LineStyleType = (0, (2.5, 1.5))
"""The line of a law that nothing is left to test by."""

OTHER = Look(colour="#b5b5b5", marker=".", dashes="-")
"""What is shown for context."""


def looks(series: list[str]) -> dict[str, Look]:
    """A look for each series, by its place; after eight they repeat."""
    return {
        name: Look(
            colour=_COLOURS[place % len(_COLOURS)],
            marker=_MARKERS[place % len(_MARKERS)],
            dashes=_DASHES[place % len(_DASHES)],
        )
        for place, name in enumerate(series)
    }
