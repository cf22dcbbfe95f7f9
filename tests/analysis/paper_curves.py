"""The paper's digitised tables, and their curves by family."""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache

import numpy as np
import pandas as pd

from analysis.cells.bootstrap import CellDraws
from analysis.cells.curves import X_COLUMNS
from analysis.cells.intervals import interval
from analysis.cells.table import Trials, tidy
from analysis.laws.laws import Law, laws
from analysis.report.paper import PANELS, READERS, read_panels
from study.declare.column_maps import PAPER_FIGURES, find_column_map, load_column_map, read_any_table

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
        found = tables[PANELS[panel].reader]
        kept = found[found["regime"] == ("one-epoch" if panel in ("8b", "14a") else "equal-samples")]
        yield panel, along, tidy(kept, metric=PANELS[panel].metric)


def left_out(draws: CellDraws, fitted: Iterable[Law], along: str, out: Iterable[int]) -> list[bool]:
    """Leave cells out of a study; return whether the intervals of the refitted laws contain them."""
    x, error = (draws.cells[column].to_numpy(np.float64) for column in (X_COLUMNS[along], "error"))
    left = set(out)
    kept = np.array([place for place in range(len(x)) if place not in left])
    again = {str(law.identity): law for law in laws(draws.take(kept), along=along)}
    held = []
    for law in fitted:
        one = again.get(str(law.identity))
        if one is None or one.drawn is None or not one.informed:
            continue
        for place in sorted(left & set(law.positions.tolist())):
            low, high = interval(one.drawn(x[[place]])[1 : 1 + one.refits, 0])
            held.append(bool(low <= error[place] <= high))
    return held
