"""Plans and grids of studies, and the plan as tables."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import pandas as pd

from budgets.declaration.declaration import Declaration
from budgets.declaration.keys import DeclaredKeyError, at_key
from budgets.declaration.sections import Cluster
from budgets.names import unknown
from budgets.planning.facts import EvaluationFacts, MixtureFacts, PoolFacts
from budgets.planning.grid import Grid
from budgets.planning.plan import Plan
from budgets.planning.planned_trial import Trial
from budgets.planning.planner import make_plan
from budgets.planning.tuned.tuning import Scores
from budgets.quality import MIXTURE, NAMED, is_expression, score_of_quality
from budgets.quantity import plural
from runners.data.evaluation.evaluation_facts import METRICS
from runners.results import LEFT_OUT_COLUMNS, PLAN_COLUMNS, left_out_row, plan_row, to_frame
from runners.trials.speed.throughput import predict_s, read_calibration, slow_loading
from study.declare.yaml_reader import errors_with_line
from study.state.planning.counted_models import count_models
from study.state.planning.kept_trunks import with_kept_trunks
from study.state.planning.read_facts import study_facts
from study.state.planning.speeds import device_throughput
from study.state.planning.tuning_table import read_scores
from study.state.study import Study

_USUAL = {
    "acc": "top1",
    "acc1": "top1",
    "accuracy": "top1",
    "acc5": "top5",
    "mean_per_class_recall": "mean_per_class",
}


def plan_study(study: Study) -> Plan:
    """Plan a study; shards that have no index yet are indexed first.

    Raises:
        ValueError: The pool or an evaluation set can't be read, the grid does not fit the budget, no
            evaluation set has the metric, or a model without closed form can't be counted. The message
            begins with the file and line of the declared key.
    """
    with errors_with_line(study.source):
        return _plan(study)


def study_grid(study: Study) -> Grid:
    """Return a study's grid: every declared cell, feasible or not.

    Raises:
        ValueError: The pool or an evaluation set can't be read.
    """
    with errors_with_line(study.source):
        pool, evaluation, _ = study_facts(study)
    return Grid(study.declaration, pool, evaluation)


def plan_tables(plan: Plan) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the plan's trials and left-out cells as tables; the same plan gives the same tables.

    Therefore the predicted seconds do not use the study's own measurements (`measured_throughput`).
    """
    return planned_frame(plan.trials), to_frame(map(left_out_row, plan.left_out), LEFT_OUT_COLUMNS)


def planned_frame(trials: Sequence[Trial]) -> pd.DataFrame:
    """Return planned trials as a table."""
    return to_frame(map(planned_row, trials), PLAN_COLUMNS)


def planned_row(trial: Trial) -> dict[str, object]:
    """Return a planned trial's row of `PLAN_COLUMNS`."""
    return {**plan_row(trial), "predicted_s": predict_s(trial, {})}


def _plan(study: Study) -> Plan:
    count_models(study.declaration)
    pool, evaluation, charges = study_facts(study)
    declaration = study.declaration
    if isinstance(pool, PoolFacts):
        for number, block in enumerate(declaration.grid, start=1):
            with at_key(f"grid[{number}].quality"):
                _check_qualities(block.quality, pool)
    else:
        for name, parts in pool.mixtures.items():
            for part, mixed in parts.items():
                with at_key(f"mixtures.{name}.{part}"):
                    _check_qualities([mixed.quality], pool.pools[part], of=f" of the pool {part}")
    names = dict.fromkeys(each for block in declaration.grid for each in declaration.qualities(block))
    _check_twins(names, pool)
    metric, allowed = declaration.metric, _metrics(declaration.metric, declaration, evaluation)
    if metric not in allowed:
        message = unknown("metric", metric, allowed, meant=_usual(metric))
        advice = ". Declare your own evaluation sets under evaluation: as NAME: FOLDER"
        raise DeclaredKeyError("metric", message + ("" if declaration.described else advice))
    plan = make_plan(
        study.declaration,
        pool=pool,
        evaluation=evaluation,
        charges=charges,
        scores=_scores(study, evaluation),
        own=device_throughput(study),
    )
    slow = slow_loading(plan.trials, read_calibration(study.calibration))
    wide = _wide(plan, declaration.cluster)
    return with_kept_trunks(study, replace(plan, warnings=(*plan.warnings, *slow, *wide)))


def _wide(plan: Plan, cluster: Cluster | None) -> Iterator[str]:
    """Yield trials that take more of a node than the declared cluster's nodes have; these never start."""
    if cluster is None:
        return
    for one in dict.fromkeys(trial.resources for trial in plan.all_trials):
        for key, room in (("gpus", cluster.node_gpus), ("cpus", cluster.node_cpus)):
            amount = getattr(one, key)
            if room is not None and amount > one.nodes * room:
                yield (
                    f"resources.{key} = {amount} on {plural(one.nodes, 'node')}, but cluster.node_{key} is "
                    f"{room}: set resources.nodes, or cluster.node_{key} if the nodes are larger"
                )


def _metrics(metric: str, declaration: Declaration, evaluation: EvaluationFacts) -> tuple[str, ...]:
    """Return the allowed metrics: those of the sets; for a described pool, all that a set may have."""
    if declaration.described:
        return tuple(f"{metric.partition('/')[0]}/{name}" for name in METRICS)
    return evaluation.metrics


def _usual(metric: str) -> str:
    """Return a metric with a common synonym (`acc1`) replaced by this project's name (`top1`)."""
    name, _, measured = metric.partition("/")
    return f"{name}/{_USUAL.get(measured.lower(), measured)}"


def _check_qualities(qualities: Iterable[str], pool: PoolFacts, of: str = "") -> None:
    """Raise ValueError for a quality that the pool does not have."""
    for quality in qualities:
        score, subset = score_of_quality(quality), quality.removeprefix(NAMED)
        if quality.startswith(NAMED) and subset not in pool.subsets:
            problem = _unknown_or_none("named subset", subset, pool.subsets)
            raise ValueError(f"quality {quality}{of}: {problem}")
        if score is not None and score not in pool.rankings:
            advice = "; `data score POOL --with '=EXPRESSION' --name SCORE` computes a score from others"
            problem = _unknown_or_none("score", score, pool.rankings)
            raise ValueError(f"quality {quality}{of}: {problem}{advice if is_expression(score) else ''}")


def _check_twins(qualities: Iterable[str], pool: PoolFacts | MixtureFacts) -> None:
    """Raise DeclaredKeyError for two qualities or mixtures with the same pairs."""
    pairs: dict[tuple[object, ...], str] = {}
    for quality in qualities:
        content = tuple(each.content for each in pool.components(quality, pool.available(quality)))
        same = pairs.setdefault(content, quality)
        if same != quality:
            what = "" if quality.startswith(MIXTURE) else "quality "
            message = f"{what}{quality} and {same} select the same pairs; declare only one"
            raise DeclaredKeyError("grid", message)


def _unknown_or_none(kind: str, found: str, allowed: Iterable[str]) -> str:
    names = list(allowed)
    return unknown(kind, found, names) if names else f"the pool has no {kind}; add it with `data score`"


def _scores(study: Study, evaluation: EvaluationFacts) -> Scores | None:
    """Read the scores of the study's tuning so far, on the pool's validation set if it has one.

    Raises:
        ValueError: No evaluation set has the declared metric.
    """
    tuning = study.declaration.tuning
    if tuning is None:
        return None
    if tuning.metric is not None:
        allowed = _metrics(tuning.metric, study.declaration, evaluation)
        if tuning.metric not in allowed:
            message = unknown("metric", tuning.metric, allowed, meant=_usual(tuning.metric))
            raise DeclaredKeyError("tuning.metric", f"tuning.metric: {message}")
    metric = study.declaration.tuning_metric(evaluation.metrics)
    return Scores(metric=metric, of=read_scores(study.folder / "tuning.parquet", metric))
