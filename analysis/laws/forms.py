"""The forms of a law along one curve, and laws of these forms.

    power law                        A·x^-α
    power law with floor             E + A·x^-α
    power law with shift             A·(x + x₀)^-α
    power law with floor and shift   E + A·(x + x₀)^-α                      (Zhai et al. 2022, §2.2)
    bounded law                      E + (c − E)·q/(1 + q), q = (x/x₀)^-α   (Alabdulmohsin et al. 2022, M4)

c is the error of chance, so the bounded law needs a metric for which that is known; it is M4 with its first
exponent fixed at 1. The search uses the slope at the geometric mean of x instead of α, because the slope has
the same bounds in every form.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from analysis.arrays import Floats, Mask

SLOPE_BOUNDS = (0.02, 5.0)
"""Bounds of the slope −d ln(error − E)/d ln x at the geometric mean of x (of α in a bounded law)."""
SHIFT_REACH = (0.01, 10.0)
"""Bounds of x₀ as multiples of the smallest and of the largest x."""
VALUES = ("floor", "scale", "alpha", "shift", "unit", "objective", "at_bound")
"""Fields of `Curves` that have a value for each row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """A form of a law: whether E and x₀ are fitted, and whether it rises to the error of chance at small x.

    The formula is the error as a function of x, as captions print it.
    """

    name: str
    formula: str
    parameters: int
    floor: bool
    shift: bool
    bounded: bool = False


POWER = Form(name="power law", formula="A·x^-α", parameters=2, floor=False, shift=False)
FLOOR = Form(name="power law with floor", formula="E + A·x^-α", parameters=3, floor=True, shift=False)
SHIFT = Form(name="power law with shift", formula="A·(x + x₀)^-α", parameters=3, floor=False, shift=True)
FLOOR_SHIFT = Form(
    name="power law with floor and shift", formula="E + A·(x + x₀)^-α", parameters=4, floor=True, shift=True
)
BOUNDED = Form(
    name="bounded law", formula="E + (c − E)·q/(1 + q), q = (x/x₀)^-α", parameters=3, floor=True, shift=True,
    bounded=True,
)  # fmt: skip
FORMS = {form.name: form for form in (POWER, FLOOR, BOUNDED, SHIFT, FLOOR_SHIFT)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Curves:
    """Laws of one form, one per row; every value has the shape (rows,).

    Attributes:
        form: Form of all rows.
        floor: E ≥ 0, in units of the error.
        scale: A ≥ 0, the error above the floor at x = ``unit``; in a bounded law the error of chance.
        alpha: Exponent.
        shift: x₀ ≥ 0, in units of x; in a bounded law the x half-way between chance and floor.
        unit: Geometric mean of the fitted x.
        objective: Σ w·r² at the optimum.
        at_bound: True if the slope ended at one of ``SLOPE_BOUNDS``.
    """

    form: Form
    floor: Floats
    scale: Floats
    alpha: Floats
    shift: Floats
    unit: Floats
    objective: Floats
    at_bound: Mask

    def __call__(self, x: Floats) -> Floats:
        """Return the laws at x, shape (points,) or (rows, points), as errors of shape (rows, points)."""
        floor, scale, alpha, shift, unit = (
            values[:, None] for values in (self.floor, self.scale, self.alpha, self.shift, self.unit)
        )
        if self.form.bounded:
            # q/(1 + q) with q = (x/x₀)^-α, as a logistic function of ln x.
            above = 1.0 / (1.0 + np.exp(-alpha * np.log(shift / x)))
            return floor + (scale - floor) * above
        # The power is 1 at x = unit, so that ``scale`` is an error and does not depend on the unit of x.
        power = np.exp(-alpha * np.log((x + shift) / (unit + shift)))
        return floor + scale * power


def row(curves: Curves, place: int) -> Curves:
    """Return one row of some laws, as laws of a single row."""
    return replace(curves, **{name: getattr(curves, name)[[place]] for name in VALUES})


def joined(parts: Sequence[Curves]) -> Curves:
    """Return laws of one form as the rows of one object."""
    values: Any = {name: np.concatenate([getattr(part, name) for part in parts]) for name in VALUES}
    return replace(parts[0], **values)
