"""Errors that a newcomer meets: each names file and line, and says what to write instead."""

import json
import re
import shutil
from pathlib import Path

import pytest

from study.cli import main
from tests.root import ROOT
from tests.study.conftest import Run
from tests.study.tiny_study import edit, read_json

CATALOGUE = ROOT / "budgets" / "cost" / "catalogue"


@pytest.fixture
def template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the declaration that ``new`` writes, in the working directory."""
    monkeypatch.chdir(tmp_path)
    assert main(["new", "first.yaml"]) == 0, "the file's name is taken for the study's"
    return Path("first.yaml")


def line_of(path: Path, start: str) -> int:
    return next(n for n, line in enumerate(path.read_text().splitlines(), 1) if line.startswith(start))


@pytest.mark.parametrize(
    ("before", "after", "at", "words"),
    [
        ("metric: held-out/top1", "metric: held-out/acc", "metric:", "did you mean 'held-out/top1'?"),
        ("metric: held-out/top1", "metric: heldout/top5", "metric:", "did you mean 'held-out/top5'?"),
        ("study: 15 TFLOP", "study: 1 TFLOP", "  study: 1 TFLOP", "10.9 TFLOP (42 trials"),
        ("embedded: {pairs: 8192}", "path: nowhere", "  path: nowhere", "nowhere"),
        ("[60 GFLOP, 180 GFLOP, 540 GFLOP]", "[60, 180, 540]", "grid:", "without a unit is in FLOPs"),
        ("seeds: [0, 1]", "seeds: 3", "seeds:", "write [3]"),
        ("# evaluation: {imagenet: /d", "evaluation: {imagenet: /d", "evaluation:", "/data/wds/imag"),
    ],
)
def test_an_error_of_the_plan_names_file_and_line(
    template: Path, run: Run, before: str, after: str, at: str, words: str
) -> None:
    edit(template, (before, after))

    said = run("plan first.yaml", code=2)

    assert said.startswith(f"study: first.yaml:{line_of(template, at)}: "), said
    assert words in said


def test_a_pool_whose_name_is_not_utf8_is_named_with_its_bytes_written_out(
    pool: Path, tmp_path: Path, run: Run
) -> None:
    shutil.copytree(pool, tmp_path / "caf\udce9")

    said = run(f"data info '{tmp_path}/caf\udce9'", code=2)

    assert said == f"study: {tmp_path}/caf\\udce9/index/00000.parquet is not UTF-8: rename it\n"


def test_a_working_folder_that_was_deleted_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    monkeypatch.setenv("PWD", str(gone))
    gone.rmdir()

    said = run(f"run demo --results {tmp_path} --pools {tmp_path}", code=2)

    assert said == f"study: the working folder {gone} was deleted: change to one that exists\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("run first.yaml --backend local --address h:1", "--address"),
        ("run first.yaml --backend local --address h:1 --dry-run", "--address"),
        ("check first.yaml --backend local --address h:1", "--address"),
        ("recommend small --flops 1e12 --pairs 8192 --table t.csv", "--prior MAP"),
        ("data build p --from embedded:64 --without sets/a", "--without has no effect on embedded:64"),
        ("data build p --from embedded:64 --in-place", "--in-place has no effect on embedded:64"),
        ("data build p --from embedded:64 --score mine", "--score has no effect on embedded:64"),
        ("data build p --from urls.csv --in-place", "--in-place has no effect on urls.csv"),
        ("data build p --from urls.csv --url link --retries 5", "--retries has no effect on urls.csv"),
        ("data build p --from shards --caption alt", "--caption has no effect on shards: leave it out"),
        ("data build p --from shards --seed 5", "--seed has no effect on shards"),
        ("data build shards --in-place --image photo", "--image has no effect on shards"),
    ],
)
def test_an_option_that_would_have_no_effect_is_refused(
    template: Path, run: Run, words: str, message: str
) -> None:
    template.with_name("urls.csv").write_text("url,caption\nhttp://127.0.0.1:9/a.jpg,a\n")
    assert message in run(words, code=2)


def test_a_single_shard_is_read_whatever_the_case_of_its_ending(template: Path, run: Run, pool: Path) -> None:
    shard = template.with_name("SHARD.TAR")
    shutil.copy(next(pool.rglob("*.tar")), shard)
    assert "pairs; left out: none" in run(f"data build p --from {shard} --workers 1")


def test_a_model_that_torch_cannot_build_is_an_error_of_the_catalogue(template: Path, run: Run) -> None:
    Path("models").mkdir()
    mine = read_json(CATALOGUE / "mini-ViT-XXS-8.json")
    mine["vision_cfg"] = {"timm_model_name": "vit_tny", "image_size": 32}
    Path("models", "mine.json").write_text(json.dumps(mine))
    template.write_text(f"catalogue: models\n{template.read_text().replace('mini-ViT-XXS-8', 'mine')}")
    said = run("plan first.yaml", code=2)
    assert re.search(r"first\.yaml:1: mine: vision_cfg\.timm_model_name: .*'vit_tny'", said)


def test_a_level_read_without_its_unit_is_warned_of(template: Path, run: Run) -> None:
    edit(template, ("levels: [60 GFLOP, ", "levels: [60, "))
    assert "note: a level of 60 FLOP " in run("plan first.yaml")


def test_a_warning_about_several_levels_is_given_once(template: Path, run: Run) -> None:
    all_of_them = "mini-ViT-XXS-8, mini-ViT-XS-8, mini-ViT-S-8, mini-ConvNeXt]"
    edit(template, (all_of_them, "mini-RN]"), ("mini-ConvNeXt: 1e-3", "mini-RN: 1e-3"))
    said = run("plan first.yaml")
    assert said.count("are needed to bracket the best size") == 1
    assert "60 GFLOP, 180 GFLOP, 540 GFLOP: 1 model size" in said


def test_advice_names_the_declaration_as_it_was_named(template: Path, run: Run) -> None:
    for command in ("status", "report", "recommend"):
        words = " --flops 1TFLOP --pairs 8192" if command == "recommend" else ""
        assert "`python -m study run first.yaml`" in run(f"{command} {template}{words}", code=2)
    assert "`python -m study run demo`" in run("status demo", code=2)
    template.rename("my first.yaml")
    assert "`python -m study run 'my first.yaml'`" in run("status 'my first.yaml'", code=2)


@pytest.mark.usefixtures("template")
@pytest.mark.parametrize("words", ["run paper --backend local", "run paper --dry-run", "calibrate paper"])
def test_a_pool_that_is_only_described_is_never_run(run: Run, words: str) -> None:
    assert "webli-en is only described" in run(words, code=2)
