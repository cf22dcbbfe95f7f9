"""Column widths of a paper, and how series are told apart: Okabe and Ito's colours, a marker, a line."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import to_hex
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


STAR: dict[str, Any] = {
    "linestyle": "none", "marker": "*", "markersize": 7, "color": "#555555", "markeredgecolor": "black",
    "markeredgewidth": 0.6,
}  # fmt: skip
"""The mark of the lowest error."""

_LIGHT, _DARK = (0.95, 0.98, 1.0), (0.29, 0.56, 0.78)
_HATCHES = ("", "///", "...", "\\\\\\", "xxx")


@dataclass(frozen=True, kw_only=True, slots=True)
class Fill:
    """How one bar of a group is told apart: by how dark it is, and by its hatch."""

    colour: str
    hatch: str


def fills(series: list[str]) -> dict[str, Fill]:
    """A fill for each bar, from light to dark in their order; no darker than what lies upon them shows on."""
    shades = np.linspace(_LIGHT, _DARK, len(series))
    return {
        name: Fill(colour=to_hex(shade), hatch=_HATCHES[place % len(_HATCHES)])
        for place, (name, shade) in enumerate(zip(series, shades, strict=True))
    }


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
