"""Reader of declarations, with the rules of keys that a data class can't express."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from budgets.cost.architecture import catalogue, load_architecture, open_clip_configs
from budgets.cost.strategy import STRATEGIES
from budgets.declaration import values
from budgets.declaration.data_sections import DeclaredPool, FolderPool, MixedPool
from budgets.declaration.declaration import Declaration
from budgets.declaration.keys import OneOf, keys, tunable
from budgets.declaration.recipe import PRESETS, Recipe
from budgets.declaration.sections import Resources, Training, Tuning
from budgets.names import unknown
from study.declare.shipped import shipped_studies
from study.declare.walk import Walk
from study.declare.yaml_reader import DeclarationError, Section, read_root


def find_declaration(name: str, *, imported: tuple[str, ...] = ()) -> Path:
    """Find a declaration by the path of its file or by the name of a shipped study.

    Args:
        name: The path or the name.
        imported: Names of imported studies, for the error message; they have no declaration.

    Raises:
        DeclarationError: No such file, or no such shipped study.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise DeclarationError(f"no such declaration file: {name}")
        return path
    shipped = shipped_studies()
    if name not in shipped:
        raise DeclarationError(
            f"{unknown('study', name, (*shipped, *imported))}, or a path that ends in .yaml"
        )
    return shipped[name]


def load_declaration(path: Path, folder: Path | None = None) -> Declaration:
    """Read and check a declaration.

    Args:
        path: The file.
        folder: Folder that relative paths are relative to; by default that of the file, and for the
            ``study.yaml`` that a run saved the working directory, as in the run.

    Raises:
        DeclarationError: All errors of the file, one per line, each with its line number.
    """
    if folder is None:
        folder = Path() if _is_saved(path) else path.parent
    root, problems = read_root(path)
    walk = Walk(
        names={"architecture": _architectures(root, folder), "strategy": tuple(STRATEGIES)},
        special={
            (Declaration, "pool"): _pool,
            (Declaration, "pools"): _pools,
            (Declaration, "mixtures"): _mixtures,
            (Declaration, "seeds"): _seeds,
            (Declaration, "training"): _training,
            (Declaration, "resources"): _resources,
            (Tuning, "fields"): _tuned_fields,
        },
    )
    root.spell_out(
        "design", a_list="best", words={"adaptive": ("adaptive", True), "full": ("adaptive", False)}
    )
    declaration = walk.read(root, Declaration)
    root.done()
    # An earlier error may have left an axis incomplete.
    if all(root.sound(key) for key in ("grid", "exclude", "resources", "training") if key in root.names()):
        for at, message in declaration.unmatched():
            root.error(message, at)
    problems.raise_any()
    return _beside(declaration, folder)


def _is_saved(path: Path) -> bool:
    """Return whether a declaration is the copy that a run keeps in the study's folder."""
    beside = {
        each
        for each in ("ledger.jsonl", "plan.parquet", "left-out.parquet")
        if path.with_name(each).is_file()
    }
    # A user may have written a plan of that name beside a declaration of that name.
    return path.name == "study.yaml" and ("ledger.jsonl" in beside or len(beside) > 1)


def _beside(declaration: Declaration, folder: Path) -> Declaration:
    """Return a declaration with its relative paths below the folder of its file."""

    def below(text: str) -> str:
        return text if "://" in text else str(folder / text)

    def of_pool(pool: DeclaredPool) -> DeclaredPool:
        return replace(pool, path=below(pool.path)) if isinstance(pool, FolderPool) else pool

    pool, catalogue = declaration.pool, declaration.catalogue
    return replace(
        declaration,
        catalogue=None if catalogue is None else below(catalogue),
        pool=None if pool is None else of_pool(pool),
        pools={name: of_pool(each) for name, each in declaration.pools.items()},
        evaluation_sets={
            name: each if each.path is None else replace(each, path=below(each.path))
            for name, each in declaration.evaluation_sets.items()
        },
    )


def _architectures(root: Section, around: Path) -> tuple[str, ...]:
    """Return the architectures that may be used: the catalogue's, open_clip's, the declared folder's."""
    folder = root.take("catalogue", values.path, "")
    own = {file.stem: file for file in sorted((around / folder).glob("*.json"))} if folder else {}
    if folder and not own:
        root.error(f"catalogue: '{folder}' must be a folder with JSON files", "catalogue")
    for name in own:
        try:
            load_architecture(name, around / folder)
        except (ValueError, OSError) as error:
            root.error(f"catalogue: {error}", "catalogue")
    return tuple(sorted({*open_clip_configs(), *catalogue(), *own}))


def _pool(walk: Walk, root: Section, _: Mapping[str, Any]) -> DeclaredPool | None:
    """Read the pool."""
    section = root.section("pool")
    return None if section is None else _a_pool(walk, section)


def _pools(walk: Walk, root: Section, _: Mapping[str, Any]) -> dict[str, DeclaredPool]:
    """Read the pools that are mixed."""
    section, found = root.section("pools"), dict[str, DeclaredPool]()
    for name in () if section is None else _own_names(section):
        assert section is not None
        inner = section.section(name) if section.is_section(name) else None
        path = "" if inner is not None else section.take(name, values.place)
        found[name] = FolderPool(path=path or "") if inner is None else _a_pool(walk, inner)
    return found


def _mixtures(walk: Walk, root: Section, _: Mapping[str, Any]) -> dict[str, dict[str, MixedPool]]:
    """Read the mixtures."""
    section, found = root.section("mixtures"), dict[str, dict[str, MixedPool]]()
    for name in () if section is None else _own_names(section):
        assert section is not None
        inner = section.section(name)
        assert inner is not None
        wrong = MixedPool(weight=1.0)  # in place of a pool with a recorded error
        found[name] = {}
        for pool in inner.names():
            part = walk.one(inner, pool, MixedPool)
            found[name][pool] = part if part is not None and inner.sound(pool) else wrong
    return found


def _own_names(section: Section) -> Iterator[str]:
    """Yield the names that the user chose in a section."""
    for name in section.names():
        try:
            yield values.name(name)
        except ValueError as error:
            section.error(f"{section.name}: {error}", name)
            section.know([name])


def _a_pool(walk: Walk, section: Section) -> DeclaredPool:
    """Read a pool; its kind follows from the given keys."""
    (key,) = [each for each in keys(Declaration) if each.field == "pool"]
    inside = {
        option.kind: [each.name for each in keys(option.kind)] if option.form == "inline" else [option.name]
        for option in key.options
    }
    section.know(name for names in inside.values() for name in names)
    given = [kind for kind, names in inside.items() if any(map(section.has, names))]
    if len(given) != 1:
        section.error(
            f"{section.name} needs one of embedded: {{pairs, seed}}, path: FOLDER, or name: NAME with pairs "
            "and scored for a pool that is only described"
        )
        return FolderPool(path="")
    (option,) = [each for each in key.options if each.kind is given[0]]
    inner = section if option.form == "inline" else section.section(option.name)
    pool: DeclaredPool = walk.read(section if inner is None else inner, option.kind)
    return pool


def _seeds(_: Walk, root: Section, __: Mapping[str, Any]) -> tuple[int, ...]:
    """Read the seeds; a bare number might be meant as their number."""
    seeds = root.take_list("seeds", values.positive_or_zero, (0,))
    if root.is_value("seeds") and seeds and seeds[0] > 1:
        root.error(
            f"seeds: {seeds[0]} is ambiguous: write [{seeds[0]}] for the single seed {seeds[0]}, "
            f"or list {seeds[0]:,} seeds, such as [0, 1, …]",
            "seeds",
        )
    return seeds


def _training(walk: Walk, root: Section, found: Mapping[str, Any]) -> Training:
    """Read the recipe; a preset's learning rate applies to every architecture of the grid."""
    section = root.section("training", required=True)
    if section is None:
        return Training(lr_peak={})
    name = section.take("preset", OneOf(kind="preset", allowed=tuple(PRESETS)), "default")
    preset = PRESETS[name]
    used = (name for block in found["grid"] for name in block.architectures)
    rates = {} if preset.lr_peak is None else dict.fromkeys(used, preset.lr_peak)
    defaults = Training(
        preset=name, lr_peak={}, batch_size=preset.batch_size, lr_rule=preset.lr_rule, recipe=preset.recipe
    )
    training = walk.read(section, Training, defaults)
    tuned = {} if found["tuning"] is None else found["tuning"].fields
    ruled = any(rule.lr_peak is not None for rule in training.rules)
    if not (section.has("lr_peak") or ruled) and preset.lr_peak is None and "lr_peak" not in tuned:
        section.error("training.lr_peak is missing: the peak learning rate of each architecture", "lr_peak")
    recipe = training.recipe
    if isinstance(recipe.warmup, int):  # samples
        recipe = replace(recipe, warmup=Recipe().warmup, warmup_samples=recipe.warmup)
    return replace(training, lr_peak=rates | training.lr_peak, recipe=recipe)


def _resources(walk: Walk, root: Section, _: Mapping[str, Any]) -> Resources:
    """Read the resources; with a cluster, amounts that are not declared are chosen."""
    root.spell_out("resources", a_list="rules", words={"auto": ("auto", True)})
    section = root.section("resources")
    declared = section is not None and any(map(section.has, ("cpus", "gpus", "nodes", "ranks")))
    defaults = Resources(auto=root.has("cluster") and not declared)
    return defaults if section is None else walk.read(section, Resources, defaults)


def _tuned_fields(_: Walk, section: Section, __: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
    """Read the values to try for each tuned field, with that field's own reader."""
    readers, fields = tunable(Training), dict[str, tuple[float, ...]]()
    inner = section.section("fields", required=True)
    for name in () if inner is None else inner.names():
        assert inner is not None
        if name not in readers:
            inner.error(f"tuning.fields: {unknown('field', name, readers)}", name)
        fields[name] = tuple(sorted(inner.take_list(name, readers.get(name, values.positive_number))))
        if len(fields[name]) < 2 and inner.sound(name):  # noqa: PLR2004 - a choice needs two values
            inner.error(f"tuning.fields.{name} needs at least two values to choose from", name)
    if inner is not None and not fields:
        section.error("tuning.fields names no field to tune", "fields")
    return fields
