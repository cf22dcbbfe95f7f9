"""Column widths of a paper, and the looks of series: Okabe and Ito's colours, markers, lines."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import to_hex
from matplotlib.typing import LineStyleType

from analysis.charts.figure_data import FRONTIER

COLUMN_IN = 3.4
"""Width of one column of a two-column page, inches."""

PAGE_IN = 7.0
"""Width of both columns, inches."""

STYLE = Path(__file__).with_name("paper.mplstyle")
"""Style sheet with sizes, line widths and fonts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """The look of a series, distinguishable also without colour."""

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
"""Dashes of a law that cannot be tested."""

OTHER = Look(colour="#b5b5b5", marker=".", dashes="-")
"""Look of marks shown for context."""


STAR: dict[str, Any] = {
    "linestyle": "none", "marker": "*", "markersize": 7, "color": "#555555", "markeredgecolor": "black",
    "markeredgewidth": 0.6,
}  # fmt: skip
"""Mark of the lowest error."""

_LIGHT, _DARK = (0.95, 0.98, 1.0), (0.29, 0.56, 0.78)
_HATCHES = ("", "///", "...", "\\\\\\", "xxx")


def fills(series: list[str]) -> dict[str, tuple[str, str]]:
    """Return the shade and hatch of each bar, from light to dark, light enough for the marks over them."""
    shades = np.linspace(_LIGHT, _DARK, len(series))
    return {
        name: (to_hex(shade), _HATCHES[place % len(_HATCHES)])
        for place, (name, shade) in enumerate(zip(series, shades, strict=True))
    }


def looks(series: list[str]) -> dict[str, Look]:
    """Return a look per series, by position; no two of the first 64 are alike. The frontier is black."""
    return {
        name: Look(colour="#000000", marker="", dashes="-")
        if name == FRONTIER
        else Look(
            colour=_COLOURS[place % len(_COLOURS)],
            marker=_MARKERS[(place + place // len(_COLOURS)) % len(_MARKERS)],
            dashes=_DASHES[(place + place // len(_COLOURS)) % len(_DASHES)],
        )
        for place, name in enumerate(series)
    }
