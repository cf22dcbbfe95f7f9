"""Schema of a study's tables: columns, types and units, and the functions that read and write them.

`results.parquet` holds only deterministic values: the same trial on the same kind of hardware gives the same
bytes. Times and speeds of trials are in `events.jsonl`. FLOPs follow `budgets.cost.flops.CONVENTION`, which
is stored in each file's metadata; those of a whole trial are float64 (exact below 2**53).
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from budgets.cost.flops import CONVENTION
from budgets.cost.strategy import StrategyFile
from budgets.cost.strategy_files import strategy_of
from budgets.names import neutral_cell, one_line
from budgets.planning.plan import LeftOut, Plan
from budgets.planning.planned_trial import Cell, Trial, trunk_id
from runners.store.files import digest_of, new_file, read_bytes

SCHEMA_VERSION = 1

EVALUATION_VERSION = 3
"""Version of the evaluation: increased when it measures another number on the same model and set.

1 computed in the precision of the training; 2 computed in `EVALUATION_PRECISION`; since 3, classes with equal
prompts share their hits.
"""

EVALUATION_PRECISION = "fp32"
"""Precision in which trials are evaluated, and the default for other models."""

TUNING_STARTED = "tuning-started"
STARTS = ("study-started", TUNING_STARTED)
"""Events with which a run begins: of its grid, of its tuning."""
ENDS = ("trial-finished", "trial-retried", "trial-left", "trial-failed")
"""Events at which a trial leaves its slot."""

RESIZED = "resized_images"
"""Column of results and plans with the pixels of the shorter side, if any trial's images were resized."""

VERSION = "strategy_version"
"""Column of results and plans with the version of the user's file that has the trial's strategy, if any."""

LABEL = "strategy_label"
"""Column beside `VERSION` with the label that the file gives the strategy."""

PHASE, TRUNK = "phase", "trunk"
"""Column of results and plans that is ``trunk`` for trials that end at their milestone, at constant rate, and
empty for all others; only where a study evaluates its trunks."""

AVERAGE = "_average"
"""End of the name of a metric of the weight average: trials of the phase `TRUNK` have both."""

_OPTIONAL = {RESIZED: "float64", VERSION: "str", LABEL: "str", PHASE: "str"}
_CURVE_POINTS = 200
_BEGINNING = b'{"time": '  # of an event, also of one that a crash has torn
_DIGEST, _SOURCE = b"digest", b"source"


class TableColumn(NamedTuple):
    """A column of a table."""

    kind: str  # its pandas type
    unit: str  # of its values; empty for names and ratios
    meaning: str  # for docs/results.md


_CELL = {
    "regime": TableColumn("str", "", "`fixed-compute`, `one-epoch` or `equal-samples`"),
    "subset_size": TableColumn("int64", "pairs", "Size of the training subset, over all pools of a mixture"),
    "quality": TableColumn(
        "str",
        "",
        "Quality filter of the subset: `all`, `topNN`, `topNN by SCORE` or `subset:NAME`; or the mixture of "
        "pools: `mixture:NAME`",
    ),
    "architecture": TableColumn("str", "", "Architecture, by its catalogue name"),
    "strategy": TableColumn("str", "", "Training strategy, by its name"),
    "level_flops": TableColumn("float64", "FLOPs", "Budget level under `fixed-compute`; otherwise NaN"),
}
_TRIAL = {
    "trial": TableColumn("str", "", "Id of the trial: a hash of its full description"),
    **_CELL,
    "seed": TableColumn("int64", "", "Seed of initial weights, sample order and augmentation"),
    "attempt": TableColumn("int64", "", "1; higher for a repetition (`run --again`), whose id ends in it"),
    "train_flops": TableColumn("float64", "FLOPs", "Training FLOPs that the model is trained with"),
    "paid_flops": TableColumn(
        "float64",
        "FLOPs",
        "Training FLOPs that the trial costs the study: those after the shared part of a trunk",
    ),
    "trunk": TableColumn("str", "", "Id of the trunk that the trial shares with others; empty without one"),
    "train_flops_per_sample": TableColumn(
        "int64", "FLOPs", "Training FLOPs of one pair, outside an unmasked tail"
    ),
    "evaluation_flops": TableColumn(
        "float64", "FLOPs", "Forward FLOPs of the evaluation; not part of the budget"
    ),
    "samples_seen": TableColumn("int64", "pairs", "Pairs that pass through training, repeats included"),
    "epochs": TableColumn("float64", "", "`samples_seen` ÷ `subset_size`"),
    "steps": TableColumn("int64", "steps", "Optimiser steps"),
    "batch_size": TableColumn("int64", "pairs", "Pairs in a batch, the factor of the strategy included"),
    "lr_peak": TableColumn("float64", "", "Peak learning rate"),
    "parameters": TableColumn(
        "int64", "parameters", "Trainable parameters, the head of the strategy included"
    ),
}
_STEP = {
    "trial": TableColumn("str", "", "Id of the trial"),
    "step": TableColumn("int64", "steps", "Optimiser steps done"),
    "samples_seen": TableColumn("int64", "pairs", "Pairs that have passed through training"),
    "train_flops": TableColumn("float64", "FLOPs", "Training FLOPs up to this step"),
}
TABLES: Mapping[str, Mapping[str, TableColumn]] = MappingProxyType(
    {
        "results.parquet": {
            **_TRIAL,
            "precision": TableColumn("str", "", "Precision of the training: `bf16`, `fp16` or `fp32`"),
            "evaluation_version": TableColumn(
                "int64",
                "",
                "Version of the evaluation: 1 in the precision of the training, 2 in fp32, 3 with hits "
                "shared among classes of equal prompts. Their metrics else differ by rounding",
            ),
            "status": TableColumn("str", "", "`finished`, `diverged` or `failed`"),
            "reason": TableColumn("str", "", "Reason of a divergence or failure; empty if finished"),
            "train_loss": TableColumn("float64", "", "Mean training loss of the last tenth of the steps"),
        },
        "curves.parquet": {
            **_STEP,
            "loss": TableColumn("float64", "", "Mean training loss since the previous row"),
            "lr": TableColumn("float64", "", "Learning rate of this step"),
        },
        "midway.parquet": _STEP,
        "plan.parquet": {
            **_TRIAL,
            "predicted_s": TableColumn(
                "float64", "seconds", "Predicted time of training and evaluation at the default throughput"
            ),
        },
        "left-out.parquet": {
            **_CELL,
            "reason": TableColumn("str", "", "Reason why the cell is not run, with its numbers"),
        },
        "scores.parquet": {
            "quality": _CELL["quality"],
            "score": TableColumn("str", "", "Score that the quality, or a part of its score, ranks by"),
            "model": TableColumn("str", "", "Model that gave the score"),
            "pool": TableColumn("str", "", "Content id of the pool"),
            "pairs": TableColumn("int64", "pairs", "Pairs that the model scored"),
            "train_flops": TableColumn(
                "float64", "FLOPs", "Training FLOPs of the model; 0 unless it is a trial of this project"
            ),
            "scoring_flops": TableColumn("float64", "FLOPs", "Forward FLOPs of scoring; 0 if not counted"),
            "counted": TableColumn("bool", "", "Whether the study budget pays them (`budget.count_scoring`)"),
        },
        "spent.parquet": {
            "what": TableColumn("str", "", "Id of the trial, or name of the charge"),
            "charge": TableColumn("bool", "", "Whether it is a charge, paid once in addition to the trials"),
            "spent_flops": TableColumn("float64", "FLOPs", "Training FLOPs that the trial's result paid"),
            "wasted_flops": TableColumn(
                "float64", "FLOPs", "Training FLOPs that were lost, to crashes or with a deleted result"
            ),
            "kept_flops": TableColumn(
                "float64", "FLOPs", "Training FLOPs in the newest checkpoint of a trial without a result"
            ),
            "evaluation_flops": TableColumn(
                "float64",
                "FLOPs",
                "Forward FLOPs of its evaluations, also of lost ones; not part of the budget",
            ),
        },
    }
)  # after its columns, `results.parquet` has a float64 for each `<evaluation set>/<metric>` and its `…_se`


def _kinds(columns: Mapping[str, TableColumn]) -> dict[str, str]:
    return {name: column.kind for name, column in columns.items()}


(
    RESULT_COLUMNS, CURVE_COLUMNS, MIDWAY_COLUMNS, PLAN_COLUMNS, LEFT_OUT_COLUMNS, SCORE_COLUMNS,
    SPENT_COLUMNS,
) = map(_kinds, TABLES.values())  # fmt: skip


def cell_row(cell: Cell) -> dict[str, object]:
    """Return a cell's columns."""
    return {
        "regime": cell.regime,
        "subset_size": cell.subset_size,
        "quality": cell.quality,
        "architecture": cell.architecture,
        "strategy": cell.strategy,
        "level_flops": float("nan") if cell.level_flops is None else float(cell.level_flops),
    }


def plan_row(trial: Trial) -> dict[str, object]:
    """Return a trial's columns of `PLAN_COLUMNS`, except the predicted time."""
    return {
        "trial": trial.trial_id,
        **cell_row(trial.cell),
        "seed": trial.seed,
        "attempt": trial.attempt,
        "train_flops": float(trial.train_flops),
        "paid_flops": float(trial.paid_flops),
        "trunk": trunk_id(trial) if trial.milestone_step else "",
        "train_flops_per_sample": trial.train_flops_per_sample,
        "evaluation_flops": float(trial.evaluation_flops),
        "samples_seen": trial.samples_seen,
        "epochs": trial.epochs,
        "steps": trial.steps,
        "batch_size": trial.batch_size,
        "lr_peak": trial.lr_peak,
        "parameters": trial.parameters,
        **({PHASE: TRUNK} if trial.of_trunk else {}),
        **({} if trial.recipe.resized_images is None else {RESIZED: trial.recipe.resized_images}),
        **({} if trial.strategy_file is None else _own_strategy(trial.cell.strategy, trial.strategy_file)),
    }


def _own_strategy(name: str, file: StrategyFile) -> dict[str, object]:
    return {VERSION: file.version, LABEL: strategy_of(name, file).label}


def step_row(trial: Trial, step: int) -> dict[str, object]:
    """Return the columns that `CURVE_COLUMNS` and `MIDWAY_COLUMNS` share, after some steps of a trial."""
    samples = step * trial.batch_size
    flops = float(trial.train_flops_after(samples))
    return {"trial": trial.trial_id, "step": step, "samples_seen": samples, "train_flops": flops}


def trial_curve(trial: Trial, means: Sequence[float], *, steps: int) -> list[dict[str, Any]]:
    """Return rows of `CURVE_COLUMNS` from the mean losses of a curve of some steps, from its first on."""
    rows = []
    for place, loss in enumerate(means, start=1):
        done = min(place * steps_per_point(steps), steps)
        rate = trial.recipe.learning_rate(
            done - 1, steps=trial.steps, batch_size=trial.batch_size, peak=trial.lr_peak
        )
        rows.append({**step_row(trial, done), "loss": loss, "lr": rate})
    return rows


def steps_per_point(steps: int) -> int:
    """Return the steps over which a point of a curve is the mean loss; the last point may have fewer."""
    return -(-steps // _CURVE_POINTS)


def left_out_row(left_out: LeftOut) -> dict[str, object]:
    """Return a left-out cell's columns of `LEFT_OUT_COLUMNS`."""
    return {**cell_row(left_out.cell), "reason": left_out.reason}


def score_rows(plan: Plan) -> Iterator[dict[str, object]]:
    """Yield the rows of `SCORE_COLUMNS`: each quality with each of the scores behind it."""
    for quality, costs in plan.score_costs.items():
        for cost in dict.fromkeys(costs):
            yield {"quality": quality, **asdict(cost), "counted": bool(plan.charges)}


def to_frame(rows: Iterable[Mapping[str, object]], columns: Mapping[str, str]) -> pd.DataFrame:
    """Build a table with exactly the schema's columns and types, followed by the metric columns by name.

    The columns `RESIZED`, `VERSION`, `LABEL` and `PHASE` are among these if a row has them.

    Raises:
        ValueError: A row lacks a column of the schema.
    """
    listed = list(rows)
    further = {name for row in listed for name in row if "/" in name or name in _OPTIONAL}
    metrics = sorted(further - {*columns})
    for row in listed:
        missing = [name for name in columns if name not in row]
        if missing:
            raise ValueError(f"row {row.get('trial', row)} lacks {', '.join(missing)}")
    frame = pd.DataFrame(listed, columns=[*columns, *metrics])
    texts = [name for name in (VERSION, LABEL, PHASE) if name in frame]
    frame[texts] = frame[texts].fillna("")
    return frame.astype({**columns, **{name: _OPTIONAL.get(name, "float64") for name in metrics}})


def csv_text(frame: pd.DataFrame) -> str:
    """Return a table as CSV, each row on one line, and no text that a spreadsheet would run."""
    neutral = {
        str(name): pd.Series(map(neutral_cell, texts), texts.index, texts.dtype)
        for name, texts in frame.select_dtypes(["object", "str"]).items()
    }
    return frame.assign(**neutral).to_csv(index=False)


def write_table(path: Path, frame: pd.DataFrame, *, source: str = "") -> None:
    """Write a table atomically, with a digest of its rows and of what it was derived from, the ``source``.

    Control characters and line breaks in texts are written out.
    """
    texts = frame.select_dtypes(["object", "str"]).columns
    frame = frame.assign(**{name: frame[name].map(one_line, na_action="ignore") for name in texts})
    table = pa.Table.from_pandas(frame, preserve_index=False)
    about = {b"schema_version": str(SCHEMA_VERSION), b"convention": CONVENTION, _SOURCE: source}
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **about})
    sealed = {**table.schema.metadata, _DIGEST: _digest_of(path.name, table)}
    with new_file(path) as file:
        pq.write_table(table.replace_schema_metadata(sealed), file, write_page_checksum=True)


def read_table(path: Path, *, source: str | None = None) -> pd.DataFrame:
    """Read a table of this schema; by default it may have been derived from anything.

    Raises:
        ValueError: The file is missing, damaged, was changed after this project wrote it, was written by
            another version, or was derived from another source.
    """
    try:
        content = pa.BufferReader(read_bytes(path))
    except FileNotFoundError:
        raise ValueError(f"no such table: {path}") from None
    try:
        table = pq.read_table(content, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).rpartition(": ")[2]
        raise ValueError(f"{path} is damaged ({reason}); {_again(path)}") from None
    about = table.schema.metadata or {}
    version = about.get(b"schema_version", b"none").decode(errors="replace")
    if version != str(SCHEMA_VERSION):
        raise ValueError(
            f"{path} has schema version {version}, but this project reads version {SCHEMA_VERSION}; "
            + _again(path)
        )
    if about.get(_DIGEST, b"").decode(errors="replace") != _digest_of(path.name, table):
        why = "its digest does not fit its rows" if _DIGEST in about else "it has no digest of its rows"
        raise ValueError(f"{path} was not written by this project or was changed: {why}; {_again(path)}")
    if source is not None and (base := about.get(_SOURCE, b"").decode()) != source:
        raise ValueError(f"{path} was derived from {base or 'nothing'}, not from {source}; {_again(path)}")
    frame: pd.DataFrame = table.to_pandas()
    return frame


def _digest_of(name: str, table: pa.Table) -> str:
    """Return the SHA-256 of a table's name, columns, types, values and metadata, without itself."""
    about = {key: value for key, value in table.schema.metadata.items() if key != _DIGEST}
    columns = [(field.name, str(field.type)) for field in table.schema]
    digest = sha256(repr((name, sorted(about.items()), columns)).encode())
    for column in table.columns:
        values = column.to_numpy()
        texts = values.dtype == object
        digest.update(json.dumps(values.tolist(), default=str).encode() if texts else values.tobytes())
    return digest.hexdigest()


def _again(path: Path) -> str:
    trial = path.parent
    if trial.parent.name == "trials":
        return f"delete {trial} to run the trial again"
    return "restore it, or delete it and run the study again (or import its table again)"


def event_line(facts: Mapping[str, object], at: int) -> bytes:
    """Return the line of an event that begins ``at`` a byte of `events.jsonl`, with a digest of itself."""
    content = {name: one_line(value) for name, value in facts.items()} | {"at": at}
    return json.dumps(content | {"digest": digest_of(content)}).encode() + b"\n"


def read_events(path: Path) -> pd.DataFrame:
    """Read `events.jsonl` into a table; a torn last line is left out.

    Raises:
        ValueError: Another line was changed, moved or is twice, or lines before it are gone.
    """
    rows, at = list[dict[str, object]](), 0
    *lines, torn = (read_bytes(path) if path.exists() else b"").split(b"\n")
    if (begun := torn.strip(b"\0")[: len(_BEGINNING)]) != _BEGINNING[: len(begun)]:
        lines.append(torn)
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            facts = {name: value for name, value in row.items() if name not in {"at", "digest"}}
            sound = event_line(facts, at) == line + b"\n"
        except (ValueError, AttributeError, RecursionError):
            sound = False
        if not sound:
            raise ValueError(
                f"{path}:{number}: damaged, changed, or lines before it are gone; restore the file, or "
                "delete it to go on without the times and speeds of earlier runs"
            )
        rows.append(facts)
        at += len(line) + 1
    return pd.DataFrame(rows)
