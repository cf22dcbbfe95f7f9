"""Simulated sweeps whose true errors are known, and Step Law's published sweep held out by model size."""

import numpy as np
import pandas as pd

from analysis.arrays import Floats
from analysis.cells.imported_table import Column, ColumnMap, import_sweeps
from analysis.cells.sweep_surface import Surface
from runners.data.build.table_file import read_any_table
from tests.analysis.public_tables import SHARED

STEP_LAW = SHARED / "steplaw_dense.csv"
HOW = ColumnMap(
    title="simulated",
    rows={},
    columns={
        "regime": Column(value="equal-samples"), "architecture": Column(source="size"),
        "strategy": Column(value="clip"), "quality": Column(value="all"), "subset_size": Column(value="1e9"),
        "samples_seen": Column(source="seen"), "train_flops": Column(source="size", by="seen"),
    },
    metric="imagenet/top1",
    metric_column=Column(source="acc"),
    better="higher",
    sweep={"lr_peak": Column(source="lr"), "batch_size": Column(source="bs")},
)  # fmt: skip
"""Map of a simulated table."""


def simulate(
    seed: int,
    *,
    noise: float,
    grid: bool,
    edge: bool = False,
    diverged: float = 0.0,
    cells: int = 30,
    most: int = 140,
) -> pd.DataFrame:
    """Return runs of 1 to ``most`` a cell, with ``true`` error; noise is in points.

    The optimum follows size and samples, give or take .3 in logarithms; the error rises steeply beyond the
    best rate. At the edge, the optimum lies beyond most of the rates that are tried.
    """
    random = np.random.default_rng(seed)
    tables = []
    for cell in range(cells):
        size, seen = random.uniform(-1.5, 1.5), random.uniform(-2.0, 2.0)
        best = np.array([0.2 * seen - 0.5 * size, 0.3 * seen]) + 0.3 * random.normal(size=2)
        count = int(np.exp(random.uniform(0.0, np.log(most + 1.0))))
        rates = max(1, round(np.sqrt(1.3 * count)))
        shape = np.indices((rates, max(1, round(count / rates)))).reshape(2, -1).T.astype(float)
        x = np.log(2.0) * (shape - shape.mean(axis=0)) if grid else random.uniform(-2.0, 2.0, (count, 2))
        apart = x - best - np.array([1.5 * edge, 0.0])
        steep = 0.8 * apart @ [1.0, 0.3]
        true = 40.0 + 10.0 * random.normal() + 3.0 * (np.exp(steep) - steep - 1.0) + 0.7 * apart[:, 1] ** 2
        found = true + noise * random.normal(size=len(x))
        lost = random.random(len(x)) < diverged * (1.0 + 2.0 * (apart[:, 0] > 1.0))
        tables.append(
            pd.DataFrame({
                "size": round(np.exp(size) * 1e8), "seen": float(round(np.exp(seen) * 1e8)) + cell,
                "lr": 1e-3 * np.exp(x[:, 0]), "bs": 4096.0 * np.exp(x[:, 1]),
                "true": true.clip(max=97.0) / 100,
                "acc": 1.0 - np.where(lost, 97.0, found).clip(0.0, 99.0) / 100,
            })
        )  # fmt: skip
    return pd.concat(tables, ignore_index=True)


def missed(table: pd.DataFrame) -> pd.DataFrame:
    """Return, per cell, the points by which the best and the corrected error miss the true one.

    Cells in which all runs diverged are left out.
    """
    tried = import_sweeps(table, HOW)[1]
    rows = tried["trial"].str.removeprefix("row-").astype(int) - 1
    true = table["true"].to_numpy()[rows]
    found = pd.DataFrame({
        "runs": tried["runs"], "best": 100 * (tried["best"] - true),
        "corrected": 100 * (tried["error"] - true), "standard_error": 100 * tried["standard_error"],
    })  # fmt: skip
    return found[tried["best"] < 0.9]


def step_law() -> Floats:
    """Return how far the loss of the run nearest to its predicted optimum is above the lowest of its cell.

    The optimum of each model size is predicted from all other sizes. Shares, one per cell.
    """
    table = read_any_table(STEP_LAW)
    cell = table.groupby(["N", "D"]).ngroup().to_numpy()
    known = np.log(table.groupby(["N", "D"]).first().reset_index()[["N", "D"]].to_numpy(float))
    z = np.c_[np.ones(len(known)), (known - known.mean(axis=0)) / known.std(axis=0)]
    x = np.log(table[["lr", "batch_sequences"]].to_numpy(float))
    x = (x - np.median(x, axis=0)) / x.std(axis=0)
    loss = table["smooth_loss"].to_numpy(float)
    found = []
    for size in np.unique(z[:, 1]):
        left = z[:, 1] != size
        runs = left[cell]
        surface = Surface(
            np.unique(cell[runs], return_inverse=True)[1], x[runs], loss[runs], z[left], numbers=2
        )
        for held in np.flatnonzero(~left):
            rows = np.flatnonzero(cell == held)
            nearest = rows[((x[rows] - z[held] @ surface.law) ** 2).sum(axis=1).argmin()]
            found.append(loss[nearest] / loss[rows].min() - 1.0)
    return np.array(found)
