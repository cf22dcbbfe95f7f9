"""The studies in results/ agree with the code: what a run would write today is what they hold."""

import pytest

from budgets.planning.plan import Plan
from runners.results import PHASE, TABLES, read_events, read_table
from study.declare.dump import dump_declaration
from study.declare.load import load_declaration
from study.state.book import read_book
from study.state.plan_study import plan_study, plan_tables
from study.state.study import Study, find_study
from tests.root import ROOT

TRIALS = {"small": (312, 110), "small-trunk": (312, 312), "small-full": (156, 156)}
"""Study → its planned trials, and those that were run."""


@pytest.fixture(scope="module", params=TRIALS)
def shipped(request: pytest.FixtureRequest) -> tuple[Study, Plan]:
    declaration = load_declaration(ROOT / "results" / request.param / "study.yaml")
    study = find_study(declaration, results=str(ROOT / "results"), pools=None)
    return study, plan_study(study)


def test_declaration_is_written_as_a_run_would_and_its_plan_is_the_stored_one(
    shipped: tuple[Study, Plan],
) -> None:
    study, plan = shipped
    assert (study.folder / "study.yaml").read_text(encoding="utf-8") == dump_declaration(study.declaration)

    planned, left_out, scores = plan_tables(plan)

    assert len(planned) == TRIALS[study.declaration.name][0]
    assert read_table(study.folder / "plan.parquet").equals(planned)
    assert read_table(study.folder / "left-out.parquet").equals(left_out)
    assert read_table(study.folder / "scores.parquet").equals(scores)


@pytest.mark.parametrize("name", sorted(TABLES.keys() - {"midway.parquet"}))  # of studies with evaluation.at
def test_tables_have_the_documented_columns(shipped: tuple[Study, Plan], name: str) -> None:
    kinds = [(name, column.kind) for name, column in TABLES[name].items()]
    frame = read_table(shipped[0].folder / name)

    assert [(name, str(kind)) for name, kind in frame.dtypes.items()][: len(kinds)] == kinds
    assert all("/" in name or name == PHASE for name in frame.columns[len(kinds) :])


def test_results_curves_and_events_are_those_of_planned_trials(shipped: tuple[Study, Plan]) -> None:
    study, plan = shipped
    planned, results = (
        read_table(study.folder / name).set_index("trial") for name in ("plan.parquet", "results.parquet")
    )
    assert len(results) == TRIALS[study.declaration.name][1]
    assert (results["status"] == "finished").all()
    columns = list(planned.columns.drop("predicted_s"))
    assert results[columns].equals(planned.loc[results.index, columns])

    ids, events = {*results.index}, read_events(study.folder / "events.jsonl")
    assert {*read_table(study.folder / "curves.parquet")["trial"]} == ids
    assert {*events["trial"].dropna()} == ids <= {trial.trial_id for trial in plan.trials}
    assert (events.loc[events["event"] == "trial-started", "devices"] == 1).all()


def test_book_has_paid_for_the_results_and_nothing_else(shipped: tuple[Study, Plan]) -> None:
    study, plan = shipped
    book = read_book(study, {trial.trial_id: trial for trial in plan.all_trials})
    results = read_table(study.folder / "results.parquet").set_index("trial")

    assert not book.problem
    assert book.charged.keys() == {charge.what for charge in plan.charges}
    spent = {trial: account.spent_flops for trial, account in book.trials.items()}
    assert spent == results["paid_flops"].astype(int).to_dict()
    assert (book.besides(plan), book.wasted_flops, book.reserved_flops) == (0, 0, 0)
