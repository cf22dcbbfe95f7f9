"""What planning needs to know of a study's pools, evaluation sets and models, in the versions it keeps to."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from budgets.cost.architecture import Architecture, load_architecture
from budgets.cost.counted import count_file, read_count, shipped_count
from budgets.cost.layers import TowerCost
from budgets.cost.strategy import CountedCost, Strategy
from budgets.cost.strategy_files import load_strategy_files
from budgets.declaration.data_sections import DeclaredPool
from budgets.declaration.declaration import Declaration
from budgets.declaration.marked_file import DeclaredKeyError, at_key
from budgets.machine_cache import machine_cache
from budgets.planning.facts import EvaluationFacts, MixtureFacts, PoolFacts, Ranking
from budgets.planning.plan import Plan
from budgets.quality import score_of_quality
from runners.data.build.source import not_indexed
from runners.data.evaluation.evaluation_set import (
    RETRIEVAL_METRICS,
    ZERO_SHOT_METRICS,
    SetFacts,
    describe_evaluation_set,
)
from runners.data.index.writing import VERSIONS
from runners.data.pool.pool import Pool, read_facts, scorer_costs
from runners.embedded.bank import CONCEPTS
from runners.embedded.embedded_pool import evaluation_counts, scorer
from runners.store.copies import pool_at, set_at
from runners.store.files import new_file, read_sealed, write_sealed
from study.state.study import Study, own_sets

POOL_VERSION = "pool-version.json"
"""File of a study that names the version of the pool that it was planned on."""

_RANKINGS = "rankings.json"


def study_facts(study: Study) -> tuple[PoolFacts | MixtureFacts, EvaluationFacts]:
    """Return the facts of the pool or of the mixtures, and of all evaluation sets.

    Raises:
        ValueError: A pool or a set can't be read, or is not what was declared.
    """
    declaration = study.declaration
    pools = {name: _pool_facts(study, name, pool) for name, pool in declaration.sources.items()}
    facts = MixtureFacts(pools=pools, mixtures=declaration.mixtures) if declaration.mixtures else pools[""]
    if declaration.described:
        sets = {
            name: SetFacts(images=images, texts=texts, metrics=(), choices=0, content="")
            for name, (images, texts) in declaration.evaluation_counts.items()
        }
        return facts, _evaluation(sets)
    for name, path in declaration.evaluation.items():
        with at_key(f"evaluation.{name}"):
            set_at(path, study.evaluation[name])
    declared = {name: _declared_set(study, name) for name in declaration.evaluation}
    sets = {}
    for pool in declaration.sources:
        for name, brought in _brought_sets(study, pool, declared):
            if sets.setdefault(name, brought) != brought and name not in declared:
                raise DeclaredKeyError(
                    "pools",
                    f"the pools contain different evaluation sets named {name}; declare which to use: "
                    f"evaluation: {{{name}: {study.pool_folders[pool] / 'evaluation' / name}}}",
                )
    return facts, _evaluation(sets | declared)


def _pool_facts(study: Study, name: str, pool: DeclaredPool) -> PoolFacts:
    """Return the facts of a pool; the description of one below a URL is copied first."""
    if (embedded := pool.embedded) is not None:  # it may not be built yet
        costs = {"": scorer_costs(scorer(embedded.pairs), embedded.name)}
        folder = study.pool_folders[name]
        columns = Pool.open(folder).column_facts if (folder / "pool.json").exists() else {}
        pairs = embedded.pairs
        return PoolFacts(name=pool.content, pairs=pairs, scored=True, score_costs=costs, columns=columns)
    if pool.path is None:
        return PoolFacts(name=pool.content, pairs=pool.pairs or 0, scored=pool.scored)
    key, folder = f"pools.{name}" if name else "pool", study.pool_folders[name]
    version = pool_versions(study).get(name, "")
    with at_key(f"{key}.path"):
        pool_at(pool.path, folder)
        tolerance = study.declaration.limits.damage
        opened = Pool.open(folder, tolerance=tolerance, holding=version)
    if version and opened.unranked != version:
        raise DeclaredKeyError(
            key,
            f"{folder} does not have index version {version}, on which {study.declaration.name} was planned "
            f"({study.folder / POOL_VERSION}). Restore that version, declare the pool that has it, or change "
            "study: to start a new study",
        )
    if not version and (problem := not_indexed(opened)):
        raise DeclaredKeyError(key, problem)
    rankings = {
        name: Ranking(name=score.fingerprint, scored_pairs=score.pairs)
        for name, score in opened.scores.items()
    }
    return PoolFacts(
        name=opened.fingerprint,
        pairs=opened.count,
        scored=opened.scored > 0,
        scored_pairs=opened.scored,
        subsets=opened.subsets,
        unranked=opened.unranked,
        rankings=rankings | {text: rankings[name] for text, name in opened.computed.items()},
        score_costs=opened.score_costs,
        columns=opened.column_facts,
    )


def _brought_sets(
    study: Study, pool: str, declared: Mapping[str, SetFacts]
) -> Iterator[tuple[str, SetFacts]]:
    """Yield the evaluation sets that a pool brings; those of an embedded pool may not exist yet."""
    if study.declaration.sources[pool].embedded is not None:
        for name, (images, texts) in evaluation_counts().items():
            retrieval = name == "retrieval"
            metrics, choices = (
                (RETRIEVAL_METRICS, images) if retrieval else (ZERO_SHOT_METRICS, len(CONCEPTS))
            )
            yield name, SetFacts(images=images, texts=texts, metrics=metrics, choices=choices, content="")
        return
    for path in own_sets(study.pool_folders[pool]):
        yield path.name, declared.get(path.name) or describe_evaluation_set(path)


def _declared_set(study: Study, name: str) -> SetFacts:
    """Describe a declared evaluation set.

    Raises:
        ValueError: The set lies among the pool's training shards, or can't be read.
    """
    path = study.evaluation[name]
    for folder in study.pool_folders.values():
        pool = folder.resolve()
        if path.resolve().is_relative_to(pool) and not path.resolve().is_relative_to(pool / "evaluation"):
            raise DeclaredKeyError(
                f"evaluation.{name}",
                f"evaluation set {path} lies inside the pool {folder}, so its pairs would be trained on. "
                f"Move it to another folder, or into {folder / 'evaluation'}",
            )
    with at_key(f"evaluation.{name}"):
        return describe_evaluation_set(path, probe=name in study.declaration.probes)


def _evaluation(sets: Mapping[str, SetFacts]) -> EvaluationFacts:
    """Return the facts of all sets; the id of a set contains its content if that is known."""
    return EvaluationFacts(
        names=tuple(f"{name}@{facts.content}" if facts.content else name for name, facts in sets.items()),
        images=sum(facts.images for facts in sets.values()),
        texts=sum(facts.texts for facts in sets.values()),
        metrics=tuple(f"{name}/{metric}" for name, facts in sets.items() for metric in facts.metrics),
        choices={name: facts.choices for name, facts in sets.items()},
    )


def pool_versions(study: Study) -> dict[str, str]:
    """Return the version of each declared pool that the study's runs use; empty before its first run.

    A pool that the declaration has renamed is known by its path, one that was moved by its name.
    """
    known, declared, versions = _recorded(study), _folder_pools(study), dict[str, str]()
    by_path = {record["pool"]: record for record in known.values()}
    for name, path in declared.items():
        same, named = by_path.get(path), known.get(name)
        moved = named is not None and named["pool"] not in declared.values()
        if (record := same or (named if moved else None)) is not None:
            versions[name] = record["version"]
    return versions


def keep_pool_versions(study: Study) -> None:
    """Record the present version of each pool; the study keeps to it if shards are added."""
    known, versions = pool_versions(study), dict[str, dict[str, str]]()
    for name, path in _folder_pools(study).items():
        facts = read_facts(study.pool_folders[name])
        versions[name] = {"pool": path, "version": known.get(name) or facts["unranked"]}
    if versions.keys() - known.keys():
        # Pools that the declaration no longer names keep their versions, in case it names them again.
        write_sealed(study.folder / POOL_VERSION, {"pools": _recorded(study) | versions})


def _folder_pools(study: Study) -> dict[str, str]:
    """Return the declared path of each pool that has a folder or a URL, by its name."""
    sources = study.declaration.sources
    return {name: pool.path for name, pool in sources.items() if pool.path is not None}


def _recorded(study: Study) -> dict[str, dict[str, str]]:
    """Return the path and version of each recorded pool, by the name that it had; empty without a record.

    Raises:
        ValueError: The record is damaged.
    """
    file = study.folder / POOL_VERSION
    advice = (
        "restore it, or delete it if no shards were added since the first run: the next one writes it again"
    )
    try:
        pools: dict[str, dict[str, str]] = read_sealed(file, advice)["pools"]
    except FileNotFoundError:
        return {}
    return pools


def keep_rankings(study: Study, plan: Plan) -> None:
    """Record for each quality and mixture of a plan the ids of its pools, which depend on their rankings."""
    rankings = {
        trial.cell.quality: [[part.name, part.quality, part.pool] for part in trial.components]
        for trial in plan.all_trials
    }
    write_sealed(study.folder / _RANKINGS, rankings)


def keep_strategy_files(study: Study, plan: Plan) -> None:
    """Keep each version of the user's files that a plan's trials use, as ``STEM-VERSION.py``."""
    for file in {trial.strategy_file for trial in plan.all_trials} - {None}:
        assert file is not None
        copy = study.folder / f"{Path(file.path).stem}-{file.version}.py"
        if not copy.exists():
            with new_file(copy) as new:
                new.write_text(file.text, encoding="utf-8")


def ranked_anew(study: Study) -> set[str]:
    """Return the qualities and mixtures of the last run whose pairs a later score has changed.

    Only ``pool.json`` is read; of a pool below a URL, that of this machine's copy.

    Raises:
        ValueError: The study's record of its rankings is damaged.
    """
    file = study.folder / _RANKINGS
    try:
        rankings = read_sealed(file, "run the study again to rewrite it")
    except FileNotFoundError:
        return set()
    pools = {name: _kept_facts(study, name) for name in study.declaration.sources}
    return {
        quality
        for quality, parts in rankings.items()
        if any(_id_now(pools.get(name, {}), part, known) != known for name, part, known in parts)
    }


def _id_now(facts: Mapping[str, Any], quality: str, known: str) -> str:
    """Return the present content id of a quality's pairs; the known one if the pool's facts give none."""
    if not quality.startswith("top"):
        return known
    if not facts:
        return known
    score = facts["scores"].get(score_of_quality(quality) or facts["ranked_by"])
    return str(score["fingerprint"]) if score else known


def _kept_facts(study: Study, name: str) -> Mapping[str, Any]:
    """Return the facts of a pool in the version that the study keeps to; empty without such a file."""
    if study.declaration.sources[name].path is None:
        return {}
    folder, version = study.pool_folders[name], pool_versions(study).get(name)
    for file in (folder / "pool.json", *sorted((folder / VERSIONS).glob("*.json"))):
        try:
            facts = read_facts(folder, file.relative_to(folder))
            if version in {None, facts["unranked"]}:
                return facts
        except (OSError, ValueError, KeyError):
            continue
    return {}


def count_models(declaration: Declaration) -> None:
    """Have torch count each model of the grid without closed form or shipped count, once on this machine.

    Raises:
        ValueError: open_clip can't build it; the message gives its reason.
    """
    for architecture in _counted_here(declaration):
        if read_count(architecture.config) is None:
            from runners.models.count_by_torch import ensure_counted  # noqa: PLC0415 - torch takes seconds

            with at_key("grid" if declaration.catalogue is None else "catalogue"):
                ensure_counted(architecture)


def own_strategies(declaration: Declaration, pool: PoolFacts | MixtureFacts) -> dict[str, Strategy]:
    """Load the user's strategies, and check them with the models of their blocks, once on this machine.

    Those that state no costs have what torch counts. Strategies whose columns are not known are not checked.

    Raises:
        ValueError: A file can't be loaded, torch counts other FLOPs than a strategy states, or a step fails.
    """
    with at_key("strategy_files"):
        strategies = load_strategy_files(declaration.strategy_files)
    for architecture_name, name in declaration.pairs:
        if (strategy := strategies.get(name)) is None or not pool.widths.keys() >= {*strategy.columns}:
            continue
        architecture = load_architecture(architecture_name, declaration.catalogue)
        count = _checked(strategy, architecture, {column: pool.widths[column] for column in strategy.columns})
        strategies[name] = replace(strategy, counted=(*strategy.counted, *count))
    return strategies


def _checked(
    strategy: Strategy, architecture: Architecture, widths: Mapping[str, int]
) -> tuple[CountedCost, ...]:
    """Check a strategy unless this machine's cache has its check; return what it counted, if that counts."""
    assert strategy.file is not None, "its file lists it"
    model, columns = count_file(architecture.config).stem, "".join(f"-{width}" for width in widths.values())
    name = f"{architecture.name}-{strategy.name}-{strategy.file.version}-{model}{columns}.json"
    file = machine_cache() / "strategies" / name
    try:
        known = read_sealed(file, "it is written again")
        return tuple(CountedCost(**{**cost, "head": TowerCost(**cost["head"])}) for cost in known["counts"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # not checked, or the file is damaged
        from runners.training.check_strategy import check_strategy  # noqa: PLC0415 - torch takes seconds

        with at_key("strategy_files"):
            count = check_strategy(strategy, architecture, widths)
        counts = () if count is None else (count,)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_sealed(file, {"counts": [asdict(cost) for cost in counts]})
        return counts


def counted_models(declaration: Declaration) -> str:
    """Name the models of a grid whose FLOPs torch counted on this machine, with the reason."""
    return "; ".join(
        f"{architecture.name} ({architecture.why_counted}"
        f"{'' if (count := read_count(architecture.config)) is None else f'; {count.counted_by}'})"
        for architecture in _counted_here(declaration)
    )


def _counted_here(declaration: Declaration) -> Iterator[Architecture]:
    for name in sorted({name for block in declaration.grid for name in block.architectures}):
        architecture = load_architecture(name, declaration.catalogue)
        if not architecture.closed_form and shipped_count(architecture.config) is None:
            yield architecture
