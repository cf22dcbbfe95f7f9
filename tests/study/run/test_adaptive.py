"""An adaptive study from its declaration to its report."""

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.study.conftest import Run, write_declaration

EXIT_OVER_BUDGET = 3


@pytest.fixture
def declaration(pool: Path, tmp_path: Path) -> Path:
    path = write_declaration(
        tmp_path, pool, levels="1 GFLOP, 2 GFLOP, 4 GFLOP", seeds="0, 1", strategies="clip, clip-crop-flip"
    )
    # One trial at a time, so that every result is known when the next trial is chosen.
    text = path.read_text(encoding="utf-8").replace("checkpoint: 0.5 s", "checkpoint: 0.5 s, cpus: 2")
    path.write_text(f"{text}design: {{adaptive: true, best: [4 GFLOP]}}\nlimits: {{min_steps: 2}}\n", encoding="utf-8")
    return path


def events(folder: Path, kind: str) -> list[dict[str, object]]:
    lines = (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [line for line in map(json.loads, lines) if line["event"] == kind]


def test_study_that_stops_and_goes_on_makes_the_same_choices(
    declaration: Path, tmp_path: Path, run: Run
) -> None:
    planned = run(f"plan {declaration} --results {tmp_path / 'whole'}")
    assert "adaptive design: the first round has 6 trials, " in planned
    assert "the study costs " in planned

    run(f"run {declaration} --results {tmp_path / 'whole'} --backend local")
    whole = tmp_path / "whole" / "tiny"
    chosen = [event["trial"] for event in events(whole, "trial-chosen")]
    results = pd.read_parquet(whole / "results.parquet")
    assert 6 < len(chosen) <= 12
    assert set(results["trial"]) == set(chosen)
    (stop,) = {event["stop"] for event in events(whole, "design")} - {""}
    assert stop in {"every question is answered", "no further trial would tell more than it costs"}

    # The same study again, with room for the first round and one trial more, and then with all the room.
    text = declaration.read_text(encoding="utf-8")
    first = results.set_index("trial")["train_flops"].loc[chosen[:7]].sum()
    declaration.write_text(text.replace("study: 10 TFLOP", f"study: {int(first) + 1}"), encoding="utf-8")
    run(f"run {declaration} --results {tmp_path / 'parts'} --backend local")
    parts = tmp_path / "parts" / "tiny"
    begun = [event["trial"] for event in events(parts, "trial-chosen")]
    assert begun[:6] == chosen[:6]
    assert len(begun) <= 7 < len(chosen)
    declaration.write_text(text, encoding="utf-8")
    run(f"run {declaration} --results {tmp_path / 'parts'} --backend local")
    assert [event["trial"] for event in events(parts, "trial-chosen")] == chosen
    assert (parts / "results.parquet").read_bytes() == (whole / "results.parquet").read_bytes()

    said = run(f"status {declaration} --results {tmp_path / 'whole'}")
    assert "best at 4 GFLOP: " in said
    assert "the design stopped: " in said
    assert "no run is active, and no trial is waiting" in said
    run(f"report {declaration} --results {tmp_path / 'whole'}")
    report = whole / "report"
    course = pd.read_csv(report / "tables" / "design.csv")
    assert course["Asked"].unique().tolist() == ["best at 4 GFLOP"]
    assert pd.read_csv(report / "tables" / "choices.csv")["Trial"].tolist() == chosen
    assert "Course of the adaptive design" in (report / "report.html").read_text(encoding="utf-8")
