"""Drawing of a figure's data with matplotlib."""

from dataclasses import replace

from matplotlib.figure import Figure

from analysis.charts.figure_data import FigureData
from analysis.drawing.bars import columns, grid
from analysis.drawing.marks import draw_marks, legend_handles
from analysis.drawing.panels import lay_out, legend, panels, styled
from analysis.drawing.places import dodged, ends_are_named, label_points, name_ends
from analysis.drawing.style import looks
from analysis.drawing.ticks import set_scales, set_ticks


def draw(data: FigureData) -> Figure:
    """Draw the marks of a figure in the style of the project."""
    with styled():
        kinds = {"curves": _curves, "columns": columns, "grid": grid}
        return kinds[data.kind](data)


def _curves(data: FigureData) -> Figure:
    figure, by_panel = panels(replace(data, frame=dodged(data)))
    by_series = looks(data)
    for axes, rows in by_panel:
        draw_marks(axes, rows, by_series)
        set_scales(axes, data)
    named = ends_are_named(data, by_series)
    legend(figure, legend_handles(data.frame, {} if named else by_series))
    lay_out(figure)
    if named:
        name_ends(*by_panel[0], by_series)
        lay_out(figure)
    for axes, rows in by_panel:
        set_ticks(axes, data)
        if data.name == "hero":
            label_points(axes, rows)
    return figure
