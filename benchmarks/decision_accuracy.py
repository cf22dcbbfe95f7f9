"""Decision accuracy: how well a share of a grid's FLOPs orders its configurations, by ways to spend it.

The measure is that of DataDecide (Magnusson et al. 2025, arXiv 2504.11393): the share of pairs of
configurations that are in the order of a reference, here the full grid or the truth, at the highest level.
The regret is the reference's error of the configuration that comes first, minus the lowest. The ways are:

* ``design``: trials in the order in which a design chose them, read by the belief.
* ``random``: cooled runs in a random order, with the states on their way, read by the belief.
* ``one level``: DataDecide's baseline: all configurations at the highest level that the share affords, with
  as many seeds as it affords, ranked by the means of their cooled runs.
* ``halving``: successive halving (Jamieson & Talwalkar 2016) with the levels as rungs: a third of a rung goes
  on to the next, the best first, with a single seed; what is left of the share repeats that with more seeds,
  then with two thirds and with all. Who came further ranks first. Where trunks are evaluated, rungs are
  their milestones, and none is cooled down.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np
import pandas as pd

from analysis.arrays import Floats, Mask
from analysis.belief.family import Family, families
from analysis.cells.table import Trials, cooled, of_trunks, tidy
from analysis.design.prices import Prices

SHARES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
_KEPT = (1 / 3, 2 / 3, 1.0)
_DRAWS = 500


def part_of(trials: Trials, names: Sequence[str]) -> Trials:
    """Return those of some trials that have a name."""
    frame, trunks = (
        one[one["trial"].isin(names)].reset_index(drop=True) for one in (trials.frame, trials.trunks)
    )
    return replace(trials, frame=frame, trunks=trunks)


@dataclass(frozen=True, kw_only=True)
class KnownGrid:
    """A grid of fixed compute all of whose results are known.

    Attributes:
        results: Its results, with the columns of a plan.
        metric: The metric.
    """

    results: pd.DataFrame
    metric: str

    @cached_property
    def trials(self) -> Trials:
        """All trials."""
        return tidy(self.results, metric=self.metric)

    @cached_property
    def prices(self) -> Prices:
        """The costs of all trials."""
        return Prices.of(self.results)

    @cached_property
    def flops(self) -> float:
        """Training FLOPs of all cooled runs, trained apart."""
        return float(self.results["train_flops"][~of_trunks(self.results)].sum())

    def belief(self, seen: Mask) -> tuple[Floats, Family]:
        """Return the mean of each configuration's error at the highest level, read from some trials."""
        part = part_of(self.trials, self.results["trial"][seen].tolist())
        (family,) = families(part, self.results, draws=_DRAWS).values()
        return family.at(float(self.results["level_flops"].max()))[0].mean(axis=0), family

    @cached_property
    def full(self) -> tuple[Floats, Family]:
        """What all trials say, see ``belief``; infinite for one that does not run at the level."""
        return self.belief(np.ones(len(self.results), dtype=bool))

    @cached_property
    def _rows(self) -> pd.DataFrame:
        known = self.trials.every.set_index("trial")["error"]
        curve = [self.full[1].place_of[trial][0] for trial in self.results["trial"]]
        return self.results.assign(
            curve=curve, error=known.reindex(self.results["trial"]).to_numpy(), row=np.arange(len(curve))
        )

    def bought(self, order: Sequence[int], share: float) -> Mask:
        """Return the trials of an order, with those that they continue from, until a share is spent."""
        seen, left = np.zeros(len(self.results), dtype=bool), share * self.flops
        for row in order:
            needed = [] if seen[row] else self.prices.brought(row, seen)
            left -= float(self.prices.paid[needed].sum())
            if left < 0:
                break
            seen[needed] = True
        return seen

    def one_level(self, share: float) -> Floats:
        """Return each configuration's rank by the baseline ``one level``; zeros where it affords nothing."""
        rows, count = cooled(self._rows), len(self.full[0])
        levels = sorted(rows["level_flops"].unique(), reverse=True)
        for level, seeds in product(levels, range(int(rows["seed"].max()) + 1, 0, -1)):
            some = rows[(rows["level_flops"] == level) & (rows["seed"] < seeds)]
            if self.bought(some["row"].tolist(), share)[some["row"]].all():
                means = some.groupby("curve")["error"].mean()
                return np.asarray(means.reindex(range(count), fill_value=np.inf), dtype=np.float64)
        return np.zeros(count)

    @cached_property
    def _halving(self) -> tuple[list[int], pd.DataFrame]:
        states = of_trunks(self._rows)
        rungs = self._rows[states | ~states.any()]
        order: list[int] = []
        for fraction, seeds in product(_KEPT, range(1, int(rungs["seed"].max()) + 2)):
            alive = rungs["curve"].unique()
            for level in sorted(rungs["level_flops"].unique()):
                rung = rungs[(rungs["level_flops"] == level) & (rungs["seed"] < seeds)].set_index("curve")
                rung = rung.loc[[curve for curve in alive if curve in rung.index]]
                order += rung.sort_values("seed", kind="stable")["row"].tolist()
                errors = rung.groupby("curve")["error"].mean().sort_values()
                alive = errors.index[: int(np.ceil(fraction * len(errors)))]
        return list(dict.fromkeys(order)), rungs

    def halving(self, share: float) -> Floats:
        """Return each configuration's rank by successive halving."""
        order, rungs = self._halving
        seen = rungs[self.bought(order, share)[rungs["row"]]]
        means = seen.groupby(["curve", "level_flops"])["error"].mean().reset_index()
        best = means.sort_values(["level_flops", "error"], ascending=[False, True])["curve"].unique()
        ranks = pd.Series(np.arange(len(best)), best)
        return ranks.reindex(range(len(self.full[0])), fill_value=len(best)).to_numpy(np.float64)

    def ranks(self, chosen: Sequence[str], generator: np.random.Generator) -> dict[str, list[Floats]]:
        """Return by each way each configuration's rank at each of ``SHARES``, lower for better ones.

        ``chosen`` are the trials that a design chose, in its order.
        """
        place = {trial: row for row, trial in enumerate(self.results["trial"])}
        orders = {
            "design": [place[trial] for trial in chosen],
            "random": generator.permutation(np.flatnonzero(~of_trunks(self.results))).tolist(),
        }
        by_way = {
            way: [self.belief(self.bought(order, share))[0] for share in SHARES]
            for way, order in orders.items()
        }
        return by_way | {
            "one level": [self.one_level(share) for share in SHARES],
            "halving": [self.halving(share) for share in SHARES],
        }


def score(ranks: Floats, reference: Floats) -> tuple[float, float]:
    """Return the share of pairs that are ordered as in a reference, and the regret of the first.

    Pairs of equal rank count half, and of several first ones the regret is the mean. Configurations that the
    reference does not know, infinite there, do not take part.
    """
    known = np.isfinite(reference)
    ranks, reference = ranks[known], reference[known]
    one, other = np.triu_indices(len(ranks), 1)
    right = 0.5 + 0.5 * np.sign(ranks[one] - ranks[other]) * np.sign(reference[one] - reference[other])
    first = ranks == ranks.min()
    return float(right.mean()), float(reference[first].mean() - reference.min())


def share_for(curve: Sequence[float], target: float) -> float:
    """Return the first of ``SHARES`` from which on a curve stays at or above a target; infinite if none."""
    below = [place for place, value in enumerate(curve) if value < target]
    place = below[-1] + 1 if below else 0
    return SHARES[place] if place < len(SHARES) else float("inf")
