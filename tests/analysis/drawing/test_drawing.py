"""Figures of a few made-up marks: colours, ticks, names and labels that hide nothing, and equal files."""

from collections.abc import Sequence
from dataclasses import replace
from html import escape
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from analysis.charts.figure_data import JOINED, FigureData, mark_frame
from analysis.drawing.draw import draw
from analysis.drawing.panels import styled
from analysis.drawing.places import dodged
from analysis.drawing.save import save
from analysis.drawing.style import COLUMN_IN, looks
from analysis.labels import strategy_text
from budgets.cost.strategy import strategies

FLOPS = "training compute of one trial (FLOPs)"


def figure(*marks: dict[str, Any], x_label: str = "") -> FigureData:
    """Return a figure of marks without any text around them."""
    return FigureData(name="hero", title="", x_label=x_label, y_label="", caption="", frame=mark_frame(marks))


def lines(names: Sequence[str], x: Sequence[float] = (1e17, 1e20)) -> FigureData:
    """Return a figure of a joined line per name, whose ends lie close together."""
    marks = [
        {"mark": "point", "series": name, "line": JOINED, "x": at, "y": 50.0 + n / 10 - step, "text": name}
        for n, name in enumerate(names)
        for step, at in enumerate(x)
    ]
    return figure(*marks)


def apart(boxes: Sequence[Bbox]) -> bool:
    return not any(one.overlaps(other) for one, other in combinations(boxes, 2))


def test_every_strategy_has_one_colour_in_every_figure() -> None:
    names = [strategy_text(name) for name in strategies()]
    every = looks(replace(lines(names), by="strategy"))
    assert len({look.colour for look in every.values()}) == len(names)
    for names in (["SLIP", "CLIP"], ["my own", "SLIP"]):
        few = looks(replace(lines(names), by="strategy"))
        assert few["SLIP"].colour == every["SLIP"].colour
    assert few["my own"].colour == looks(replace(lines(["CLIP", "my own"]), by="strategy"))["my own"].colour


def test_ordered_series_darken_with_their_number_and_families_have_markers() -> None:
    order = {"S/16": 4.0, "S/32": 1.0, "B/16": 16.0, "B/32": 4.1}
    found = looks(replace(lines([*order]), order=order, families={name: name[-2:] for name in order}))
    colours = [to_rgb(found[name].colour) for name in sorted(order, key=lambda name: order[name])]
    light = [np.dot(colour, (0.2126, 0.7152, 0.0722)) for colour in colours]
    assert all(one > other + 0.02 for one, other in pairwise(light))
    assert light[0] < 0.7
    assert found["S/16"].marker == found["B/16"].marker != found["S/32"].marker == found["B/32"].marker


def test_lines_are_named_at_their_ends_in_order_and_apart_where_there_is_room() -> None:
    names = [f"mini-ViT-{n}" for n in range(9)]
    drawn = draw(lines(names))
    assert not drawn.legends
    drawn.draw_without_rendering()
    (axes,) = drawn.axes
    boxes = [Text.get_window_extent(text) for text in axes.texts]
    assert [text.get_text() for text in axes.texts] == names
    assert apart(boxes)
    assert all(box.x0 > axes.bbox.x1 and box.x1 <= drawn.bbox.x1 for box in boxes)
    assert all(low.y0 < high.y0 for low, high in pairwise(boxes))
    assert len(draw(lines([str(n) for n in range(20)])).legends[0].get_texts()) == 20


@pytest.mark.parametrize(
    ("x_label", "x", "panels", "ticks"),
    [
        (FLOPS, (2e11, 6e11, 1.8e12, 5.4e12), 1, ["200 GFLOP", "600 GFLOP", "1.8 TFLOP", "5.4 TFLOP"]),
        (FLOPS, (7.2e16, 2.6e19, 1.1e20, 8e21), 4, ["1 EFLOP", "100 EFLOP", "10 ZFLOP"]),
        ("unique pairs", (45e3, 250e3), 1, ["50k", "100k", "200k"]),
    ],
)
def test_ticks_are_short_and_worded_as_in_the_text_and_never_touch(
    x_label: str, x: Sequence[float], panels: int, ticks: list[str]
) -> None:
    marks = [{"mark": "point", "panel": str(n), "x": at, "y": 1.0} for n in range(panels) for at in x]
    labels = draw(figure(*marks, x_label=x_label)).axes[0].get_xticklabels()
    assert [label.get_text() for label in labels] == ticks
    assert apart([label.get_window_extent() for label in labels])


def test_levels_that_are_ticks_are_those_of_a_panel_where_they_are_and_not_moved_apart() -> None:
    marks = [
        {"mark": "point", "panel": panel, "series": series, "x": x, "y": 1.0}
        for panel, levels in (("A", (1e12, 3e12)), ("B", (3e12, 9e12)))
        for x in levels
        for series in ("CLIP", "SLIP")
    ]
    ticks = [axes.get_xticks() for axes in draw(figure(*marks, x_label=FLOPS)).axes]
    np.testing.assert_allclose(ticks, [[1e12, 3e12], [3e12, 9e12]])


def test_points_that_hide_each_other_are_drawn_apart_and_all_others_in_place() -> None:
    marks = [
        {"mark": "point", "series": series, "x": x, "y": y, "low": y - 1, "high": y + 1}
        for series, x, y in (
            ("A", 1e12, 50.0), ("A", 1e12, 50.0), ("B", 1e12, 51.5), ("B", 1e12, 70.0), ("A", 1e14, 30.0),
            ("B", 1e14, 20.0),
        )
    ]  # fmt: skip
    own = {"mark": "best", "series": "A", "x": 1e14, "y": 30.0}
    law = {"mark": "law", "series": "A", "x": 1e12, "y": 50.0}
    data = figure(*marks, own, own | {"series": "C", "y": 30.5}, law)
    shift = np.log(dodged(data)["x"] / data.frame["x"]) / np.log(100)
    np.testing.assert_allclose(shift, [0, -0.02, 0.02, 0, 0, 0, 0, -0.036, 0], atol=1e-9)


def test_labels_of_the_best_hide_no_point_and_no_other_label() -> None:
    stars: list[dict[str, Any]] = [
        {"mark": "best", "series": "CLIP", "x": 10.0**n, "y": 90.0 - 8 * n, "label": f"ViT-B-{n}, CLIP"}
        for n in range(9)
    ]
    trials: list[dict[str, Any]] = [
        {"mark": "other", "series": "trials", "x": 10.0**n, "y": 93.0 - 8 * n} for n in range(9)
    ]
    drawn = draw(figure(*stars, *trials))
    drawn.draw_without_rendering()
    (axes,) = drawn.axes
    boxes = [Text.get_window_extent(text) for text in axes.texts]
    assert len(boxes) == 9
    assert apart(boxes)
    points = axes.transData.transform([(mark["x"], mark["y"]) for mark in (*stars, *trials)])
    assert not any(box.contains(*point) for box in boxes for point in points)
    assert all(axes.bbox.contains(*corner) for box in boxes for corner in (box.p0, box.p1))


@pytest.mark.parametrize(
    "names", [("cost $\\frac$ US", "🚀 α_β^2 $x$", "<b>&"), [f"arch-{n}" for n in range(25)]]
)
def test_names_of_any_text_and_number_fit_a_columns_width_and_can_be_toggled(
    names: Sequence[str], tmp_path: Path
) -> None:
    data = lines(names)
    svg = save(data, tmp_path)
    drawn = draw(data)
    assert drawn.get_figwidth() == COLUMN_IN
    (axes,) = drawn.axes
    with styled():
        drawn.draw_without_rendering()
        for box in [part.get_window_extent() for part in (*drawn.legends, *axes.texts)]:
            assert box.x0 >= 0
            assert box.y0 >= 0
            assert box.x1 <= drawn.bbox.x1
    for name in names:
        assert f'data-series="{escape(name)}" aria-label="{escape(name)}: show"' in svg


def test_data_that_differ_in_their_last_digits_give_the_same_files(tmp_path: Path) -> None:
    data = lines(["CLIP", "SLIP"])
    data = replace(data, frame=data.frame.assign(y=data.frame["y"] / 3))
    for name, factor in (("one", 1.0), ("other", 1 + 1e-12)):
        (tmp_path / name).mkdir()
        save(replace(data, frame=data.frame.assign(y=data.frame["y"] * factor)), tmp_path / name)
    files = sorted((tmp_path / "one").iterdir())
    assert len(files) == 5
    assert all(file.read_bytes() == (tmp_path / "other" / file.name).read_bytes() for file in files)
