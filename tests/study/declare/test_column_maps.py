"""The shipped column maps read their tables."""

import re
from pathlib import Path

import pandas as pd
import pytest

from analysis.answers.crossing import comparisons
from analysis.belief.cell_draws import cell_draws
from analysis.cells.imported_table import import_table
from analysis.cells.table import records, tidy
from runners.data.build.table_file import read_any_table
from study.cli import main
from study.declare.column_maps import find_column_map, load_column_map
from tests.published import DATA
from tests.root import ROOT

PAPER = ROOT / "results/paper/figures.csv"
LADDER = ROOT / "results/open-clip-scaling/open_clip_scaling.csv"
SHORT = """columns:
  regime: {value: one-epoch}
  subset_size: {value: 1000}
  quality: {value: all}
  architecture: {value: ViT-B-32}
  strategy: {value: clip}
  samples_seen: {value: 1000}
  train_flops: {value: 1e18}
"""


@pytest.mark.parametrize(
    ("name", "table", "rows", "lowest", "most_flops", "best"),
    [
        ("paper-one-epoch", PAPER, 55, 0.2853, 1.29e21, None),
        ("paper-equal-samples", PAPER, 55, 0.2815, 1.29e21, None),
        ("paper-strategies", PAPER, 44, 0.3941, 2.35e20, None),
        ("paper-quality", PAPER, 10, 0.3436, 1.175e20, None),
        ("open-clip-scaling", LADDER, 228, 0.1970, 8.058e21, (12, "ViT-L-14", "all")),
        ("clip-benchmark-probe", "clip_benchmark_probe_best.csv", 12, 0.151, 3.98e22,
         (5, "ViT-H-14", "LAION-2B")),
        ("open-clip-models", "openclip_results.csv", 51, 0.1991, 1.247e23, (9, "ViT-bigG-14", "LAION-2B")),
        ("open-clip-retrieval", "openclip_retrieval_results.csv", 51, 0.2506, 1.247e23,
         (9, "ViT-bigG-14", "LAION-2B")),
        ("data-constrained", "scalebench/data_constrained_train.parquet", 161, 2.574, 1.1445e21,
         (27, "2810000000", "all")),
        ("data-constrained", "scalebench/data_constrained_test.parquet", 21, 2.337, 9.2596e21, None),
        ("farseer", "scalebench/farseer_test.parquet", 7, 0.4381, 1.9e22, None),
    ],
)  # fmt: skip
def test_a_shipped_map_reads_its_table(
    name: str,
    table: str | Path,
    rows: int,
    lowest: float,
    most_flops: float,
    best: tuple[int, str, str] | None,
) -> None:
    how = load_column_map(find_column_map(name))
    trials = tidy(import_table(read_any_table(DATA / table), how), metric=how.metric)
    frame = trials.frame.sort_values("error")
    assert len(frame) == rows
    assert trials.excluded.empty
    assert frame["error"].iloc[0] == pytest.approx(lowest, rel=0.005)
    assert frame["train_flops"].max() == pytest.approx(most_flops, rel=0.005)
    architecture, quality = frame[["architecture", "quality"]].iloc[0]
    assert best in {None, (frame["budget"].nunique(), architecture, quality)}


def test_augmentation_is_worth_about_twice_the_data_from_50m_to_400m_pairs() -> None:
    how = load_column_map(find_column_map("paper-strategies"))
    trials = tidy(import_table(read_any_table(PAPER), how), metric=how.metric)
    table = comparisons(cell_draws(trials))
    worth = {
        row["x"]: row
        for row in records(table[table["along"] == "data"])
        if (row["option"], row["other"]) == ("CLIP + augmentation", "CLIP")
    }
    assert worth[25e6]["factor"] == pytest.approx(1.6, abs=0.05)
    sizes = (50e6, 100e6, 200e6, 400e6)
    assert all(worth[size]["factor_low"] < 2.0 < worth[size]["factor_high"] for size in sizes)
    # One seed each: what the runs miss the joint law by decides.
    assert all(worth[size]["verdict"] == "ahead" for size in sizes[:3])
    assert worth[3.4e9]["verdict"] == "undecided"


def test_an_unknown_map_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"did you mean 'paper-one-epoch'\?"):
        find_column_map("paper-oneepoch")


def test_a_wrong_map_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("metric: {name: a/top1, from: y, better: up}\ncolumns:\n  regime: {valu: one-epoch}\n")
    with pytest.raises(ValueError, match=r"mine\.yaml:1: .*direction 'up'") as raised:
        load_column_map(path)
    assert "mine.yaml:3: unknown key 'columns.regime.valu'; did you mean 'columns.regime.value'?" in str(
        raised.value
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("metric: {name: top1, from: y}", "metric.name: 'top1' is not <evaluation set>/<metric>"),
        ("metric: {better: higher, from: y}", "metric.name is missing"),
        ("metric: {name: a/loss, from: y, better: higher}", "metric.better: a/loss is a loss, which is bett"),
        ("metric: {name: a/loss, better: up, from: y}", "metric.better: unknown direction 'up'"),
        ("metric: {name: a/top1, from: y, times: 0.0}", "metric.times: '0.0' makes every number 0; "),
        (
            "metric: {name: a/top1, from: y, images: 2.5}",
            "metric.images.value: '2.5' is not a whole number; ",
        ),
        ("  seed: {value: 0.5}\nmetric: {name: a/top1, from: y}", "columns.seed.value: '0.5' is not a whole"),
    ],
)
def test_a_wrong_value_of_a_map_is_an_error_with_its_line(more: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"{SHORT}{more}\n")
    with pytest.raises(ValueError, match=rf"^{re.escape(f'{path}:9: {message}')}[^\n]*$"):
        load_column_map(path)


@pytest.mark.parametrize(
    "changed", ["value: clip, names: {clip: slip}", "from: how, times: 3", "value: clip, by: n"]
)
def test_a_key_without_effect_is_refused(changed: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(SHORT.replace("{value: clip}", f"{{{changed}}}") + "metric: {name: a/top1, from: y}\n")
    key = changed.split()[2].rstrip(":")
    with pytest.raises(ValueError, match=rf"mine\.yaml:6: columns\.strategy\.{key} is not allowed"):
        load_column_map(path)


def test_a_row_whose_seed_is_no_whole_number_is_left_out_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(SHORT + "  seed: {from: run}\nmetric: {name: a/top1, from: y}")
    rows = import_table(pd.DataFrame({"run": [0, 0.5, None], "y": [0.1, 0.2, 0.3]}), load_column_map(path))
    assert rows["reason"].tolist() == ["", *["seed is not a whole number"] * 2]


def test_percentages_that_say_so_are_not_scaled_again(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    text = SHORT + "metric: {name: a/top1, from: acc, times: 0.01}\n"
    path.write_text(text)
    table = pd.DataFrame([{"acc": "63.2%"}])
    with pytest.raises(
        ValueError, match=r"column 'acc' .*row 1: '63\.2%' is read as 0\.632; leave out times"
    ):
        import_table(table, load_column_map(path))
    named = text.replace("from: acc", "from: acc, names: {low: 20%, high: 40}")
    path.write_text(named)
    with pytest.raises(ValueError, match=r"'20%' is read as 0\.2; leave out times"):
        import_table(pd.DataFrame([{"acc": "low"}]), load_column_map(path))
    assert import_table(pd.DataFrame([{"acc": "high"}]), load_column_map(path))["a/top1"].tolist() == [0.4]
    path.write_text(text.replace(", times: 0.01", ""))
    assert import_table(table, load_column_map(path))["a/top1"].tolist() == [0.632]


def test_none_is_a_name_and_missing_values_are_not(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text(
        "strategy,quality,pairs,acc,note\nNone,NA,1e6,50%,None\nflip,,NA,None,None\nNA,all,20.0,NA,None\n"
    )
    path = tmp_path / "map.yaml"
    path.write_text("""
columns: {regime: {value: equal-samples}, strategy: {from: strategy},
    quality: {from: quality, names: {NA: unfiltered, all: all}}, subset_size: {from: pairs},
    samples_seen: {from: pairs}, train_flops: {from: pairs}, architecture: {from: note}}
metric: {name: a/top1, from: acc}
""")
    found = import_table(read_any_table(table), load_column_map(path))
    assert found["strategy"].tolist() == ["None", "flip", ""]
    assert found["quality"].tolist() == ["unfiltered", "", "all"]
    assert found["architecture"].tolist() == ["None"] * 3
    assert found["subset_size"].isna().tolist() == [False, True, False]
    assert found["a/top1"].isna().tolist() == [False, True, True]


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_published_table_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, where = DATA / "openclip_results.csv", ["--results", str(tmp_path)]
    assert main(["import", str(table), "--map", "open-clip-models", *where]) == 0
    assert main(["report", "open-clip-models", *where]) == 0
    lines = capsys.readouterr().out.splitlines()
    at = {line.partition(":")[0]: line.partition(": ")[2] for line in lines}
    assert at["5.68 EFLOP"].startswith("ViT-B-32, CLIP, 14M pairs, DataComp: error 70.3 %")
    assert at["158 EFLOP"].startswith("ViT-B-16, CLIP, 140M pairs, DataComp: error 36.9 %")
    assert at["6.73 ZFLOP"].startswith("ViT-L-14, CLIP, 1.4B pairs, DataComp: error 20.8 %")
