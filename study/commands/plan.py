"""``python -m study plan``: a plan to read, one cell explained, or all of it for other programs."""

from collections.abc import Iterator
from pathlib import Path

from budgets.planning.plan import Plan
from runners.trials.throughput import kind, predict_s
from study.show.explain import explain_lines
from study.show.plan_export import plan_csv, plan_json, plan_parquet
from study.show.plan_view import plan_lines
from study.state.study import Study, device_throughput, measured_throughput, plan_study, study_grid


def plan_command(study: Study, *, form: str, output: Path | None, cell: str | None) -> Iterator[str]:
    """Yields what the command prints.

    Args:
        study: The study.
        form: ``text``, ``csv``, ``json`` or ``parquet``.
        output: File to write to instead, or None.
        cell: A trial's id or a cell's words, to be explained; None for the whole plan.

    Raises:
        ValueError: The study can't be planned, the options contradict one another, or no such cell is there.
    """
    if form == "parquet" and output is None:
        raise ValueError("--format parquet is no text: give a file, --output FILE")
    if cell is not None and form != "text":
        raise ValueError("--explain writes text: it goes with --format text alone")
    plan = plan_study(study)
    if form == "parquet":
        assert output is not None, "checked above"
        plan_parquet(study.declaration, plan, output, device_throughput(study))
        yield f"{output}"
        return
    lines = _lines(study, plan, form=form, cell=cell)
    if output is None:
        yield from lines
    else:
        output.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        yield f"{output}"


def _lines(study: Study, plan: Plan, *, form: str, cell: str | None) -> Iterator[str]:
    own = device_throughput(study)
    if cell is not None:
        return explain_lines(study_grid(study), plan, cell, own)
    if form == "csv":
        return plan_csv(study.declaration, plan, own)
    if form == "json":
        return plan_json(study.declaration, plan, own)
    measured = measured_throughput(study, plan)
    return plan_lines(
        study.declaration,
        plan,
        lambda trial: predict_s(trial, measured),
        measured=sum(kind(trial) in measured for trial in plan.trials),
        own=own,
    )
