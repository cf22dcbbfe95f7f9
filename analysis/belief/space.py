"""The surface that all curves of a table share, and where each of the law's parameters acts.

Read ``analysis.belief.law`` first: it has the formula.
"""

from dataclasses import dataclass

import numpy as np

from analysis.arrays import Floats, Indices, Mask

SURFACE = 6
"""Parameters of the surface: a, ln α, b, ln β, ln γ, ln of the epochs that repeated samples last."""
KINDS = WANDER, DRIFT, MAP = 2, 5, 10
"""First kinds of a curve's walk, of what curves share, and of the map to states of trunks."""
_SAME = 0.05  # difference of logarithms that counts as none: of model sizes, and of samples and distinct ones
_KNOTS = 16  # steps of the drift over the runs
_BETWEEN = np.log(3.0)  # distance of bends, of the wander's knots, and of all walks' beyond the runs
_AHEAD = 0.5  # share of a step by which the last knot lies beyond the runs
_ONWARD = 6  # further steps of a walk beyond its last knot, and below its first
# Repeats change the slope at 4, 16, 64, … epochs, up to 30 times as many as the runs have: up to 4 are worth
# about as much as new samples (Muennighoff et al. 2023).
_LATE, _LATER = np.log(4.0), np.log(30.0)
_MOST = 40.0  # of |ln q|, so that nothing overflows


@dataclass(frozen=True, kw_only=True, slots=True)
class Axes:
    """Points at which curves are read, as logarithms of shape (curves, points).

    Attributes:
        size: ln forward FLOPs of a sample.
        samples: ln samples seen.
        distinct: ln distinct samples among them.
        along: ln compute over the curve's smallest.
        trunk: 1 at states of trunks, which have not cooled down, 0 at cooled ones.
    """

    size: Floats
    samples: Floats
    distinct: Floats
    along: Floats
    trunk: Floats | float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimates:
    """What the runs say of the errors at their points.

    Attributes:
        error: Estimates, shape (curves, points).
        covariance: Covariance of their noise, shape (curves, points, points).
        seen: Points with runs, shape (curves, points).
        freedom: Degrees of freedom of the noise of each curve, shape (curves, 1); infinite if it is known.
    """

    error: Floats
    covariance: Floats
    seen: Mask
    freedom: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class Space:
    """The parameters that are linear in ln q, and where they act.

    Attributes:
        shared: Effects that curves share, 1 where one acts, shape (curves, effects).
        size: Centre of ln forward FLOPs.
        samples: Centre of ln samples.
        drift: Knots of the drift in ln samples from the centre, ascending.
        bends: Where the drift changes its slope, in ln samples from the centre, ascending.
        late: Where repeats change the slope, in ln epochs, ascending.
        wander: Knots of the wander in ln compute over the smallest, ascending.
        sized: True if models of several sizes are compared.
        repeated: True if samples are seen again.
        trunks: True if some points are states of trunks.
    """

    shared: Floats
    size: float
    samples: float
    drift: Floats
    bends: Floats
    late: Floats
    wander: Floats
    sized: bool
    repeated: bool
    trunks: bool

    @classmethod
    def of(cls, axes: Axes, seen: Mask, shared: Floats) -> "Space":
        """Return the space of a table with runs at the points ``seen``."""
        size, samples = float(axes.size[seen].mean()), float(axes.samples[seen].mean())
        low, high = float(axes.samples[seen].min()), float(axes.samples[seen].max())
        step = max(high - low, _BETWEEN) / (_KNOTS - _AHEAD)
        far = float(np.where(seen, axes.along, 0.0).max())
        steps = max(1, int(np.ceil(far / _BETWEEN)))
        epochs = max(0.0, float((axes.samples - axes.distinct)[seen].max()))
        return cls(
            shared=shared, size=size, samples=samples,
            drift=low - samples + step * np.arange(_KNOTS + 1),
            bends=np.arange(low + _BETWEEN, high, _BETWEEN) - samples,
            late=np.arange(_LATE, epochs + _LATER, _LATE),
            wander=np.arange(steps + 1) * max(far, _BETWEEN) / (steps - _AHEAD),
            sized=bool(np.ptp(axes.size[seen]) > _SAME),
            repeated=epochs > _SAME, trunks=bool(np.any(axes.trunk)),
        )  # fmt: skip

    def kinds(self, points: int) -> tuple[Indices, Indices]:
        """Return the kind of each parameter of a curve, and of each common one besides the surface."""
        drift, effects = len(self.drift) - 1, self.shared.shape[1]
        dims = {0: 1, 1: 1, WANDER: len(self.wander) - 1, 3: 1, 4: points}
        common = dict(enumerate([drift, len(self.bends), len(self.late), effects, effects], DRIFT))
        if self.trunks:  # a curve's offset comes before its deviation of E, which does not act on ln q
            dims = {0: 1, 1: 1, WANDER: dims[WANDER], MAP + 4: 1, 3: 1, 4: points // 2, MAP + 5: points // 2}
            common = dict(enumerate([1, 1, drift, effects], MAP)) | common
        own_kinds, common_kinds = (np.repeat([*one], [*one.values()]) for one in (dims, common))
        return own_kinds, common_kinds

    def misses(self, points: int) -> Floats:
        """Return where the misses act: a state misses the law as its cooled run does, and in its own way."""
        return np.tril(np.tile(np.eye(points // 2), (2, 2))) if self.trunks else np.eye(points)

    def tilted(
        self, axes: Axes, tilt: float, log_q: Floats, common: Floats, per_curve: Floats
    ) -> tuple[Floats, Floats, Floats]:
        """Return ln q and where common and own parameters act on it, with the tilt of states of trunks."""
        if not self.trunks:
            return log_q, common, per_curve
        state = np.asarray(axes.trunk)
        factor = 1 + tilt * state[..., None]
        common = common * factor
        common[..., SURFACE] = state * log_q
        return log_q * factor[..., 0], common, per_curve * factor

    def effective(self, surface: Floats, axes: Axes) -> Floats:
        """Return ln effective samples from the centre, shape (curves, points).

        U distinct samples that are seen for R further epochs are worth U·(1 + R*·(1 − e^(−R/R*))).
        """
        samples, again = axes.samples - self.samples, _again(axes)
        if not again.any():
            return samples
        last = np.exp(surface[5])
        worth = np.log1p(-last * np.expm1(-again / last))
        return np.where(again > 0, axes.distinct - self.samples + worth, samples)

    def law(self, surface: Floats, axes: Axes, samples: Floats) -> Floats:
        """Return γ·ln(a·F^−α + b·D'^−β) at ln effective samples from the centre, shape (curves, points)."""
        a, alpha, b, beta, gamma = surface[:5]
        by_size = a - np.exp(alpha) * (axes.size - self.size)
        return np.asarray(np.exp(gamma) * np.logaddexp(by_size, b - np.exp(beta) * samples))

    def slopes(self, surface: Floats, axes: Axes, samples: Floats) -> Floats:
        """Return the derivatives of ``law`` by the surface's parameters, shape (curves, points, 6)."""
        a, alpha, b, beta, gamma = surface[:5]
        beta, gamma = np.exp(beta), np.exp(gamma)
        steep_size, steep_data = np.exp(alpha) * (axes.size - self.size), beta * samples
        by_size, by_data = a - steep_size, b - steep_data
        both = np.logaddexp(by_size, by_data)
        of_size = gamma * np.exp(by_size - both)
        of_data = gamma - of_size
        slopes = np.zeros((*samples.shape, SURFACE))
        slopes[..., 0], slopes[..., 1] = of_size, -of_size * steep_size
        slopes[..., 2], slopes[..., 3] = of_data, -of_data * steep_data
        slopes[..., 4] = gamma * both
        again = _again(axes)
        if again.any():
            last = np.exp(surface[5])
            share = again / last
            decay = np.exp(-share)
            by_last = last * (1 - decay - share * decay) / (1 + last * (1 - decay))
            slopes[..., 5] = -of_data * beta * by_last
        return slopes

    def common(self, axes: Axes, samples: Floats, curves: Indices) -> Floats:
        """Return where map, drift, bends, repeats, shared effects and their slopes act, along a last axis.

        The map has a tilt, for which `tilted` sets where it acts, an offset, its walk and its shared effects.
        """
        shared = np.broadcast_to(self.shared[curves][:, None], (*samples.shape, self.shared.shape[1]))
        drift = _ramps(samples, self.drift)
        late = np.maximum((axes.samples - axes.distinct)[..., None] - self.late, 0.0)
        bends = np.maximum(samples[..., None] - self.bends, 0.0)
        parts = [drift, bends, late, shared, shared * samples[..., None]]
        if self.trunks:
            state = np.broadcast_to(axes.trunk, samples.shape)[..., None]
            parts = [0 * state, state, state * drift, state * shared, *parts]
        return np.concatenate(parts, axis=-1)

    def own(self, axes: Axes, samples: Floats) -> Floats:
        """Return where a curve's level, slope, wander and offset of its trunk act, along a last axis."""
        parts = [np.stack([np.ones_like(samples), samples], axis=-1), _ramps(axes.along, self.wander)]
        if self.trunks:
            parts.append(np.broadcast_to(axes.trunk, samples.shape)[..., None])
        return np.concatenate(parts, axis=-1)


def _again(axes: Axes) -> Floats:
    """Return the epochs after the first."""
    return np.asarray(np.expm1(np.maximum(axes.samples - axes.distinct, 0.0)))


def onward(at: Floats, knots: Floats) -> Floats:
    """Return a walk's position by its unit steps beyond its last knot and then below its first, last axis."""
    steps = _BETWEEN * np.arange(_ONWARD + 1)
    return np.concatenate([_ramps(at, knots[-1] + steps), _ramps(-at, steps - knots[0])], axis=-1)


def _ramps(at: Floats, knots: Floats) -> Floats:
    """Return a random walk's position by its unit steps between knots, along a last axis."""
    width = np.diff(knots)
    return np.asarray(np.clip((at[..., None] - knots[:-1]) / width, 0.0, 1.0) * np.sqrt(width))


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorLink:
    """How an error depends on ln q and on E: with a bound, the error of chance, or without (NaN)."""

    chance: float
    floor: float

    def error(self, log_q: Floats, floor: Floats) -> Floats:
        """Return errors; ``floor`` is the deviation of E."""
        lowest = self.floor + floor
        if np.isnan(self.chance):
            return np.asarray(lowest + np.exp(np.clip(log_q, -_MOST, _MOST)))
        return np.asarray(lowest + (self.chance - lowest) / (1 + np.exp(-np.clip(log_q, -_MOST, _MOST))))

    def slopes(self, log_q: Floats, floor: Floats) -> tuple[Floats, Floats]:
        """Return the derivatives of the error by ln q and by E."""
        if np.isnan(self.chance):
            return np.exp(np.clip(log_q, -_MOST, _MOST)), np.ones_like(log_q)
        share = 1 / (1 + np.exp(-np.clip(log_q, -_MOST, _MOST)))
        return (self.chance - self.floor - floor) * share * (1 - share), 1 - share
