"""A declared study: its folders, its pool and its plan.

Only the function that needs torch imports it, so that planning starts at once.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from budgets.cost.architecture import Architecture, load_architecture
from budgets.cost.counted import read_count
from budgets.declaration import Declaration, DeclaredPool, DescribedPool, EmbeddedPool, FolderPool
from budgets.hardware.devices import device
from budgets.keys import DeclaredKeyError, at_key
from budgets.names import printable, unknown
from budgets.planning.facts import Component, EvaluationFacts, MixtureFacts, PoolFacts, Ranking
from budgets.planning.grid import Grid
from budgets.planning.plan import Charge, Plan
from budgets.planning.planner import make_plan
from budgets.planning.price import Speeds
from budgets.planning.tuned.tuning import Scores
from budgets.quality import BY, MIXTURE, NAMED, score_of_quality
from runners.data.build.in_place import not_indexed, open_pool
from runners.data.evaluation.evaluation_facts import (
    RETRIEVAL_METRICS,
    ZERO_SHOT_METRICS,
    SetFacts,
    describe_evaluation_set,
)
from runners.data.places.copies import copy_name, copy_pool, copy_set, is_url
from runners.embedded.embedded_pool import evaluation_counts
from runners.embedded.scorer_cost import scorer
from runners.host.files import write_json
from runners.host.storage import cache_folder
from runners.results import (
    LEFT_OUT_COLUMNS,
    PLAN_COLUMNS,
    left_out_row,
    plan_row,
    read_json_lines,
    to_frame,
)
from runners.trials.speed.throughput import (
    Kind,
    kind,
    plain_speed,
    predict_s,
    read_calibration,
    slow_loading,
)
from study.declare.shipped import DECLARATIONS
from study.declare.yaml_reader import errors_with_line
from study.state.tuning_table import read_scores
from study.storage.bucket_storage import BucketStorage
from study.storage.folder_storage import FolderStorage

POOL_VERSION = "pool-version.json"
"""File of a study that names the version of the pool that it was planned on."""

_USUAL = {
    "acc": "top1",
    "acc1": "top1",
    "accuracy": "top1",
    "acc5": "top5",
    "mean_per_class_recall": "mean_per_class",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """A declared study and its folders.

    Attributes:
        declaration: The declaration.
        source: The declaration's file; None if it was made in code.
        folder: ``results/<name>``.
        pools: Folder of generated pools.
        storage: The storage that nodes and drivers share.
    """

    declaration: Declaration
    folder: Path
    pools: Path
    storage: FolderStorage
    source: Path | None = None

    @property
    def word(self) -> str:
        """The study as an argument of a command: its file, or its name if it is shipped."""
        shipped = self.source is None or self.source.parent == DECLARATIONS
        return self.declaration.name if shipped else str(self.source)

    @property
    def pool_folders(self) -> dict[str, Path]:
        """Each pool's folder by name; for a pool below a URL, that of the copy of its description."""
        return {
            name: self._here(pool.path) if isinstance(pool, FolderPool) else self.pools / pool.name
            for name, pool in self.declaration.sources.items()
        }

    @property
    def calibration(self) -> Path:
        """The file that ``calibrate`` writes."""
        return self.folder / "throughput.json"

    @property
    def evaluation(self) -> dict[str, Path]:
        """Evaluation sets by name: those in the pools' folders, then those of the declaration."""
        own = (path for folder in self.pool_folders.values() for path in own_sets(folder))
        return {path.name: path for path in own} | {
            name: self._here(path) for name, path in self.declaration.evaluation.items()
        }

    def _here(self, place: str) -> Path:
        return self.pools / copy_name(place) if is_url(place) else Path(place)


def own_sets(pool: Path) -> list[Path]:
    """Return the folders of the evaluation sets that a pool brings."""
    return sorted((pool / "evaluation").glob("*/"))


def find_study(
    declaration: Declaration, *, results: str | None, pools: str | None, source: Path | None = None
) -> Study:
    """Return the study of a declaration with its folders.

    Args:
        declaration: The declaration.
        results: Folder of studies; None for ``results`` below the declared storage folder, if any, else below
            the working directory.
        pools: Folder of pools; None for ``pools`` likewise, or in this machine's cache for a bucket.
        source: The declaration's file.
    """
    place = declaration.storage or ""
    away = "://" in place
    shared = Path("" if away else place)
    folder = Path(results or shared / "results") / declaration.name
    return Study(
        declaration=declaration,
        folder=folder,
        pools=Path(pools or (cache_folder(place) if away else shared) / "pools"),
        storage=BucketStorage(place, f"results/{declaration.name}", folder)
        if away
        else FolderStorage(folder),
        source=source,
    )


def plan_study(study: Study) -> Plan:
    """Plan a study; shards that have no index yet are indexed first.

    Raises:
        ValueError: The pool or an evaluation set can't be read, the grid does not fit the budget, no
            evaluation set has the metric, or a model without closed form can't be counted. The message
            begins with the file and line of the declared key.
    """
    with errors_with_line(study.source):
        return _plan(study)


def _plan(study: Study) -> Plan:
    count_models(study.declaration)
    pool, evaluation, charges = _facts(study)
    declaration = study.declaration
    if isinstance(pool, PoolFacts):
        for number, block in enumerate(declaration.grid, start=1):
            with at_key(f"grid[{number}].quality"):
                _check_qualities(block.quality, pool)
    else:
        for name, parts in pool.mixtures.items():
            for part, mixed in parts.items():
                with at_key(f"mixtures.{name}.{part}"):
                    _check_qualities([mixed.quality], pool.pools[part])
    names = dict.fromkeys(each for block in declaration.grid for each in declaration.qualities(block))
    _check_twins(names, pool)
    metric = declaration.metric
    if metric not in evaluation.metrics and not declaration.described:
        message = unknown("metric", metric, evaluation.metrics, meant=_usual(metric))
        raise DeclaredKeyError(
            "metric", f"{message}. Declare your own evaluation sets under evaluation: as NAME: FOLDER"
        )
    plan = make_plan(
        study.declaration,
        pool=pool,
        evaluation=evaluation,
        charges=charges,
        scores=_scores(study, evaluation.metrics),
        own=device_throughput(study),
    )
    slow = slow_loading(plan.trials, read_calibration(study.calibration))
    return replace(plan, warnings=(*plan.warnings, *slow))


def _usual(metric: str) -> str:
    """Return a metric under its name here, if it has another usual one."""
    name, _, measured = metric.partition("/")
    return f"{name}/{_USUAL.get(measured.lower(), measured)}"


def count_models(declaration: Declaration) -> None:
    """Have torch count each model of the grid that has no closed form, once on this machine.

    Raises:
        ValueError: open_clip can't build it; the message gives its reason.
    """
    for architecture in _without_closed_form(declaration):
        if read_count(architecture.config) is None:
            from runners.models.count import ensure_counted  # noqa: PLC0415 - torch takes seconds

            ensure_counted(architecture)


def counted_models(declaration: Declaration) -> str:
    """Name the models of a grid whose FLOPs torch counted, with the reason; empty if there are none."""
    return "; ".join(
        f"{each.name} ({each.why_counted}"
        f"{'' if (count := read_count(each.config)) is None else f'; {count.counted_by}'})"
        for each in _without_closed_form(declaration)
    )


def _without_closed_form(declaration: Declaration) -> Iterator[Architecture]:
    folder = None if declaration.catalogue is None else Path(declaration.catalogue)
    for name in sorted({name for block in declaration.grid for name in block.architectures}):
        architecture = load_architecture(name, folder)
        if not architecture.closed_form:
            yield architecture


def _check_qualities(qualities: Iterable[str], pool: PoolFacts) -> None:
    """Raise ValueError for a quality that the pool does not have."""
    for quality in qualities:
        score, subset = score_of_quality(quality), quality.removeprefix(NAMED)
        if quality.startswith(NAMED) and subset not in pool.subsets:
            raise ValueError(f"quality {quality}: {_unknown_or_none('named subset', subset, pool.subsets)}")
        if score is not None and score not in pool.rankings:
            raise ValueError(f"quality {quality}: {_unknown_or_none('score', score, pool.rankings)}")


def _check_twins(qualities: Iterable[str], pool: PoolFacts | MixtureFacts) -> None:
    """Raise DeclaredKeyError for two qualities or mixtures that are the same pairs."""
    pairs: dict[tuple[Component, ...], str] = {}
    for quality in qualities:
        content = tuple(
            replace(each, name="", quality=each.quality.partition(BY)[0])
            for each in pool.components(quality, pool.available(quality))
        )
        same = pairs.setdefault(content, quality)
        if same != quality:
            what = "" if quality.startswith(MIXTURE) else "quality "
            message = f"{what}{quality} is the same pairs as {same}; declare one of them"
            raise DeclaredKeyError("grid", message)


def _unknown_or_none(kind: str, found: str, allowed: Iterable[str]) -> str:
    names = list(allowed)
    return unknown(kind, found, names) if names else f"the pool has no {kind}; add it with `data score`"


def _scores(study: Study, metrics: tuple[str, ...]) -> Scores | None:
    """Read the scores of the study's tuning so far, on the pool's validation set if it has one.

    Raises:
        ValueError: No evaluation set has the declared metric.
    """
    tuning, own = study.declaration.tuning, study.declaration.metric
    if tuning is None:
        return None
    if tuning.metric is not None and metrics and tuning.metric not in metrics:
        message = unknown("metric", tuning.metric, metrics, meant=_usual(tuning.metric))
        raise DeclaredKeyError("tuning.metric", f"tuning.metric: {message}")
    apart = f"validation/{own.partition('/')[2]}"
    metric = tuning.metric or (apart if apart in metrics else own)
    return Scores(metric=metric, of=read_scores(study.folder / "tuning.parquet", metric))


def study_grid(study: Study) -> Grid:
    """Return a study's grid: every declared cell, feasible or not.

    Raises:
        ValueError: The pool or an evaluation set can't be read.
    """
    with errors_with_line(study.source):
        pool, evaluation, _ = _facts(study)
    return Grid(study.declaration, pool, evaluation)


def plan_tables(plan: Plan) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the plan's trials and left-out cells as tables; the same plan gives the same tables.

    Therefore the predicted seconds do not use the study's own measurements (`measured_throughput`).
    """
    rows = [{**plan_row(trial), "predicted_s": predict_s(trial, {})} for trial in plan.trials]
    return to_frame(rows, PLAN_COLUMNS), to_frame(map(left_out_row, plan.left_out), LEFT_OUT_COLUMNS)


def measured_throughput(study: Study, plan: Plan) -> dict[Kind, float]:
    """Return samples/s on one device by kind of trial: of the last finished one here, else calibrated.

    Raises:
        ValueError: ``throughput.json`` can't be read.
    """
    found = read_calibration(study.calibration)
    calibrated = {} if found is None else found.speeds
    events = read_json_lines(study.folder / "events.jsonl")
    if events.empty or "samples_per_s" not in events:
        return calibrated
    speeds = events.dropna(subset=["samples_per_s"]).set_index("trial")["samples_per_s"].to_dict()
    return calibrated | {
        kind(trial): plain_speed(trial, speeds[trial.trial_id])
        for trial in plan.all_trials
        if speeds.get(trial.trial_id)
    }


def device_throughput(study: Study) -> Speeds:
    """Return samples/s by kind of trial, if calibrated on the device of the declared cluster.

    Raises:
        ValueError: ``throughput.json`` can't be read.
    """
    found, cluster = read_calibration(study.calibration), study.declaration.cluster
    if found is None or cluster is None or found.device != device(cluster.device).name:
        return {}
    return found.by_width


def _facts(study: Study) -> tuple[PoolFacts | MixtureFacts, EvaluationFacts, tuple[Charge, ...]]:
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
                    f"the pools bring different evaluation sets named {name}; declare the one that is meant: "
                    f"evaluation: {{{name}: {study.pool_folders[pool] / 'evaluation' / name}}}",
                )
    return facts, _evaluation(sets | declared), _charges(declaration)


def _charges(declaration: Declaration) -> tuple[Charge, ...]:
    """Return what the scores of the embedded pools cost, as one charge."""
    paid = [scorer(pool.pairs) for pool in declaration.sources.values() if isinstance(pool, EmbeddedPool)]
    if not paid:
        return ()
    training, scoring = sum(each.train_flops for each in paid), sum(each.scoring_flops for each in paid)
    return (Charge(what=paid[0].name, train_flops=training, evaluation_flops=scoring),)


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
            f"{folder} no longer has the version {version} of its index that {study.declaration.name} "
            f"was planned on; restore it, or give a study on the present one a new name (study:)",
        )
    if not version and (problem := not_indexed(opened)):
        raise DeclaredKeyError(key, problem)
    return PoolFacts(
        name=opened.fingerprint,
        pairs=opened.count,
        scored=opened.scored > 0,
        scored_pairs=opened.scored,
        subsets=opened.subsets,
        unranked=opened.unranked,
        rankings={
            name: Ranking(name=fingerprint, scored_pairs=scored)
            for name, (fingerprint, scored) in opened.rankings.items()
        },
    )


def _brought_sets(
    study: Study, pool: str, declared: Mapping[str, SetFacts]
) -> Iterator[tuple[str, SetFacts]]:
    """Yield the evaluation sets that a pool brings; those of an embedded one may not be made yet."""
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
    """Return the facts of all sets; only those with a known content have it in their ids."""
    return EvaluationFacts(
        names=tuple(f"{name}@{found.content}" if found.content else name for name, found in sets.items()),
        images=sum(found.images for found in sets.values()),
        texts=sum(found.texts for found in sets.values()),
        metrics=tuple(f"{name}/{metric}" for name, found in sets.items() for metric in found.metrics),
    )


def pool_versions(study: Study) -> dict[str, str]:
    """Return the version of each pool that the study's runs use; empty before its first run."""
    file = study.folder / POOL_VERSION
    if not file.exists():
        return {}
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        return {name: str(each["version"]) for name, each in facts.get("pools", {"": facts}).items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} does not name the version of a pool: {error!r}") from error


def keep_pool_versions(study: Study) -> None:
    """Record the present version of each pool, with which the study goes on if shards are added."""
    known, kept = pool_versions(study), dict[str, dict[str, str]]()
    for name, pool in study.declaration.sources.items():
        if isinstance(pool, FolderPool):
            facts = json.loads((study.pool_folders[name] / "pool.json").read_text(encoding="utf-8"))
            version = known.get(name) or facts.get("unranked", facts["fingerprint"])
            kept[name] = {"pool": pool.path, "version": version}
    if kept.keys() - known.keys():
        write_json(study.folder / POOL_VERSION, kept.get("", {"pools": kept}))


def ensure_pools(study: Study, say: Callable[[str], None]) -> None:
    """Build each embedded pool unless it exists on this machine or in the study's storage.

    Raises:
        OSError: The storage can't be reached.
    """
    for name, pool in study.declaration.sources.items():
        folder = study.pool_folders[name]
        if not isinstance(pool, EmbeddedPool) or (folder / "pool.json").exists():
            continue
        if study.storage.bring_pool(f"pools/{pool.name}"):
            continue
        from runners.embedded.scorer import build_scored_pool  # noqa: PLC0415 - torch takes seconds

        began = time.monotonic()
        say(f"building the pool {pool.name}: {pool.pairs:,} captioned emoji scenes, scored by a small CLIP …")
        build_scored_pool(folder, pairs=pool.pairs, seed=pool.seed)
        say(f"pool {folder} built in {time.monotonic() - began:.0f} s")


def _say_aside(text: str) -> None:
    sys.stderr.write(f"{printable(text)}\n")
