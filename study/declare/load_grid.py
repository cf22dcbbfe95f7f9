"""The part of a declaration that says which cells there are: budget levels, blocks, rules against some."""

from dataclasses import dataclass, field
from typing import cast

from budgets.cost.strategy import STRATEGIES
from budgets.declaration import FITS, REGIMES, Exclusion, Fit, GridBlock, Ladder, Regime
from budgets.quantity import format_flops
from study.declare import values
from study.declare.yaml_reader import OneOf, Section


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """The declaration's ``budget:``."""

    levels: tuple[int, ...] = ()
    study_flops: int | None = None
    ladder: Ladder = field(default_factory=Ladder)
    fit: Fit = "refuse"


def read_budget(root: Section) -> Budget:
    """Reads levels, study budget, ladder and what becomes of a grid that is over the budget."""
    section = root.section("budget")
    if section is None:
        return Budget()
    default = Ladder()
    ladder_section = section.section("ladder")
    ladder = default
    if ladder_section is not None:
        ladder = Ladder(
            levels=ladder_section.take("levels", values.level_count, default.levels),
            ratio=ladder_section.take("ratio", values.ratio, default.ratio),
        )
        ladder_section.done()
    budget = Budget(
        levels=tuple(sorted(section.take_list("levels", values.compute, ()))),
        study_flops=section.take("study", values.compute, 0) or None,
        ladder=ladder,
        fit=cast("Fit", section.take("fit", OneOf("fit", FITS), FITS[0])),
    )
    section.done()
    if section.has("ladder") and section.has("levels"):
        section.error(
            "budget.ladder has the planner choose levels, budget.levels declares them: give one", "ladder"
        )
    if not section.has("study"):
        for key in ("ladder", "fit"):
            if section.has(key):
                section.error(f"budget.{key} goes with budget.study, the cap on the whole study", key)
    return budget


def read_grid(root: Section, budget: Budget, architectures: tuple[str, ...]) -> tuple[GridBlock, ...]:
    """Reads the blocks of the grid, each architecture one of those given."""
    blocks = tuple(_block(section, budget, architectures) for section in root.sections("grid"))
    if (
        any(block.regime == "fixed-compute" for block in blocks)
        and not budget.levels
        and budget.study_flops is None
    ):
        has_either = root.has("budget") and root.is_section("budget")
        root.error(
            "budget needs levels (training FLOPs of a trial), a study budget (study:) to choose them from, "
            "or both",
            "budget" if has_either else None,
        )
    return blocks


def _block(section: Section, budget: Budget, architectures: tuple[str, ...]) -> GridBlock:
    regime = cast("Regime", section.take("regime", OneOf("regime", REGIMES), REGIMES[0]))
    block = GridBlock(
        architectures=section.take_names("architectures", "architecture", architectures),
        strategies=section.take_names("strategies", "strategy", tuple(STRATEGIES), ("clip",)),
        sizes=tuple(size or None for size in section.take_list("sizes", values.size, (0,))),
        quality=section.take_list("quality", values.quality, ("all",)),
        levels=section.take_list("levels", values.compute, ()),
        seeds=section.take_list("seeds", values.positive_or_zero, ()),
        regime=regime,
        samples=section.take_list("samples", values.positive, ()),
    )
    section.done()
    if (regime == "equal-samples") != section.has("samples"):
        section.error(
            f"{section.name}.samples goes with regime: equal-samples, and that regime needs it", "samples"
        )
    if regime != "fixed-compute" and block.levels:
        section.error(f"{section.name}.levels goes with regime: fixed-compute alone", "levels")
    _must_be_levels(section, block.levels, budget)
    return block


def read_exclusions(
    root: Section, budget: Budget, blocks: tuple[GridBlock, ...], architectures: tuple[str, ...]
) -> tuple[Exclusion, ...]:
    """Reads the rules that leave cells out."""
    if not root.has("exclude"):
        return ()
    return tuple(
        _exclusion(section, budget, blocks, architectures)
        for section in root.sections("exclude", required=False)
    )


def _exclusion(
    section: Section, budget: Budget, blocks: tuple[GridBlock, ...], architectures: tuple[str, ...]
) -> Exclusion:
    rule = Exclusion(
        architectures=section.take_names("architectures", "architecture", architectures, ()),
        strategies=section.take_names("strategies", "strategy", tuple(STRATEGIES), ()),
        sizes=tuple(size or None for size in section.take_list("sizes", values.size, ())),
        quality=section.take_list("quality", values.quality, ()),
        levels=section.take_list("levels", values.compute, ()),
        regimes=cast("tuple[Regime, ...]", section.take_names("regimes", "regime", REGIMES, ())),
    )
    section.done()
    if not section.names():
        section.error(f"{section.name} names no axis and would leave out every cell")
    _must_be_levels(section, rule.levels, budget)
    if section.problems.found:  # an axis of the grid may be incomplete for another mistake
        return rule
    axes = (
        ("architectures", rule.architectures, [block.architectures for block in blocks]),
        ("strategies", rule.strategies, [block.strategies for block in blocks]),
        ("sizes", rule.sizes, [block.sizes for block in blocks]),
        ("quality", rule.quality, [block.quality for block in blocks]),
        ("regimes", rule.regimes, [(block.regime,) for block in blocks]),
    )
    for axis, asked, of_blocks in axes:
        there = {value for of_block in of_blocks for value in of_block}
        for value in asked:
            if value not in there:
                shown = "all" if value is None else value
                section.error(f"{section.name}.{axis}: no block of the grid has {shown}", axis)
    return rule


def _must_be_levels(section: Section, levels: tuple[int, ...], budget: Budget) -> None:
    unlisted = [level for level in levels if level not in budget.levels]
    if unlisted:
        listed = ", ".join(map(format_flops, budget.levels)) or "none"
        section.error(
            f"{section.name}.levels must be among budget.levels ({listed}); {format_flops(unlisted[0])} is "
            "not",
            "levels",
        )
