"""Declarations: what is read, and that it is written back."""

import shutil
from pathlib import Path

import pytest

from budgets.declaration.data_sections import DeclaredPool
from budgets.declaration.rules import ResourceRule, TrainingRule
from budgets.declaration.sections import Exclusion, Ladder
from study.declare import shipped_studies
from study.declare.dump import dump_declaration
from study.declare.load import load_declaration
from study.state.plan_study import plan_study
from tests.root import ROOT
from tests.study.conftest import study_in
from tests.study.declared import DECLARATIONS, FULL, changed, problems, write


@pytest.mark.parametrize("text", DECLARATIONS)
def test_every_key_is_read_and_written_back(tmp_path: Path, text: str) -> None:
    (tmp_path / "nets").mkdir()
    config = ROOT / "budgets/cost/catalogue/mini-ViT-XS-8.json"
    shutil.copy(config, tmp_path / "nets" / "mine.json")
    declaration = load_declaration(write(tmp_path, text))

    assert load_declaration(write(tmp_path, dump_declaration(declaration))) == declaration


def test_values_are_read_in_their_units(tmp_path: Path) -> None:
    declaration = load_declaration(write(tmp_path, FULL))

    assert declaration.pool == DeclaredPool(name="described", pairs=100_000, scored=True)
    assert declaration.evaluation_counts == {"imagenet": (5_000, 8_000)}
    assert declaration.budget.levels == (10**11, 3 * 10**11, 9 * 10**11)
    assert declaration.grid[0].sizes == (20_000, None)
    assert declaration.grid[3].samples == (10_000, 64_000)
    assert declaration.exclude[1] == Exclusion(
        levels=(9 * 10**11,), regimes=("fixed-compute",), strategies=("slip",)
    )
    assert declaration.training.recipe.beta2 == 0.98
    assert declaration.resources.checkpoint_s == 120
    assert declaration.cluster is not None
    assert (declaration.cluster.device, declaration.cluster.utilisation) == ("h100-sxm", (0.2, 0.5))


def test_a_ladder_is_read_instead_of_levels(tmp_path: Path) -> None:
    text = "study: a\npool: {path: b}\nbudget: {study: 1e18, ladder: {levels: 3, ratio: 3.16}}\n"
    grid = "grid: [{architectures: [RN50]}]\ntraining: {lr_peak: {RN50: 1e-3}}\n"
    declaration = load_declaration(write(tmp_path, text + grid))

    assert (declaration.budget.levels, declaration.budget.ladder) == ((), Ladder(levels=3, ratio=3.16))
    assert declaration.pool == DeclaredPool(path=str(tmp_path / "b"))


@pytest.mark.parametrize("name", sorted(shipped_studies()))
def test_a_dumped_declaration_is_read_as_the_same(tmp_path: Path, name: str) -> None:
    declaration = load_declaration(shipped_studies()[name])

    assert load_declaration(write(tmp_path, dump_declaration(declaration))) == declaration


def test_resources_and_storage_are_read_and_written_back(tmp_path: Path) -> None:
    text = changed(
        "checkpoint: 2 min}", "wait: 10 min, custom: {a100: 1, licence: 0.5}}\nstorage: file:///nfs/x"
    )
    declaration = load_declaration(write(tmp_path, text))

    assert declaration.resources.custom == {"a100": 1, "licence": 0.5}
    assert declaration.resources.wait_s == 600
    assert declaration.storage == "/nfs/x"
    bucket = write(tmp_path, text.replace("file:///nfs/x", "s3://bucket/x/"))
    assert load_declaration(bucket).storage == "s3://bucket/x"
    assert load_declaration(write(tmp_path, dump_declaration(declaration))) == declaration


def test_rules_are_a_list_or_a_key_and_are_read_and_written_back(tmp_path: Path) -> None:
    rules = "[{gpus: 4}, {architectures: mini-RN, levels: 900 GFLOP, gpus: 8, gradient_checkpointing: true}]"
    section = "{cpus: 2, gpus: 1, retries: 1, checkpoint: 2 min}"
    training = "training:\n  rules: [{strategies: slip, batch_size: 128, lr_peak: 5e-4}]"
    text = changed(section, rules).replace("training:", training, 1)
    declaration = load_declaration(write(tmp_path, text))

    assert declaration.resources.rules == (
        ResourceRule(gpus=4),
        ResourceRule(architectures=("mini-RN",), levels=(900 * 10**9,), gpus=8, gradient_checkpointing=True),
    )
    assert declaration.training.rules == (TrainingRule(strategies=("slip",), batch_size=128, lr_peak=5e-4),)
    assert declaration.resources.auto  # a cluster is declared, and no amounts for all trials
    assert load_declaration(write(tmp_path, text.replace(rules, f"{{rules: {rules}}}"))) == declaration
    assert load_declaration(write(tmp_path, dump_declaration(declaration))) == declaration


def test_with_a_cluster_resources_are_chosen_unless_they_are_declared(tmp_path: Path) -> None:
    def auto(resources: str) -> bool:
        text = changed("{cpus: 2, gpus: 1, retries: 1, checkpoint: 2 min}", resources)
        return load_declaration(write(tmp_path, text)).resources.auto

    assert auto("auto")
    assert auto("{checkpoint: 2 min}")
    assert auto("{auto: true, checkpoint: 2 min}")
    assert not auto("{gpus: 1}")
    assert not auto("{auto: false}")


def test_trials_over_several_nodes_may_share_a_url_alone(tmp_path: Path) -> None:
    text = changed("gpus: 1, retries", "gpus: 2, nodes: 2, retries")
    assert load_declaration(write(tmp_path, f"{text}storage: s3://bucket/x\n")).storage == "s3://bucket/x"


def test_declared_values_override_the_papers_preset(tmp_path: Path) -> None:
    training = load_declaration(shipped_studies()["paper"]).training
    assert training.batch_size == 16_384
    assert set(training.lr_peak.values()) == {1e-3}
    assert "paper-Swin-T" in training.lr_peak
    recipe = training.recipe
    assert (recipe.optimizer, recipe.beta1, recipe.beta2, recipe.weight_decay, recipe.schedule) == (
        "adafactor",
        0.9,
        0.999,
        1e-4,
        "cosine",
    )

    text = changed("batch_size: 64", "preset: paper").replace("  eps: 1e-6\n", "")
    mine = load_declaration(write(tmp_path, text.replace(", mini-RN: 1e-3}", "}"))).training
    assert (mine.recipe.optimizer, mine.recipe.beta2, mine.batch_size) == ("adafactor", 0.98, 16_384)
    assert (mine.lr_peak["mini-ViT-XXS-8"], mine.lr_peak["mini-RN"]) == (2e-3, 1e-3)


def test_the_users_own_architectures_are_used_by_name(tmp_path: Path) -> None:
    own = tmp_path / "architectures"
    own.mkdir()
    (own / "tiny.json").write_text(
        '{"embed_dim": 16, "vision_cfg": {"image_size": 16, "layers": 1, "width": 64, "patch_size": 8},'
        ' "text_cfg": {"context_length": 8, "vocab_size": 99, "width": 64, "heads": 1, "layers": 1}}'
    )
    text = changed("mini-ViT-S-8: 1e-3", "tiny: 1e-3").replace("[mini-ViT-S-8]", "[tiny]")
    declaration = load_declaration(write(tmp_path, f"catalogue: {own}\n{text}"))

    assert declaration.catalogue == str(own)
    assert declaration.grid[1].architectures == ("tiny",)
    planned = plan_study(study_in(declaration=declaration, folder=tmp_path, pools=tmp_path)).trials
    assert "tiny" in {trial.cell.architecture for trial in planned}

    (own / "wrong.json").write_text('{"embed_dim": 16, "vision_cfg": {"widht": 3}, "text_cfg": {}}')
    assert "wrong.json: unknown setting in vision_cfg" in problems(tmp_path, f"catalogue: {own}\n{text}")[0]


def test_paths_are_relative_to_the_file_and_in_a_runs_copy_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    saved, text = (
        project / "results" / "full",
        changed("name: described, pairs: 100k, scored: true", "path: pool"),
    )
    (project / "archs").mkdir(parents=True)
    shutil.copy(ROOT / "budgets/cost/catalogue/Mixer-B-32.json", project / "archs")
    source = write(project, f"catalogue: archs\n{text}".replace("{images: 5k, texts: 8k}", "sets/imagenet"))
    monkeypatch.chdir(project)
    saved.mkdir(parents=True)
    (saved / "study.yaml").write_text(dump_declaration(load_declaration(Path("study.yaml"))))
    (saved / "spent.parquet").touch()

    declaration = load_declaration(Path("results/full/study.yaml"))

    assert declaration == load_declaration(Path("study.yaml"))
    assert declaration.catalogue == "archs"
    monkeypatch.chdir(tmp_path)
    assert load_declaration(source).catalogue == str(project / "archs")


@pytest.mark.parametrize(("check", "share"), [("true", 0.1), ("false", 0.0), ("5%", 0.05)])
def test_check_has_a_share_of_its_own(tmp_path: Path, check: str, share: float) -> None:
    text = changed("  seeds: [7]\n", f"  seeds: [7]\n  check: {check}\n")

    declaration = load_declaration(write(tmp_path, text))
    again = load_declaration(write(tmp_path, dump_declaration(declaration)))

    assert declaration.tuning is not None
    assert declaration.tuning.check == share
    assert again.tuning == declaration.tuning


def test_only_fixed_compute_blocks_need_levels_or_a_study_budget(tmp_path: Path) -> None:
    text = "study: a\npool: {path: b}\ngrid: [{architectures: [RN50]}]\ntraining: {lr_peak: {RN50: 1e-3}}\n"

    assert problems(tmp_path, text)[0].startswith("1: budget needs levels")
    faulty = problems(tmp_path, f"budget: {{levels: [-5 GFLOP, nan]}}\n{text}")
    assert [line.partition("'")[0] for line in faulty] == ["1: budget.levels: "] * 2
    assert (
        load_declaration(write(tmp_path, text.replace("]}]", "], regime: one-epoch}]"))).budget.levels == ()
    )
