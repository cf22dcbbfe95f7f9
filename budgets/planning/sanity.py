"""Warnings about conclusions that a plan's trials cannot support, given before any compute is spent."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from budgets.cost.architecture import Architecture
from budgets.planning.planned_trial import Cell, Trial
from budgets.quantity import format_count, format_flops, format_share, plural

_Groups = dict[tuple[object, ...], set[int]]

MIN_SIZES = 3
"""Fewest model sizes that can bracket the minimum of an IsoFLOP profile, which is a parabola."""

MIN_POINTS = 3
"""Fewest points of a curve that a power law with a floor can be fitted to."""

_MOST_INITIAL = 0.05  # share of the initial weights in an average

LEAST_LEVEL = 10**6
"""Lowest level in FLOPs that is plausible: the forward pass of a small model on one image takes millions."""


def unit_warning(level: int) -> str:
    """Return the warning for a level that was probably meant with a unit."""
    return (
        f"a level of {format_flops(level)} is less than one image costs in a small model: a number without "
        f"a unit is in FLOPs; write {level} GFLOP if you meant that"
    )


def plan_warnings(trials: Sequence[Trial], architectures: Mapping[str, Architecture]) -> tuple[str, ...]:
    """Return warnings about IsoFLOP profiles, curves, seeds and weights too small, and averages too slow."""
    cells = {trial.cell: trial for trial in trials}
    one_seed = len({(trial.cell, trial.samples_seen) for trial in trials}) == len(trials) > 0
    lone = "every cell has one seed: no interval can be computed and no difference tested against chance"
    return (
        *_profiles(cells, architectures),
        *_curves(cells),
        *_slow_averages(trials),
        *_unseen_pools(trials),
        *_enlarged(trials, architectures),
        *[lone] * one_seed,
    )


def _profiles(cells: Mapping[Cell, Trial], architectures: Mapping[str, Architecture]) -> Iterator[str]:
    """Yield warnings on IsoFLOP profiles: a level over a family's sizes, on a subset, with a strategy."""
    sizes: dict[int, _Groups] = defaultdict(lambda: defaultdict(set))
    for cell, trial in cells.items():
        if cell.level_flops is not None:
            family = architectures[cell.architecture].family
            group = family, cell.strategy, cell.subset_size, cell.quality
            sizes[cell.level_flops][group].add(trial.train_flops_per_sample)
    levels_of: dict[str, list[int]] = defaultdict(list)  # the warning → the levels that it is about
    for level, groups in sorted(sizes.items()):
        most = max(len(sizes_there) for sizes_there in groups.values())
        few = [key for key, sizes_there in groups.items() if 1 < len(sizes_there) < MIN_SIZES]
        if most < MIN_SIZES:
            levels_of[
                f"{plural(most, 'model size')} per family on the same subset with the same strategy: "
                f"{MIN_SIZES} are needed to bracket the best size"
            ].append(level)
        elif few:
            levels_of[
                f"{plural(len(few), 'profile')} of {len(groups)} have fewer than {MIN_SIZES} model sizes, "
                f"too few to bracket the best: {_examples(few)}"
            ].append(level)
    for warning, levels in levels_of.items():
        yield f"{', '.join(map(format_flops, levels))}: {warning}"


def _curves(cells: Mapping[Cell, Trial]) -> Iterator[str]:
    """Yield warnings on curves: cells that differ only in level or, without levels, only in subset size."""
    points: dict[tuple[str, str], _Groups] = defaultdict(lambda: defaultdict(set))
    for cell in cells:
        group: tuple[object, ...] = cell.architecture, cell.strategy, cell.quality
        if cell.level_flops is not None:
            points[cell.regime, "level"][*group, cell.subset_size].add(cell.level_flops)
        else:
            points[cell.regime, "size"][*group,].add(cell.subset_size)
    for (regime, along), groups in points.items():
        most = max(len(places) for places in groups.values())
        if most < MIN_POINTS:
            yield (
                f"no {regime} curve has more than {plural(most, along)}: {MIN_POINTS} are needed to fit a "
                "power law with a floor"
            )
            continue
        few = [key for key, places in groups.items() if 1 < len(places) < MIN_POINTS]
        if few:
            yield (
                f"{plural(len(few), f'{regime} curve')} of {len(groups)} have fewer than {MIN_POINTS} "
                f"{along}s, too few to fit a power law with a floor: {_examples(few)}"
            )


def _slow_averages(trials: Sequence[Trial]) -> Iterator[str]:
    """Yield warnings on averages of the weights, which begin with the initial ones."""
    averaged = ((trial.recipe.ema**trial.steps, trial) for trial in trials if trial.recipe.ema)
    slow = [average for average in averaged if average[0] > _MOST_INITIAL]
    if slow:
        share, trial = max(slow, key=lambda average: average[0])
        yield (
            f"training.ema is too slow for {plural(len(slow), 'trial')}, whose averages are more than "
            f"{format_share(_MOST_INITIAL)} initial weights: {format_share(share)} in "
            f"{plural(trial.steps, 'step')} at {trial.recipe.ema:g}"
        )


def _unseen_pools(trials: Sequence[Trial]) -> Iterator[str]:
    """Yield a warning on pools of a mixture whose weight gives a trial less than one sample."""
    few = [
        (samples, trial, part.name)
        for trial in trials
        for part in trial.mixture
        if (samples := trial.samples_seen * trial.share_of(part)) < 1
    ]
    if few:
        samples, trial, pool = min(few, key=lambda unseen: unseen[0])
        number = plural(len({trial.trial_id for _, trial, _ in few}), "trial")
        yield (
            f"{number} would see less than one sample of a pool, such as {samples:.2g} of {pool} in "
            f"{trial.cell}: raise the pool's weight, or leave it out"
        )


def _enlarged(trials: Sequence[Trial], architectures: Mapping[str, Architecture]) -> Iterator[str]:
    """Yield a warning on images that are made smaller than a model's input, and then enlarged again."""
    for trial in trials:
        side, needs = trial.recipe.resized_images, architectures[trial.cell.architecture].costs.image_size
        if side is not None and side < needs:
            yield (
                f"training.resized_images = {side} is below the {needs} pixels of {trial.cell.architecture}, "
                "which sees enlarged images"
            )
            return


def _value(value: object) -> str:
    return format_count(value) if isinstance(value, int) else str(value)


def _examples(groups: Sequence[tuple[object, ...]]) -> str:
    shown = "; ".join(" ".join(map(_value, group)) for group in groups[:3])
    return shown + (" …" if len(groups) > 3 else "")  # noqa: PLR2004 - examples, not a list
