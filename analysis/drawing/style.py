"""Column widths of a paper, and the looks of series: what their colours and markers mean."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from matplotlib.typing import LineStyleType

from analysis.charts.figure_data import FRONTIER, MAP, FigureData

COLUMN_IN = 3.4
"""Width of one column of a two-column page, inches."""

PAGE_IN = 7.0
"""Width of both columns, inches."""

STYLE = Path(__file__).with_name("paper.mplstyle")
"""Style sheet with sizes, line widths and fonts."""

INK, GREY = "#222222", "#777777"
"""Colours of what belongs to no series, and of what is there for context."""

TENTATIVE: LineStyleType = (0, (2.5, 1.5))
"""Dashes of a law that cannot be tested, or beyond the data; measured lines are solid."""


class Look(NamedTuple):
    """The look of a series."""

    colour: str
    marker: str


_STRATEGIES = {
    "CLIP": "#0072B2", "FLIP (50 %)": "#009E73", "SLIP": "#D55E00", "CLIP + crop and flip": "#E69F00",
    "SigLIP": "#CC79A7", "FLIP (25 %)": "#66A61E", "CLIPA": "#6A3D9A", "CLIPA in two resolutions": "#A98BC9",
    "CLIP + RandAugment": "#A6611A", "CLIP + stacked RandAugment": "#6B4A00", "CLIP + random crop": "#C9A227",
    "CLIP + augmentation": "#E08B5A", "CLIP + recaptions": "#56B4E9", "FastCLIP": "#1F3B73",
    "Reinforced CLIP": "#8C564B", "MaMMUT": "#B2182B", "CoCa": "#1B9AAA", "Cap": "#808000",
}  # fmt: skip
_OWN = ("#B5179E", "#00665E", "#5B5BD6", "#7A7A2A", "#FF6F91", "#2F6690")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
_LIGHT, _RAMP = 0.3, colormaps["viridis_r"]  # its lighter end is too light for lines on white


def ramp(order: Mapping[str, float]) -> dict[str, str]:
    """Return colours from light to dark in the order of numbers, at equal distances so that all differ."""
    values, rank = np.unique(np.array(list(order.values()), dtype=np.float64), return_inverse=True)
    share = rank / max(len(values) - 1, 1)
    return {name: to_hex(_RAMP(_LIGHT + (1 - _LIGHT) * one)) for name, one in zip(order, share, strict=True)}


def looks(data: FigureData) -> dict[str, Look]:
    """Return a look per series that is not drawn only for context, in their order.

    A series with an order has a colour of the ramp; a strategy its own; others are grey. The marker is
    that of the series' family, or else of its place; series of the ramp without families share one.
    """
    context = data.frame["mark"].isin(["other", "reference", "dropped"])
    series = [str(name) for name in dict.fromkeys(data.frame.loc[~context, "series"])]
    ordered = ramp({name: data.order[name] for name in series if name in data.order})
    families = list(dict.fromkeys(data.families.get(name, "") for name in series))
    greys = [to_hex((shade,) * 3) for shade in np.linspace(0.13, 0.65, len(series))]
    by_series = {}
    for place, name in enumerate(series):
        # A strategy has one colour in all figures: a user's own has it by its name.
        colour = _OWN[crc32(name.encode()) % len(_OWN)] if data.by == "strategy" else greys[place]
        marker = 0 if name in ordered else place
        if data.families:
            marker = families.index(data.families.get(name, ""))
        by_series[name] = Look(
            colour=ordered.get(name) or _STRATEGIES.get(name, colour),
            marker=_MARKERS[marker % len(_MARKERS)],
        )
    return by_series | {name: Look(colour="#000000", marker="") for name in series if name in {FRONTIER, MAP}}
