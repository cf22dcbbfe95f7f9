"""The cells of a study, with their errors as measured and in each draw of what is known of them.

The draws are those of the families (``analysis.belief.family``): joint draws of the true errors of all
configurations, run or not.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np
import pandas as pd

from analysis.arrays import Floats, Indices
from analysis.belief.family import DRAWS, Family, NoiseSource, families
from analysis.belief.verdict import CLEAR
from analysis.cells.intervals import COVERAGE
from analysis.cells.study_frames import StudyFrames
from analysis.cells.table import CELL, Trials, group_numbers, records
from analysis.error_unit import ErrorUnit, chance_error
from budgets.quantity import format_share, plural

_MEANS = ("train_flops", "train_flops_per_sample", "parameters", "samples_seen", "epochs")


@dataclass(frozen=True, kw_only=True, slots=True)
class CellDraws:
    """The error of every cell, as measured and in each draw.

    Attributes:
        cells: One row per cell that lost no run: the columns of ``CELL``, ``family`` of its architecture,
            ``error`` (mean of its runs), ``runs``, ``images``, ``reading_error``, the means of
            ``train_flops``, ``train_flops_per_sample``, ``parameters``, ``samples_seen`` and ``epochs``, and
            its ``curve`` and ``point`` in its family. ``lost`` is empty.
        lost: One row per cell that lost runs: ``trial`` (one of those lost), the columns of ``CELL`` and
            ``lost`` (how many, in words).
        draws: True errors of shape (draws, cells); no rows when ``source`` is ``none``.
        families: The family of each regime with a run, which can be read anywhere.
        source: Where the noise of a run is known from, see ``Family``.
        chance: Error of a model that guesses; NaN when unknown.
        error_unit: Unit that errors are shown in.
        explanation: Source of the intervals in one sentence, or the reason why there are none.
        confidence: Probability at which a verdict is clear.
    """

    cells: pd.DataFrame
    lost: pd.DataFrame
    draws: Floats
    families: Mapping[str, Family]
    source: NoiseSource
    chance: float
    error_unit: ErrorUnit
    explanation: str
    confidence: float = CLEAR

    @property
    def architectures(self) -> set[str]:
        """Names of the architectures that can be read."""
        return {name for family in self.families.values() for name in family.configurations["architecture"]}

    def column(self, name: str) -> Floats:
        """Return a column of numbers of the cells, shape (cells,)."""
        return self.cells[name].to_numpy(np.float64)

    def take(self, positions: Indices) -> "CellDraws":
        """Return the draws of the cells at some positions, in that order."""
        return replace(
            self, cells=self.cells.iloc[positions].reset_index(drop=True), draws=self.draws[:, positions]
        )

    def beside(self, others: pd.DataFrame) -> "CellDraws":
        """Return the draws with those of other cells, by a ``trial`` of each: no runs of theirs count."""
        rows, drawn = [], [self.draws]
        for cell in records(others[["trial", *CELL]]):
            family = self.families.get(cell["regime"])
            if family is not None and (place := family.place_of.get(cell["trial"])):
                rows.append(cell | {"runs": 0, "lost": family.lost_at(*place, float(family.x[place]))})
                drawn.append(family.belief.draws[: len(self.draws), *place, None])
        if not rows:
            return self
        cells = pd.concat([self.cells, pd.DataFrame(rows)], ignore_index=True)
        return replace(self, cells=cells, draws=np.concatenate(drawn, axis=1))

    def with_measured(self) -> Floats:
        """Return the measured errors followed by the draws, shape (1 + draws, cells)."""
        return np.concatenate([self.column("error")[None, :], self.draws])

    @property
    def known(self) -> bool:
        """True if the noise of a run is known, so that there are draws."""
        return self.source != "none"

    @property
    def mixed(self) -> bool:
        """True if the cells are of several regimes, which texts then name."""
        return len(self.cells["regime"].unique()) > 1

    def groups(self, columns: list[str]) -> list[tuple[tuple[Hashable, ...], Indices]]:
        """Return each combination of values of the columns with its cells' positions, in sorted order."""
        indices = self.cells.groupby(columns, sort=True).indices
        return [
            (key if isinstance(key, tuple) else (key,), np.asarray(positions, dtype=np.intp))
            for key, positions in indices.items()
        ]


def stream(question: str, number: int = 0) -> np.random.Generator:
    """Return the random stream of one question; it does not depend on other questions or their order."""
    return np.random.default_rng(int.from_bytes(sha256(f"{number}/{question}".encode()).digest()[:16], "big"))


def cell_draws(
    trials: Trials, grid: pd.DataFrame | None = None, *, draws: int = DRAWS, confidence: float | None = None
) -> CellDraws:
    """Group runs by cell and draw the true error of each, see `families` for the grid.

    Without a confidence the usual one is asked of verdicts.
    """
    every = families(trials, grid, draws=draws)
    measured = {regime: family for regime, family in every.items() if family.measured.runs.any()}
    cells = _cells(trials.sound, measured)
    source: NoiseSource = next((family.source for family in every.values()), "none")
    drawn = np.empty((0 if source == "none" else draws, len(cells)))
    for regime, family in measured.items():
        positions = np.flatnonzero((cells["regime"] == regime).to_numpy(bool))
        if len(drawn) and len(positions):
            curve, point = (cells[name].to_numpy(np.intp)[positions] for name in ("curve", "point"))
            drawn[:, positions] = family.belief.draws[:, curve, point]
    return CellDraws(
        cells=cells, lost=_lost(trials, every), draws=drawn, families=measured, source=source,
        chance=chance_error(trials.metric), error_unit=ErrorUnit.of(trials.metric),
        explanation=_explanation(source, cells, trials.trunks), confidence=confidence or CLEAR,
    )  # fmt: skip


def study_draws(study: StudyFrames) -> CellDraws:
    """Return the cells of a study's finished trials with the draws of all of its grid."""
    return cell_draws(study.trials, study.grid, confidence=study.confidence)


def _lost(trials: Trials, every: Mapping[str, Family]) -> pd.DataFrame:
    cells = trials.lost[["trial", *CELL]].drop_duplicates([*CELL])
    texts = {one: family.lost.get(at) for family in every.values() for one, at in family.place_of.items()}
    return cells.assign(lost=cells["trial"].map(texts)).dropna(subset="lost")


def _cells(runs_of: pd.DataFrame, measured: Mapping[str, Family]) -> pd.DataFrame:
    position = group_numbers(runs_of, CELL)
    first, runs = np.unique(position, return_index=True, return_counts=True)[1:]
    one = runs_of[["trial", *CELL, "family"]].iloc[first].reset_index(drop=True)
    means = runs_of[["error", "images", "reading_error", *_MEANS]].groupby(position).mean()
    places = [measured[row["regime"]].place_of[row["trial"]] for row in records(one)]
    cells = pd.concat([one, means], axis=1).assign(
        lost="", runs=runs, curve=[curve for curve, _ in places], point=[point for _, point in places]
    )
    names = [*CELL, "family", "error", "runs", "images", "reading_error", "lost", *_MEANS, "curve", "point"]
    return cells[names]


def _explanation(source: NoiseSource, cells: pd.DataFrame, trunks: pd.DataFrame) -> str:
    """Return the source of the intervals in one sentence."""
    if source == "runs":
        # States of the same trunks tell little more of the noise than their cooled runs.
        seeds = max(int((cells["runs"] - 1).sum()), len(trunks) - len(trunks[[*CELL]].drop_duplicates()))
        single = int((cells["runs"] == 1).sum())
        borrowed = f"; {single} of {len(cells)} cells have one run" if single else ""
        return (
            f"{format_share(COVERAGE)} intervals from the joint law of all runs: the noise between seeds, "
            f"{plural(seeds, 'degree')} of freedom, and what the law misses{borrowed}"
        )
    if source == "laws":
        return (
            f"one run per cell: {format_share(COVERAGE)} intervals from how far the runs miss the joint law "
            "of all"
        )
    return "no intervals: there is one run per cell, and too few cells to show its noise"
