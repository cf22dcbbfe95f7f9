"""Mistakes in a declaration: one clear line each, all reported at once."""

from pathlib import Path

import pytest
import yaml

from budgets.declaration.marked_file import DeclarationError
from study.declare.load import load_declaration
from tests.study.declared import FULL, changed, full, problems

RESOURCES = "{cpus: 2, gpus: 1, retries: 1, checkpoint: 2 min}"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("fit: drop", "fitt: drop", "10: unknown key 'budget.fitt'; did you mean 'budget.fit'? allowed: "),
        ("fit: drop", "fit: shrink", "10: budget.fit: unknown fit 'shrink'; allowed: drop, refuse"),
        ("study: 50 TFLOP", "study: 40 TFLIP",
         "9: budget.study: '40 TFLIP': unknown unit of compute 'TFLIP'; did you"),
        ("seeds: [0, 1]", "seeds: [0, -1]", "11: seeds: '-1' is negative"),
        ("seeds: [0, 1]", "seeds: []", "11: seeds is empty; it must be at least one value"),
        ("mini-ViT-XS-8, mini-RN]", "mini-ViT-X-8, mini-RN]",
         "13: grid[1].architectures: unknown architecture 'mini-ViT-X-8'; did you"),
        ("[top40, all]", "[top140, all]",
         "16: grid[1].quality: unknown quality 'top140'; allowed: 'all', 'top1' to 'top99'"),
        ("    levels: [300 GFLOP]", "    levels: [301 GFLOP]",
         "18: grid[2].levels must be among budget.levels (100 GFLOP, 300 GFLOP, 900 GFLOP); 301 GFLOP"),
        ("regime: one-epoch", "regime: one-epoch, samples: 3",
         "20: grid[3].samples is required with regime: equal-samples"),
        ("quality: [all]}", "quality: [top7]}", "23: exclude[1].quality: no block of the grid has top7"),
        ("  - {levels: [900 GFLOP], regimes: [fixed-compute], strategies: [slip]}", "  - {}",
         "24: exclude[2] names no axis"),
        ("batch_size: 64", "batch_size: 1e12", "26: training.batch_size: '1e12' must be at most 100,000,000"),
        ("mini-RN: 1e-3}", "mini-RN: fast}",
         "27: training.lr_peak.mini-RN: 'fast' is not a number; write it like 3e-4"),
        ("mini-RN: 1e-3}", "mini-RN: 1e-3, mini-RN: 2e-3}", "27: training.lr_peak.mini-RN is given twice"),
        ("beta2: 98%", "beta2: 100%", "30: training.beta2: '100%' must be 0 or more, below 1"),
        ("checkpoint: 2 min", "checkpoint: 2 minutes",
         "36: resources.checkpoint: '2 minutes': unknown unit of time 'minutes'; did you"),
        ("device: H100", "device: H1000", "37: cluster.device: unknown device 'H1000'; did you mean 'h100'?"),
        ("[20%, 50%]", "[20%, 50%, 60%]",
         "37: cluster.utilisation is one share of the peak, or the lowest and the highest"),
        ("gpus: 1", "gpus: 1, nodes: 2",
         "36: resources.gpus = 1 can't be spread evenly over resources.nodes = 2"),
        ("gpus: 1", "gpus: 1, ranks: 2", "36: resources.ranks is not allowed with GPUs"),
        ("gpus: 1", "gpus: 3", "25: training.batch_size = 64 can't be cut into 3 equal parts"),
        ("gpus: 1", "gpus: 16", "37: cluster.count = 8 is fewer than resources.gpus = 16 of one trial"),
        ("scored: true", "scored: maybe", "3: pool.scored: 'maybe' is not true or false"),
        ("scored: true}", "path: here}",
         "3: pool needs one of embedded: {pairs, seed}, path: FOLDER, or name: NAME"),
        ("images: 5k, ", "", "6: evaluation.imagenet.images is missing"),
        ("images: 5k", "path: here, images: 5k",
         "6: evaluation.imagenet.images is not allowed with path or probe"),
        ("study: full", "study: my study", "2: study: 'my study' names a folder: up to 100 letters"),
        ("metric: imagenet/top1", "metric: top1", "4: metric: 'top1' is not <evaluation set>/<metric>"),
        ("fit: drop", "fit: drop\n  ladder: {levels: 3}",
         "11: budget.ladder lets the planner choose levels, budget.levels declares"),
        ("  study: 50 TFLOP\n", "", "9: budget.fit needs budget.study"),
        ("limits: {", "limits: {<<: {}, ", "35: limits.<<: merge keys are not read; write the settings out"),
        ("warmup: 10%", "warmup: 10 epochs",
         "32: training.warmup: '10 epochs': unknown unit of a share 'epochs'; allowed: %; or give samples,"),
        ("lr_peak: [1e-3, 2e-3]", "warmup: [10%, 200 samples]",
         "40: tuning.fields.warmup: '200 samples': unknown unit"),
        ("precision: bf16", "precision: bf16\n  schedule: trunk",
         "6: evaluation.at is not allowed with training.schedule: trunk: a trial that continues"),
        ("{at: [25%, 50%],", "{trunk: true,",
         "6: evaluation.trunk needs training.schedule: trunk, found cosine"),
        ("beta2: [0.95, 98%]", "beta3: [0.95, 98%]",
         "40: tuning.fields: unknown field 'beta3'; did you mean"),
        ("beta2: [0.95, 98%]", "beta2: [0.95]", "40: tuning.fields.beta2 needs at least two values"),
        ("precision: bf16", "precision: bf16\n  optimizer: adafactor",
         "31: training.eps is AdamW's, the optimizer is adafactor"),
        ("precision: bf16", "precision: bf16\n  schedule: wsd",
         "35: training.schedule: unknown schedule 'wsd'; allowed: constant, constant-with-"),
        ("precision: bf16", "precision: bf16\n  cooldown: 10%",
         "35: training.cooldown needs schedule: constant-with-cooldown or trunk, found cosine"),
        ("precision: bf16", "precision: bf16\n  ema: 1", "35: training.ema: '1' must be 0 or more, below 1"),
        ("metric: imagenet/top1\n", "metric: imagenet/top1\nstorage: s4://bucket/x\n",
         "5: storage: unknown protocol 's4'; did you mean 's3'"),
        ("metric: imagenet/top1\n", "metric: imagenet/top1\nstorage: s3://\n",
         "5: storage: 's3://' has no bucket"),
        ("metric: imagenet/top1\n", "metric: imagenet/top1\nstorage: results\n",
         "5: storage: 'results' must be an absolute path, the same on every node"),
    ],
)  # fmt: skip
def test_a_mistake_gives_file_line_what_was_found_and_what_is_allowed(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    found = problems(tmp_path, changed(old, new))

    assert any(line.startswith(expected) for line in found), found


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ("[{strategies: slipp, gpus: 1}]",
         "36: resources.rules[1].strategies: unknown strategy 'slipp'; did"),
        ("[{gpu: 1}]", "36: unknown key 'resources.rules[1].gpu'; did you mean 'resources.rules[1].gpus'?"),
        ("[{architectures: mini-RN}]", "36: resources.rules[1] sets nothing; give one of gpus, cpus"),
        ("[{levels: 1 GFLOP, gpus: 1}]", "36: resources.rules[1].levels must be among budget.levels"),
        ("[{architectures: RN50, gpus: 1}]", "36: resources.rules[1].architectures: no block of the grid"),
        ("[{gpus: 16}]", "37: cluster.count = 8 is fewer than resources.gpus = 16 of one trial (mini-"),
        ("[{gpus: 4, nodes: 3}]", "36: resources.gpus (mini-ViT-XXS-8 clip): gpus = 4 can't be spread"),
        ("[{gpus: 4, accumulation: 3}]", "25: training.batch_size = 64 (mini-ViT-XXS-8 clip) can't be cut"),
        ("{auto: true, gpus: 1}", "36: resources.gpus is not allowed with auto, which chooses it"),
        ("[{gpus: 0}]", "36: resources.rules: gpus = 0 is not allowed with auto, which gives each trial at"),
        ("automatic", "36: resources must be a mapping (key: value)"),
        ("", "36: resources is empty; it must be a mapping (key: value)"),
        ("{gpus: }", "36: resources.gpus is empty; it must be a single value"),
    ],
)  # fmt: skip
def test_wrong_rule_is_reported_with_its_line(tmp_path: Path, resources: str, expected: str) -> None:
    text = changed(RESOURCES, resources).replace("fields: {lr_peak: [1e-3, 2e-3], beta2", "fields: {beta2")

    found = problems(tmp_path, text)

    assert any(line.startswith(expected) for line in found), found


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("pool: {name", "pol: {name", "3: unknown key 'pol'; did you mean 'pool'?"),
        ("images: 5k", "image: 5k", "6: unknown key 'evaluation.imagenet.image'; did you mean 'evaluation"),
        ("lr_peak: {mini-ViT-XXS-8", "peak_lr: {mini-ViT-XXS-8", "27: unknown key 'training.peak_lr'; did"),
        ("budget:", "budgett:", "7: unknown key 'budgett'; did you mean 'budget'?"),
        ("levels: [100 GFLOP, ", "level: [100 GFLOP, ", "8: unknown key 'budget.level'; did you mean"),
    ],
)
def test_a_mistyped_key_is_one_error(tmp_path: Path, old: str, new: str, expected: str) -> None:
    text = changed(old, new).replace("fields: {lr_peak: [1e-3, 2e-3], beta2", "fields: {beta2")

    found = problems(tmp_path, text)

    assert len(found) == 1, found
    assert found[0].startswith(expected)


@pytest.mark.parametrize("key", ["training", "study"])
def test_a_missing_key_is_one_error(tmp_path: Path, key: str) -> None:
    content = full()
    del content[key]

    assert problems(tmp_path, yaml.safe_dump(content)) == [f"1: {key} is missing"]


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


def test_the_declared_batch_of_a_pair_that_is_not_tuned_must_be_divisible_too(tmp_path: Path) -> None:
    text = FULL.replace("gpus: 1", "gpus: 3").replace("lr_peak: [1e-3, 2e-3]", "batch_size: [6, 9]")

    (problem,) = problems(tmp_path, text.replace("seeds: [7]", "architectures: [mini-ViT-XXS-8]"))
    assert problem.startswith(
        "25: training.batch_size = 64 (mini-ViT-XS-8 clip) can't be cut into 3 equal parts"
    )


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (", beta2: [0.95, 98%]", ", beta2: [0.95, 98%]", "41: tuning.levels needs lr_peak as the only"),
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

    assert any(line.startswith(expected) for line in found), found


def test_levels_of_moving_rates_are_not_chosen_from_the_study_budget(tmp_path: Path) -> None:
    text = changed("  seeds: [7]\n", "  levels: [1 TFLOP, 2 TFLOP]\n").replace(", beta2: [0.95, 98%]", "")
    text = text.replace("  levels: [100 GFLOP, 300 GFLOP, 900 GFLOP]\n", "")

    assert any(
        "tuning.levels must be among budget.levels (none); 1 TF" in line for line in problems(tmp_path, text)
    )


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("seeds: [7]", "architectures: [mini-ViT-M-8]",
         "41: tuning.architectures: unknown architecture 'mini-ViT-M-8'; did you mean 'mini-ViT-S-8'?"),
        ("seeds: [7]", "strategies: [slp]",
         "41: tuning.strategies: unknown strategy 'slp'; did you mean 'slip'?"),
        ("seeds: [7]", "architectures: [mini-RN]\n  sizes: [mini-ViT-XS-8]",
         "42: tuning.sizes: unknown architecture 'mini-ViT-XS-8'; did you mean 'mini-RN'? all"),
        ("seeds: [7]", "architectures: [mini-ViT-S-8]\n  strategies: [slip]",
         "38: tuning has no pair of the grid"),
        ("batch_size: 64", "rules: [{levels: [100 GFLOP], tune: false}]",
         "26: training.rules[1].tune is not allowed with levels"),
        ("  lr_peak: {mini-ViT-XXS-8: 2e-3, mini-ViT-XS-8: 1.5e-3, mini-ViT-S-8: 1e-3, mini-RN: 1e-3}",
         "  rules: [{architectures: [mini-RN], tune: false}]", "25: training.lr_peak is missing: the peak"),
    ],
)  # fmt: skip
def test_pairs_that_are_tuned_must_be_in_the_grid_and_the_others_have_a_rate(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    found = problems(tmp_path, changed(old, new))
    assert any(line.startswith(expected) for line in found), found


@pytest.mark.parametrize(
    ("check", "expected"),
    [
        ("ture", "42: tuning.check: 'ture' is not a number; write it like 10%; or true for 10%, or false"),
        ("0", "42: tuning.check: '0' must be more than 0, at most 1"),
        ("120%", "42: tuning.check: '120%' is outside 0 to 1 (0% to 100%); or true for 10%, or false"),
        ("81%", "42: tuning.check = 0.81 is more of the study budget than share = 0.2 leaves: at most 0.8"),
    ],
)  # fmt: skip
def test_share_of_a_check_is_one_that_the_study_budget_has(tmp_path: Path, check: str, expected: str) -> None:
    assert problems(tmp_path, changed("  seeds: [7]\n", f"  seeds: [7]\n  check: {check}\n")) == [expected]


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
        (
            b"study: a\n--- \nstudy: b\n",
            "2: not valid YAML: expected a single document in the stream, but found another document",
        ),
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
