"""Mistakes in a declaration: one clear line each, all reported at once, never a traceback."""

import contextlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from budgets.declaration.recipe import Recipe
from budgets.declaration.rules import ResourceRule, TrainingRule
from budgets.declaration.sections import DescribedPool, EmbeddedPool, Exclusion, FolderPool, Ladder
from study.cli import main
from study.declare.dump import dump_declaration
from study.declare.load import find_declaration, load_declaration
from study.declare.shipped import shipped_studies
from study.declare.yaml_reader import DeclarationError
from study.state.planning.plan_study import plan_study
from tests.study.conftest import study_in
from tests.study.declared import FULL, full, write

if TYPE_CHECKING:
    from collections.abc import Iterable


def problems(folder: Path, text: str) -> list[str]:
    path = write(folder, text)
    with pytest.raises(DeclarationError) as error:
        load_declaration(path)
    return [line.removeprefix(f"{path}:") for line in str(error.value).splitlines()]


def changed(old: str, new: str) -> str:
    assert FULL.count(old) == 1, f"'{old}' stands once in the declaration"
    return FULL.replace(old, new)


def test_every_key_is_read(tmp_path: Path) -> None:
    declaration = load_declaration(write(tmp_path, FULL))

    assert declaration.pool == DescribedPool(name="described", pairs=100_000, scored=True)
    assert declaration.evaluation_counts == {"imagenet": (5_000, 8_000)}
    assert declaration.levels == (10**11, 3 * 10**11, 9 * 10**11)
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

    assert (declaration.levels, declaration.ladder) == ((), Ladder(levels=3, ratio=3.16))
    assert declaration.pool == FolderPool(path=str(tmp_path / "b"))


@pytest.mark.parametrize("name", sorted(shipped_studies()))
def test_a_dumped_declaration_is_read_as_the_same(tmp_path: Path, name: str) -> None:
    declaration = load_declaration(find_declaration(name))

    assert load_declaration(write(tmp_path, dump_declaration(declaration))) == declaration


RECIPE = """precision: fp16
  optimizer: adafactor
  schedule: constant-with-cooldown
  cooldown: 15%
  accumulation: 4
  ema: 0.999
  unmasked_tail: 2%
  embedding_decay: false
  randaugment: 100%
  slip_views: original
  gradient_checkpointing: true
  compile: true
  diverged_after: off"""


def test_every_key_of_the_recipe_is_read_and_written_back(tmp_path: Path) -> None:
    text = changed("precision: bf16", RECIPE).replace("  eps: 1e-6\n", "")
    text = text.replace("warmup: 10%", "warmup: 10k samples").replace(
        "gradient_clip: 1.0", "gradient_clip: off"
    )
    declaration = load_declaration(write(tmp_path, text))

    assert declaration.training.recipe == Recipe(
        precision="fp16",
        optimizer="adafactor",
        schedule="constant-with-cooldown",
        cooldown=0.15,
        warmup_samples=10_000,
        gradient_clip=None,
        accumulation=4,
        ema=0.999,
        unmasked_tail=0.02,
        embedding_decay=False,
        randaugment=1.0,
        slip_views="original",
        gradient_checkpointing=True,
        compile=True,
        diverged_after=None,
    )
    assert load_declaration(write(tmp_path, dump_declaration(declaration))) == declaration


def test_resources_and_storage_are_read_and_written_back(
    tmp_path: Path,
) -> None:
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
    assert auto("{auto: true, hours_factor: 1.5}")
    assert not auto("{gpus: 1}")
    assert not auto("{auto: false}")


@pytest.mark.parametrize(
    ("resources", "told"),
    [
        (
            "[{strategies: slipp, gpus: 1}]",
            "36: resources.rules[1].strategies: unknown strategy 'slipp'; did",
        ),
        ("[{gpu: 1}]", "36: unknown key 'resources.rules[1].gpu'; did you mean 'resources.rules[1].gpus'?"),
        ("[{architectures: mini-RN}]", "36: resources.rules[1] sets nothing; give one of gpus, cpus"),
        ("[{levels: 1 GFLOP, gpus: 1}]", "36: resources.rules[1].levels must be among budget.levels"),
        ("[{architectures: RN50, gpus: 1}]", "36: resources.rules[1].architectures: no block of the grid"),
        ("[{gpus: 16}]", "37: cluster.count = 8 is fewer than resources.gpus = 16 of one trial (mini-"),
        ("[{gpus: 4, nodes: 3}]", "36: resources.gpus (mini-ViT-XXS-8 clip): gpus = 4 can't be spread"),
        ("[{gpus: 4, accumulation: 3}]", "25: training.batch_size = 64 (mini-ViT-XXS-8 clip) can't be cut"),
        ("{auto: true, gpus: 1}", "36: resources.gpus goes without auto, which chooses it"),
        ("{gpus: 1, hours_factor: 2}", "36: resources.hours_factor goes with auto"),
        ("{hours_factor: 0.5}", "36: resources.hours_factor: '0.5' must be 1 or more, at most 100"),
        ("automatic", "36: resources must be a mapping (key: value)"),
    ],
)
def test_a_wrong_rule_is_told_with_its_line(tmp_path: Path, resources: str, told: str) -> None:
    text = changed("{cpus: 2, gpus: 1, retries: 1, checkpoint: 2 min}", resources)
    text = text.replace("fields: {lr_peak: [1e-3, 2e-3], beta2", "fields: {beta2")

    with pytest.raises(DeclarationError) as raised:
        load_declaration(write(tmp_path, text))

    assert told in str(raised.value)


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("storage: s4://bucket/x", "storage: unknown protocol 's4'; did you mean 's3'"),
        ("storage: s3://", "storage: 's3://' names no place"),
        ("storage: results", "storage: 'results' must be an absolute path, the same on every node"),
    ],
)
def test_storage_is_an_absolute_folder_or_a_url(tmp_path: Path, key: str, told: str) -> None:
    with pytest.raises(DeclarationError, match=told):
        load_declaration(write(tmp_path, f"{FULL}{key}\n"))


def test_trials_over_several_nodes_may_share_a_url_alone(tmp_path: Path) -> None:
    text = changed("gpus: 1, retries", "gpus: 2, nodes: 2, retries")
    assert load_declaration(write(tmp_path, f"{text}storage: s3://bucket/x\n")).storage == "s3://bucket/x"


def test_declared_values_override_the_papers_preset(tmp_path: Path) -> None:
    training = load_declaration(find_declaration("paper")).training
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


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        (
            "optimizer: adafactr",
            "training.optimizer: unknown optimizer 'adafactr'; did you mean 'adafactor'?",
        ),
        ("optimizer: adafactor", "training.eps is AdamW's, the optimizer is adafactor"),
        ("preset: papper", "training.preset: unknown preset 'papper'; did you mean 'paper'?"),
        ("schedule: wsd", "training.schedule: unknown schedule 'wsd'; allowed: constant, constant-with-"),
        (
            "cooldown: 10%",
            "training.cooldown goes with schedule: constant-with-cooldown or trunk, found cosine",
        ),
        ("ema: 1", "training.ema: '1' must be 0 or more, below 1"),
        ("acumulation: 2", "unknown key 'training.acumulation'; did you mean 'training.accumulation'?"),
    ],
)
def test_a_mistake_in_the_recipe_names_field_and_nearest_name(
    tmp_path: Path, new: str, expected: str
) -> None:
    assert expected in problems(tmp_path, changed("precision: bf16", f"precision: bf16\n  {new}"))[0]


def test_a_warm_up_is_a_share_or_samples(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, changed("warmup: 10%", "warmup: 10 epochs"))

    assert problem.startswith(
        "32: training.warmup: '10 epochs': unknown unit of a share 'epochs'; allowed: %"
    )
    assert problem.endswith("; or give samples, such as 10k samples")


def test_every_key_is_written_back(tmp_path: Path) -> None:
    declaration = load_declaration(write(tmp_path, FULL))

    assert load_declaration(write(tmp_path, dump_declaration(declaration))) == declaration


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


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("fit: drop", "fitt: drop", "10: unknown key 'budget.fitt'; did you mean 'budget.fit'? allowed: "),
        ("fit: drop", "fit: shrink", "10: budget.fit: unknown fit 'shrink'; allowed: drop, refuse"),
        (
            "study: 50 TFLOP",
            "study: 40 TFLIP",
            "9: budget.study: '40 TFLIP': unknown unit of compute 'TFLIP'; did you",
        ),
        ("seeds: [0, 1]", "seeds: [0, -1]", "11: seeds: '-1' is negative"),
        ("seeds: [0, 1]", "seeds: []", "11: seeds is empty; give at least one value"),
        (
            "mini-ViT-XS-8, mini-RN]",
            "mini-ViT-X-8, mini-RN]",
            "13: grid[1].architectures: unknown architecture 'mini-ViT-X-8'; did you",
        ),
        (
            "[clip, flip-50, slip]",
            "[clip, flip50]",
            "14: grid[1].strategies: unknown strategy 'flip50'; did you mean 'flip-50'?",
        ),
        (
            "[top40, all]",
            "[top140, all]",
            "16: grid[1].quality: unknown quality 'top140'; allowed: 'all', 'top1' to 'top99'",
        ),
        (
            "    levels: [300 GFLOP]",
            "    levels: [301 GFLOP]",
            "18: grid[2].levels must be among budget.levels (100 GFLOP, 300 GFLOP, 900 GFLOP); 301 GFLOP",
        ),
        (
            "regime: one-epoch",
            "regime: one-epoch, samples: 3",
            "20: grid[3].samples goes with regime: equal-samples",
        ),
        (
            "regime: one-epoch",
            "regime: two-epoch",
            "20: grid[3].regime: unknown regime 'two-epoch'; did you mean 'one-epoch'?",
        ),
        ("quality: [all]}", "quality: [top7]}", "23: exclude[1].quality: no block of the grid has top7"),
        (
            "  - {levels: [900 GFLOP], regimes: [fixed-compute], strategies: [slip]}",
            "  - {}",
            "24: exclude[2] names no axis",
        ),
        ("batch_size: 64", "batch_size: 1e12", "26: training.batch_size: '1e12' must be at most 100,000,000"),
        (
            "mini-RN: 1e-3}",
            "mini-RN: fast}",
            "27: training.lr_peak.mini-RN: 'fast' is not a number; write it like 3e-4",
        ),
        ("mini-RN: 1e-3}", "mini-RN: 1e-3, mini-RN: 2e-3}", "27: training.lr_peak.mini-RN is given twice"),
        ("beta2: 98%", "beta2: 100%", "30: training.beta2: '100%' must be 0 or more, below 1"),
        (
            "precision: bf16",
            "precision: fp8",
            "34: training.precision: unknown precision 'fp8'; did you mean 'fp32'?",
        ),
        (
            "checkpoint: 2 min",
            "checkpoint: 2 minutes",
            "36: resources.checkpoint: '2 minutes': unknown unit of time 'minutes'; did you",
        ),
        ("device: H100", "device: H1000", "37: cluster.device: unknown device 'H1000'; did you mean 'h100'?"),
        (
            "[20%, 50%]",
            "[20%, 50%, 60%]",
            "37: cluster.utilisation is one share of the peak, or the lowest and the highest",
        ),
        (
            "gpus: 1",
            "gpus: 1, nodes: 2",
            "36: resources.gpus = 1 can't be spread evenly over resources.nodes = 2",
        ),
        ("gpus: 1", "gpus: 1, ranks: 2", "36: resources.ranks goes without GPUs"),
        ("gpus: 1", "gpus: 3", "25: training.batch_size = 64 can't be cut into 3 equal parts"),
        ("gpus: 1", "gpus: 16", "37: cluster.count = 8 is fewer than resources.gpus = 16 of one trial"),
        ("scored: true", "scored: maybe", "3: pool.scored: 'maybe' is not true or false"),
        (
            "scored: true}",
            "path: here}",
            "3: pool needs one of embedded: {pairs, seed}, path: FOLDER, or name: NAME",
        ),
        ("images: 5k", "image: 5k", "6: evaluation.imagenet.images is missing"),
        (
            "images: 5k",
            "path: here, images: 5k",
            "6: evaluation.imagenet.images goes without path and probe",
        ),
        (
            "scored: true",
            "scored: true, scord: true",
            "3: unknown key 'pool.scord'; did you mean 'pool.scored'? allowed: pool.embedded, pool.name",
        ),
        ("study: full", "study: my study", "2: study: 'my study' names a folder: up to 100 letters"),
        ("metric: imagenet/top1", "metric: top1", "4: metric: 'top1' is not <evaluation set>/<metric>"),
        (
            "fit: drop",
            "fit: drop\n  ladder: {levels: 3}",
            "11: budget.ladder has the planner choose levels, budget.levels declares",
        ),
        ("  study: 50 TFLOP\n", "", "9: budget.fit goes with budget.study"),
        (
            "beta2: [0.95, 98%]",
            "beta3: [0.95, 98%]",
            "40: tuning.fields: unknown field 'beta3'; did you mean",
        ),
        ("beta2: [0.95, 98%]", "beta2: [0.95]", "40: tuning.fields.beta2 needs at least two values"),
    ],
)
def test_a_mistake_gives_file_line_what_was_found_and_what_is_allowed(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    found = problems(tmp_path, changed(old, new))

    assert any(line.startswith(expected) for line in found), found


def test_all_mistakes_of_a_file_are_reported_in_line_order(tmp_path: Path) -> None:
    text = changed("seeds: [0, 1]", "seeds: [x]").replace("metric:", "metrik:", 1).replace("64k", "64 k x")
    lines = [int(line.split(":")[0]) for line in problems(tmp_path, text)]

    assert lines == [4, 11, 21]


def test_rules_that_match_nothing_are_reported_beside_other_mistakes(tmp_path: Path) -> None:
    text = changed("quality: [all]}", "quality: [top7]}").replace("study: full", "study: my study")

    found = problems(tmp_path, text)
    assert [line.partition("; ")[0] for line in found] == [
        "2: study: 'my study' names a folder: up to 100 letters, digits, '.', '_' and '-'",
        "23: exclude[1].quality: no block of the grid has top7",
    ]
    assert len(problems(tmp_path, text.replace("[top40, all]", "[top400, all]"))) == 2


def test_a_tuned_batch_must_be_divisible_by_the_ranks(tmp_path: Path) -> None:
    text = FULL.replace("gpus: 1", "gpus: 2").replace("lr_peak: [1e-3, 2e-3]", "batch_size: [7, 64]")

    (problem,) = problems(tmp_path, text)
    assert problem.startswith("38: tuning.fields.batch_size = 7 can't be cut into 2 equal parts: ranks (reso")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (", beta2: [0.95, 98%]", ", beta2: [0.95, 98%]", "41: tuning.levels goes with lr_peak as the only"),
        ("levels: [100 GFLOP, 300 GFLOP]", "levels: [100 GFLOP]", "41: tuning.levels needs two of them"),
        ("levels: [100 GFLOP, 300 GFLOP]", "levels: [100 GFLOP, 200 GFLOP]",
         "41: tuning.levels must be among budget.levels (100 GFLOP, 300 GFLOP, 900 GFLOP); 200 GFLOP is not"),
        ("levels: [100 GFLOP, 300 GFLOP]", "sizes: [mini-ViT-XS-8, mini-ViT-M-8]",
         "41: tuning.sizes: unknown architecture 'mini-ViT-M-8'"),
    ],
)  # fmt: skip
def test_places_of_moving_rates_must_be_two_of_the_grid(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    levels = "  levels: [100 GFLOP, 300 GFLOP]\n  seeds: [7]\n"
    text = changed("  seeds: [7]\n", levels)
    if "beta2" not in old:
        text = text.replace(", beta2: [0.95, 98%]", "")
    assert old in text

    found = problems(tmp_path, text.replace(old, new))

    assert any(expected in line for line in found), found


def test_levels_of_moving_rates_are_not_chosen_from_the_study_budget(tmp_path: Path) -> None:
    text = changed("  seeds: [7]\n", "  levels: [1 TFLOP, 2 TFLOP]\n").replace(", beta2: [0.95, 98%]", "")
    text = text.replace("  levels: [100 GFLOP, 300 GFLOP, 900 GFLOP]\n", "")

    assert any(
        "tuning.levels must be among budget.levels (none); 1 TF" in line for line in problems(tmp_path, text)
    )


@pytest.mark.parametrize(
    ("check", "expected"),
    [
        ("ture", "42: tuning.check: 'ture' is not a number; write it like 10%; or true for 10%, or false"),
        ("0", "42: tuning.check: '0' must be more than 0, at most 1"),
        ("120%", "42: tuning.check: '120%' is outside 0 to 1 (0% to 100%); or true for 10%, or false"),
        ("81%", "42: tuning.check = 0.81 is more of the study budget than share = 0.2 leaves: at most 0.8"),
    ],
)
def test_share_of_a_check_is_one_that_the_study_budget_has(tmp_path: Path, check: str, expected: str) -> None:
    assert problems(tmp_path, changed("  seeds: [7]\n", f"  seeds: [7]\n  check: {check}\n")) == [expected]


@pytest.mark.parametrize(("check", "share"), [("true", 0.1), ("false", 0.0), ("5%", 0.05)])
def test_check_has_a_share_of_its_own(tmp_path: Path, check: str, share: float) -> None:
    text = changed("  seeds: [7]\n", f"  seeds: [7]\n  check: {check}\n")

    declaration = load_declaration(write(tmp_path, text))
    again = load_declaration(write(tmp_path, dump_declaration(declaration)))

    assert declaration.tuning is not None
    assert declaration.tuning.check == share
    assert again.tuning == declaration.tuning


def test_a_study_needs_levels_or_a_study_budget_unless_no_block_asks_for_them(tmp_path: Path) -> None:
    text = "study: a\npool: {path: b}\ngrid: [{architectures: [RN50]}]\ntraining: {lr_peak: {RN50: 1e-3}}\n"

    assert problems(tmp_path, text)[0].startswith("1: budget needs levels")
    assert load_declaration(write(tmp_path, text.replace("]}]", "], regime: one-epoch}]"))).levels == ()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "1: the file is empty"),
        (b"a: [1", "1: not valid YAML: did not find expected"),
        (
            b"a: 1\n\tb: 2\n",
            "2: not valid YAML: found a tab character that violates indentation; indent with spaces",
        ),
        (b"a: *nowhere\n", "1: not valid YAML: found undefined alias"),
        (b"study: a\n--- \nstudy: b\n", "2: not valid YAML: but found another document"),
        (b"study: caf\xe9\n", "1: not UTF-8: byte 0xe9"),
        (b"study: a\nmetric: \x07\n", "2: not valid YAML: the character #x0007 is not allowed"),
        (b"- 1\n- 2\n", "1: the file must be a mapping (key: value)"),
        (b"[" * 100_000, "1: not valid YAML: exceeded maximum nesting depth"),
        (b"study: &a [*a]\npool: *a\n", "1: study must be a single value"),
        (b"study: a\nstudy: b\n", "2: study is given twice"),
        (b"? [1, 2]\n: 3\n", "1: unknown key '?'"),
    ],
)
def test_invalid_yaml_is_reported_with_its_line(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_bytes(content)

    with pytest.raises(DeclarationError) as error:
        load_declaration(path)

    assert f"{path}:{expected}" in str(error.value)


def test_a_declaration_is_found_by_its_name_or_its_path(tmp_path: Path) -> None:
    assert load_declaration(find_declaration("demo")).pool == EmbeddedPool(pairs=8192)
    assert find_declaration(str(write(tmp_path, FULL))).name == "study.yaml"
    with pytest.raises(
        DeclarationError, match=r"unknown study 'demmo'; did you mean 'demo'\? allowed: .*paper"
    ):
        find_declaration("demmo")
    with pytest.raises(DeclarationError, match=r"no such declaration file: nowhere\.yaml"):
        find_declaration("nowhere.yaml")


_WORDS = """
~ null all x -1 0 1 1.5 nan .inf 1e999999999 -1e-999999999 1e30 99999999999999999999 1e15 1e14 10M 120% 100%
0% top1 top99 clip slip siglip clipa flip-25 RN50 ViT-L-14 mini-ConvNeXt drop one-epoch equal-samples
fixed-compute true 2 5 10k 0.5 30% é ../.. { } *x &a ' "
"""
_PHRASES = [
    "",
    "1 GFLOP",
    "5 EFLOP",
    "3 gpu-days of h100 at 40%",
    "a b",
    "!!int 3",
    "\t",
    "a: b",
    "- a",
    "x" * 5000,
]
JUNK = st.sampled_from([*_WORDS.split(), *_PHRASES]) | st.text(max_size=8)
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
VALUES: st.SearchStrategy[Any] = st.recursive(
    JUNK, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(JUNK, inner, max_size=3), max_leaves=4
)


def places(content: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner: Iterable[tuple[Any, object]] = ()
    if isinstance(content, dict | list):
        inner = content.items() if isinstance(content, dict) else enumerate(content)
    return [path] * bool(path) + [place for key, value in inner for place in places(value, (*path, key))]


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """Draw a valid declaration with values replaced, removed or added, or with its text damaged."""
    content: Any = full()
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 4]))):
        *way, last = draw(st.sampled_from(places(content)))
        parent = content
        for key in way:
            parent = parent[key]
        what = draw(st.sampled_from(["replace", "replace", "delete", "rename", "repeat"]))
        if what == "replace":
            parent[last] = draw(VALUES)
        elif what == "repeat" and isinstance(parent, list):
            parent.append(parent[last])
        elif what == "rename" and isinstance(parent, dict):
            parent[draw(JUNK)] = parent.pop(last)
        else:
            del parent[last]
        if not content:
            break
    text: str = yaml.dump(content, Dumper=_DUMPER, allow_unicode=True, sort_keys=False)
    if draw(st.integers(0, 3)) == 0:
        cut = draw(st.integers(0, len(text)))
        text = text[:cut] + draw(JUNK) + text[cut + draw(st.integers(0, 9)) :]
    return text


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=mutated())
def test_no_change_of_a_declaration_gives_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "mutated.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    output, errors = io.StringIO(), io.StringIO()

    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        folders = ["--pools", str(path.parent), "--results", str(path.parent)]
        # The text of an adaptive plan has rehearsals, which take seconds each.
        code = main(["plan", str(path), *folders, "--format", "csv" if "adaptive: true" in text else "text"])

    assert code in {0, 2}
    assert bool(errors.getvalue()) == (code == 2)
    assert "Traceback" not in errors.getvalue()


def test_a_trunk_is_not_evaluated_on_the_way(tmp_path: Path) -> None:
    text = (
        "study: a\npool: {path: b}\nevaluation: {at: [50%]}\nbudget: {levels: [1e15]}\n"
        "grid: [{architectures: [RN50]}]\n"
        "training: {lr_peak: {RN50: 1e-3}, schedule: trunk, warmup: 64 samples}\n"
    )
    (found,) = problems(tmp_path, text)
    assert found.startswith("3: evaluation.at goes without training.schedule: trunk: a trial that continues")
