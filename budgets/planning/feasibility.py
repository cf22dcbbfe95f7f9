"""Feasibility of a cell: every reason against it with its numbers, the most basic first."""

from collections.abc import Iterator

from budgets.planning.grid import Grid, GridCell
from budgets.quantity import MAX_COUNT, format_flops


def reason_against(candidate: GridCell, grid: Grid) -> str | None:
    """Return the first reason against a cell, or None if it can be run."""
    return next(reasons(candidate, grid), None)


def reasons(candidate: GridCell, grid: Grid) -> Iterator[str]:
    """Yield every reason against a cell: first those independent of its level, then those of its level."""
    yield from lasting_reasons(candidate, grid)
    yield from _reasons_of_length(candidate, grid)


def lasting_reasons(candidate: GridCell, grid: Grid) -> Iterator[str]:
    """Yield the reasons against a cell that hold at every level."""
    cell, setup = candidate.cell, candidate.setup
    if grid.declaration.exclude:
        rule = grid.excluded_by(cell)
        if rule is not None:
            yield f"excluded by the declaration: exclude[{rule}]"
    if setup.inapplicable is not None:
        yield setup.inapplicable
    if setup.lr_peak is None:
        yield f"training.lr_peak declares no learning rate for {cell.architecture}"
    most = grid.pool.available(cell.quality)
    scored = grid.pool.scored_for(cell.quality)
    if cell.quality.startswith("top") and not scored:
        yield f"the pool has no quality scores, which {cell.quality} needs"
    elif cell.quality.startswith("top") and scored < most:
        yield (
            f"{scored:,} of the pool's {grid.pool.pairs:,} pairs have a quality score, but {cell.quality} "
            f"needs {most:,}; score the whole pool"
        )
    if cell.subset_size > most:
        yield f"{cell.subset_size:,} pairs requested, but the pool holds {most:,} of quality {cell.quality}"
    yield from _reasons_of_the_batch(candidate)
    if grid.device_bytes is not None and setup.memory_bytes > grid.device_bytes:
        cluster, share = grid.declaration.cluster, setup.resources.devices
        assert cluster is not None
        yield (
            f"about {setup.memory_bytes / 1e9:,.0f} GB on each of {share} devices for a batch of "
            f"{setup.batch_size:,}, but {cluster.device} has {grid.device_bytes / 1e9:,.0f} GB"
        )


def _reasons_of_the_batch(candidate: GridCell) -> Iterator[str]:
    pairs, batch_size = candidate.cell.subset_size, candidate.setup.batch_size
    parts = candidate.setup.recipe.accumulation
    if parts > batch_size:
        yield f"training.accumulation = {parts:,} parts, but a batch has only {batch_size:,} pairs"
    if batch_size > pairs:
        yield f"a batch of {batch_size:,} is larger than the subset of {pairs:,} pairs"


def _reasons_of_length(candidate: GridCell, grid: Grid) -> Iterator[str]:
    cell, setup, limits = candidate.cell, candidate.setup, grid.declaration.limits
    batch_size, samples = setup.batch_size, candidate.samples
    steps = samples // batch_size
    if steps == 0:
        if cell.level_flops is not None:
            bought = cell.level_flops // setup.train_flops_per_sample
            yield (
                f"{format_flops(cell.level_flops)} buys {bought:,} samples of "
                f"{format_flops(setup.train_flops_per_sample)}, less than one batch of {batch_size:,}"
            )
        else:
            yield f"its samples are fewer than one batch of {batch_size:,}"
    if samples > MAX_COUNT:
        yield f"{samples:.3e} samples are more than the maximum of {MAX_COUNT:.0e}"
    if steps < limits.min_steps:
        yield f"{steps:,} steps of {batch_size:,} pairs, fewer than limits.min_steps = {limits.min_steps:,}"
    if samples > limits.max_epochs * cell.subset_size:
        yield (
            f"{samples / cell.subset_size:,.1f} epochs over {cell.subset_size:,} pairs, "
            f"more than limits.max_epochs = {limits.max_epochs:g}"
        )
