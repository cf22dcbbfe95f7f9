"""``study import``: any table becomes a study that ``report`` and ``recommend`` can read."""

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.error_unit import ErrorUnit
from analysis.report.tuning_tables import sweep_table
from runners.results import read_table
from study.cli import main
from study.declare import shipped_studies
from tests.analysis.simulated_sweeps import STEP_LAW, simulate
from tests.root import ROOT
from tests.study import shown
from tests.study.conftest import Run
from tests.study.tiny_study import edit, read_json
from tests.study.trainer_logs import wandb_project, write_trainer_states

PAPER = ROOT / "results" / "paper" / "figures.csv"
MAP = """\
title: made up
rows: {task: imagenet}
metric: {name: imagenet/top1, from: acc, times: 0.01, images: {from: n}}
columns:
  regime: {value: equal-samples}
  architecture: {from: size}
  strategy: {value: clip}
  quality: {from: filtered}
  subset_size: {value: 1.28B}
  samples_seen: {from: seen}
  train_flops: {from: flops}
"""
FLOPS = "  train_flops: {from: flops}\n"
TABLE = """\
size,acc,seen,flops,task,filtered,n
400000000,40,12.8M,30 PFLOP,imagenet,True,50000
400000000,50,128M,300 PFLOP,imagenet,True,50000
400000000,56,1.28B,3 EFLOP,imagenet,True,50000
1.4,30,12.7M,10 PFLOP,imagenet,True,50000
1.4,42,128M,100 PFLOP,imagenet,True,50000
1.4,50,1.27B,1 EFLOP,imagenet,True,50000
1.4,50,1.27B,1 EFLOP,imagenet,True,50000
1.4,,1.28B,1 EFLOP,imagenet,False,50000
,55,1.28B,1 EFLOP,imagenet,True,50000
1.4,60,1.28B,1 EFLOP,cifar,True,10000
"""


Import = Callable[..., str]
"""Options of the command, and perhaps the exit code that is expected → what it said."""


@pytest.fixture
def made_up(tmp_path: Path, run: Run) -> Import:
    """Return a function that imports the table above as ``mine``."""
    (tmp_path / "table.csv").write_text(TABLE)
    (tmp_path / "mine.yaml").write_text(MAP)
    words = f"import {tmp_path}/table.csv --map {tmp_path}/mine.yaml --results {tmp_path}/results"
    return lambda more="", code=0: run(f"{words} {more}", code=code)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_documented_commands_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("paper", "open-clip-scaling"):
        shutil.copytree(ROOT / "results" / name, tmp_path / "results" / name)
    write_trainer_states(tmp_path / "runs")
    wandb_project().to_csv(tmp_path / "project.csv")  # as W&B's guide has it, with the index
    monkeypatch.chdir(tmp_path)
    shown.draw_two_paper_figures(monkeypatch)
    said = []
    for line in shown.commands("docs/import.md"):
        code = main(shlex.split(line))
        out, err = capsys.readouterr()
        assert code == 0, line + err
        said.append(out)
    page = (ROOT / "docs" / "import.md").read_text(encoding="utf-8")
    assert re.findall(r"```\n(.+?)```", page, re.DOTALL)[0] == said[0]
    assert said[1].startswith("55 of 1,070 rows of figures.csv")
    assert "results/li-2024/report/paper/paper.html" in said[1]
    paper = Path("results/li-2024/report/paper/paper.html").read_text(encoding="utf-8")
    assert "beside li-2024" in paper
    assert said[2].startswith("40 EFLOP: ViT-B/32, CLIP, ")


def test_dropped_rows_are_counted_and_listed_with_their_reason(made_up: Import, results: Path) -> None:
    folder = results / "mine"
    assert made_up().splitlines() == [
        "mine: 6 of 10 rows of table.csv, imagenet/top1",
        "  dropped: 1 row: not selected: its task is not listed under rows:",
        "  dropped: 1 row: duplicate of an earlier row",
        "  dropped: 1 row: the metric imagenet/top1 is not a finite number",
        "  dropped: 1 row: no architecture",
        f"  list of dropped rows: {folder / 'dropped.parquet'}",
        f"imported into {folder}",
    ]
    assert read_table(folder / "dropped.parquet")["trial"].tolist() == ["row-10", "row-7", "row-8", "row-9"]
    rows = read_table(folder / "results.parquet").set_index("trial")
    assert rows["architecture"].loc[["row-1", "row-4"]].tolist() == ["400000000", "1.4"]
    assert rows["quality"].loc[["row-1", "row-8"]].tolist() == ["True", "False"]


def test_escape_codes_in_a_table_are_written_out(
    made_up: Import, tmp_path: Path, results: Path, run: Run
) -> None:
    (tmp_path / "table.csv").write_text(TABLE.replace("400000000", "big\x1b[2J"))
    said = made_up() + run(f"recommend mine --flops 1e18 --pairs 1.28B --results {results}")
    assert "\x1b" not in said
    assert "big\\x1b[2J" in said


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_the_report_of_an_imported_study_leaves_out_missing_facts(
    made_up: Import, results: Path, run: Run
) -> None:
    made_up()
    lines = run(f"report mine --results {results}").splitlines()[-7:]
    assert lines[0].startswith("6 of 10 rows of table.csv")
    assert [line.partition(", CLIP")[0] for line in lines[1:6]] == [
        "10 PFLOP: 1.4",
        "30 PFLOP: 400000000",
        "100 PFLOP: 1.4",
        "300 PFLOP: 400000000",
        "3 EFLOP: 400000000",
    ]
    assert not any("learning rates" in line for line in lines), "nothing is known of them"
    report = results / "mine" / "report"
    best = pd.read_csv(report / "tables" / "best.csv", dtype=str)
    assert best["Error (%)"].tolist() == ["70.0", "60.0", "58.0", "50.0", "44.0"]
    assert set(pd.read_csv(report / "tables" / "left-out.csv")["Rows"]) == {1}
    assert not (report / "tables" / "cost.csv").exists()
    page = (report / "report.html").read_text(encoding="utf-8")
    why = "the study was imported from a table, which does not record how it was run"
    assert f"The plan: not drawn: {why}." in page
    assert "title: made up" in page


def test_a_repeated_import_changes_nothing_and_a_different_one_replaces_the_folder(
    made_up: Import, tmp_path: Path, results: Path
) -> None:
    folder = results / "mine"
    made_up()
    (folder / "report").mkdir()
    assert made_up().endswith(f"{folder} is unchanged\n")
    assert (folder / "report").is_dir()

    (tmp_path / "table.csv").write_text(TABLE.replace("400000000,40,", "400000000,41,"))
    made_up()
    assert not (folder / "report").exists()
    assert read_table(folder / "results.parquet")["imagenet/top1"].iloc[0] == pytest.approx(0.41)
    assert [path.name for path in folder.parent.iterdir()] == ["mine"]


def test_a_study_that_was_run_is_never_overwritten(made_up: Import, results: Path) -> None:
    folder = results / "mine"
    folder.mkdir(parents=True)
    (folder / "plan.parquet").write_bytes(b"a plan")
    assert "mine already exists" in made_up(code=2)
    assert [path.name for path in folder.iterdir()] == ["plan.parquet"]
    assert "'demo' is the name" in made_up("--name demo", code=2)
    made_up("--name ../up", code=2)


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("from: size", "from: sise", "mine.yaml:6: unknown column 'sise'; did you mean 'size'?"),
        ("1.28B", "1.28X", "mine.yaml:9: columns.subset_size.value: '1.28X'"),
        ("equal-samples", "equal-sample", "mine.yaml:5: table.csv:2: "),
        ("  quality:", "  qualty:", "mine.yaml:8: columns: unknown column of the results schema 'qualty'"),
        ("  quality: {from: filtered}\n", "", "columns lack 'quality'; needed: "),
        (
            FLOPS,
            f"{FLOPS}sweep: {{by: {{lr_peak: {{from: lrr}}}}}}",
            "mine.yaml:12: unknown column 'lrr'; allow",
        ),
        (
            FLOPS,
            f"{FLOPS}sweep: {{choose: median, by: {{size: {{from: n}}}}}}",
            "mine.yaml:12: sweep.choose: u",
        ),
        (FLOPS, f"{FLOPS}sweep: {{choose: best}}", "mine.yaml:12: sweep.by is missing"),
    ],
)
def test_a_mistake_names_its_place_and_what_is_allowed(
    made_up: Import, tmp_path: Path, results: Path, right: str, wrong: str, message: str
) -> None:
    edit(tmp_path / "mine.yaml", (right, wrong))
    assert message in made_up(code=2)
    assert not (results / "mine").exists()


def test_only_report_and_recommend_read_an_imported_study(
    made_up: Import, tmp_path: Path, results: Path, run: Run
) -> None:
    made_up()
    assert "report and recommend" in run(f"run mine --results {results}", code=2)
    assert "did you mean 'mine'?" in run(f"report mien --results {results}", code=2)
    named = Path(shutil.copy(shipped_studies()["demo"], tmp_path / "declared.yaml"))
    edit(named, ("study: demo", "study: mine"))
    assert "imported study" in run(f"plan {named} --results {results}", code=2)
    record = read_json(results / "mine" / "import.json")
    assert (record["table"], record["map"], record["rows"]) == ("table.csv", "mine.yaml", 10)


@pytest.mark.parametrize("content", ["", "null", "[]", "{}", '{"metric": "imagenet/top1", "rows": "ten"}'])
def test_a_damaged_record_of_an_import_is_named(
    made_up: Import, results: Path, run: Run, content: str
) -> None:
    made_up()
    record = results / "mine" / "import.json"
    record.write_text(content)
    assert f"{record} is damaged" in run(f"report mine --results {results}", code=2)


@pytest.mark.parametrize(
    ("name", "words"),
    [("paper-figures", "--paper"), ("comparisons", "comparisons paper-figures")],
)
def test_a_page_never_replaces_a_study(
    made_up: Import, results: Path, run: Run, name: str, words: str
) -> None:
    for study in ("paper-figures", "comparisons"):
        made_up(f"--name {study}")
    assert f"/{name} " in run(f"report {words} --results {results}", code=2)
    assert (results / name / "results.parquet").exists()


@pytest.mark.skipif(not STEP_LAW.exists(), reason=f"no {STEP_LAW}")
def test_the_sweep_of_step_law_is_imported_in_one_command_and_reported(
    tmp_path: Path, results: Path, run: Run
) -> None:
    as_published = pd.read_csv(STEP_LAW).rename(
        columns={"smooth_loss": "smooth loss", "batch_sequences": "bs"}
    )
    as_published.to_csv(tmp_path / "dense_lr_bs_loss.csv", index=False)
    said = run(f"import {tmp_path}/dense_lr_bs_loss.csv --map step-law --results {results}").splitlines()
    assert said[0] == "step-law: 17 of 1,911 rows of dense_lr_bs_loss.csv, text/loss"
    assert re.fullmatch(
        r"  sweep: the best of 1,911 runs of 17 cells; bias of choosing removed, 0\.00\d+ on average, "
        r"0\.00\d+ at most; possibly undertuned: 0 cells",
        said[1],
    )
    tried = read_table(results / "step-law" / "sweep.parquet")
    law = np.polyfit(np.log(tried["budget"]), np.log(tried["batch_size_optimum"]), 1)[0]
    assert law == pytest.approx(0.571, abs=0.06), "the batch of Li et al. 2025 grows as D to the .571"
    table = sweep_table(tried, ErrorUnit.of("text/loss"))
    assert table.frame["Optimum"].str.fullmatch(r"lr_peak .+ \[.+\]; batch_size .+ \[.+\]").all()


def test_a_sweep_of_clip_is_imported_by_the_shipped_map(tmp_path: Path, results: Path, run: Run) -> None:
    runs = simulate(0, noise=0.2, grid=True, cells=12)
    pd.DataFrame({
        "pretrain_dataset": "datacomp_1b", "model_simple": runs["size"], "namespace": "clip",
        "samples_seen": runs["seen"], "gflops": runs["size"] * runs["seen"], "model_mparams": 50,
        "acc1": runs["acc"], "lr": runs["lr"], "global_batch_size": runs["bs"], "warmup": 2000,
    }).to_parquet(tmp_path / "runs.parquet")  # fmt: skip
    said = run(f"import {tmp_path}/runs.parquet --map clip-sweep --results {results}")
    assert f"clip-sweep: 12 of {len(runs)} rows" in said
    dropped = read_table(results / "clip-sweep" / "dropped.parquet")
    assert dropped["line"].str.startswith("runs.parquet: row ").all()
    assert set(dropped["reason"]) == {"not the best run of its sweep"}
