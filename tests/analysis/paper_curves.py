"""The paper's digitised tables, and their curves by family."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd

from analysis.belief.cell_draws import CellDraws, cell_draws, stream
from analysis.belief.curves import X_COLUMNS, curves, read
from analysis.cells.intervals import interval
from analysis.cells.table import CELL, Trials, tidy
from analysis.laws.laws import Law, run_variance
from analysis.report.paper import PANELS, READERS, read_panels
from runners.data.build.table_file import read_any_table
from study.declare.column_maps import PAPER_FIGURES, find_column_map, load_column_map

# Panel → along what its curves run: ImageNet errors of every table with curves of four levels or more.
FAMILIES = (
    ("2a", "compute"), ("2a", "data"), ("8b", "compute"), ("9a", "data"), ("13a", "data"), ("14a", "compute"),
    ("17a", "data"),
)  # fmt: skip


@cache
def paper_tables() -> Mapping[str, pd.DataFrame]:
    """Return the table of each column map in the results schema."""
    maps = {name: load_column_map(find_column_map(name)) for name in READERS}
    return read_panels(read_any_table(PAPER_FIGURES), maps)


def families() -> Iterator[tuple[str, str, Trials]]:
    """Yield each family's panel, its axis and its cells as trials, one regime each."""
    tables = paper_tables()
    for panel, along in FAMILIES:
        reader, metric = PANELS[panel]
        found = tables[reader]
        kept = found[found["regime"] == ("one-epoch" if panel in ("8b", "14a") else "equal-samples")]
        yield panel, along, tidy(kept, metric=metric)


def left_out(
    trials: Trials, draws: CellDraws, fitted: Iterable[Law], along: str, out: Iterable[int]
) -> list[bool]:
    """Leave cells out of a study; return whether the intervals of the law without them hold these.

    ``out`` are positions of cells, each of one run. The intervals are of the measured error, with the noise
    of a run.
    """
    left, frame = set(out), trials.frame
    trial = dict(zip(map(tuple, frame[[*CELL]].to_numpy(object)), frame["trial"], strict=True))
    names = [trial[tuple(cell)] for cell in draws.cells[[*CELL]].to_numpy(object)]
    kept = frame[~frame["trial"].isin([names[place] for place in left])]
    without = cell_draws(replace(trials, frame=kept.reset_index(drop=True)))
    again = {str(curve.identity): curve for curve in curves(without, along=along)}
    held = []
    (family,) = without.families.values()
    noise = np.sqrt(run_variance(family).mean())
    for law in fitted:
        one = again.get(str(law.identity))
        if one is None:
            continue
        for place in sorted(left & set(law.positions.tolist())):
            x, error = draws.column(X_COLUMNS[along])[[place]], draws.column("error")[place]
            drawn = read(without, one, x)[:, 0]
            low, high = interval(drawn + noise * stream("left out").standard_normal(len(drawn)))
            held.append(bool(low <= error <= high))
    return held
