"""The joint law of a table: one surface for all curves, and what each curve has of its own.

The error of a configuration after D samples, at F forward FLOPs a sample, is

    error = E + (c − E)·q/(1 + q)      c the error of chance; error = E + q without one
    ln q  = γ·ln(a·F^−α + b·D'^−β) + drift(ln D') + late(ln epochs) + level + slope·ln D' + wander(ln x)

* The surface a·F^−α + b·D^−β is that of Hoffmann et al. (2022, eq. 2). D' are effective samples (Muennighoff
  et al. 2023, eq. 5): samples that are seen again are worth less.
* ``drift``, which all curves share, and ``wander`` of one curve along its compute x are random walks: what
  the surface misses, more the further it is read from the runs. The slope of the drift walks too: it *bends*,
  so that a fall that grows steeper goes on. ``late`` bends at some numbers of epochs, since many repeats can
  make a model worse.
* ``level`` and ``slope`` are sums of effects of the architecture, the strategy, the quality and the curve
  itself. Each curve also has its own deviation of E, and each of its points a miss.
* A trunk's state has ln q' = (1 + tilt)·(ln q + offset), and its own miss beside that of its cooled run. The
  offset walks in ln D and has effects, as the level does.

All of these but the surface are partially pooled: normal, with deviations that are estimated from the table,
so that curves with few runs take after the others.

E lies on a grid, with and without the bound c. At each of its points, a *component*, all else is found by
Gauss-Newton steps and is normal around their end (Laplace's approximation). The deviations are those of the
largest evidence (MacKay 1992), with a prior. Components are weighted by their evidence, which is tempered.
"""

from dataclasses import dataclass

import numpy as np

from analysis.arrays import Floats, Indices
from analysis.belief.space import KINDS, SURFACE, Axes, ErrorLink, Estimates, Space, onward

VERSION = 2
"""Changes with the draws that the same runs give."""
FLOORS = (0.0, 0.3, 0.55, 0.75, 0.88)
"""E as shares of the lowest error; the prior weight falls as the rest, 1 − share."""
TEMPER = 0.3
"""Power of the evidence: all components are wrong in some way, so it overstates how they differ."""
# Prior of the surface: deviations of ln a, ln α, ln b, ln β, ln γ and ln R*, and the means of α, β and R*. A
# slope ∂ln q/∂ln D of 2.5, as accuracy has late in training, lies 1.7 deviations from the mean.
_SPREAD = np.array([2.0, 0.8, 2.0, 0.8, 0.7, 1.0])
_ALPHA, _BETA, _EPOCHS = np.log(0.35), np.log(0.4), np.log(30.0)
_NO_SIZE = -4.0, 1.0  # of ln a beside the error's middle, mean and deviation, if all models cost the same
# Usual deviations of level, slope, wander and deviation of E of a curve, miss of a point; drift, bend, late,
# level and slope of a shared effect. E and misses are in units of the error, the others of ln q. Without
# bends, 90 % intervals of tenfold forecasts of CLIP from 128M samples held 26 % of the errors; with, 69 %.
_OF_COOLED = 0.25, 0.06, 0.05, 0.03, 0.004, 0.05, 0.05, 0.15, 0.3, 0.06
# Those of the map: tilt and offset, which are not estimated; walk, shared effect, offset of a curve and miss.
_SCALES = np.array([*_OF_COOLED, 0.07, 0.3, 0.1, 0.07, 0.05, 0.004])
_WANDER, _DRIFT, _MAP = KINDS
_WALKS, _CALM = (_WANDER, _DRIFT, _DRIFT + 1, _MAP + 2), 0.35  # curves of losses are as much smoother
# How far a table's deviations are from the usual: standard deviation of the logarithm. With 1.0, few runs set
# them: 90 % intervals of forecasts of public tables held .81 of the errors, with 0.7 .88. With 0.5, half of
# what the forecasts missed was bias.
_LOG_SPREAD = 0.7
# Degrees of freedom of the t distribution of what curves share: the true posterior has heavier tails than its
# normal approximation. Designs on the embedded study's grid, in 16 orders of its seeds, reached the verdicts
# of the whole grid in all with 3, in 13 with 4 and in 9 with 6.
_FREEDOM = 3.0
# Of the search: rounds, the limits of a step in the surface's logarithms and in ln q, and the gain in
# ln evidence that ends it.
_ROUNDS, _STEP, _FARTHEST, _CONVERGED = 30, 0.7, 2.0, 0.2
_NEWTON = 6  # steps for the best deviations
_NEGLIGIBLE = 1e-3  # weight beside the best at which components further out are left out
_LEAST_ABOVE = 1e-3  # of errors above E and below chance, for a start


@dataclass(frozen=True, kw_only=True, slots=True)
class _Point:
    """A point of a search.

    Attributes:
        common: Surface, drift, bends, late and shared effects, shape (parameters,).
        own: Level, slope, wander, deviation of E and misses of points, shape (curves, parameters).
        scales: Prior deviations of each kind of parameter, as ``_SCALES``.
    """

    common: Floats
    own: Floats
    scales: Floats


class _Table:
    """The runs of a table, and where the parameters act on them."""

    def __init__(self, space: Space, axes: Axes, estimates: Estimates, *, bounded: bool) -> None:
        self.space, self.axes, self.estimates = space, axes, estimates
        calm = np.where(np.isin(range(len(_SCALES)), _WALKS) & (not bounded), _CALM, 1.0)
        self.usual = (_SCALES * calm)[: None if space.trunks else _MAP]
        self.estimated = ~np.isin(range(len(self.usual)), (_MAP, _MAP + 1))
        self.curves, points = estimates.error.shape
        self.kind_own, self.kind_common = space.kinds(points)
        self.misses = np.broadcast_to(space.misses(points), (self.curves, points, points))
        self.walks = len(self.kind_own) - points - 1  # own parameters that act on ln q
        # Curves and points without runs say nothing of the deviations.
        self.counted = np.tile(np.any(estimates.seen, axis=1, keepdims=True), len(self.kind_own))
        self.counted[:, -points:] = estimates.seen @ space.misses(points) > 0
        self._fixed = None if space.repeated else self._acting(axes.samples - space.samples)

    def acting(self, surface: Floats) -> tuple[Floats, Floats, Floats]:
        """Return ln effective samples, and where common and own parameters act on ln q."""
        return self._fixed or self._acting(self.space.effective(surface, self.axes))

    def _acting(self, samples: Floats) -> tuple[Floats, Floats, Floats]:
        common = self.space.common(self.axes, samples, np.arange(self.curves))
        return samples, common, self.space.own(self.axes, samples)

    def prior(self, link: ErrorLink) -> tuple[Floats, Floats]:
        """Return mean and deviation of the surface's parameters."""
        error = self.estimates.error[self.estimates.seen]
        above = np.maximum(error - link.floor, _LEAST_ABOVE)
        below = 1.0 if np.isnan(link.chance) else np.maximum(link.chance - error, _LEAST_ABOVE)
        middle = float(np.median(np.log(above / below))) if len(error) else 0.0
        half = middle - np.log(2)
        mean, spread = np.array([half, _ALPHA, half, _BETA, 0.0, _EPOCHS]), _SPREAD.copy()
        if not self.space.sized:
            mean[0], spread[0] = middle + _NO_SIZE[0], _NO_SIZE[1]
        return mean, spread

    def mode(self, link: ErrorLink, near: "_Component | None") -> "_Component":
        """Search for the mode of a component, from that of another one."""
        mean, spread = self.prior(link)
        if near is None:
            common, per_curve = np.zeros(len(self.kind_common)), np.zeros((self.curves, len(self.kind_own)))
            point = _Point(common=np.concatenate([mean, common]), own=per_curve, scales=self.usual)
        else:
            common = near.common.copy()
            common[[0, 2]] += (mean - near.mean)[[0, 2]]
            point = _Point(common=common, own=near.own, scales=near.point.scales)
        component = _Component(self, link, mean, spread, point)
        for _ in range(_ROUNDS):
            before = component.evidence
            component = _Component(self, link, mean, spread, component.next())
            if abs(component.evidence - before) < _CONVERGED:
                break
        return component


class _Component:
    """The law with one link, linear around a point: all parameters are normal given the estimates.

    With the common parameters x (relative to their prior mean) and the own parameters l of a curve, its
    estimates are G·x + L·l + noise. Given x, curves are independent: with V the prior covariance of l, the
    estimates have the covariance W = L·V·Lᵀ + that of the noise.

    Attributes:
        mean: Prior mean of the surface.
        point: The point.
        common: Posterior mean of the common parameters, shape (parameters,).
        own: That of the own parameters, shape (curves, parameters).
        evidence: ln evidence, with the prior of the deviations.
        pull: The inverse of the covariance of all estimates times what they miss the law by, shape (curves,
            points).
    """

    def __init__(self, table: _Table, link: ErrorLink, mean: Floats, spread: Floats, point: _Point) -> None:
        space, estimates, walks = table.space, table.estimates, table.walks
        self.table, self.link, self.mean, self.point = table, link, mean, point
        surface = point.common[:SURFACE]
        samples, by_common, by_own = table.acting(surface)
        log_q = (space.law(surface, table.axes, samples) + by_common @ point.common[SURFACE:]
                 + (by_own @ point.own[:, :walks, None])[..., 0])  # fmt: skip
        floor = point.own[:, walks, None]
        by_common = np.concatenate([space.slopes(surface, table.axes, samples), by_common], axis=-1)
        log_q, *self._acts = space.tilted(table.axes, point.common[SURFACE], log_q, by_common, by_own)
        by_q, by_floor = link.slopes(log_q, floor)
        seen = estimates.seen[..., None]
        # G and L of the class, shape (curves, points, parameters); 0 at points without runs.
        self._g = by_q[..., None] * seen * self._acts[0]
        by_own = by_q[..., None] * self._acts[1]
        self._l = seen * np.concatenate([by_own, by_floor[..., None], table.misses], axis=-1)
        # The estimates minus what the linear law has where x and l are 0.
        offset = point.common.copy()
        offset[:SURFACE] -= mean
        aim = np.where(estimates.seen, estimates.error - link.error(log_q, floor), 0.0)
        aim += self._g @ offset + (self._l[..., : walks + 1] @ point.own[:, : walks + 1, None])[..., 0]
        self._of_own = point.scales[table.kind_own] ** 2
        of_common = np.concatenate([spread, point.scales[table.kind_common]]) ** 2
        across = self._l.transpose(0, 2, 1)
        self._inverse = np.linalg.inv((self._l * self._of_own) @ across + estimates.covariance)  # W⁻¹
        self._weighted = self._inverse @ self._g
        flat = self._weighted.reshape(-1, len(offset))
        # In units of the prior deviations the precision is 1 and more, so that its root always exists.
        prior = np.sqrt(of_common)
        gained = prior[:, None] * (self._g.reshape(flat.shape).T @ flat) * prior
        precision = np.eye(len(prior)) + (gained + gained.T) / 2
        self._root = prior[:, None] * np.linalg.inv(np.linalg.cholesky(precision)).T
        right = aim.ravel() @ flat
        moved = self._root @ (self._root.T @ right)
        alone = (self._inverse @ aim[..., None])[..., 0]
        self.common = moved.copy()
        self.common[:SURFACE] += mean
        self.pull = alone - self._weighted @ moved
        self.own = self._of_own * (self.pull[:, None] @ self._l)[:, 0]
        explained = (aim * alone).sum() - right @ moved
        determinants = np.linalg.slogdet(precision)[1] - np.linalg.slogdet(self._inverse)[1].sum()
        usual = (np.log(point.scales / table.usual) / _LOG_SPREAD) ** 2
        self.evidence = float(-0.5 * (explained + determinants + usual.sum()))

    def next(self) -> _Point:
        """Return the next point of the search: a step towards the solution, and better deviations."""
        common, per_curve = self.common - self.point.common, self.own - self.point.own
        common[:SURFACE] = np.clip(common[:SURFACE], -_STEP, _STEP)
        # Beyond a few units of ln q the law is far from linear.
        moved = self._acts[0] @ common + (self._acts[1] @ per_curve[:, : self.table.walks, None])[..., 0]
        most = float(np.abs(moved[self.table.estimates.seen]).max(initial=_FARTHEST))
        share = _FARTHEST / most
        return _Point(
            common=self.point.common + share * common, own=self.point.own + share * per_curve,
            scales=self._better_scales(),
        )  # fmt: skip

    def _better_scales(self) -> Floats:
        """Return the deviations s by the update of MacKay (1992, Bayesian interpolation), with a prior.

        Of each kind, γ parameters are determined by the data: Σ(1 − posterior variance/s²). With γ and the
        posterior means m kept, −γ·ln s − Σm²/(2s²) plus the ln prior is greatest.
        """
        table, scales = self.table, self.point.scales
        across = self._l.transpose(0, 2, 1)
        explained = ((across @ self._inverse) * across).sum(axis=-1)
        through = (across @ self._weighted).reshape(-1, len(self._root)) @ self._root
        per_curve = self._of_own * (explained - (through**2).sum(axis=-1).reshape(explained.shape))
        spread = (self._root[SURFACE:] ** 2).sum(axis=1)
        common = 1.0 - spread / scales[table.kind_common] ** 2

        def of_kinds(per_curve: Floats, common: Floats) -> Floats:
            kinds = np.concatenate([table.kind_own, table.kind_common])
            weights = np.concatenate([(per_curve * table.counted).sum(axis=0), common])
            return np.bincount(kinds, weights=weights, minlength=len(table.usual)).astype(np.float64)

        determined = of_kinds(per_curve, common)
        squares = of_kinds(self.own**2, self.common[SURFACE:] ** 2) / table.usual**2
        begun = moved = np.log(scales / table.usual)
        for _ in range(_NEWTON):
            ratio = squares * np.exp(-2 * moved)
            slope, bend = ratio - determined - moved / _LOG_SPREAD**2, 2 * ratio + 1 / _LOG_SPREAD**2
            moved = moved + np.clip(slope / bend, -1.0, 1.0)
        return np.asarray(scales * np.exp(table.estimated * np.clip(moved - begun, -_STEP, _STEP)))

    @property
    def precision(self) -> Floats:
        """Blocks of the inverse of the covariance of all estimates, shape (curves, points, points)."""
        through = self._weighted @ self._root
        return np.asarray(self._inverse - through @ through.transpose(0, 2, 1))

    def draw(self, count: int, generator: np.random.Generator, weight: float) -> "Drawn":
        """Return draws, in which the own parameters of a curve are stretched by √(ν/χ²ν).

        ν are the degrees of freedom of its noise.
        """
        table = self.table
        moved = self._root @ generator.standard_normal((len(self.common), count))
        moved *= np.sqrt(_FREEDOM / generator.chisquare(_FREEDOM, size=count))
        # Given the common parameters, own ones have the precision V⁻¹ + Lᵀ·(covariance of the noise)⁻¹·L.
        deviation = np.sqrt(self._of_own)
        scaled = self._l * deviation
        gained = scaled.transpose(0, 2, 1) @ np.linalg.solve(table.estimates.covariance, scaled)
        precision = np.eye(len(deviation)) + (gained + gained.transpose(0, 2, 1)) / 2
        root = deviation[:, None] * np.linalg.inv(np.linalg.cholesky(precision)).transpose(0, 2, 1)
        per_curve = root @ generator.standard_normal((table.curves, len(deviation), count))
        known = np.isinf(table.estimates.freedom)
        freedom = np.where(known, 1.0, table.estimates.freedom)
        if not known.all():
            stretch = np.sqrt(freedom / generator.chisquare(freedom, size=(table.curves, count)))
            per_curve *= np.where(known, 1.0, stretch)[:, None]
        follow = self._of_own[:, None] * (self._l.transpose(0, 2, 1) @ self._weighted)
        per_curve += self.own[..., None] - (follow.reshape(-1, len(moved)) @ moved).reshape(per_curve.shape)
        per_curve[:, -len(table.misses[0]) :] = table.misses @ per_curve[:, -len(table.misses[0]) :]
        around = self.point.common
        return Drawn(
            link=self.link, weight=weight, scales=self.point.scales, around=around,
            common=self.common[:, None] + moved - around[:, None], own=per_curve,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """Draws of one component.

    Attributes:
        link: Its link.
        weight: Its weight.
        scales: Prior deviations of each kind of parameter.
        around: The mode's surface, drift, bends, late and shared effects, shape (parameters,).
        common: Deviations from these, shape (parameters, draws).
        own: Level, slope, wander, deviation of E and misses, shape (curves, parameters, draws).
    """

    link: ErrorLink
    weight: float
    scales: Floats
    around: Floats
    common: Floats
    own: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class JointLaw:
    """Draws of the joint law of a table, component by component."""

    space: Space
    parts: tuple[Drawn, ...]

    def errors(self, axes: Axes, curves: Indices, points: Indices | None = None) -> Floats:
        """Return draws of the true errors, shape (draws, curves, points).

        ln q is linear in the parameters around each mode.

        Args:
            axes: Where to read the curves.
            curves: Their numbers, shape (curves,).
            points: The number of the point of the estimates that each is, whose miss is its own, −1 if none;
                shape (curves, points). None if none is.
        """
        space, drawn = self.space, []
        for number, part in enumerate(self.parts):
            surface, per_curve = part.around[:SURFACE], part.own[curves]
            samples = space.effective(surface, axes)
            by_common, by_own = space.common(axes, samples, curves), space.own(axes, samples)
            walks = by_own.shape[-1]
            middle = space.law(surface, axes, samples) + by_common @ part.around[SURFACE:]
            slopes = np.concatenate([space.slopes(surface, axes, samples), by_common], axis=-1)
            log_q = (slopes.reshape(-1, slopes.shape[-1]) @ part.common).reshape(*middle.shape, -1)
            log_q += middle[..., None]
            log_q += by_own @ per_curve[:, :walks]
            if space.trunks:
                log_q *= 1 + np.multiply.outer(axes.trunk, part.around[SURFACE] + part.common[SURFACE])
            self._extrapolate(log_q, number, axes, samples, curves)
            error = part.link.error(log_q, per_curve[:, walks, None])
            if points is not None:
                miss = per_curve[np.arange(len(per_curve))[:, None], walks + 1 + np.maximum(points, 0)]
                error += np.where(points[..., None] >= 0, miss, 0.0)
            drawn.append(error)
        return np.concatenate(drawn, axis=-1).transpose(2, 0, 1)

    def _extrapolate(self, log_q: Floats, number: int, axes: Axes, samples: Floats, curves: Indices) -> None:
        """Add to ln q, shape (curves, points, draws), what drift and wander do beyond their knots.

        Nothing was measured there: the steps have the prior's deviations, and are the same in each reading.
        """
        part = self.parts[number]
        drift = part.scales[_DRIFT] * onward(samples, self.space.drift)
        wander = part.scales[_WANDER] * onward(axes.along, self.space.wander)
        for step in np.flatnonzero(drift.any(axis=(0, 1)) | wander.any(axis=(0, 1))):
            generator = np.random.default_rng([number, int(step)])
            log_q += drift[..., step, None] * generator.standard_normal(log_q.shape[-1])
            increments = generator.standard_normal((len(part.own), log_q.shape[-1]))
            log_q += wander[..., step, None] * increments[curves, None]


@dataclass(frozen=True, kw_only=True, slots=True)
class JointFit:
    """The modes of the joint law of a table, with their weights."""

    components: tuple[_Component, ...]
    weight: Floats

    @property
    def likely(self) -> _Component:
        """The component of the highest evidence."""
        return max(self.components, key=lambda component: component.evidence)

    def draw(self, draws: int, generator: np.random.Generator) -> JointLaw:
        """Return so many draws of the law."""
        counts = generator.multinomial(draws, self.weight).tolist()
        components = zip(self.components, counts, self.weight.tolist(), strict=True)
        parts = tuple(one.draw(count, generator, weight) for one, count, weight in components if count)
        return JointLaw(space=self.components[0].table.space, parts=parts)


def fit_joint_law(axes: Axes, estimates: Estimates, shared: Floats, *, chance: float) -> JointFit:
    """Fit the joint law of a table.

    Args:
        axes: The points of the curves.
        estimates: What the runs say of their errors, in units of a typical one if they are losses.
        shared: Effects that curves share, shape (curves, effects).
        chance: Error of chance; NaN if unknown or unbounded, as of losses.
    """
    seen = estimates.seen
    lowest = float(estimates.error[seen].min()) if seen.any() else 0.5
    space = Space.of(axes, seen if seen.any() else ~seen, shared)
    table = _Table(space, axes, estimates, bounded=bool(np.isfinite(chance)))
    components: dict[tuple[bool, int], _Component] = {}
    middle, best = len(FLOORS) // 2, -np.inf
    # From the middle outwards, each from its neighbour's mode. Beyond a negligible one, all are negligible.
    for place in sorted(range(len(FLOORS)), key=lambda place: abs(place - middle)):
        for bounded in (True, False) if np.isfinite(chance) else (False,):
            inner = place + int(np.sign(middle - place))
            near = components.get((not bounded, place) if place == middle else (bounded, inner))
            if place != middle and (near is None or TEMPER * (near.evidence - best) < np.log(_NEGLIGIBLE)):
                continue
            link = ErrorLink(chance=chance if bounded else float("nan"), floor=FLOORS[place] * lowest)
            components[bounded, place] = table.mode(link, near)
            best = max(best, components[bounded, place].evidence)
    evidence = np.array([component.evidence for component in components.values()])
    weight = np.array([1 - FLOORS[place] for _, place in components]) * np.exp(TEMPER * (evidence - best))
    return JointFit(components=tuple(components.values()), weight=weight / weight.sum())
