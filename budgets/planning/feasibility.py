"""Feasibility of a cell: every reason against it with its numbers, the most basic first."""

from collections.abc import Iterator

from budgets.planning.facts import Component, PoolFacts
from budgets.planning.grid import Grid, GridCell
from budgets.quantity import MAX_COUNT, format_flops, plural


def reason_against(candidate: GridCell, grid: Grid) -> str | None:
    """Return the first reason against a cell, or None if it can be run."""
    return next(all_reasons(candidate, grid), None)


def all_reasons(candidate: GridCell, grid: Grid) -> Iterator[str]:
    """Yield every reason against a cell: first those independent of its level, then those of its level."""
    yield from lasting_reasons(candidate, grid)
    yield from _reasons_of_length(candidate, grid)


def lasting_reasons(candidate: GridCell, grid: Grid) -> Iterator[str]:
    """Yield the reasons against a cell that hold at every level."""
    cell, setup = candidate.cell, candidate.setup
    rule = grid.excluded_by(cell)
    if rule is not None:
        yield f"excluded by the declaration: exclude[{rule}]"
    if setup.inapplicable is not None:
        yield setup.inapplicable
    if setup.lr_peak is None:
        yield f"training.lr_peak declares no learning rate for {cell.architecture}"
    for component in candidate.components:
        yield from _reasons_of_the_pool(component, grid.pool.of_component(component.name))
    parts, batch_size, pairs = setup.recipe.accumulation, setup.batch_size, cell.subset_size
    if parts > batch_size:
        yield f"training.accumulation = {parts:,} parts, but a batch has only {batch_size:,} pairs"
    if batch_size > pairs:
        yield f"a batch of {batch_size:,} is larger than the subset of {plural(pairs, 'pair')}"
    if grid.device_bytes is not None and setup.memory_bytes > grid.device_bytes:
        cluster = grid.declaration.cluster
        assert cluster is not None
        yield (
            f"about {setup.memory_bytes / 1e9:,.0f} GB on {setup.resources.each_device} for a batch of "
            f"{batch_size:,}, but {cluster.device} has {grid.device_bytes / 1e9:,.0f} GB"
        )


def most_samples(candidate: GridCell, grid: Grid) -> int:
    """Return the most samples that keep a cell within ``limits.max_epochs`` of each of its pools."""
    epochs, period = grid.declaration.limits.max_epochs, _period(candidate)
    return int(min(epochs * part.pairs * period / part.share for part in candidate.components))


def _period(candidate: GridCell) -> int:
    components = candidate.components
    return sum(part.share for part in components) if len(components) > 1 else 1


def _reasons_of_the_pool(component: Component, pool: PoolFacts) -> Iterator[str]:
    pairs, quality, most = component.pairs, component.quality, pool.available(component.quality)
    ranked = quality.startswith("top")
    scored = pool.scored_for(quality) if ranked else most
    if 0 < pairs <= most <= scored:
        return
    named = f"pool {component.name}".strip()
    if ranked and not scored:
        yield f"the {named} has no quality scores, which {quality} needs"
    elif scored < most:
        yield (
            f"{scored:,} of the {named}'s {pool.pairs:,} pairs have a quality score, but {quality} "
            f"needs {most:,}; score the whole pool"
        )
    if pairs > most:
        yield f"{plural(pairs, 'pair')} requested, but the {named} holds {most:,} of quality {quality}"
    if pairs == 0:
        yield f"its size leaves no pair of the {named}"


def _reasons_of_length(candidate: GridCell, grid: Grid) -> Iterator[str]:
    cell, setup, limits = candidate.cell, candidate.setup, grid.declaration.limits
    batch_size, samples = setup.batch_size, candidate.samples
    steps = samples // batch_size
    if steps == 0:
        buys = ""
        if cell.level_flops is not None:
            bought = plural(cell.level_flops // (price := setup.train_flops_per_sample), "sample")
            buys = f"{format_flops(cell.level_flops)} buys {bought} of {format_flops(price)}, "
        yield f"{buys}less than one batch of {batch_size:,}"
    if samples > MAX_COUNT:
        yield f"{samples:.3e} samples are more than the maximum of {MAX_COUNT:.0e}"
    if steps < limits.min_steps:
        yield (
            f"{plural(steps, 'step')} of {plural(batch_size, 'pair')}, fewer than limits.min_steps = "
            f"{limits.min_steps:,}"
        )
    for component in candidate.components:
        seen = samples * component.share / _period(candidate)
        if seen > limits.max_epochs * component.pairs:
            of = f" of the pool {component.name}" if component.name else ""
            yield (
                f"{seen / component.pairs:,.1f} epochs over {component.pairs:,} pairs{of}, "
                f"more than limits.max_epochs = {limits.max_epochs:g}"
            )
