"""Claims on accuracy on other sets at equal ImageNet accuracy (appendix figures 20, 21 and 23)."""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from analysis.arrays import Floats
from analysis.claims.slice import VARIANT, ZERO_SHOT, Claim, Effect

_KEYS = ["regime", "budget", "subset_size", "architecture"]
_FEWEST = 5
_LINEAR = 0.95
_ACCENTED = ("Swin", "ViT")


def _sets(frame: pd.DataFrame, group: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield each other evaluation set with at least five cells: ``error``, and ImageNet's ``error_x``."""
    kept = frame[frame["group"] == group]
    at = kept[kept["metric"] == ZERO_SHOT].set_index(_KEYS)[["error", "sd"]].add_suffix("_x")
    for metric in sorted(name for name in set(kept["metric"]) if name.startswith(VARIANT)):
        both = kept[kept["metric"] == metric].join(at, on=_KEYS, how="inner")
        if len(both) >= _FEWEST:
            yield metric.removeprefix(VARIANT), both


def is_imagenet_a(name: str) -> bool:
    """Return whether an evaluation set is ImageNet-A, in any spelling."""
    return "".join(filter(str.isalnum, name.lower())).endswith("imageneta")


def _noise(of: Callable[[Floats, Floats], float], cells: pd.DataFrame) -> float:
    """Return the standard deviation of a function of (x, error), by propagating each cell's noise."""
    x, y, x_sd, sd = (cells[name].to_numpy(np.float64) for name in ("error_x", "error", "sd_x", "sd"))
    if np.isnan(x_sd).any() or np.isnan(sd).any():
        return float("nan")  # one seed: the noise is unknown
    centre, steps = of(x, y), np.eye(len(x))
    moved = [of(x + step * x_sd, y) - centre for step in steps]
    moved += [of(x, y + step * sd) - centre for step in steps]
    return float(np.sqrt(np.square(moved).sum()))


def _linearity(x: Floats, y: Floats) -> float:
    """Return the share of the variance that a line explains minus 95 %, in percentage points."""
    return float(100 * (np.corrcoef(x, y)[0, 1] ** 2 - _LINEAR))


def _late_gain(x: Floats, y: Floats) -> float:
    """Return by how many points the middle of the error lies above its chord: positive for a late fall."""
    middle, half = (x.max() + x.min()) / 2, (x.max() - x.min()) / 2
    curve = np.polynomial.polynomial.polyfit((x - middle) / half, y, 2)
    return float(-curve[2])


def _c19(frame: pd.DataFrame) -> list[Effect]:
    found = []
    for name, cells in _sets(frame, "vits"):
        of = _late_gain if is_imagenet_a(name) else _linearity
        x, y = cells["error_x"].to_numpy(np.float64), cells["error"].to_numpy(np.float64)
        if np.ptp(x) == 0 or np.ptp(y) == 0:
            continue  # a line needs two distinct points
        found.append(Effect(value=of(x, y), sd=_noise(of, cells), at=name))
    return found


def _beside(cells: pd.DataFrame, what: Floats, name: str) -> list[Effect]:
    """Return the fall of a set's error over the range of a quantity, at equal ImageNet error."""
    if np.ptp(what) == 0:
        return []

    def of(x: Floats, y: Floats) -> float:
        columns = np.stack([np.ones_like(x), x, (what - what.min()) / np.ptp(what)], axis=1)
        return float(-np.linalg.lstsq(columns, y, rcond=None)[0][2])

    x, y = cells["error_x"].to_numpy(np.float64), cells["error"].to_numpy(np.float64)
    return [Effect(value=of(x, y), sd=_noise(of, cells), at=name)]


def _c20(frame: pd.DataFrame) -> list[Effect]:
    sets = _sets(frame, "vits")
    return [
        e for name, cells in sets for e in _beside(cells, np.log(cells["size"].to_numpy(np.float64)), name)
    ]


def _c32(frame: pd.DataFrame) -> list[Effect]:
    sets = _sets(frame, "architectures")
    return [
        effect
        for name, cells in sets
        for effect in _beside(cells, np.asarray(cells["family"].isin(_ACCENTED), dtype=np.float64), name)
    ]


ROBUSTNESS = (
    Claim(
        name="C19", text="Accuracy on other sets is near linear in ImageNet's; on ImageNet-A it rises late.",
        where="Sec 5, App. Fig 21", compare=_c19,
    ),
    Claim(
        name="C20", text="At equal ImageNet accuracy larger ViTs are better on most other sets.",
        where="Sec 5, App. Fig 21", compare=_c20,
    ),
    Claim(
        name="C32", text="At equal ImageNet accuracy Swin and ViT are better on other sets than the rest.",
        where="Sec 6, App. Fig 23", compare=_c32,
    ),
)  # fmt: skip
