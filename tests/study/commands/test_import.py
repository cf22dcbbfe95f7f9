"""``study import``: any table becomes a study that ``report`` and ``recommend`` can read."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pandas as pd
import pytest

from runners.results import read_table
from study.cli import main
from study.declare import shipped_studies
from tests.root import ROOT
from tests.study import shown

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


@pytest.fixture
def made_up(tmp_path: Path) -> list[str]:
    """Return the arguments that import the table above as ``mine``."""
    (tmp_path / "table.csv").write_text(TABLE)
    (tmp_path / "mine.yaml").write_text(MAP)
    return [
        "import", str(tmp_path / "table.csv"), "--map", str(tmp_path / "mine.yaml"),
        "--results", str(tmp_path / "results"),
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_documented_commands_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results" / "paper").mkdir(parents=True)
    shutil.copy(PAPER, tmp_path / "results" / "paper" / "figures.csv")
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
    assert said[1].startswith("55 of 1,070 rows of figures.csv, imported\n")
    assert "the paper's figures: results/li-2024/report/paper/paper.html" in said[1]
    paper = Path("results/li-2024/report/paper/paper.html").read_text(encoding="utf-8")
    assert "Scaling (Down) CLIP beside li-2024" in paper
    assert "train ViT-B/32, CLIP, " in said[2]


def test_dropped_rows_are_counted_and_listed_with_their_reason(
    made_up: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(made_up) == 0
    folder = tmp_path / "results" / "mine"
    assert capsys.readouterr().out.splitlines() == [
        "mine: 6 of 10 rows of table.csv, imagenet/top1",
        "  dropped: 1 row: not selected: its task is not listed under rows:",
        "  dropped: 1 row: duplicate of an earlier row",
        "  dropped: 1 row: the metric imagenet/top1 is not a finite number",
        "  dropped: 1 row: no architecture",
        f"  list of dropped rows: {folder / 'dropped.parquet'}",
        f"imported into {folder}",
    ]
    assert read_table(folder / "dropped.parquet")["trial"].tolist() == ["row-10", "row-7", "row-8", "row-9"]
    results = read_table(folder / "results.parquet").set_index("trial")
    assert results["architecture"].loc[["row-1", "row-4"]].tolist() == ["400000000", "1.4"]
    assert results["quality"].loc[["row-1", "row-8"]].tolist() == ["True", "False"]


def test_escape_codes_in_a_table_are_written_out(
    made_up: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "table.csv").write_text(TABLE.replace("400000000", "big\x1b[2J"))
    assert main(made_up) == 0
    said = capsys.readouterr().out
    words = "recommend mine --flops 1e18 --pairs 1.28B --results"
    assert main([*words.split(), str(tmp_path / "results")]) == 0
    said += capsys.readouterr().out
    assert "\x1b" not in said
    assert "big\\x1b[2J" in said


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_the_report_of_an_imported_study_leaves_out_missing_facts(
    made_up: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--results", str(tmp_path / "results")]
    assert [main(made_up), main(["report", "mine", *where])] == [0, 0]
    lines = capsys.readouterr().out.splitlines()[-6:]
    assert lines[0] == "6 of 10 rows of table.csv, imported"
    assert [line.partition(", CLIP")[0] for line in lines[1:4]] == [
        "10 PFLOP: 1.4",
        "30 PFLOP: 400000000",
        "3 EFLOP: 400000000",
    ]
    assert lines[4] == "1 further compute with the same leaders in the table: tables/best.md"
    assert not any("learning rates" in line for line in lines), "nothing is known of them"
    report = tmp_path / "results" / "mine" / "report"
    best = pd.read_csv(report / "tables" / "best.csv", dtype=str)
    assert best["Error (%)"].tolist() == ["70.0", "60.0", "50.0", "44.0"]
    assert set(pd.read_csv(report / "tables" / "left-out.csv")["Rows"]) == {1}
    assert not (report / "tables" / "cost.csv").exists()
    page = (report / "report.html").read_text(encoding="utf-8")
    why = "the study was imported from a table, which does not record how it was run"
    assert f"The plan: not drawn: {why}." in page
    assert "title: made up" in page


def test_a_repeated_import_changes_nothing_and_a_different_one_replaces_the_folder(
    made_up: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "results" / "mine"
    assert main(made_up) == 0
    (folder / "report").mkdir()
    assert main(made_up) == 0
    assert capsys.readouterr().out.endswith(f"{folder} is unchanged\n")
    assert (folder / "report").is_dir()

    (tmp_path / "table.csv").write_text(TABLE.replace("400000000,40,", "400000000,41,"))
    assert main(made_up) == 0
    assert not (folder / "report").exists()
    assert read_table(folder / "results.parquet")["imagenet/top1"].iloc[0] == pytest.approx(0.41)
    assert [path.name for path in folder.parent.iterdir()] == ["mine"]


def test_a_study_that_was_run_is_never_overwritten(
    made_up: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "results" / "mine"
    run.mkdir(parents=True)
    (run / "plan.parquet").write_bytes(b"a plan")
    assert main(made_up) == 2
    assert (
        "mine already exists and is not an imported study, so it is not overwritten"
        in capsys.readouterr().err
    )
    assert [path.name for path in run.iterdir()] == ["plan.parquet"]
    assert main([*made_up, "--name", "demo"]) == 2
    assert "'demo' is the name of a shipped study" in capsys.readouterr().err
    assert main([*made_up, "--name", "../up"]) == 2


def test_a_table_without_rows_is_refused_with_the_reason(
    made_up: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (table,) = tmp_path.glob("*.csv")
    table.write_text(table.read_text().splitlines()[0] + "\n")
    (tmp_path / "mine.yaml").write_text(MAP.replace("rows: {task: imagenet}", "rows: {}"))
    assert main(made_up) == 2
    assert "has no usable row: it has a header and nothing below" in capsys.readouterr().err


def test_two_columns_of_one_name_are_refused(
    made_up: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "table.csv").write_text(
        TABLE.replace("filtered,n", "filtered,n,acc").replace("00\n", "00,9\n")
    )
    assert main(made_up) == 2
    assert "table.csv can't be read: its header has two columns 'acc'" in capsys.readouterr().err


def test_a_table_in_utf_16_is_refused_with_advice(
    made_up: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "table.csv").write_text(TABLE, encoding="utf-16")
    assert main(made_up) == 2
    assert "table.csv can't be read: its text is UTF-16; save it as UTF-8" in capsys.readouterr().err


def test_rows_longer_than_the_header_are_refused(
    made_up: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header, *rows = TABLE.splitlines()
    (tmp_path / "table.csv").write_text("\n".join([header, *(f"{row},6" for row in rows)]))
    assert main(made_up) == 2
    message = "table.csv can't be read: row 1 has more fields than the header"
    assert message in capsys.readouterr().err


def test_rows_that_an_unclosed_quotation_mark_would_swallow_are_refused(
    made_up: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = TABLE.splitlines(keepends=True)
    for row in (2, 4):
        lines[row] = lines[row].replace("imagenet", '"imagenet')
    (tmp_path / "table.csv").write_text("".join(lines))
    assert main(made_up) == 2
    message = "table.csv can't be read: row 2: a text holds the rows after it, as after a quotation mark that"
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("times: 0.01, images: {from: n}", "images: {from: n}",
         "column 'acc', row 1: imagenet/top1 must be a fraction in [0, 1]; found 40; if these are percents"),
        ("from: size", "from: sise", "mine.yaml:6: unknown column 'sise'; did you mean 'size'?"),
        ("{from: n}", "{from: task}",
         "mine.yaml:3: column 'task' must hold numbers for images; row 1: 'imagenet' is not a number"),
        ("1.28B", "1.28X", "mine.yaml:9: columns.subset_size.value: '1.28X': unknown unit 'X'"),
        ("equal-samples", "equal-sample",
         "mine.yaml:5: row-1: unknown regime 'equal-sample'; did you mean 'equal-samples'?"),
        ("task: imagenet", "task: imagenet1k",
         "mine.yaml:2: no row has task imagenet1k; found: cifar, imagenet"),
        ("  quality:", "  qualty:",
         "mine.yaml:8: unknown column of the results schema 'qualty'; did you mean 'quality'?"),
    ],
)  # fmt: skip
def test_a_mistake_names_its_place_and_what_is_allowed(
    made_up: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    right: str,
    wrong: str,
    message: str,
) -> None:
    assert right in MAP
    (tmp_path / "mine.yaml").write_text(MAP.replace(right, wrong))
    assert main(made_up) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "results" / "mine").exists()


def test_only_report_and_recommend_read_an_imported_study(
    made_up: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--results", str(tmp_path / "results")]
    assert [main(made_up), main(["run", "mine", *where])] == [0, 2]
    assert (
        "is an imported study: only the commands report and recommend can read it" in capsys.readouterr().err
    )
    assert main(["report", "mien", *where]) == 2
    assert "unknown study 'mien'; did you mean 'mine'?" in capsys.readouterr().err
    named = tmp_path / "declared.yaml"
    demo = shipped_studies()["demo"].read_text(encoding="utf-8")
    named.write_text(demo.replace("study: demo", "study: mine"))
    assert main(["plan", str(named), *where]) == 2
    assert "mine is an imported study; change the declaration's name" in capsys.readouterr().err
    record = json.loads((tmp_path / "results" / "mine" / "import.json").read_text())
    assert (record["table"], record["map"], record["rows"]) == ("table.csv", "mine.yaml", 10)


@pytest.mark.parametrize("content", ["", "null", "[]", "{}", '{"metric": "imagenet/top1", "rows": "ten"}'])
def test_a_damaged_record_of_an_import_is_named(
    made_up: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    assert main(made_up) == 0
    record = tmp_path / "results" / "mine" / "import.json"
    record.write_text(content)
    assert main(["report", "mine", "--results", str(tmp_path / "results")]) == 2
    assert f"{record} is damaged; import the table again" in capsys.readouterr().err


def test_a_page_never_replaces_a_study(
    made_up: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where, names = ["--results", str(tmp_path / "results")], ("paper-figures", "comparisons")
    for name in names:
        assert main([*made_up, "--name", name]) == 0
    for name, words in zip(names, (["--paper"], [*names]), strict=True):
        assert main(["report", *words, *where]) == 2
        assert f"{name} is the folder of a study; give another --results FOLDER" in capsys.readouterr().err
        assert (tmp_path / "results" / name / "results.parquet").exists()
