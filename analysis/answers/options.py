"""All configurations of a study, read at a compute and a data budget.

They are read from the joint draws of their regime (``analysis.belief.family``): at their own cells there, and
by the joint law elsewhere, within the data and beyond. A configuration whose pairs the pool lacks is read at
the largest size that the pool holds: between its own sizes, or else by the law, which knows from the sizes
that others were run with what fewer pairs cost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil
from typing import Any

import numpy as np
import pandas as pd

from analysis.arrays import Floats, Indices
from analysis.belief.cell_draws import CellDraws, stream
from analysis.belief.curves import straight_lines
from analysis.belief.family import Family
from analysis.belief.verdict import ranked, shares
from analysis.cells.pareto import SAME_COST
from analysis.cells.table import CONFIGURATION, records
from analysis.labels import configuration_text, quality_fraction
from budgets.cost.serving import Served
from budgets.quantity import format_flops

_SAME_SIZE = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What is asked of a study.

    Attributes:
        flops: Training FLOPs of one trial, with those of serving over its life.
        pairs: Pairs in the pool before filtering; the top 20 % are a fifth of them.
        limit: Largest factor of extrapolation beyond the measured compute of a regime.
        serving: What architectures cost when they serve, by name; nothing of those without an entry.
    """

    flops: float
    pairs: float
    limit: float
    serving: Mapping[str, Served] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Configurations with draws of their errors, the most probable leader first.

    Attributes:
        rows: One per configuration: the columns of ``Recommendation.candidates`` without those of the
            verdict, and ``lost`` (how many runs it lost there, in words). Those that lost runs come last.
        draws: Draws of their errors, shape (draws, configurations); none if the noise is unknown.
        middle: Median of the draws, or the measured error if the noise is unknown, shape (configurations,).
        chance: Probability of being the best among those that lost no runs, shape (configurations,).
        left_out: Configurations that take no part: ``curve``, ``reason``.
        too_large: Rows of configurations that need a larger pool, with ``error``.
    """

    rows: Sequence[Mapping[str, Any]]
    draws: Floats
    middle: Floats
    chance: Floats
    left_out: Sequence[Mapping[str, str]]
    too_large: Sequence[Mapping[str, Any]]

    @property
    def empty(self) -> bool:
        """True if no configuration can be ranked."""
        return all(row["lost"] for row in self.rows)


def kept_fraction(quality: str) -> Fraction:
    """Return the share of its pool that a quality keeps."""
    return Fraction(str(min(quality_fraction(quality), 1.0)))


def smallest_pool(subset_size: float, quality: str) -> int:
    """Return the pairs of the smallest pool that has a subset of a size and quality."""
    # A pool of P pairs has a subset of s = ⌈share·P⌉; the smallest such P is ⌊(s − 1)/share⌋ + 1, in exact
    # arithmetic: as floats 7/0.07 is below 100.
    return int((int(subset_size) - 1) // kept_fraction(quality)) + 1


def read_options(draws: CellDraws, asked: Asked) -> Options:
    """Read all configurations of a study."""
    read = _Read()
    for family in draws.families.values():
        _read(read, draws, family, asked)
    values = np.stack(read.errors, axis=1) if read.errors else np.empty((1, 0))
    middle = np.median(values, axis=0)
    gone = np.array([bool(row["lost"]) for row in read.rows], dtype=bool)
    chance = shares(np.where(gone, np.inf, values)) if not gone.all() else np.zeros(len(gone))
    if draws.known:
        order = ranked(chance, np.where(gone, np.inf, middle))
    else:  # without noise the measured errors are all that is known
        measured = np.array([row["mean"] for row in read.rows], dtype=np.float64)
        middle = np.where(np.isnan(measured), middle, measured)
        order, values = np.argsort(np.where(gone, np.inf, middle), kind="stable"), np.empty((0, len(middle)))
    return Options(
        rows=[read.rows[place] for place in order], draws=values[:, order], middle=middle[order],
        chance=chance[order], left_out=read.left_out, too_large=read.too_large,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class _Read:
    """What was read so far."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    errors: list[Floats] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)
    too_large: list[dict[str, Any]] = field(default_factory=list)


def _read(options: _Read, draws: CellDraws, family: Family, asked: Asked) -> None:
    """Add the configurations of a regime."""
    one_epoch, pairs = family.regime == "one-epoch", np.ceil(asked.pairs)
    cells = draws.cells[(draws.cells["regime"] == family.regime).to_numpy(bool)]
    if cells.empty:
        return
    quality, sizes = family.configurations["quality"], family.configurations["subset_size"]
    budget = _training_budget(family, asked)
    usable = budget
    if one_epoch:  # the pairs limit the compute
        fraction = np.array([float(kept_fraction(name)) for name in quality])
        usable = np.minimum(usable, asked.pairs * fraction * family.measured.curves.per_sample)
    fits = np.array(list(map(smallest_pool, sizes, quality))) <= (np.inf if one_epoch else pairs)
    # In one epoch the pool says how far a curve goes, not the grid.
    values, place = family.at(usable, beyond=one_epoch or bool(budget.max() > family.limit.max() * SAME_COST))
    if not np.isfinite(values[:, fits]).all(axis=0).any():  # what the grid leaves out is better than nothing
        values, place = family.at(usable, beyond=True)
    rows = _rows(family, cells, place, usable, budget)
    # Regimes are independent, so their draws are paired at random.
    mix = stream(f"pair/{family.regime}").permutation(len(values)) if options.rows else np.arange(len(values))
    whole = dict[tuple[str, ...], list[int]]()
    for curve, row in enumerate(rows):
        served = asked.serving.get(row["architecture"], Served())
        row["serving_flops"] = served.flops
        reason = _undeployable(served, asked) or _unreadable(row, values[:, curve], asked.limit)
        if not reason and fits[curve]:
            options.rows.append(row)
            options.errors.append(values[mix, curve])
        if not reason and not row["lost"]:
            whole.setdefault(tuple(row[name] for name in CONFIGURATION[1:]), []).append(curve)
            if fits[curve]:
                continue
            reason = f"needs a pool of {row['pool']:,} pairs"
            options.too_large.append(row | {"error": float(np.median(values[:, curve]))})
        options.left_out.append({"curve": configuration_text(row), "reason": reason or row["lost"]})
    fewer = [_fewer(family, rows, values, curves, pairs) for curves in whole.values() if not one_epoch]
    smallest, most = cells["subset_size"].min(), max(1.0, cells["epochs"].max()) * SAME_COST
    # Below all sizes, the runs say what repeats cost as far as they repeated pairs.
    known = any(one is not None and one[0]["epochs"] <= most for one in fewer)
    for one in fewer:
        if one is not None and (known or one[0]["subset_size"] >= smallest):
            options.rows.append(one[0])
            options.errors.append(one[1][mix])


def _training_budget(family: Family, asked: Asked) -> Floats:
    """Return what serving leaves each configuration for training, shape (curves,).

    It need not be spent beyond what can be read.
    """
    names = family.configurations["architecture"]
    serving = np.array([asked.serving.get(name, Served()).flops for name in names])
    most = asked.limit * float(np.where(family.ran, family.x, 0.0).max()) if serving.any() else np.inf
    return np.asarray(np.maximum(np.minimum(asked.flops - serving, most), 1.0))


def _undeployable(served: Served, asked: Asked) -> str:
    if served.flops >= asked.flops:
        return f"serving alone costs {format_flops(served.flops)}"
    return served.why_not


def _fewer(
    family: Family, rows: Sequence[Mapping[str, Any]], values: Floats, curves: Sequence[int], pairs: float
) -> tuple[dict[str, Any], Floats] | None:
    """Return a configuration read at the largest size that a pool holds; None if that was measured."""
    ordered = sorted(curves, key=lambda curve: float(rows[curve]["subset_size"]))
    allowed = float(ceil(kept_fraction(rows[ordered[0]]["quality"]) * int(pairs)))
    above = int(np.searchsorted([rows[curve]["subset_size"] for curve in ordered], allowed))
    if above == len(ordered) or rows[ordered[above]]["subset_size"] == allowed:
        return None
    around = ordered[max(above - 1, 0) : above + 1]
    first, last = (rows[around[place]] for place in (0, -1))
    sizes = np.array([rows[curve]["subset_size"] for curve in around])
    epochs = last["epochs"] * sizes[-1] / allowed
    if len(around) > 1:
        error = straight_lines(sizes, values[:, around], np.array([allowed]))[:, 0]
        source = f"between {sizes[0]:,.0f} and {sizes[1]:,.0f} pairs"
    else:
        error = family.read(np.array(around), np.array([[first["flops"]]]), np.array([allowed]))[:, 0, 0]
        # If no pair is seen again, it is the run with more pairs.
        source = f"by the law from {sizes[0]:,.0f} pairs" if epochs > 1 else ""
    return {
        **last, "subset_size": allowed, "pool": smallest_pool(allowed, last["quality"]), "measured": False,
        "by_trunk": False, "sizes": source, "mean": np.nan, "epochs": epochs,
        **{name: max(first[name], last[name]) for name in ("noise", "own_epochs")},
        "distance": max(family.distance(last["flops"], np.full(len(rows), allowed))[around]),
    }, error  # fmt: skip


def _rows(
    family: Family, cells: pd.DataFrame, place: Indices, usable: Floats, flops: Floats
) -> list[dict[str, Any]]:
    """Return the curves of a family at their places (-1: none), or at the compute that each can use."""
    curves, x, ran = np.arange(len(place)), family.x, family.ran
    per_sample = family.measured.curves.per_sample
    spent = np.where(place < 0, usable, x[curves, place])
    most = np.where(ran, x, 0.0).max(axis=1)
    measured = cells.set_index(["curve", "point"]).reindex(list(zip(curves, place, strict=True)))
    sizes = family.configurations["subset_size"].to_numpy(np.float64)
    if family.regime == "one-epoch":
        sizes = measured["subset_size"].fillna(pd.Series(spent / per_sample, index=measured.index)).to_numpy()
    costs_vary = cells.groupby("curve")["train_flops_per_sample"].agg(lambda cost: np.ptp(cost) / cost.mean())
    nearest = np.abs(np.log(x / spent[:, None])).argmin(axis=1)
    return records(
        family.configurations.assign(
            regime=family.regime, subset_size=sizes, flops=spent, share=spent / flops,
            sizes="", measured=measured["error"].notna().to_numpy(), by_trunk=family.by_trunk(place),
            mean=measured["error"].to_numpy(np.float64), lost=family.apart(spent, place),
            runs=family.runs(place), distance=family.distance(spent),
            least_flops=x[:, 0], most_flops=most.max(),
            epochs=spent / per_sample / sizes, own_epochs=most / per_sample / sizes,
            most_epochs=float(cells["epochs"].max()), noise=family.belief.noise[curves, nearest] ** 0.5,
            uses_up=(usable < flops / SAME_COST) & (spent > usable / SAME_COST),
            varies=costs_vary.reindex(curves).fillna(0).to_numpy(np.float64) > _SAME_SIZE,
            pool=list(map(smallest_pool, sizes, family.configurations["quality"])),
        )
    )  # fmt: skip


def _unreadable(row: Mapping[str, Any], error: Floats, limit: float) -> str:
    """Return why a configuration cannot be read at a budget; empty if it can be."""
    asked = row["flops"]
    if row["varies"]:
        return "the cost per sample of its architecture varies, so it is not one configuration"
    if asked > limit * row["most_flops"] * SAME_COST:
        return f"measured budgets end more than {limit:g} times from this one"
    if np.isfinite(error).all():
        return ""
    if asked >= row["least_flops"]:
        return "its grid ends before this budget"
    pool = ", one epoch of the pool" if row["share"] < 1 / SAME_COST else ""
    return f"all its budgets are above {format_flops(asked)}{pool}"
