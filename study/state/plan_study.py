"""A study's plan: made from its declaration and what its runs left, as tables, and by words of its cells."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from typing import TypeVar

import pandas as pd

from budgets.cost.strategy import Strategy, find_strategy
from budgets.declaration.declaration import Declaration
from budgets.declaration.marked_file import DeclaredKeyError, at_key
from budgets.declaration.sections import Cluster
from budgets.devices import find_device
from budgets.names import unknown
from budgets.planning.facts import EvaluationFacts, MixtureFacts, PoolFacts, ScoreCost
from budgets.planning.grid import Grid
from budgets.planning.plan import AGAIN, TOO_LARGE, Plan
from budgets.planning.planned_trial import Cell, Combination, Trial
from budgets.planning.planner import make_plan
from budgets.planning.price import Speeds, relative_hours, work_s
from budgets.planning.scoring import score_charges
from budgets.planning.tuning import Scores
from budgets.quality import MIXTURE, NAMED, is_expression, score_of_quality
from budgets.quantity import plural
from runners.data.evaluation.evaluation_set import METRICS
from runners.results import (
    LEFT_OUT_COLUMNS,
    PLAN_COLUMNS,
    SCORE_COLUMNS,
    VERSION,
    left_out_row,
    plan_row,
    read_events,
    score_rows,
    to_frame,
)
from runners.trials.throughput import read_calibration, slow_loading
from study.declare.yaml_reader import errors_with_line
from study.state.events import trials_of_event
from study.state.kept_trunks import with_kept_trunks
from study.state.study import Study
from study.state.study_facts import count_models, own_strategies, study_facts
from study.state.tuning_table import scores_of

T = TypeVar("T")

_PUNCTUATION = str.maketrans("", "", ",()")
_USUAL = dict.fromkeys(("acc", "acc1", "accuracy"), "top1")
_USUAL |= {"acc5": "top5", "mean_per_class_recall": "mean_per_class"}


def plan_study(study: Study, *, further: Iterable[str] = ()) -> Plan:
    """Plan a study.

    ``further`` are ids of attempts in addition to those that its runs were asked for.

    Raises:
        ValueError: The pool or an evaluation set can't be read, the grid does not fit the budget, no
            evaluation set has the metric, a model without closed form can't be counted, or a user's strategy
            can't be loaded or fails its check. The message begins with the file and line of the declared key.
    """
    with errors_with_line(study.source):
        plan = _plan(study).with_attempts((*trials_of_event(study.folder, AGAIN), *further))
        return with_kept_trunks(study, plan)


def study_grid(study: Study) -> Grid:
    """Return a study's grid: every declared cell, feasible or not.

    Raises:
        ValueError: The pool or an evaluation set can't be read.
    """
    with errors_with_line(study.source):
        pool, evaluation = study_facts(study)
        user_strategies = own_strategies(study.declaration, pool)
    return Grid(study.declaration, pool, evaluation, user_strategies, too_large=_too_large(study))


def _too_large(study: Study) -> dict[tuple[str, str, int], int]:
    """Return the least memory for which a device was too small in its runs, as `Grid` takes it."""
    events = read_events(study.folder / "events.jsonl")
    if "device" not in events:  # no event of this kind so far
        return {}
    full = events[(events["event"] == TOO_LARGE) & (events["device"] == device_name(study.declaration))]
    least = dict[tuple[str, str, int], int]()
    for event in full.sort_values("memory_bytes", ascending=False).to_dict("records"):
        kind = str(event["architecture"]), str(event["strategy"]), int(event["batch_size"])
        least[kind] = int(event["memory_bytes"])
    return least


def device_name(declaration: Declaration) -> str:
    """Return the declared name of the cluster's devices; empty without one."""
    return "" if declaration.cluster is None else declaration.cluster.device


def plan_tables(plan: Plan) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return the plan's trials, left-out cells and scores as tables; the same plan gives the same tables.

    Therefore the predicted seconds do not use the study's own measurements (`measured_throughput`).
    """
    left_out = to_frame(map(left_out_row, plan.left_out), LEFT_OUT_COLUMNS)
    return planned_frame(plan.trials, plan.cluster), left_out, to_frame(score_rows(plan), SCORE_COLUMNS)


def planned_frame(trials: Sequence[Trial], cluster: Cluster | None) -> pd.DataFrame:
    """Return planned trials as a table."""
    return to_frame((planned_row(trial, cluster) for trial in trials), PLAN_COLUMNS)


def planned_row(trial: Trial, cluster: Cluster | None) -> dict[str, object]:
    """Return a planned trial's row of `PLAN_COLUMNS`."""
    return {**plan_row(trial), "predicted_s": work_s(trial, cluster).middle}


def _plan(study: Study) -> Plan:
    declaration = study.declaration
    count_models(declaration)
    pool, evaluation = study_facts(study)
    user_strategies = own_strategies(declaration, pool)
    if isinstance(pool, PoolFacts):
        for number, block in enumerate(declaration.grid, start=1):
            with at_key(f"grid[{number}].quality"):
                _check_qualities(block.quality, pool)
    else:
        for name, parts in pool.mixtures.items():
            for part, mixed in parts.items():
                with at_key(f"mixtures.{name}.{part}"):
                    _check_qualities([mixed.quality], pool.pools[part], of=f" of the pool {part}")
    pools = {"": pool} if isinstance(pool, PoolFacts) else pool.pools
    of_columns: dict[str, list[ScoreCost]] = {}
    for number, block in enumerate(declaration.grid, start=1):
        with at_key(f"grid[{number}].strategies"):
            for strategy in block.strategies:
                of_columns[strategy] = _column_costs(find_strategy(strategy, user_strategies), pools)
    qualities = dict.fromkeys(name for block in declaration.grid for name in declaration.qualities(block))
    _reject_duplicate_qualities(qualities, pool)
    if message := _unknown_metric(declaration.metric, declaration, evaluation):
        advice = ". Declare your own evaluation sets under evaluation: as NAME: FOLDER"
        raise DeclaredKeyError("metric", message + ("" if declaration.described else advice))
    scores, speeds = _scores(study, evaluation), device_throughput(study)
    costs = {quality: priced for quality in qualities if (priced := pool.costs_of(quality))}
    costs |= {strategy: tuple(priced) for strategy, priced in of_columns.items() if priced}
    charges = score_charges(chain(*costs.values())) if declaration.budget.count_scoring else ()
    plan = make_plan(
        declaration, pool=pool, evaluation=evaluation, own=user_strategies, charges=charges, scores=scores,
        own_speeds=speeds, too_large=_too_large(study),
    )  # fmt: skip
    slow = slow_loading(plan.trials, read_calibration(study.calibration))
    edited = _edited(study, plan)
    warnings = (*plan.warnings, *slow, *_too_wide(plan, declaration.cluster), *edited)
    return replace(plan, score_costs=costs, warnings=warnings)


def _edited(study: Study, plan: Plan) -> Iterator[str]:
    """Yield a note on each user's strategy that was edited after trials of it had ended, until it has run."""
    now, former = results_by_version(study, plan)
    if former.empty:
        return
    files = {trial.cell.strategy: trial.strategy_file for trial in plan.trials if trial.strategy_file}
    again = Counter(trial.cell.strategy for trial in plan.trials if trial.trial_id not in {*now["trial"]})
    for strategy, file in files.items():
        before = former[former["strategy"] == strategy]
        if again[strategy] and len(before):
            newest = before[before[VERSION] == before[VERSION].iloc[0]]
            yield (
                f"{strategy}: {file.path} changed since {plural(len(newest), 'trial')} ended as "
                f"version {newest[VERSION].iloc[0]}; to run again as version {file.version}: "
                f"{plural(again[strategy], 'trial')}. The old rows stay in {study.folder / 'results.parquet'}"
            )


def results_by_version(study: Study, plan: Plan) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows of results of users' strategies: of the versions in a plan, and of former ones.

    The newest version comes first. Without results, both are empty.
    """
    versions = {
        trial.cell.strategy: trial.strategy_file.version for trial in plan.trials if trial.strategy_file
    }
    results = pd.DataFrame()
    if versions and study.has(["results.parquet"]):
        with suppress(ValueError):  # a damaged table is rewritten by `run`; the trials' own files stay
            results = study.read_table("results.parquet")
    if VERSION not in results:
        return results.iloc[:0], results.iloc[:0]
    planned = results["strategy"].map(versions)
    rows, former = results[planned.notna()], (results[VERSION] != planned)[planned.notna()]
    return rows[~former], rows[former]


def _too_wide(plan: Plan, cluster: Cluster | None) -> Iterator[str]:
    """Yield notes on resources that no node of the declared cluster has: their trials never start."""
    if cluster is None:
        return
    for resources in dict.fromkeys(trial.resources for trial in plan.all_trials):
        for key, room in (("gpus", cluster.node_gpus), ("cpus", cluster.node_cpus)):
            amount = getattr(resources, key)
            if room is not None and amount > resources.nodes * room:
                yield (
                    f"resources.{key} = {amount} on {plural(resources.nodes, 'node')}, but "
                    f"cluster.node_{key} is {room}: set resources.nodes, or cluster.node_{key} if the nodes "
                    "are larger"
                )


def _unknown_metric(metric: str, declaration: Declaration, evaluation: EvaluationFacts) -> str:
    """Return the error for a metric that no set has; for a described pool, that no set may have.

    The nearest name is that of its synonym here: `top1` for `acc1`.
    """
    name, _, measured = metric.partition("/")
    allowed = [f"{name}/{kind}" for kind in METRICS] if declaration.described else evaluation.metrics
    usual = f"{name}/{_USUAL.get(measured.lower(), measured)}"
    return "" if metric in allowed else unknown("metric", metric, allowed, meant=usual)


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


def _column_costs(strategy: Strategy, pools: Mapping[str, PoolFacts]) -> list[ScoreCost]:
    """Return the costs of the columns that a strategy reads; ValueError for one that a pool does not have."""
    costs: list[ScoreCost] = []
    for pool, facts in pools.items():
        for name in strategy.columns:
            if facts.columns is None:  # a pool that is only described
                continue
            if name not in facts.columns:
                of = f" of the pool {pool}" if pool else ""
                problem = unknown("column", name, facts.columns)
                advice = "`python -m study data score POOL --column NAME` adds columns"
                raise ValueError(f"{strategy.name} reads columns of the index{of}: {problem}; {advice}")
            costs += facts.columns[name].costs
    return costs


def _reject_duplicate_qualities(qualities: Iterable[str], pool: PoolFacts | MixtureFacts) -> None:
    """Raise DeclaredKeyError for two qualities or mixtures with the same pairs."""
    pairs: dict[tuple[object, ...], str] = {}
    for quality in qualities:
        content = tuple(part.content for part in pool.components(quality, pool.available(quality)))
        same = pairs.setdefault(content, quality)
        if same != quality:
            what = "" if quality.startswith(MIXTURE) else "quality "
            message = f"{what}{quality} and {same} select the same pairs; declare only one"
            raise DeclaredKeyError("grid", message)


def _unknown_or_none(kind: str, name: str, allowed: Iterable[str]) -> str:
    names = list(allowed)
    return unknown(kind, name, names) if names else f"the pool has no {kind}; add it with `data score`"


def _scores(study: Study, evaluation: EvaluationFacts) -> Scores | None:
    """Read the scores of the study's tuning so far, on the pool's validation set if it has one.

    Raises:
        ValueError: No evaluation set has the declared metric.
    """
    tuning = study.declaration.tuning
    if tuning is None:
        return None
    wanted = tuning.metric
    if wanted is not None and (message := _unknown_metric(wanted, study.declaration, evaluation)):
        raise DeclaredKeyError("tuning.metric", f"tuning.metric: {message}")
    metric = study.declaration.tuning_metric(evaluation.metrics)
    tried = study.read_table("tuning.parquet") if study.has(["tuning.parquet"]) else pd.DataFrame()
    scores = scores_of(tried, metric)
    return Scores(metric=metric, of=scores, choices=evaluation.choices.get(metric.partition("/")[0], 0))


def measured_throughput(study: Study, plan: Plan) -> Speeds:
    """Return samples/s by kind of trial: of the last finished one here, else calibrated.

    Raises:
        ValueError: ``throughput.json`` can't be read.
    """
    calibration = read_calibration(study.calibration)
    known = {} if calibration is None else calibration.speeds
    events = read_events(study.folder / "events.jsonl")
    if events.empty or "samples_per_s" not in events:
        return known
    speeds = events.dropna(subset=["samples_per_s"]).set_index("trial")["samples_per_s"].to_dict()
    finished = dict[Combination, float]()
    for trial in plan.all_trials:
        if speed := speeds.get(trial.trial_id):
            kind, devices = trial.cell.combination, trial.resources.devices
            finished[kind] = speed / devices * relative_hours(trial.recipe, kind, devices, plan.cluster)
    calibrated = {key: speed for key, speed in known.items() if key[:2] not in finished}
    return calibrated | {(*kind, 1): speed for kind, speed in finished.items()}


def device_throughput(study: Study) -> Speeds:
    """Return samples/s by kind of trial, if calibrated on the device of the declared cluster.

    Raises:
        ValueError: ``throughput.json`` can't be read.
    """
    calibration, cluster = read_calibration(study.calibration), study.declaration.cluster
    if calibration is None or cluster is None or calibration.device != find_device(cluster.device).name:
        return {}
    return calibration.speeds


def cell_words(cell: Cell, samples: int) -> str:
    """Return the text of a cell that words are matched with."""
    return f"{cell}, {cell.regime}, {cell.subset_size} pairs, {samples} samples"


def with_words(items: Iterable[T], wanted: str, text: Callable[[T], str]) -> list[T]:
    """Return the items whose text, as ``text`` returns it, contains all the wanted words.

    If some items contain all of them as whole words, only these are returned: ``clip`` selects clip, not
    clip-crop-flip.
    """

    def whole(item: T) -> list[str]:
        return text(item).lower().translate(_PUNCTUATION).split()

    words = wanted.lower().replace(",", "").split()
    matches = [item for item in items if words and all(word in text(item).lower() for word in words)]
    exact = [item for item in matches if all(word.strip("()") in whole(item) for word in words)]
    return exact or matches


def select_trials(trials: Sequence[Trial], selections: Sequence[str]) -> list[Trial]:
    """Return the trials that match any selection, an id or words of cells, in their order.

    Without selections, all trials are returned.

    Raises:
        ValueError: A selection matches no trial.
    """
    chosen: set[str] = set()
    for selection in selections:
        matches = [trial for trial in trials if trial.trial_id == selection] or with_words(
            trials, selection, lambda trial: cell_words(trial.cell, trial.samples_seen)
        )
        if not matches:
            raise ValueError(
                f"'{selection}' matches no trial of this plan; `plan` lists the cells, "
                "`plan --format csv` the trials' ids"
            )
        chosen.update(trial.trial_id for trial in matches)
    return [trial for trial in trials if not selections or trial.trial_id in chosen]
