"""``python -m study data``: evaluation sets, training on a user's pool, mistakes, and the documentation."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from runners.data.evaluation.evaluation_set import EvaluationSet, write_evaluation_set
from runners.host.workers import Processes
from runners.trials.trial import run_trial
from runners.trials.trial_job import TrialJob
from study.cli import main
from study.declare.load import load_declaration
from study.run.pool_site import PoolSite
from study.state.plan_study import plan_study
from tests.root import ROOT
from tests.study import shown
from tests.study.commands.pools.conftest import COMMANDS, command
from tests.study.conftest import Run, study_in

pytestmark = pytest.mark.slow


def test_evaluation_sets_are_checked_against_the_papers_suite(user: Path, run: Run) -> None:
    images = np.zeros((4, 3, 8, 8), np.uint8)
    good = EvaluationSet(
        images=images, labels=np.array([0, 1, 0, 1]), classnames=("a", "b"), templates=("a photo of {c}",)
    )
    write_evaluation_set(user / "sets" / "imagenet1k", good)
    tree = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    assert all(path.name in tree for path in (user / "sets" / "imagenet1k").rglob("*"))
    said = run(command("eval-sets"))
    assert "imagenet1k: classification, 4 images, 2 texts, in sets/imagenet1k" in said
    assert "imagenet1k has 4 images; the full ImageNet has 50,000" in said
    assert "missing of the paper's suite: ObjectNet (objectnet)" in said
    (user / "sets" / "imagenet1k" / "classnames.txt").write_text("a\n")
    assert main(["data", "eval-sets", "sets"]) == 1


@pytest.mark.usefixtures("undrawn")
def test_the_tutorial_on_own_data_leads_from_images_to_a_report(
    user: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("empty", "page"):
        (user / "png" / f"{name}.png").unlink()
    (user / "png").rename(user / "images")
    levels = "[60 GFLOP, 180 GFLOP, 540 GFLOP]", "[20 GFLOP, 30 GFLOP]"

    said = shown.follow(
        "docs/own-data.md", lambda text: text.replace(*levels).replace("[540 GFLOP]", "[20 GFLOP]"), capsys
    )

    assert "score mine cost 21.18 GFLOP" in said["data info pools/mine --sheet sheet.png"]
    assert said["report mine.yaml"].startswith("16 of 16 trials finished")


def test_a_trial_trains_on_a_users_pool(owner: Path, run: Run) -> None:
    run(command("column:popularity"))
    shutil.copytree(owner / "pools" / "icons" / "shards", owner / "sets" / "icons")
    study = """
study: icons
pool: {path: pools/icons}
evaluation: {icons: sets/icons}
metric: icons/image_to_text_r1
budget: {levels: [5 GFLOP], study: 1 TFLOP}
grid: [{architectures: [mini-ViT-XXS-8], quality: [top40, all]}]
training: {batch_size: 16, lr_peak: {mini-ViT-XXS-8: 2e-3}}
"""
    (owner / "icons.yaml").write_text(study, encoding="utf-8")
    declaration = load_declaration(owner / "icons.yaml")
    declared = study_in(declaration=declaration, folder=owner / "results", pools=owner / "pools")
    plan = plan_study(declared)
    assert [trial.cell.subset_size for trial in plan.trials] == [120, 300]
    late = owner / "pools" / "icons" / "late.tar"
    shutil.copy(owner / "sets" / "icons" / "00000.tar", late)
    with pytest.raises(
        ValueError, match=r"1 tars in .*pools/icons are not in its index, the first is late\.tar"
    ):
        plan_study(declared)
    assert "late.tar; `python -m study data build pools/icons --in-place` takes" in run(command("data info"))
    late.unlink()
    trial = plan.trials[0]
    job = TrialJob(
        trial=trial,
        pools=(declared.pool_folders[""],),
        evaluation=declared.evaluation,
        folder=owner / "trial",
        cpus=1,
        gpus=0,
        checkpoint_s=60,
        loader_bytes=2**28,
    )
    outcome = run_trial(job)
    assert outcome.row["status"] == "finished"
    assert outcome.row["samples_seen"] == trial.samples_seen
    assert outcome.timing["damaged_pairs"] == 0
    assert outcome.row["train_loss"] < np.log(16)  # better than chance among 16
    assert not (owner / "trial" / "damage.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("data build pools/x --from nowhere", "no such source: nowhere"),
        (
            "data build pools/x --from http://127.0.0.1:1/x",
            "x can't be read: Cannot connect to host 127",
        ),
        ("data build pools/x", "--from SOURCE, or --in-place"),
        ("data build pools/x --from icons.csv --caption captoin", "did you mean 'caption'"),
        ("data build pools/x --from embedded:many", "embedded:many needs a number of pairs"),
        ("data build pools/x --from embedded:00", "'00' must be more than 0"),
        ("data build pools/x --from embedded:²", "'²' is not a number"),
        ("data build pools/x --from embedded:9e30", "'9e30' is out of range: at most 1e+15"),
        ("data build png --from icons.csv", "png already exists"),
        ("data info pools/x", "no such pool"),
        (
            "data eval-sets gs://bucket/sets",
            "gs://bucket/sets can't be read: storage gs://bucket/sets needs a package",
        ),
        ("data eval-sets nowhere", "folder of evaluation sets nowhere can't be read: no such folder"),
    ],
)
def test_a_mistake_ends_with_one_line_and_code_2(user: Path, run: Run, words: str, message: str) -> None:
    assert user.is_dir()
    said = run(words if "eval" in words else f"{words} --workers 1", code=2)
    assert message in said
    assert len(said.splitlines()) == 1


def test_a_worker_for_each_core_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _process: {5, 6, 7})  # of a job on a larger machine
    site = PoolSite(None, None, print)
    workers = site.workers()
    assert isinstance(workers, Processes)
    assert workers.count == site.threads(Processes()) == 3


def test_every_command_of_the_documentation_is_run_here() -> None:
    tests = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("*.py"))
    parts = re.findall(r'command\("([^"]+)"\)', tests)
    assert {each for each in COMMANDS for part in parts if part in each} == set(COMMANDS)
