"""The maps that come with the project read the tables that they are for."""

from pathlib import Path

import numpy as np
import pytest

from analysis.bootstrap import cell_draws
from analysis.column_map import import_table
from analysis.equivalence import equivalences
from analysis.laws import laws
from analysis.surface import fit
from analysis.table import records, tidy
from study.column_maps import find_column_map, load_column_map, read_any_table

PAPER, DATA = Path("results/paper/figures.csv"), Path("../shared/data")


@pytest.mark.parametrize(
    ("name", "table", "rows", "lowest", "most_flops"),
    [
        ("paper-one-epoch", PAPER, 55, 0.2853, 1.29e21),
        ("paper-equal-samples", PAPER, 55, 0.2815, 1.29e21),
        ("paper-strategies", PAPER, 44, 0.3941, 2.35e20),
        ("paper-quality", PAPER, 10, 0.3436, 1.175e20),
        ("open-clip-ladder", DATA / "open_clip_scaling_best_per_scale.csv", 138, 0.2250, 3.44e21),
        ("chinchilla", DATA / "epoch_chinchilla_svg_extracted.csv", 245, 2.0774, 1.30e22),
    ],
)
def test_a_shipped_map_reads_its_table(
    name: str, table: Path, rows: int, lowest: float, most_flops: float
) -> None:
    if not table.exists():
        pytest.skip(f"{table} is not there")
    how = load_column_map(find_column_map(name))
    trials = tidy(import_table(read_any_table(table), how), metric=how.metric)
    assert len(trials.frame) == rows
    assert trials.excluded.empty
    assert trials.frame["error"].min() == pytest.approx(lowest, rel=0.005)
    assert trials.frame["train_flops"].max() == pytest.approx(most_flops, rel=0.005)


def test_augmentation_is_worth_about_twice_the_data_from_50m_to_400m_pairs() -> None:
    how = load_column_map(find_column_map("paper-strategies"))
    trials = tidy(import_table(read_any_table(PAPER), how), metric=how.metric)
    draws = cell_draws(trials, question="laws")
    table = equivalences(draws, tuple(laws(draws, along="data")), along="data")
    worth = {row["x"]: row["ratio"] for row in records(table) if row["strategy"] == "CLIP + augmentation"}
    assert worth[25e6] == pytest.approx(1.6, abs=0.05)
    assert all(1.9 < worth[size] < 2.5 for size in (50e6, 100e6, 200e6, 400e6))
    assert set(table["verdict"]) == {"undecided"}


def test_the_chinchilla_points_come_through_their_map_to_the_published_optimum() -> None:
    path = DATA / "epoch_chinchilla_svg_extracted.csv"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    how = load_column_map(find_column_map("chinchilla"))
    frame = tidy(import_table(read_any_table(path), how), metric=how.metric).frame.sort_values("error")[:-5]
    n, d, y = (frame[name].to_numpy(np.float64) for name in ("parameters", "samples_seen", "error"))
    assert fit(n, d, y).objective == pytest.approx(0.001018274, abs=5e-10)


def test_an_unknown_map_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"did you mean 'paper-one-epoch'\?"):
        find_column_map("paper-oneepoch")


def test_a_wrong_map_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("metric: {name: a/top1, from: y, better: up}\ncolumns:\n  regime: {valu: one-epoch}\n")
    with pytest.raises(ValueError, match=r"mine\.yaml:1: .*direction 'up'") as raised:
        load_column_map(path)
    assert "mine.yaml:3: give either from: COLUMN or value: CONSTANT" in str(raised.value)


def test_only_csv_and_parquet_are_tables(tmp_path: Path) -> None:
    path = tmp_path / "table.xlsx"
    path.touch()
    with pytest.raises(ValueError, match=r"neither \.csv nor \.parquet"):
        read_any_table(path)
