"""Outliers: broken runs are flagged and spoil nothing, steep or noisy ones are not flagged."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.answers.best import best_at_budgets
from analysis.answers.outliers import outlier_lines, outliers
from analysis.answers.recommendation import recommend
from analysis.belief.cell_draws import cell_draws
from analysis.belief.family import families
from analysis.cells.imported_table import import_table
from analysis.cells.study_frames import StudyFrames
from analysis.cells.table import Trials, tidy
from analysis.charts.run_figures import training_loss
from analysis.error_unit import PERCENT
from analysis.report.analyse import analyse
from analysis.report.report_tables import report_tables
from analysis.report.summary import summary_lines
from benchmarks.design import with_trunks
from runners.data.build.table_file import read_any_table
from study.cli import main
from tests.analysis.belief.test_law import SAMPLES, SIZES, drawn, measured, noisy, surface
from tests.analysis.made_up.designs import grid
from tests.analysis.made_up.studies import study
from tests.analysis.public_tables import ALL_OBJECTIVES, NAMES, column_map, family, missing, table
from tests.analysis.synthetic import METRIC, figure_of
from tests.root import ROOT
from tests.study.tiny_study import shipped_copy

CHANCE = 0.985
STUDIES = 20


def test_run_at_chance_is_flagged_and_its_cell_is_what_neighbours_say() -> None:
    truth = surface(SIZES[:, None], SAMPLES)
    errors = noisy(truth, 1)
    errors[2, 0, 2] = CHANCE
    belief = drawn(measured(errors))
    assert np.argwhere(belief.aside).tolist() == [[2, 0, 2]]
    assert belief.miss[2, 0, 2] == pytest.approx(CHANCE - truth[2, 2], abs=0.02)
    assert belief.far[2, 0, 2] > 8
    assert np.median(belief.draws[:, 2, 2]) == pytest.approx(truth[2, 2], abs=0.015)


def test_broken_one_of_two_seeds_is_told_by_the_law() -> None:
    errors = noisy(surface(SIZES[:, None], SAMPLES), 2)
    errors[3, 1, 1] += 0.1
    assert np.argwhere(drawn(measured(errors)).aside).tolist() == [[3, 1, 1]]


def test_configuration_that_is_worse_throughout_and_a_steep_late_rise_do_not_stand_out() -> None:
    errors = surface(SIZES[:, None], SAMPLES)
    errors[1] = 0.985 - 0.3 * (0.985 - errors[1])
    errors[4] = [0.98, 0.97, 0.93, 0.75, 0.4]
    assert not drawn(measured(noisy(errors, 1))).aside.any()


EARLY = {f"ViT-{size} clip 1.28e+08" for size in ("M-16", "M-16-alt", "M-32-alt", "S-16-alt", "S-32-alt")}
BEST = {
    *(f"ViT-H-14 cap {samples}" for samples in ("1.28e+08", "1.28e+09")),
    "ViT-B-16 cap 3e+07", "ViT-B-16 clip 3e+08",
}  # fmt: skip


@pytest.mark.parametrize(("scheduler", "known"), [("finished", EARLY), ("all", BEST)])
def test_outliers_of_a_published_table_are_flagged_and_its_answers_are_those_without_them(
    scheduler: str, known: set[str]
) -> None:
    """``known``: the cells that are ten points off or more."""
    columns = column_map(ALL_OBJECTIVES)
    rows = read_any_table(ROOT / "results" / "open-clip-scaling" / "open_clip_scaling.csv")
    columns = replace(columns, rows={**columns.rows, "scheduler": (scheduler,)})
    trials = tidy(import_table(rows, columns), metric=columns.metric)
    whole = cell_draws(trials)
    far = outliers(whole.families, trials)
    assert known <= {f"{row.architecture} {row.strategy} {row.budget:g}" for row in far.itertuples()}
    assert len(far) <= 2 * len(known)
    frame = trials.frame[~trials.frame["trial"].isin(far["trial"])].reset_index(drop=True)
    rest = cell_draws(replace(trials, frame=frame))
    answers = [best_at_budgets(draws).set_index("flops") for draws in (whole, rest)]
    assert (answers[0]["verdict"] == answers[1]["verdict"]).mean() >= 0.9
    assert np.abs(answers[0]["error"] - answers[1]["error"]).max() < 0.005
    for flops in (1e19, 1e20, 1e21):
        one, other = (
            recommend(draws, flops=flops, pairs=1.4e9).candidates.iloc[0] for draws in (whole, rest)
        )
        assert one["name"] == other["name"]
        assert one["error"] == pytest.approx(other["error"], abs=0.005)


@pytest.mark.parametrize("name", sorted({*NAMES} - {ALL_OBJECTIVES}))
def test_published_tables_have_few_runs_that_stand_out(name: str) -> None:
    if missing(name):
        pytest.skip(missing(name))
    trials = table(name).trials
    assert family(trials).belief.aside.sum() <= (0.1 if "finished" in name else 0.01) * len(trials.frame)


def test_runs_of_the_shipped_study_do_not_stand_out(small_full: pd.DataFrame) -> None:
    assert not outlying_trials(tidy(small_full, metric=METRIC))


@pytest.mark.parametrize("kind", ["floor", "broken", "shifted", "one seed", "trunks"])
def test_runs_of_clean_studies_do_not_stand_out(kind: str) -> None:
    runs = far = 0
    for number in range(STUDIES // 2):
        if kind in {"one seed", "trunks"}:
            made = grid(number, shared=0.5 if kind == "trunks" else 0.0).results
            results = with_trunks(made) if kind == "trunks" else made[made["seed"] == 0]
        else:
            results = study(kind, number).results  # type: ignore[arg-type]
        runs += len(results)
        far += len(outlying_trials(tidy(results, metric=METRIC)))
    assert far <= 0.005 * runs


@pytest.mark.parametrize("worse", [0.1, 0.9])
def test_broken_run_of_a_study_is_flagged_and_costs_no_clear_verdict(worse: float) -> None:
    """A broken run is worse by a tenth, or nine tenths of what it is below chance."""
    flagged, clear = 0, np.zeros(2)
    for number in range(STUDIES):
        results = grid(number).results.reset_index(drop=True)
        broken = int(np.random.default_rng(number).integers(len(results)))
        accuracy = results[METRIC].to_numpy(np.float64).copy()
        accuracy[broken] -= worse if worse < 0.5 else worse * (CHANCE - 1 + accuracy[broken])
        spoilt = results.assign(**{METRIC: accuracy.clip(1 - CHANCE)})
        flagged += results["trial"][broken] in outlying_trials(tidy(spoilt, metric=METRIC))
        for place, one in enumerate((results.drop(index=broken), spoilt)):
            best = best_at_budgets(cell_draws(tidy(one, metric=METRIC), results))
            clear[place] += (best["verdict"] == "clear").sum()
    assert flagged >= 0.9 * STUDIES
    assert clear[1] >= clear[0] - 2


def test_report_lists_the_run_and_draws_its_training_curve(frames: StudyFrames) -> None:
    results = frames.results.copy()
    trial = str(results["trial"][40])
    results.loc[40, METRIC] = 1 - CHANCE
    found = analyse(replace(frames, results=results))
    (listed,) = (table for table in report_tables(found) if table.name == "outliers")
    assert list(listed.frame["Trial"]) == [trial]
    assert any(line.startswith(f"{trial} stands out") for line in summary_lines(found))
    course = figure_of(training_loss(found.trials, found.draws, frames.curves, [trial]))
    assert f"{trial} stands out" in set(course.frame["series"])


@pytest.mark.parametrize(
    ("broken", "shared"),
    [({"level_flops": 5.4e12}, "at 5.4 TFLOP"), ({"architecture": "mini-ConvNeXt"}, "of mini-ConvNeXt")],
)
def test_outliers_that_share_a_level_or_a_part_are_one_sentence(
    broken: dict[str, object], shared: str, small_full: pd.DataFrame
) -> None:
    (name, value), results = broken.popitem(), small_full.reset_index(drop=True)
    places = results.index[results[name] == value][[0, 9, 18, 27] if name == "level_flops" else [0, 5, 9]]
    results.loc[places, METRIC] = 0.02
    trials = tidy(results, metric=METRIC)
    found = outliers(families(trials), trials)
    lines = outlier_lines(found, PERCENT)
    grouped = [line for line in lines if f" runs {shared}" in line and " stand out: " in line]
    assert len(grouped) == 1
    (group,) = {text for text in found["shares"] if text}
    assert set(found.loc[found["shares"] == group, "trial"]) <= set(results["trial"][places])
    assert len(lines) < len(found)


def test_status_and_recommend_name_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    full = shipped_copy("small-full", tmp_path)
    results = full.read_table("results.parquet")
    broken = results.index[results["architecture"].eq("mini-ConvNeXt") & results["level_flops"].eq(5.4e12)][0]
    results.loc[broken, METRIC] = 1 - CHANCE
    full.write_table("results.parquet", results)
    study_ = ["small-full", "--results", str(tmp_path)]
    for command in (["status", *study_], ["recommend", *study_, "--flops", "1.8e12", "--pairs", "32768"]):
        assert main(command) == 0
        assert f"{results['trial'][broken]} stands out (mini-ConvNeXt, CLIP" in capsys.readouterr().out


def outlying_trials(trials: Trials) -> list[str]:
    """Return the outlying trials."""
    found = outliers(families(trials), trials)
    return list(found["trial"])
