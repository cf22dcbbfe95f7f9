"""A declaration's YAML → `budgets.declaration.Declaration`: the only place that knows the file's keys."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import cast

from budgets.architecture import catalogue
from budgets.declaration import (
    PRECISIONS,
    REGIMES,
    Declaration,
    EmbeddedPool,
    FolderPool,
    GridBlock,
    Limits,
    Recipe,
    Regime,
    Resources,
    Training,
)
from budgets.names import unknown
from budgets.quality import quality_fraction
from budgets.quantity import parse_count, parse_flops, parse_number, parse_seconds, parse_share
from budgets.strategy import STRATEGIES
from study.yaml_reader import DeclarationError, Section, one_of, read_root

DECLARATIONS = Path(__file__).parent / "declarations"


def find_declaration(name: str) -> Path:
    """Finds a declaration by the path of its file, or by the name of one that comes with the project.

    Raises:
        DeclarationError: There is neither.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise DeclarationError(f"no such declaration file: {name}")
        return path
    shipped = {path.stem: path for path in DECLARATIONS.glob("*.yaml")}
    if name not in shipped:
        raise DeclarationError(f"{unknown('study', name, shipped)}, or a path that ends in .yaml")
    return shipped[name]


def load_declaration(path: Path) -> Declaration:
    """Reads and checks a declaration.

    Raises:
        DeclarationError: All that is wrong with the file, one error a line, each with its line number.
    """
    root, problems = read_root(path)
    name = root.take("study", _name)
    pool = _pool(root)
    levels, study_flops = _budget(root)
    seeds = root.take_list("seeds", _positive_or_zero, (0,))
    grid = tuple(_block(section, levels) for section in root.sections("grid"))
    training = _training(root)
    metric = root.take("metric", _metric, "held-out/top1")
    evaluation = root.take_mapping("evaluation", str)
    limits = _limits(root)
    resources = _resources(root)
    root.done()
    problems.raise_any()
    return Declaration(
        name=name,
        pool=pool,
        levels=levels,
        study_flops=study_flops,
        grid=grid,
        seeds=seeds,
        training=training,
        metric=metric,
        evaluation=evaluation,
        limits=limits,
        resources=resources,
    )


def _pool(root: Section) -> EmbeddedPool | FolderPool:
    section = root.section("pool", required=True)
    if section is None:
        return FolderPool(path="")
    embedded = section.section("embedded")
    folder = section.take("path", str, "")
    section.done()
    if (embedded is None) == (not folder):
        section.error("pool needs either embedded: {pairs, seed} or path: FOLDER")
    if embedded is None:
        return FolderPool(path=folder)
    pairs = embedded.take("pairs", _positive)
    seed = embedded.take("seed", _positive_or_zero, 0)
    embedded.done()
    return EmbeddedPool(pairs=pairs, seed=seed)


def _budget(root: Section) -> tuple[tuple[int, ...], int | None]:
    section = root.section("budget", required=True)
    if section is None:
        return (), None
    levels = section.take_list("levels", _compute)
    study = section.take("study", _compute, 0)
    section.done()
    return tuple(sorted(levels)), study or None


def _block(section: Section, levels: tuple[int, ...]) -> GridBlock:
    regime = cast("Regime", section.take("regime", one_of("regime", REGIMES), REGIMES[0]))
    block = GridBlock(
        architectures=section.take_names("architectures", "architecture", catalogue()),
        strategies=section.take_names("strategies", "strategy", tuple(STRATEGIES), ("clip",)),
        sizes=tuple(size or None for size in section.take_list("sizes", _size, (0,))),
        quality=section.take_list("quality", _quality, ("all",)),
        levels=section.take_list("levels", _compute, ()),
        seeds=section.take_list("seeds", _positive_or_zero, ()),
        regime=regime,
        samples=section.take_list("samples", _positive, ()),
    )
    section.done()
    if (block.regime == "equal-samples") != bool(block.samples):
        section.error(
            f"{section.name}.samples goes with regime: equal-samples, and that regime needs it", "samples"
        )
    if block.regime != "fixed-compute" and block.levels:
        section.error(f"{section.name}.levels goes with regime: fixed-compute alone", "levels")
    unlisted = [level for level in block.levels if level not in levels]
    if unlisted:
        section.error(
            f"{section.name}.levels must be among budget.levels; {unlisted[0]:g} FLOP is not", "levels"
        )
    return block


def _training(root: Section) -> Training:
    section = root.section("training", required=True)
    if section is None:
        return Training(lr_peak={})
    default = Recipe()
    lr_peak = section.take_mapping("lr_peak", _positive_number, one_of("architecture", catalogue()))
    if not section.has("lr_peak"):
        section.error("training.lr_peak is missing: the peak learning rate of each architecture")
    training = Training(
        lr_peak=lr_peak,
        batch_size=section.take("batch_size", _positive, 64),
        recipe=Recipe(
            weight_decay=section.take("weight_decay", _not_negative, default.weight_decay),
            beta1=section.take("beta1", parse_share, default.beta1),
            beta2=section.take("beta2", parse_share, default.beta2),
            eps=section.take("eps", _positive_number, default.eps),
            warmup=section.take("warmup", parse_share, default.warmup),
            gradient_clip=section.take("gradient_clip", _positive_number, default.gradient_clip),
            precision=section.take("precision", one_of("precision", PRECISIONS), default.precision),
        ),
    )
    section.done()
    return training


def _limits(root: Section) -> Limits:
    section = root.section("limits")
    default = Limits()
    if section is None:
        return default
    limits = Limits(
        min_steps=section.take("min_steps", _positive, default.min_steps),
        max_epochs=section.take("max_epochs", _positive_number, default.max_epochs),
    )
    section.done()
    return limits


def _resources(root: Section) -> Resources:
    section = root.section("resources")
    default = Resources()
    if section is None:
        return default
    resources = Resources(
        cpus=section.take("cpus", _positive, default.cpus),
        gpus=section.take("gpus", _positive_or_zero, default.gpus),
        retries=section.take("retries", _positive_or_zero, default.retries),
        checkpoint_s=section.take("checkpoint", parse_seconds, default.checkpoint_s),
    )
    section.done()
    return resources


def _checked(
    read: Callable[[str], float], accept: Callable[[float], bool], what: str
) -> Callable[[str], float]:
    def checked(text: str) -> float:
        value = read(text)
        if not accept(value):
            raise ValueError(f"'{text}' must be {what}")
        return value

    return checked


_positive = cast("Callable[[str], int]", _checked(parse_count, lambda value: value > 0, "more than 0"))
_positive_or_zero = parse_count
_compute = cast("Callable[[str], int]", _checked(parse_flops, lambda value: value > 0, "more than 0"))
_positive_number = _checked(parse_number, lambda value: 0 < value < float("inf"), "more than 0")
_not_negative = _checked(parse_number, lambda value: 0 <= value < float("inf"), "0 or more")


def _size(text: str) -> int:
    return 0 if text == "all" else _positive(text)


def _quality(text: str) -> str:
    quality_fraction(text)
    return text


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text):
        raise ValueError(f"'{text}' names a folder: letters, digits, '.', '_' and '-' only")
    return text


def _metric(text: str) -> str:
    if not re.fullmatch(r"[^/\s]+/[^/\s]+", text):
        raise ValueError(f"'{text}' is not <evaluation set>/<metric>, such as held-out/top1")
    return text
