"""``study import`` of logs as trainers and trackers write them: nested fields, many rows a run."""

import json
from pathlib import Path

import pandas as pd
import pytest

from runners.results import read_table
from study.declare.column_maps import find_column_map
from tests.study.conftest import Run
from tests.study.trainer_logs import wandb_project, write_trainer_states

COLUMNS = """\
columns:
  regime: {value: equal-samples}
  architecture: {from: config.model.name}
  strategy: {value: language-model}
  quality: {value: all}
  subset_size: {value: 1M}
  samples_seen: {from: step, by: config.batch}
  train_flops: {from: step, times: 1e9, by: config.batch}
"""
METRIC = "rows: {}\nmetric: {name: text/loss, from: eval.loss}\n"


@pytest.fixture
def states(tmp_path: Path) -> str:
    """Return the logs of two runs; the second diverged after its second evaluation."""
    return " ".join(map(str, write_trainer_states(tmp_path, "checkpoint-300")))


def imported(run: Run, tmp_path: Path, tables: str, chart: str) -> tuple[str, pd.DataFrame]:
    said = run(f"import {tables} --map {chart} --name logs --results {tmp_path}/results")
    rows = read_table(tmp_path / "results" / "logs" / "results.parquet")
    return said, rows[rows["status"] == "finished"].reset_index(drop=True)


def test_trainer_states_are_runs_of_the_study(run: Run, tmp_path: Path, states: str) -> None:
    said, rows = imported(run, tmp_path, states, "trainer-state")
    assert said.splitlines()[0] == "logs: 2 of 14 rows of 2 tables, text/loss"
    assert "8 rows: a row of a log without text/loss" in said
    assert "4 rows: not the last row of its run" in said
    assert rows["architecture"].tolist() == ["small", "large"]
    assert rows["text/loss"].tolist() == [3.1, 3.4]
    assert rows["train_flops"].tolist() == [6e15, 24e15]
    assert rows["samples_seen"].tolist() == [9600, 9600]


@pytest.mark.parametrize(
    ("take", "losses"),
    [("best", {"small": [3.1], "large": [2.9]}),
     ("each", {"small": [3.5, 3.2, 3.1], "large": [3.3, 2.9, 3.4]})],
)  # fmt: skip
def test_rows_of_a_run_are_taken_as_the_map_says(
    run: Run, tmp_path: Path, states: str, take: str, losses: dict[str, list[float]]
) -> None:
    shipped = find_column_map("trainer-state").read_text(encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(shipped.replace("take: last", f"take: {take}"))
    _, rows = imported(run, tmp_path, states, f"{tmp_path}/mine.yaml")
    assert rows.groupby("architecture")["text/loss"].agg(list).to_dict() == losses
    if take == "each":  # checkpoints of a run share its noise: they are no runs of their own
        assert rows["trunk"].tolist() == rows["architecture"].tolist()
        assert rows["train_flops"].tolist()[:3] == pytest.approx([2e15, 4e15, 6e15])


def test_nested_json_lines_are_read_by_their_paths(run: Run, tmp_path: Path) -> None:
    lines = [
        {"run": name, "step": step, "config": {"batch": 10, "model": {"name": size}}, "eval": {"loss": loss}}
        for name, size, step, loss in
        [("a", "s", 100, 3.5), ("a", "s", 200, 3.4), ("b", "m", 100, 3.3), ("b", "m", 200, 3.2)]
    ]  # fmt: skip
    lines.append({"run": "c", "step": 100, "config": {"batch": 10, "model": {"name": "l"}}, "eval": {}})
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "mine.yaml").write_text(f"{METRIC}run: {{by: run}}\n{COLUMNS}")
    said, rows = imported(run, tmp_path, f"{tmp_path}/log.jsonl", f"{tmp_path}/mine.yaml")
    assert rows["architecture"].tolist() == ["s", "m", "l"]
    assert rows["text/loss"].tolist()[:2] == [3.4, 3.2]
    assert "1 row: the metric text/loss is not a finite number" in said  # a run without any is a lost one

    (tmp_path / "mine.yaml").write_text(METRIC + COLUMNS.replace("model.name", "model.nam"))
    error = run(f"import {tmp_path}/log.jsonl --map {tmp_path}/mine.yaml --results {tmp_path}", code=2)
    assert "unknown column 'config.model.nam'" in error
    assert "config.model.name" in error


@pytest.mark.parametrize("written", ["csv", "jsonl"])
def test_a_wandb_export_with_a_sweep_is_read(run: Run, tmp_path: Path, written: str) -> None:
    frame = wandb_project()
    path = tmp_path / f"project.{written}"
    if written == "csv":
        frame.to_csv(path)  # as W&B's guide has it, with the index
    else:
        frame.to_json(path, orient="records", lines=True)
    said, rows = imported(run, tmp_path, str(path), "wandb-export")
    assert "sweep: the best of 6 runs of 2 cells" in said
    assert "note:" not in said  # samples are sequences: their FLOPs are not held to 6 × parameters × samples
    assert rows["architecture"].tolist() == ["10000000", "40000000"]
    assert rows["tuned_lr_peak"].tolist() == [3e-4, 3e-4]


@pytest.mark.parametrize(("factor", "said"), [(1.0, None), (1.25, None), (1 / 3, "0.33"), (2.0, "2")])
def test_flops_that_are_not_six_n_d_are_noted(
    run: Run, tmp_path: Path, factor: float, said: str | None
) -> None:
    rows = [(size, tokens, 6.0 * factor * size * tokens) for size in (1e7, 4e7) for tokens in (1e8, 1e9)]
    table = pd.DataFrame(rows, columns=["size", "step", "flops"]).assign(loss=[3.4, 3.2, 3.1, 2.9])
    table.to_csv(tmp_path / "table.csv")
    (tmp_path / "mine.yaml").write_text(
        "rows: {}\nmetric: {name: text/loss, from: loss}\n"
        + COLUMNS.replace("config.model.name", "size").replace(", by: config.batch", "")
        .replace("{from: step, times: 1e9}", "{from: flops}") + "  parameters: {from: size}\n"
    )  # fmt: skip
    answer, _ = imported(run, tmp_path, f"{tmp_path}/table.csv", f"{tmp_path}/mine.yaml")
    expected = f"note: train_flops of 4 rows of 4 is {said} times 6 × parameters × samples_seen"
    assert (expected in answer) == (said is not None)
    assert ("note:" in answer) == (said is not None)


@pytest.mark.parametrize(("factor", "notes"), [(1.0, 0), (1 / 3, 1)])
def test_flops_that_are_not_those_of_the_towers_are_noted(
    run: Run, tmp_path: Path, factor: float, notes: int
) -> None:
    per_sample = 6 * 7.4e9 * factor  # ViT-B-32: 7.4 GMACs forward
    table = pd.DataFrame({"seen": [1e7, 1e8, 1e9], "acc": [0.2, 0.4, 0.6]})
    table.assign(flops=table["seen"] * per_sample).to_csv(tmp_path / "table.csv")
    (tmp_path / "mine.yaml").write_text(
        "rows: {}\nmetric: {name: imagenet/top1, from: acc}\n"
        + COLUMNS.replace("from: config.model.name", "value: ViT-B-32").replace("language-model", "clip")
        .replace("{from: step, by: config.batch}", "{from: seen}")
        .replace("{from: step, times: 1e9, by: config.batch}", "{from: flops}")
    )  # fmt: skip
    answer, _ = imported(run, tmp_path, f"{tmp_path}/table.csv", f"{tmp_path}/mine.yaml")
    assert answer.count("note: train_flops of 3 rows of 3 is 0.33 times those of the towers") == notes
