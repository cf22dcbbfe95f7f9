"""Surface whose floor, data term and worth of repetition vary with model size.

y = exp u(N) + exp(v(N) − e^w(N)·ln(D'/D₀)), with u, v and w of the form c₀ + c₁·((N/N₀)^c₂ − 1)/c₂. It is the
law of Farseer (Li et al. 2025, arXiv 2506.10972), with D₀ in place of one token: the height v and the
exponent e^w of the data term change with the model size, which a sum of two power laws (`surface`) cannot
follow. D' counts repeated pairs as in `repeated`, with R* = exp(r₀ + r₁·ln(N/N₀)). N₀ and D₀ are geometric
means of what may be run, so that the parameters are nearly independent and have priors that fit any data.
"""

from dataclasses import dataclass, replace

import numpy as np

from analysis.arrays import Floats, Indices
from analysis.laws.surfaces.repeated import Points, effective

# Mean and standard deviation of u₀ less the mean of ln y; u₁, u₂; v₀ − u₀, v₁, v₂; w₀, w₁, w₂; r₀, r₁. Wide
# enough for the published laws of language models and CLIP; R* is 15 in Muennighoff et al. 2023.
PRIOR = np.array([
    (0.0, 1.0), (-0.08, 0.08), (0.0, 0.2),
    (-1.0, 1.0), (0.0, 0.25), (0.0, 0.2),
    (np.log(0.35), 0.4), (0.0, 0.2), (0.0, 0.2),
    (np.log(15.0), 1.0), (0.0, 0.3),
]).T  # fmt: skip

_STEP = 1e-5


@dataclass(frozen=True, kw_only=True, slots=True)
class VaryingLaw:
    """The logarithm of the surface at given places, as a function of its parameters.

    Attributes:
        places: Places at which it is read.
        unit_n: N₀.
        unit_d: D₀.
    """

    places: Points
    unit_n: float
    unit_d: float

    @classmethod
    def about(cls, places: Points) -> "VaryingLaw":
        """Return the law in the units of all places."""
        unit_n, unit_d = (float(np.exp(np.log(axis).mean())) for axis in (places.n, places.seen))
        return cls(places=places, unit_n=unit_n, unit_d=unit_d)

    def at(self, rows: Indices) -> "VaryingLaw":
        """Return the same law at some of the places."""
        return replace(self, places=self.places.take(rows))

    def __call__(self, theta: Floats) -> Floats:
        """Return ln y of each row of parameters, shape (rows, places)."""
        c = theta.T[:, :, None]
        size = np.log(self.places.n / self.unit_n)
        data = effective(self.places.unique, self.places.seen, np.exp(c[9] + c[10] * size))
        floor = c[0] + _bent(size, c[1], c[2])
        height = c[0] + c[3] + _bent(size, c[4], c[5])
        exponent = np.exp(c[6] + _bent(size, c[7], c[8]))
        return np.asarray(np.logaddexp(floor, height - exponent * np.log(data / self.unit_d)))

    def slopes(self, theta: Floats) -> Floats:
        """Return the derivatives of ln y by the parameters of one row, shape (places, parameters)."""
        step = _STEP * np.eye(len(theta))
        return (self(theta + step) - self(theta - step)).T / (2 * _STEP)


def _bent(size: Floats, slope: Floats, bend: Floats) -> Floats:
    # ((N/N₀)^c₂ − 1)/c₂ without a gap at c₂ = 0.
    turn = bend * size + 1e-9
    return slope * size * np.expm1(turn) / turn
