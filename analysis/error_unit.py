"""The unit in which errors are shown: percent, or the loss itself."""

import re
from dataclasses import dataclass
from math import inf, isnan, nan

from analysis.labels import interval_text
from budgets.quantity import format_number

_TOP = re.compile(r"(?:top|few_shot_\d+_top|probe_top)(\d+)")
_IMAGENET, _EMBEDDED = 1000, 100
_CLASSES = {
    **dict.fromkeys(("held-out", "seen", "style", "validation"), _EMBEDDED),
    **dict.fromkeys(("imagenet", "imagenet1k", "imagenet-real", "imagenet-sketch", "imagenet-v2"), _IMAGENET),
    "imagenet-a": 200, "imagenet-r": 200, "imagenet-o": 200, "objectnet": 113, "cifar10": 10, "cifar100": 100,
    "food101": 101, "sun397": 397, "caltech101": 102,
}  # fmt: skip
"""Number of classes of each evaluation set; the classes of the embedded pool are its concepts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorUnit:
    """The unit that errors by one metric are shown in: percent, or nothing if the metric is a loss.

    Attributes:
        word: ``error`` or ``loss``.
        factor: Shown number per unit of error.
        form: Format of a shown value: digits after the point, or significant digits of a loss.
        fine: Format with a digit more.
        sign: Ending of a shown value.
        points: Ending of a shown difference.
        most: Largest possible error.
    """

    word: str
    factor: float
    form: str
    fine: str
    sign: str
    points: str
    most: float

    @classmethod
    def of(cls, metric: str) -> "ErrorUnit":
        """Return the unit of a metric, ``<evaluation set>/<metric>``."""
        return LOSS if is_loss(metric) else PERCENT

    def number(self, value: float, *, fine: bool = False) -> str:
        """Return an error without its sign: ``20.8``, or ``2.077`` of a loss; with a digit more if fine.

        A dash for NaN.
        """
        form = self.fine if fine else self.form
        return "–" if isnan(value) else format_number(self.factor * value, form)

    def interval(self, low: float, high: float) -> str:
        """Return an interval of errors without the sign: ``[19.2, 22.4]``; empty for NaN."""
        return interval_text(self.factor * low, self.factor * high, self.form)

    def text(self, value: float, low: float = nan, high: float = nan) -> str:
        """Return an error, with its interval if that is known: ``20.8 % [19.2, 22.4]``; a dash for NaN."""
        shown = f"{self.number(value)}{'' if isnan(value) else self.sign}"
        return f"{shown} {self.interval(low, high)}".rstrip()

    def named(self, value: float, low: float = nan, high: float = nan) -> str:
        """Return an error with its word: ``error 20.8 %``, or ``loss 2.077``."""
        return f"{self.word} {self.text(value, low, high)}"

    def gap(self, value: float, low: float = nan, high: float = nan, *, fine: bool = False) -> str:
        """Return a difference of errors, likewise: ``3.1 points``, or ``0.031`` of losses."""
        return f"{self.number(value, fine=fine)}{self.points} {self.interval(low, high)}".rstrip()

    @property
    def title(self) -> str:
        """The word as a title begins with it: ``Error`` or ``Loss``."""
        return self.word.capitalize()

    @property
    def heading(self) -> str:
        """Heading of errors in a table: ``Error (%)``, or ``Loss``."""
        return self.heading_of(self.title)

    def heading_of(self, text: str) -> str:
        """Return a heading or an axis label with its unit: ``E (%)``; ``E`` of a loss."""
        return f"{text}{self.sign and ' (%)'}"

    def gap_heading_of(self, text: str) -> str:
        """Return a heading or label of differences: ``Misses (points)``; ``Misses`` of losses."""
        return f"{text}{self.points and ' (points)'}"


PERCENT = ErrorUnit(word="error", factor=100, form=".1f", fine=".2f", sign=" %", points=" points", most=1)
LOSS = ErrorUnit(word="loss", factor=1, form=".4g", fine=".5g", sign="", points="", most=inf)


def is_loss(metric: str) -> bool:
    """Return whether a metric is a loss, which is better when lower and need not be a fraction."""
    return metric.endswith("/loss")


def chance_error(metric: str) -> float:
    """Return 1 − the metric of a model that guesses; NaN when unknown.

    Known are top-k accuracies on well-known sets and on the sets of the embedded pool.
    """
    name, _, what = metric.rpartition("/")
    classes = _CLASSES.get(re.sub(r"[_ ]", "-", name.lower()).replace("imagenetv2", "imagenet-v2"))
    match = _TOP.fullmatch(what.replace("acc", "top"))
    if classes is None or (match is None and what != "mean_per_class"):
        return float("nan")
    return 1.0 - (int(match[1]) if match else 1) / classes
