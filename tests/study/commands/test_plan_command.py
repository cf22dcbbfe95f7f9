"""``python -m study plan``: its output, exports and explanations, and stable trial ids."""

import csv
import hashlib
import io
import json
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from budgets.cost.flops import CONVENTION
from study.declare import shipped_studies
from study.declare.load import load_declaration
from study.state.plan_study import plan_study, plan_tables
from study.state.study import Study
from tests.root import ROOT
from tests.study import declared
from tests.study.conftest import Run, study_in
from tests.study.declared import changed, write
from tests.study.events import write_events
from tests.study.tiny_study import edit, study_of

FULL = re.sub(r"(?m)^design: .+\n", "", declared.FULL)  # the whole grid


@pytest.fixture
def run(run: Run, tmp_path: Path) -> Run:
    """Return a function that runs the command and returns its output, or its error."""
    folders = ("--results", tmp_path / "results", "--pools", tmp_path / "pools")

    def plan(*words: object, code: int = 0) -> str:
        return run(shlex.join(map(str, ["plan", *words, *folders])), code=code)

    return plan


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """Return the file of a declaration with almost every key."""
    return write(tmp_path, FULL)


def shipped(name: str, folder: Path) -> Study:
    return study_in(declaration=load_declaration(shipped_studies()[name]), folder=folder, pools=folder)


def test_the_demo_keeps_its_trials_ids(tmp_path: Path) -> None:
    ids = [trial.trial_id for trial in plan_study(shipped("demo", tmp_path)).trials]

    assert len(ids) == 38
    assert (ids[0], ids[19], ids[-1]) == ("4b9a9d859d23", "e9116223c6de", "800fdb9607fa")
    assert hashlib.sha256(" ".join(ids).encode()).hexdigest()[:16] == "6fd297a884f0bb14"


def test_the_shipped_studies_have_no_warnings(tmp_path: Path) -> None:
    for name in ("demo", "small", "small-trunk", "small-full"):
        assert plan_study(shipped(name, tmp_path)).warnings == ()


def test_plan_tables_do_not_depend_on_measurements(tmp_path: Path) -> None:
    study = shipped("demo", tmp_path)
    plan = plan_study(study)
    before = plan_tables(plan)
    event = {"event": "trial-finished", "trial": plan.trials[0].trial_id, "samples_per_s": 7.0}
    write_events(tmp_path / "events.jsonl", [event])

    for old, new in zip(before, plan_tables(plan_study(study)), strict=True):
        assert old.equals(new)


def test_a_plan_is_a_table_with_totals_against_the_budget(run: Run) -> None:
    lines = run("demo").splitlines()

    assert lines[0].split()[:3] == ["architecture", "strategy", "pairs"]
    assert lines.index("300 GFLOP") - lines.index("100 GFLOP") == 11
    assert "demo: 38 trials, 14.58 TFLOP of training in all; study budget 20 TFLOP, 5.423 TFLOP left" in lines


def test_the_papers_grid_is_planned_and_priced(run: Run, tmp_path: Path) -> None:
    plan = plan_study(shipped("paper", tmp_path))
    cells = {trial.cell for trial in plan.trials}
    text = run("paper")

    assert plan.left_out == ()
    assert {cell.quality for cell in cells} == {"top20", "top40", "top60", "top80", "all"}
    assert len({cell.architecture for cell in cells}) == 9
    assert {cell.strategy for cell in cells} == {"clip", "clip-stacked-randaugment", "flip-50", "slip"}
    assert {cell.regime for cell in cells} == {"one-epoch", "equal-samples"}
    sizes = {cell.subset_size for cell in cells if cell.regime == "one-epoch" and cell.quality == "all"}
    assert (len(sizes), min(sizes), max(sizes)) == (11, 10_000_000, 3_400_000_000)
    assert "paper: 297 trials, 43.67 ZFLOP " in text
    # 43.67 ZFLOP and the evaluation over 989 TFLOP/s at 40 and at 10 %, over .97^6 for 64 GPUs: 36,814 to
    # 147,253. Start-up is 30 s x 64 GPUs x 297 trials: 158.
    assert "36,972 to 147,411 hours of h100-sxm (297 at 10 % to 40 % " in text


def test_every_trial_and_every_left_out_cell_is_written_as_csv(run: Run, tmp_path: Path) -> None:
    checked = FULL.replace("study: 50 TFLOP", "study: 150 TFLOP").replace(
        "share: 20%", "share: 10%\n  check: 20%"
    )
    path = write(tmp_path, checked)
    rows = list(csv.DictReader(io.StringIO(run(path, "--format", "csv"))))
    plan = plan_study(study_of(path))
    trials, left_out = [row for row in rows if row["trial"]], [row for row in rows if not row["trial"]]

    assert [row["trial"] for row in trials] == [trial.trial_id for trial in plan.all_trials]
    assert [int(row["train_flops"]) for row in trials] == [trial.train_flops for trial in plan.all_trials]
    assert sum(int(row["paid_flops"]) for row in trials) == plan.train_flops
    assert [row["trial"] for row in trials if row["phase"] == "grid"] == [t.trial_id for t in plan.trials]
    assert {row["phase"] for row in trials} == {"tuning", "check", "grid"}
    assert {row["level_flops"] for row in left_out} == {"100000000000", "300000000000", "900000000000"}
    assert [row["reason"] for row in left_out] == [item.reason for item in plan.left_out]
    assert not any(row["reason"] for row in trials)
    assert float(trials[0]["device_hours_low"]) < float(trials[0]["device_hours_high"])


def test_columns_that_only_some_plans_have_are_written_as_csv(run: Run, tmp_path: Path) -> None:
    path = write(tmp_path, FULL.replace("training:\n", "training:\n  resized_images: 64\n"))
    rows = list(csv.DictReader(io.StringIO(run(path, "--format", "csv"))))
    assert {(bool(row["trial"]), row["resized_images"]) for row in rows} == {(True, "64.0"), (False, "")}


def test_trials_of_trunks_have_a_phase_of_their_own_in_a_table(run: Run) -> None:
    rows = csv.DictReader(io.StringIO(run("small-trunk", "--format", "csv")))
    counts = Counter(row["phase"] for row in rows if row["trial"])
    assert counts["trunk"] == counts["grid"] == counts.total() / 2


@pytest.mark.parametrize(
    ("ema", "average"),
    [("", "mean of its last 18 states"), ("\n  ema: 0.99", "moving average of its weights")],
)
def test_an_explained_trunk_names_the_average_that_is_evaluated(
    run: Run, tmp_path: Path, ema: str, average: str
) -> None:
    text = shipped_studies()["small-trunk"].read_text(encoding="utf-8")
    text = re.sub(r"levels: .+", "levels: [200 GFLOP, 210 GFLOP]", text)
    path = write(tmp_path, text.replace("cooldown: 20%", f"cooldown: 20%{ema}"))
    # Of 374 steps up to its milestone, the last 18 follow the milestone before.
    assert f"so is the {average}\n" in run(path, "--explain", "mini-ViT-XXS-8 210")


def test_json_is_exact_and_carries_convention_totals_and_price(run: Run, full: Path) -> None:
    content = json.loads(run(full, "--format", "json"))

    assert content["convention"] == CONVENTION
    trials = [*content["trials"], *content["tuning"]["trials"]]
    assert content["train_flops"] == sum(trial["train_flops"] for trial in trials)
    assert sum(content["train_flops_by"]["strategy"].values()) == content["train_flops"]
    assert content["price"]["money"]["low"] == pytest.approx(2.5 * content["price"]["device_hours"]["low"])
    assert {trial["level_flops"] for trial in content["trials"]} == {None, 10**11, 3 * 10**11, 9 * 10**11}
    levels = [row["level_flops"] for row in (*content["left_out"], *content["tuning"]["trials"])]
    assert {type(level) for level in levels if level is not None} == {int}


def test_parquet_has_the_columns_of_the_csv_and_the_convention(run: Run, full: Path) -> None:
    output = full.with_name("plan.parquet")
    header = run(full, "--format", "csv").splitlines()[0]
    plan_total = json.loads(run(full, "--format", "json"))["train_flops"]
    assert run(full, "--format", "parquet", "--output", output).strip() == str(output)
    table = pq.read_table(output)

    assert ",".join(table.column_names) == header
    rows = table.to_pylist()
    assert sum(row["paid_flops"] for row in rows if row["trial"]) == plan_total
    assert {row["phase"] for row in rows if not row["trial"]} == {"grid"}
    assert table.schema.metadata[b"convention"].decode() == CONVENTION
    assert "--output FILE" in run(full, "--format", "parquet", code=2)


def test_output_goes_to_a_file(run: Run, tmp_path: Path) -> None:
    run("demo", "--output", tmp_path / "plan.txt")

    assert (tmp_path / "plan.txt").read_text() == run("demo")


@pytest.mark.parametrize(
    "cell", ["c001cfa3308b", "XS-8 flip-50 900", "mini-ViT-XS-8 flip-50 top40 900 GFLOP"]
)
def test_a_cell_is_explained_by_id_or_by_words(run: Run, cell: str) -> None:
    lines = run("demo", "--explain", cell).splitlines()

    # 16 patches of 8 x 8 x 3 to width 48; the rest by hand in the tests of the towers.
    assert lines[0] == "mini-ViT-XS-8 flip-50 on 3,277 pairs (top40) at 900 GFLOP"
    assert re.search(r" 8 of 16 patches .*: 917,280 MACs x 1 view \+ 3,072", lines[1])
    assert lines[4] == (
        "a sample: 1,760,032 MACs forward x 2 FLOPs a MAC x 3 passes = 10,560,192 FLOP (10.56 MFLOP)"
    )
    assert re.search(r"900,000,000,000 FLOP / 10,560,192 = 85,225, .* 128: 85,120 in 665 steps", lines[6])
    assert "85,120 x 10,560,192 = 898,883,543,040 FLOP" in lines[8]
    assert lines[-1] == "trial c001cfa3308b: seed 0"


def test_two_resolutions_are_explained_with_the_cost_of_each(run: Run, tmp_path: Path) -> None:
    path = write(tmp_path, changed("[clip, flip-50, slip]", "[clip, clipa-resize, slip]"))
    text = run(path, "--explain", "mini-ViT-XS-8 clipa-resize 20,000 all 300")

    assert "16 x 16 pixels, 4 of 4 patches" in text
    assert "8 of 16 tokens: " in text
    assert "training.unmasked_tail = 5.7% " in text


def test_an_explained_cell_that_is_left_out_says_every_reason(run: Run, full: Path) -> None:
    text = run(full, "--explain", "mini-RN slip 20,000 all 300")

    assert "exclude[1]" in text
    assert "2 augmented views" in text


def test_words_of_explain_must_select_one_cell(run: Run) -> None:
    assert "'slip' matches 3 cells" in run("demo", "--explain", "slip", code=2)
    assert "'sglip'" in run("demo", "--explain", "sglip", code=2)
    assert "--format text" in run("demo", "--explain", "slip", "--format", "csv", code=2)


def test_metric_of_a_described_pool_is_checked_without_its_sets(run: Run, tmp_path: Path) -> None:
    text = FULL.replace("{at: [25%, 50%], imagenet: {images: 5k, texts: 8k}}", "{at: [25%, 50%]}")

    run(write(tmp_path, text))
    for key, right, wrong in (("metric", "top1", "tpo1"), ("tuning.metric", "top5", "topp5")):
        said = run(write(tmp_path, text.replace(f"imagenet/{right}", f"imagenet/{wrong}")), code=2)
        assert f"did you mean 'imagenet/{right}'?" in said
        assert key in said


def test_what_is_set_aside_for_the_tuning_is_not_left_for_the_grid(run: Run, full: Path) -> None:
    trials = json.loads(run(full, "--format", "json"))["trials"]

    # 20 % of 50 TFLOP are set aside; the tuning's trials cost 5.158 TFLOP if no range is widened.
    assert sum(trial["paid_flops"] for trial in trials) / 1e12 == pytest.approx(50 - 10 - 0.031, abs=0.001)
    assert "50 TFLOP, of which 10 TFLOP are set aside for tuning, 31.33 GFLOP left" in run(full)
    edit(full, ("  share: 20%\n", "  share: 15%\n  check: 5%\n"))
    assert "for tuning and check, 31.33 GFLOP left" in run(full)


def test_the_planners_own_choices_are_noted_and_sums_are_in_the_order_of_the_levels(
    run: Run, full: Path
) -> None:
    text = run(full)

    assert "(budget.fit: drop)" in text
    assert "20 extra seeds at 900 GFLOP, " in text
    assert re.search(r"\ntrials by level: 100 GFLOP .+, 300 GFLOP .+, 900 GFLOP .+, one-epoch ", text)


def test_range_with_equal_ends_is_one_number(run: Run, tmp_path: Path) -> None:
    cluster = "cluster: {device: H100, count: 1, utilisation: [40%, 40%]}"
    quick = re.sub(r"(?m)\bcpus: \d+", "cpus: 4000", FULL)  # loading is never the longer of the two
    path = write(tmp_path, re.sub(r"(?m)^cluster: .+$", cluster, quick))

    text = run(path)
    assert " at 40 % of " in text
    (ends,) = [line for line in text.splitlines() if " from start to end on 1 device" in line]
    assert " to " not in ends.partition(" from ")[0]
    assert " of h100-sxm, at 40 % of " in run(path, "--explain", "mini-ViT-S-8 one-epoch")


@pytest.mark.slow
def test_a_closed_pipe_gives_no_traceback() -> None:
    command = f"{sys.executable} -m study plan paper --format csv | head -1"
    done = subprocess.run(["/bin/sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.startswith("trial,regime,")
    assert done.stderr == ""
