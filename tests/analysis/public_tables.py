"""Published tables of results, read by column maps as a user imports them, and forecasts beyond a cut.

Tables that are not shipped, such as those without a stated licence, are read from ``../shared/data`` beside
the checkout. The largest rows of a curve are asked for from the smaller ones of all curves, at several cuts:
rolling origin.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.arrays import Floats, Indices
from analysis.belief.family import Family, families
from analysis.cells.imported_table import Column, ColumnMap, import_table
from analysis.cells.intervals import column_intervals
from analysis.cells.table import Trials, tidy
from analysis.error_unit import PERCENT, ErrorUnit
from runners.data.build.table_file import read_any_table
from study.declare.column_maps import PAPER_FIGURES, find_column_map, load_column_map
from tests.published import DATA
from tests.root import ROOT

SHARED = ROOT.parent / "shared" / "data"
"""Folder of the tables that the project does not ship."""
NEXT, TEN_TIMES = (1.9, 5.1), (8.0, 15.0)
"""Samples that are asked for, over the last ones of a curve before the cut: the next level, and ten times."""
CLIP, ALL_OBJECTIVES = "CLIP on DataComp", "open_clip scaling"
_FEWEST, _APART, _SAME = 3, 1.5, 1.001
_LADDER = {
    f"{objective} ladder, {schedule}": (objective, schedule)
    for objective in ("clip", "mammut", "coca")
    for schedule in ("finished", "cosine")
}
_GEMSTONES = {"Gemstones, constant rate": "hot", "Gemstones, cooled down": "cool_end"}
_SCALEBENCH = {"Farseer": "farseer", "data-constrained": "data_constrained"}
_PAPER = {
    "paper, figure 2a": "epochs",
    "paper, figure 8b": "one-epoch",
    "paper, figure 14a": "architectures-probe",
}
_FILES = {
    CLIP: ("laion_clip_datacomp_cosine.csv",),
    **dict.fromkeys((ALL_OBJECTIVES, *_LADDER), ("open_clip_scaling.csv",)),
    **dict.fromkeys(_GEMSTONES, ("gemstones.csv",)),
    **{
        name: tuple(f"scalebench/{stem}_{part}.parquet" for part in ("train", "test"))
        for name, stem in _SCALEBENCH.items()
    },
}
NAMES = (*_FILES, *_PAPER)
"""Names of the tables."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A published table.

    Attributes:
        name: Its name.
        trials: Its rows as trials of one regime.
        unit: What one point is: a hundredth of an error, or of the median loss.
    """

    name: str
    trials: Trials
    unit: float

    def upto(self, *, samples: float = np.inf, flops: float = np.inf) -> Trials:
        """Return the trials up to a number of samples and to a compute."""
        frame = self.trials.frame
        kept = (frame["budget"] <= samples * _SAME) & (frame["train_flops"] <= flops * _SAME)
        return replace(self.trials, frame=frame[kept].reset_index(drop=True))


def missing(name: str) -> str:
    """Return why a table can't be read; empty if it can."""
    absent = [path for path in map(_path, _FILES.get(name, ())) if not path.is_file()]
    return f"{name}: no file {absent[0]}" if absent else ""


def _path(file: str) -> Path:
    shipped = (DATA / file, ROOT / "results" / "open-clip-scaling" / file)
    return next((path for path in shipped if path.is_file()), SHARED / file)


def table(name: str) -> Table:
    """Read a table."""
    files = _FILES.get(name, ())
    rows = pd.concat(map(read_any_table, map(_path, files))) if files else read_any_table(PAPER_FIGURES)
    if name == CLIP:  # one model was run at 12.8B samples
        rows = rows[rows["samples_seen"] < 1e10]
    if name in _LADDER:
        rows = rows[~rows["arch"].str.endswith("-alt")]
    how = column_map(name)
    trials = tidy(import_table(rows, how), metric=how.metric)
    loss = ErrorUnit.of(how.metric) is not PERCENT
    return Table(
        name=name, trials=trials, unit=0.01 * (float(trials.frame["error"].median()) if loss else 1.0)
    )


def column_map(name: str) -> ColumnMap:
    """Return the column map of a table: a shipped one, one made of it, or one of its own."""
    if name in _PAPER:
        return load_column_map(find_column_map(f"paper-{_PAPER[name]}"))
    if name in _SCALEBENCH:
        return load_column_map(find_column_map(_SCALEBENCH[name].replace("_", "-")))
    how = load_column_map(find_column_map("farseer" if name in _GEMSTONES else "open-clip-scaling"))
    if name == CLIP:
        own = {"architecture": Column(source="model"), "strategy": Column(value="clip")}
        return replace(how, rows={}, columns={**how.columns, **own})
    if name in _LADDER:
        objective, schedule = _LADDER[name]
        return replace(how, rows={**how.rows, "loss": (objective,), "scheduler": (schedule,)})
    if name == ALL_OBJECTIVES:
        return how
    own = {
        "architecture": Column(source="run"), "subset_size": Column(source="tokens"),
        "samples_seen": Column(source="tokens"), "parameters": Column(source="params"),
        "train_flops": Column(source="params", times=6.0, by="tokens"),
    }  # fmt: skip
    return replace(how, rows={"phase": (_GEMSTONES[name],)}, columns={**how.columns, **own})


def family(trials: Trials) -> Family:
    """Return the only family of some trials."""
    (found,) = families(trials).values()
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """The rows that are asked for at a cut: the next of each curve, at some distance.

    Attributes:
        cut: Samples seen.
        trials: The trials up to the cut.
        curves: Their family.
        own: Curves of the rows, shape (rows,).
        rows: The rows.
    """

    cut: float
    trials: Trials
    curves: Family
    own: Indices
    rows: pd.DataFrame

    @property
    def error(self) -> Floats:
        """Errors of the rows, shape (rows,)."""
        return self.rows["error"].to_numpy(np.float64)

    @property
    def draws(self) -> Floats:
        """Draws of the errors, shape (draws, rows)."""
        return self.curves.read(self.own, self.rows["train_flops"].to_numpy(np.float64)[:, None])[:, :, 0]

    def misses(self, unit: float) -> tuple[Floats, ...]:
        """Return misses (forecast minus error) and half-widths in a unit, and 1 where intervals hold."""
        drawn = self.draws
        low, high = column_intervals(drawn)
        miss = np.median(drawn, axis=0) - self.error
        held = (low <= self.error) & (self.error <= high)
        return miss / unit, (high - low) / 2 / unit, held.astype(np.float64)


def asked(one: Table, cut: float, distance: tuple[float, float] = NEXT) -> Asked | None:
    """Return what is asked for at a cut; None if nothing is.

    Asked for is the first row of each curve at a distance from its last one before the cut, if three of its
    rows lie before.
    """
    before = one.upto(samples=cut)
    if before.frame.empty:
        return None
    curves = family(before)
    beyond = one.trials.frame[one.trials.frame["budget"] > cut * _SAME]
    own, rows = [], []
    names = ["architecture", "strategy", "quality"]
    if curves.regime != "one-epoch":
        names.append("subset_size")
    groups = dict(tuple(beyond.groupby(names)))
    for curve, key in enumerate(curves.configurations[names].itertuples(index=False, name=None)):
        if curves.points[curve] < _FEWEST or key not in groups:
            continue
        over = groups[key]["train_flops"] / curves.x[curve, -1]
        near = groups[key][(over >= distance[0]) & (over <= distance[1])]
        if len(near):
            own.append(curve)
            rows.append(near.loc[near["budget"].idxmin()])
    if not rows:
        return None
    return Asked(cut=cut, trials=before, curves=curves, own=np.array(own), rows=pd.DataFrame(rows))


def rolling(one: Table, distance: tuple[float, float] = NEXT, most: int = 3) -> Iterator[Asked]:
    """Yield what is asked for at the largest cuts at which a third of the curves are."""
    names = ["architecture", "strategy", "quality", "subset_size"]
    if (one.trials.frame["regime"] == "one-epoch").all():
        names.pop()
    long = int((one.trials.frame.groupby(names)["budget"].nunique() > _FEWEST).sum())
    last, count = np.inf, 0
    for cut in np.unique(one.trials.frame["budget"])[::-1]:
        if cut * _APART > last or count == most:
            continue
        found = asked(one, float(cut), distance)
        if found is not None and len(found.own) >= max(2, long / 3):
            last, count = cut, count + 1
            yield found


def pooled(parts: Sequence[tuple[Floats, ...]]) -> list[Floats]:
    """Return each of several arrays, joined over the cuts."""
    return [np.concatenate(column) for column in zip(*parts, strict=True)]
