"""Reader of declarations, with the rules of keys that a data class can't express."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from budgets.cost.architecture import catalogue, load_architecture, open_clip_configs
from budgets.cost.strategy import STRATEGIES
from budgets.declaration import values
from budgets.declaration.data_sections import DeclaredPool, FolderPool, MixedPool
from budgets.declaration.declaration import Declaration
from budgets.declaration.keys import Key, OneOf, clashes, keys, tunable
from budgets.declaration.recipe import PRESETS, Recipe
from budgets.declaration.sections import Resources, Training, Tuning
from budgets.names import unknown
from study.declare import shipped_studies
from study.declare.yaml_reader import DeclarationError, Section, read_root

T = TypeVar("T")
Special = Callable[["Walk", Section, Mapping[str, Any]], Any]
"""A reader for a key with its own rules; called with the section and the values of the fields before it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Walk:
    """A reader of a declaration's sections.

    Attributes:
        names: Kind of name → the allowed names, for kinds that the data class does not list.
        special: Data class and field → the field's own reader.
    """

    names: Mapping[str, tuple[str, ...]]
    special: Mapping[tuple[type, str], Special]

    def read(self, section: Section, kind: type[T], defaults: T | None = None) -> T:
        """Read a section as its data class; ``defaults`` replace the class's defaults."""
        found: dict[str, Any] = {}
        for key in keys(kind):
            default = key.default if defaults is None else getattr(defaults, key.field)
            # A dotted key such as `evaluation.at` lies in another key's section, which must not read it as
            # one of the user's names.
            dotted_inside = [
                each.name.partition(".")[2] for each in keys(kind) if each.name.startswith(f"{key.name}.")
            ]
            special = self.special.get((kind, key.field))
            around, _, last = key.name.rpartition(".")
            place = section.section(around) if around else section
            if special is not None:
                found[key.field] = special(self, section, found)
            elif place is None:
                found[key.field] = default
            else:
                found[key.field] = self._value(place, replace(key, name=last, default=default), dotted_inside)
        value = kind(**found)
        # Beside a misspelt key, what seems to contradict it may not.
        for at, message in () if section.misspelt() else clashes(value, section.has):
            around = f"{section.name}{'.' if at else ' '}" if section.name else ""
            section.error(f"{around}{message}", at or None)
        return value

    def _value(self, section: Section, key: Key, dotted_inside: Sequence[str]) -> Any:  # noqa: ANN401, PLR0911 - of the field's type; one a form
        """Read the value of a key; ``dotted_inside``: keys of their own inside its section."""
        required = key.default is MISSING
        read, read_name = self._named(key.read), self._named(key.read_name)
        match key.form:
            case "value":
                return section.take(key.name, read, key.default)
            case "list":
                values = section.take_list(key.name, read, key.default)
                return tuple(sorted(values)) if key.rising else values
            case "range":
                return _range(section, key, section.take_list(key.name, read, key.default or ()))
            case "mapping":
                return section.take_mapping(key.name, read, read_name)
            case "inline":
                return self.read(section, key.kind, None if required else key.default)
            case "section":
                inner = section.section(key.name, required=required)
                return key.default if inner is None else self.read(inner, key.kind)
            case "sections":
                inside = section.sections(key.name, required=required)
                return tuple(self.read(each, key.kind) for each in inside)
            case "named":
                inner = section.section(key.name)
                names = () if inner is None else [name for name in inner.names() if name not in dotted_inside]
                return {name: each for name in names if (each := self.one(inner, name, key.kind)) is not None}
        raise TypeError(f"no reader for '{key.field}' of form {key.form}")

    def one(self, section: Section | None, name: str, kind: type[T]) -> T | None:
        """Read a named section; a single value is taken as the value of its first key."""
        assert section is not None
        inner = section.section(name) if section.is_section(name) else None
        if inner is not None:
            return self.read(inner, kind)
        first = keys(kind)[0]
        value = section.take(name, self._named(first.read))
        return None if value is None else kind(**{first.field: value})

    def _named(self, read: Callable[[str], Any] | None) -> Callable[[str], Any]:
        if isinstance(read, OneOf) and not read.allowed:
            return replace(read, allowed=self.names[read.kind])
        return read or str


def _range(section: Section, key: Key, values: tuple[Any, ...]) -> tuple[Any, Any] | None:
    """Return the lowest and the highest of one or two values, given in this order."""
    field = f"{section.name}.{key.name}"
    if len(values) > 2:  # noqa: PLR2004 - the ends of a range
        noun = getattr(key.read, "noun", "").removeprefix("a ")
        section.error(f"{field} is one {noun}, or the lowest and the highest", key.name)
    elif values and values[0] > values[-1]:
        section.error(f"{field}: the lowest comes first, found {values[0]:g} before {values[-1]:g}", key.name)
    return (min(values), max(values)) if values else None


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
    files = ("ledger.jsonl", "plan.parquet", "left-out.parquet")
    ledger, *tables = (path.with_name(each).is_file() for each in files)
    # A user may have written a plan of that name beside a declaration of that name.
    return path.name == "study.yaml" and (ledger or all(tables))


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
