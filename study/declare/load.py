"""A declaration's YAML → `budgets.declaration.Declaration`; with its two parts, all that knows the keys."""

from dataclasses import dataclass, field
from pathlib import Path

from budgets.cost.architecture import catalogue, load_architecture
from budgets.declaration import LOGGERS, Declaration, DescribedPool, EmbeddedPool, FolderPool
from budgets.names import unknown
from study.declare import values
from study.declare.load_grid import read_budget, read_exclusions, read_grid
from study.declare.load_training import (
    check_batch,
    check_storage,
    read_cluster,
    read_limits,
    read_resources,
    read_training,
)
from study.declare.load_tuning import read_tuning
from study.declare.shipped import shipped_studies
from study.declare.yaml_reader import DeclarationError, Section, read_root


def find_declaration(name: str, *, imported: tuple[str, ...] = ()) -> Path:
    """Finds a declaration by the path of its file, or by the name of one that comes with the project.

    Args:
        name: The path or the name.
        imported: Names of imported studies, which have no declaration, for the error.

    Raises:
        DeclarationError: There is neither.
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


def load_declaration(path: Path) -> Declaration:
    """Reads and checks a declaration.

    Raises:
        DeclarationError: All that is wrong with the file, one error a line, each with its line number.
    """
    root, problems = read_root(path)
    declaration = read_declaration(root)
    problems.raise_any()
    return declaration


def read_declaration(root: Section) -> Declaration:
    """Takes every key of a declaration; where it notes an error, what it gives is of no use."""
    name = root.take("study", values.name)
    folder, architectures = _catalogue(root)
    pool = _pool(root)
    storage = root.take("storage", values.storage, "")
    budget = read_budget(root)
    seeds = root.take_list("seeds", values.positive_or_zero, (0,))
    grid = read_grid(root, budget, architectures)
    exclude = read_exclusions(root, budget, grid, architectures)
    tuning = read_tuning(root, budget)
    tuned = () if tuning is None else tuple(tuning.fields)
    training = read_training(root, architectures, grid, tuned=tuned)
    metric = root.take("metric", values.metric, "held-out/top1")
    evaluation = _evaluation(root, described=isinstance(pool, DescribedPool))
    limits = read_limits(root)
    resources = read_resources(root)
    check_batch(
        root, training, resources, tuned=() if tuning is None else tuning.fields.get("batch_size", ())
    )
    check_storage(root, storage or "", resources)
    cluster = read_cluster(root, resources)
    loggers = root.take_names("loggers", "logger", LOGGERS, ())
    root.done()
    return Declaration(
        name=name,
        pool=pool,
        levels=budget.levels,
        study_flops=budget.study_flops,
        grid=grid,
        seeds=seeds,
        training=training,
        metric=metric,
        evaluation=evaluation.folders,
        limits=limits,
        resources=resources,
        exclude=exclude,
        ladder=budget.ladder,
        fit=budget.fit,
        evaluation_counts=evaluation.counts,
        cluster=cluster,
        catalogue=folder,
        storage=storage or None,
        probes=tuple(evaluation.probes),
        tuning=tuning,
        loggers=loggers,
    )


def _catalogue(root: Section) -> tuple[str | None, tuple[str, ...]]:
    """Reads the user's folder of architectures, and gives every name that the declaration may use."""
    folder = root.take("catalogue", values.path, "")
    if not folder:
        return None, catalogue()
    own = {file.stem: file for file in sorted(Path(folder).glob("*.json"))}
    if not own:
        root.error(f"catalogue: no folder with JSON files at '{folder}'", "catalogue")
    for name in own:
        try:
            load_architecture(name, Path(folder))
        except (ValueError, OSError) as error:
            root.error(f"catalogue: {error}", "catalogue")
    return folder, tuple(sorted({*catalogue(), *own}))


def _pool(root: Section) -> EmbeddedPool | FolderPool | DescribedPool:
    section = root.section("pool", required=True)
    if section is None:
        return FolderPool(path="")
    embedded = section.section("embedded")
    folder = section.take("path", values.path, "")
    described = [key for key in ("name", "pairs", "scored") if section.has(key)]
    pool: EmbeddedPool | FolderPool | DescribedPool = FolderPool(path=folder)
    if described and embedded is None and not folder:
        pool = DescribedPool(
            name=section.take("name", values.name),
            pairs=section.take("pairs", values.positive),
            scored=section.take("scored", values.yes_or_no, default=False),
        )
    elif embedded is not None and not folder and not described:
        pool = EmbeddedPool(
            pairs=embedded.take("pairs", values.positive),
            seed=embedded.take("seed", values.positive_or_zero, 0),
        )
        embedded.done()
    elif not folder or embedded is not None or described:
        section.error(
            "pool needs one of embedded: {pairs, seed}, path: FOLDER, or name: NAME with pairs and scored "
            "for a pool that is only described",
            "pool",
        )
        return pool
    section.done()
    return pool


@dataclass(frozen=True, kw_only=True, slots=True)
class _Evaluation:
    folders: dict[str, str] = field(default_factory=dict)
    counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    probes: list[str] = field(default_factory=list)


def _evaluation(root: Section, *, described: bool) -> _Evaluation:
    """Reads evaluation sets: folders, with a probe or without, or numbers of images and texts.

    The latter only where the pool is described, too.
    """
    section = root.section("evaluation")
    found = _Evaluation()
    for name in section.names() if section is not None else ():
        assert section is not None
        if not section.is_section(name):
            folder = section.take(name, values.path)
            if folder is not None:
                found.folders[name] = folder
            continue
        counts = section.section(name)
        assert counts is not None
        if counts.has("path") or counts.has("probe"):
            found.folders[name] = counts.take("path", values.path)
            if counts.take("probe", values.yes_or_no, default=False):
                found.probes.append(name)
            counts.done()
            continue
        if not described:
            section.error(
                f"evaluation.{name} needs a folder; images and texts alone go with a described pool", name
            )
        found.counts[name] = (
            counts.take("images", values.positive_or_zero),
            counts.take("texts", values.positive_or_zero),
        )
        counts.done()
    return found
