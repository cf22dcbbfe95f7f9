"""Facts of a study's pools and evaluation sets, as planning needs them."""

import sys
from collections.abc import Iterator, Mapping

from budgets.declaration.data_sections import DeclaredPool, DescribedPool, EmbeddedPool
from budgets.declaration.declaration import Declaration
from budgets.declaration.keys import DeclaredKeyError, at_key
from budgets.names import printable
from budgets.planning.facts import EvaluationFacts, MixtureFacts, PoolFacts, Ranking
from budgets.planning.plan import OF_POOL, Charge
from runners.data.build.in_place import not_indexed, open_pool
from runners.data.evaluation.evaluation_facts import (
    RETRIEVAL_METRICS,
    ZERO_SHOT_METRICS,
    SetFacts,
    describe_evaluation_set,
)
from runners.data.places.copies import copy_pool, copy_set, is_url
from runners.embedded.embedded_pool import evaluation_counts
from runners.embedded.scorer_cost import scorer
from study.state.planning.pool_versions import pool_versions
from study.state.study import Study, own_sets


def study_facts(study: Study) -> tuple[PoolFacts | MixtureFacts, EvaluationFacts, tuple[Charge, ...]]:
    """Return the facts of the pool or of the mixtures, of all evaluation sets, and earlier charges.

    Raises:
        ValueError: A pool or a set can't be read, or is not what was declared.
    """
    declaration = study.declaration
    pools = {name: _pool_facts(study, name, pool) for name, pool in declaration.sources.items()}
    facts = MixtureFacts(pools=pools, mixtures=declaration.mixtures) if declaration.mixtures else pools[""]
    if declaration.described:
        sets = {
            name: SetFacts(images=images, texts=texts, metrics=(), content="")
            for name, (images, texts) in declaration.evaluation_counts.items()
        }
        return facts, _evaluation(sets), ()
    for name, path in declaration.evaluation.items():
        if is_url(path):
            with at_key(f"evaluation.{name}"):
                copy_set(path, study.evaluation[name])
    declared = {name: _declared_set(study, name) for name in declaration.evaluation}
    sets = {}
    for pool in declaration.sources:
        for name, found in _brought_sets(study, pool, declared):
            if sets.setdefault(name, found) != found and name not in declared:
                raise DeclaredKeyError(
                    "pools",
                    f"the pools contain different evaluation sets named {name}; declare which to use: "
                    f"evaluation: {{{name}: {study.pool_folders[pool] / 'evaluation' / name}}}",
                )
    return facts, _evaluation(sets | declared), tuple(_charges(declaration))


def _charges(declaration: Declaration) -> Iterator[Charge]:
    """Yield the cost of each embedded pool's score; a pool with two names is scored once."""
    for pool in dict.fromkeys(
        each for each in declaration.sources.values() if isinstance(each, EmbeddedPool)
    ):
        paid = scorer(pool.pairs)
        yield Charge(
            what=f"{paid.name}{OF_POOL}{pool.name}", train_flops=paid.train_flops,
            evaluation_flops=paid.scoring_flops,
        )  # fmt: skip


def _pool_facts(study: Study, name: str, pool: DeclaredPool) -> PoolFacts:
    """Return the facts of a pool; the description of one below a URL is copied first."""
    if isinstance(pool, DescribedPool):
        return PoolFacts(name=pool.name, pairs=pool.pairs, scored=pool.scored)
    if isinstance(pool, EmbeddedPool):
        return PoolFacts(name=pool.name, pairs=pool.pairs, scored=True)
    key, folder = f"pools.{name}" if name else "pool", study.pool_folders[name]
    version = pool_versions(study).get(name, "")
    with at_key(f"{key}.path"):
        if is_url(pool.path):
            copy_pool(pool.path, folder)
        tolerance = study.declaration.limits.damage
        opened = open_pool(folder, tolerance=tolerance, holding=version, say=_say_aside)
    if version and opened.unranked != version:
        raise DeclaredKeyError(
            key,
            f"{folder} does not have index version {version}, on which {study.declaration.name} was planned. "
            "Restore that version, declare the pool that has it, or change study: to start a new study",
        )
    if not version and (problem := not_indexed(opened)):
        raise DeclaredKeyError(key, problem)
    rankings = {
        name: Ranking(name=fingerprint, scored_pairs=scored)
        for name, (fingerprint, scored) in opened.rankings.items()
    }
    return PoolFacts(
        name=opened.fingerprint,
        pairs=opened.count,
        scored=opened.scored > 0,
        scored_pairs=opened.scored,
        subsets=opened.subsets,
        unranked=opened.unranked,
        rankings=rankings | {text: rankings[name] for text, name in opened.computed.items()},
    )


def _brought_sets(
    study: Study, pool: str, declared: Mapping[str, SetFacts]
) -> Iterator[tuple[str, SetFacts]]:
    """Yield the evaluation sets that a pool brings; those of an embedded pool may not exist yet."""
    if isinstance(study.declaration.sources[pool], EmbeddedPool):
        for name, (images, texts) in evaluation_counts().items():
            metrics = RETRIEVAL_METRICS if name == "retrieval" else ZERO_SHOT_METRICS
            yield name, SetFacts(images=images, texts=texts, metrics=metrics, content="")
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
        names=tuple(f"{name}@{found.content}" if found.content else name for name, found in sets.items()),
        images=sum(found.images for found in sets.values()),
        texts=sum(found.texts for found in sets.values()),
        metrics=tuple(f"{name}/{metric}" for name, found in sets.items() for metric in found.metrics),
    )


def _say_aside(text: str) -> None:
    sys.stderr.write(f"{printable(text)}\n")
