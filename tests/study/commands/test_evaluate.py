"""``study export`` and ``evaluate``: every command of docs/evaluation.md, compared with CLIP_benchmark."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader

from budgets.cost.architecture import load_architecture
from budgets.cost.flops import image_forward_macs, text_forward_macs
from budgets.cost.strategy import find_strategy
from budgets.quantity import format_flops
from runners.data.evaluation.evaluation_set import EvaluationSet, write_evaluation_set
from runners.data.index.writing import split_words
from runners.data.pool.pool import Pool
from runners.data.pool.tokenizer import tokenizer
from runners.embedded.embedded_pool import evaluation_set
from runners.models.export import tokenizer_files
from runners.models.model import build_model
from runners.trials.trial import run_trial
from study.declare.load import load_declaration
from study.state.plan_study import plan_study
from study.state.study import find_study, trial_job
from tests.runners.data.indexed import column, indexed
from tests.runners.data.whole_set import write_training_split
from tests.study import shown
from tests.study.conftest import Run
from tests.study.tiny_study import edit, read_json, write_declaration

pytestmark = pytest.mark.slow

COMMANDS = shown.commands("docs/evaluation.md")
TRAIN, TEST, PICTURES = 500, 200, 30


@pytest.fixture(scope="module")
def user(pool: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a user's folder: a study with a trained ViT and ConvNeXt, and evaluation sets."""
    folder = tmp_path_factory.mktemp("user")
    both = "mini-ViT-XXS-8, mini-ConvNeXt"
    declaration = write_declaration(folder, pool, "my-study", levels="1 GFLOP", architectures=both)
    edit(declaration, ("precision: fp32", "precision: bf16"))
    study = find_study(load_declaration(declaration), results=str(folder / "results"), pools=None)
    (study.folder / "trials").mkdir(parents=True)
    for trial in plan_study(study).trials:
        run_trial(trial_job(study, trial))

    data = evaluation_set("seen", TRAIN + TEST)
    assert data.labels is not None
    seen = folder / "sets" / "seen"
    write_evaluation_set(seen, replace(data, images=data.images[TRAIN:], labels=data.labels[TRAIN:]))
    write_training_split(seen, data.images[:TRAIN], data.labels[:TRAIN])
    texts = evaluation_set("retrieval", PICTURES)
    assert texts.captions is not None
    captions = tuple(
        (one, f"{one} indeed", f"a {one}")[: 1 + place % 3] for place, (one,) in enumerate(texts.captions)
    )
    write_evaluation_set(folder / "sets" / "captions", EvaluationSet(images=texts.images, captions=captions))
    return folder


@pytest.fixture(autouse=True)
def _here(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(user)


def command(part: str) -> str:
    """Return the documented command that contains these words."""
    found: str
    (found,) = (each for each in COMMANDS if part in each)
    return found


def exported(user: Path, run: Run, architecture: str) -> Path:
    """Return the folder of a trial's exported model."""
    folder = user / architecture
    if not folder.exists():
        (result,) = (
            path.parent
            for path in (user / "results" / "my-study" / "trials").glob("*/result.json")
            if read_json(path)["row"]["architecture"] == architecture
        )
        said = run(command("export my").replace("TRIAL", result.name).replace("exported", architecture))
        assert said.startswith(f"{architecture}: {architecture} clip on 512 pairs")
        (folder / "trial").write_text(result.name)
    return folder


@pytest.mark.parametrize("architecture", ["mini-ViT-XXS-8", "mini-ConvNeXt"])
def test_open_clip_alone_loads_an_exported_model_and_gives_the_same_features(
    user: Path, run: Run, architecture: str
) -> None:
    folder = exported(user, run, architecture)
    # In open_clip's memory format: on some processors a convolution rounds otherwise in ours.
    ours = build_model(load_architecture(architecture).config)
    ours = ours.to(memory_format=torch.contiguous_format).eval()
    weights = user / "results" / "my-study" / "trials" / (folder / "trial").read_text() / "weights.pt"
    ours.load_state_dict(torch.load(weights, weights_only=True))
    images, texts = torch.rand(8, 3, 32, 32) * 2 - 1, torch.randint(1, 1024, (8, 16))

    whole, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    # open_clip keeps what it is told for the rest of the process: not by a name that other tests use.
    named = shutil.copy(folder / f"{architecture}.json", user / f"my-{architecture}.json")
    open_clip.add_model_config(named)
    by_name = open_clip.create_model(f"my-{architecture}", pretrained=str(weights))
    with torch.no_grad():
        for theirs in (whole.eval(), by_name.eval()):
            assert torch.equal(theirs.encode_image(images), ours.encode_image(images))
            assert torch.equal(theirs.encode_text(texts), ours.encode_text(texts))
            assert torch.equal(theirs.logit_scale, ours.logit_scale)
    assert str(preprocess.transforms[-1]) == "Normalize(mean=[0.5, 0.5, 0.5], std=[0.5, 0.5, 0.5])"


# webdataset leaves closing its shards to the garbage collector, and warns of what CLIP_benchmark leaves out.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:WebDataset.shardshuffle")
@pytest.mark.parametrize("architecture", ["mini-ViT-XXS-8", "mini-ConvNeXt"])
def test_clip_benchmark_measures_the_same(
    user: Path, pool: Path, run: Run, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder: Any = pytest.importorskip("clip_benchmark.datasets.builder", reason="a test dependency")
    classification: Any = pytest.importorskip("clip_benchmark.metrics.zeroshot_classification")
    retrieval: Any = pytest.importorskip("clip_benchmark.metrics.zeroshot_retrieval")
    folder = exported(user, run, architecture)
    run(f"evaluate {folder} --sets sets --precision fp32 --json {architecture}.json")  # as CLIP_benchmark
    ours = read_json(user / f"{architecture}.json")["metrics"]

    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    encode = tokenizer(1024, 16, indexed(pool).vocabulary)

    def tokenize(texts: list[str]) -> torch.Tensor:
        return torch.from_numpy(encode(texts))

    seen = builder.build_wds_dataset("any", preprocess, data_dir=str(user / "sets" / "seen"))
    images, labels = zip(*seen, strict=True)
    whole = torch.utils.data.TensorDataset(torch.stack(images), torch.tensor(labels))
    whole.classes = seen.classes  # type: ignore[attr-defined]
    # Its 1.6.2 takes float() of an array of one number, which numpy allowed until 2.4.
    to_numpy = torch.Tensor.numpy
    monkeypatch.setattr(torch.Tensor, "numpy", lambda it: to_numpy(it.squeeze() if it.numel() == 1 else it))
    theirs = classification.evaluate(
        model.eval(), DataLoader(whole, 64), tokenize, seen.classes, seen.templates, "cpu", amp=False
    )
    for name, metric in (("top1", "acc1"), ("top5", "acc5"), ("mean_per_class", "mean_per_class_recall")):
        assert ours[f"seen/{name}"] == pytest.approx(theirs[metric], abs=1e-6)

    pairs: Any = list(builder.build_wds_dataset("any", preprocess, data_dir=str(user / "sets" / "captions")))
    collate = builder.get_dataset_collate_fn("mscoco_captions")
    theirs = retrieval.evaluate(
        model, DataLoader(pairs, 32, collate_fn=collate), tokenize, "cpu", amp=False, recall_k_list=[1, 5, 10]
    )
    for k in (1, 5, 10):
        for way, name in (("image_to_text", "text_retrieval"), ("text_to_image", "image_retrieval")):
            expected = pytest.approx(theirs[f"{name}_recall@{k}"], abs=1e-6)
            assert ours[f"captions/{way}_r{k}"] == expected


def test_a_set_with_a_training_split_is_probed_and_all_flops_are_reported(user: Path, run: Run) -> None:
    folder = exported(user, run, "mini-ConvNeXt")
    said = run(command("--probe").replace("exported", folder.name))
    assert re.search(r"\nseen\nzero-shot top-1 +\d+\.\d\d +\d\.\d\d +200 *\n", said)
    assert re.search(r"linear probe top-1 +\d+\.\d\d +\d\.\d\d +200 *\n", said)
    assert re.search(r"captions\nimage to text R@1 ", said)
    assert "few shot 5 top-1" in said
    architecture = load_architecture("mini-ConvNeXt")
    images, captions = TRAIN + TEST + PICTURES, 2 * PICTURES
    macs = images * image_forward_macs(architecture) + (500 + captions) * text_forward_macs(architecture)
    assert f"{images} images and {500 + captions} texts" in said
    assert said.endswith(f": {format_flops(2 * macs)}\n")


def test_a_trials_weights_give_the_trials_metrics(user: Path, pool: Path, run: Run) -> None:
    name = (exported(user, run, "mini-ConvNeXt") / "trial").read_text()
    (user / "my-pool").unlink(missing_ok=True)
    (user / "my-pool").symlink_to(pool)
    words = command("--pool").replace("TRIAL", name)
    assert "earlier versions" not in run(f"{words} {pool}/evaluation/held-out --json own.json")
    row = read_json(user / "results/my-study/trials" / name / "result.json")["row"]
    result = read_json(user / "own.json")
    ours = result["metrics"]
    assert (row["precision"], result["precision"]) == ("bf16", "fp32")
    assert result["evaluation_version"] == row["evaluation_version"]
    run(f"evaluate mini-ConvNeXt --sets {pool}/evaluation/held-out --json exported.json")
    again = read_json(user / "exported.json")
    assert again["metrics"].items() <= ours.items()
    run(f"evaluate mini-ConvNeXt --sets {pool}/evaluation/held-out --precision bf16 --json coarse.json")
    coarse = read_json(user / "coarse.json")
    assert coarse["precision"] == "bf16"
    # Pixels reach -1 to 1 by another formula than in training, which bf16 would make visible.
    assert coarse["metrics"] != ours
    for metric in ("held-out/top1", "held-out/top5"):
        assert ours[metric] == pytest.approx(row[metric], abs=0.002)


def test_any_open_clip_checkpoint_is_evaluated_and_written_to_files(user: Path, run: Run) -> None:
    torch.save(open_clip.create_model("ViT-S-32-alt").state_dict(), user / "checkpoint.pt")
    run(command("mine.csv"))
    result = read_json(user / "mine.json")
    table = pd.read_csv(user / "mine.csv").set_index("metric")
    ways = ("image_to_text", "text_to_image")
    assert list(table.index) == [f"{way}_r{k}" for way in ways for k in (1, 5, 10)]
    one, metrics = table.loc["image_to_text_r5"], result["metrics"]
    assert one["value"] == metrics["captions/image_to_text_r5"]
    assert one["standard_error"] == metrics["captions/image_to_text_r5_se"]
    assert (result["images"], result["texts"], result["precision"]) == (PICTURES, 2 * PICTURES, "fp32")


def test_a_set_of_one_image_has_no_standard_errors(user: Path, run: Run) -> None:
    folder = exported(user, run, "mini-ViT-XXS-8")
    data = evaluation_set("retrieval", 1)
    write_evaluation_set(user / "single", EvaluationSet(images=data.images, captions=data.captions))
    said = run(f"evaluate {folder.name} --sets single --json single.json --csv single.csv")
    assert "\n1 image and 1 text encoded once: " in said
    text = (user / "single.json").read_text()
    assert "nan" not in (text + said + (user / "single.csv").read_text()).lower()
    metrics = json.loads(text)["metrics"]
    assert (metrics["single/image_to_text_r1"], metrics["single/image_to_text_r1_se"]) == (1, None)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("checkpoint.pt --model ViT-S-32-alt", "no such checkpoint: checkpoint.pt"),
        ("bad.pt --model ViT-S-32-alt", "bad.pt is not a checkpoint of weights, or is damaged (Unpickling"),
        ("table.pt --model ViT-S-32-alt", "study: table.pt "),
        ("list.pt --model ViT-S-32-alt", "study: list.pt "),
        ("more.pt --model ViT-S-32-alt", "(UnpicklingError: Weights only load failed)\n"),
        ("cut.safetensors --model ViT-S-32-alt", "study: cut.safetensors "),
        ("bad.pt --model ViT-S-32-atl", "did you mean 'ViT-S-32-alt'?"),
        ("bad.pt", "--model is missing"),
        ("bad.pt --model no.json", "no such architecture file: no.json"),
        ("sets", "sets/open_clip_config.json is missing"),
        ("other.pt --model mini-ViT-XS-8", "other.pt as mini-ViT-XS-8"),
        ("other.pt --model mini-ViT-XXS-8", "--pool FOLDER"),
        ("bad.pt --model five.json", "study: five.json "),
        ("bad.pt --model towers.json", "towers.json is not an open_clip model config: it lacks vision_cfg"),
        ("empty --device cuda:99", "--device cuda:99: "),
        ("other.pt --model mini-ViT-XXS-8 --device meta", "--device meta: this machine has cpu"),
        ("empty", "empty/open_clip_pytorch_model.bin is missing"),
        ("bad.pt --json one --csv one", "--csv and --json"),
    ],
)
def test_invalid_evaluations_give_one_line_errors(user: Path, run: Run, words: str, expected: str) -> None:
    (user / "checkpoint.pt").unlink(missing_ok=True)
    (user / "bad.pt").write_bytes(b"no weights")
    (user / "table.pt").write_bytes(b"a,b\n1,2\n")
    torch.save(build_model(load_architecture("mini-ViT-XXS-8").config).state_dict(), user / "other.pt")
    torch.save([1, 2], user / "list.pt")
    torch.save({"state_dict": {}, "folder": Path()}, user / "more.pt")
    (user / "cut.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    (user / "five.json").write_text("5")
    (user / "towers.json").write_text('{"embed_dim": 8, "vision_cfg": 5, "text_cfg": {}}')
    (user / "empty").mkdir(exist_ok=True)
    (user / "empty" / "open_clip_config.json").write_text("{}")
    said = run(f"evaluate {words} --sets sets/seen", code=2)
    assert expected in said
    assert said.startswith("study: ")
    assert said.count("\n") == 1


def test_a_trials_folder_scores_any_pool_with_the_words_of_its_own(user: Path, run: Run, pool: Path) -> None:
    folder = exported(user, run, "mini-ConvNeXt")
    other = Path(shutil.copytree(pool, user / "other"))
    words = (other / "vocabulary.txt").read_text(encoding="utf-8").splitlines()
    (other / "vocabulary.txt").write_text("\n".join(words[::-1]), encoding="utf-8")
    trial = f"results/my-study/trials/{(folder / 'trial').read_text()}"
    shutil.copy(user / "my-study.yaml", "results/my-study/study.yaml")  # as a run writes it

    run(f"data score other --with {folder.name} --name exported --workers 1")
    said = run(f"data score other --with {trial} --name trial --workers 1")

    assert "note: " not in said
    assert "score of trial; 1,024 pairs" in said
    said = run(f"data score other --with mini-ConvNeXt:{trial}/weights.pt --name weights --workers 1")
    assert re.match(rf"note: .* {len(words)} words of other; ", said)
    scored = Pool.open(other)
    assert np.array_equal(column(scored, "score:trial"), column(scored, "score:exported"))
    assert not (other / ".scoring").exists()


def test_export_refuses_damaged_weights(user: Path, run: Run) -> None:
    trial = Path((exported(user, run, "mini-ConvNeXt") / "trial").read_text())
    weights = user / "results" / "my-study" / "trials" / trial / "weights.pt"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    try:
        said = run(f"export my-study.yaml {trial} out", code=2)
    finally:
        weights.write_bytes(whole)
    assert "weights.pt" in said
    assert not (user / "out").exists()


def test_export_refuses_an_unknown_trial_and_an_existing_folder(user: Path, run: Run) -> None:
    assert "'abc'" in run("export my-study.yaml abc out", code=2)
    folder = exported(user, run, "mini-ConvNeXt")
    trial = (folder / "trial").read_text()
    assert folder.name in run(f"export my-study.yaml {trial} {folder.name}", code=2)
    assert "test/nshards.txt" in run(f"evaluate {folder.name} --sets results", code=2)


def test_the_exported_tokenizer_gives_the_ids_of_training(user: Path, pool: Path, run: Run) -> None:
    tokenizers: Any = pytest.importorskip("tokenizers", reason="a test dependency")
    folder = exported(user, run, "mini-ConvNeXt")
    opened = indexed(pool)
    texts = [*opened.frame["caption"][:200], "A Dog, on_red!", "straße 日本語 ÜBER don't", "", "a " * 40]
    texts += ["नमस्ते दुनिया", "ภาษาไทย ดี", "ΔΡΟΜΟΣ, ΣΟΦΟΣ ς Σ"]
    # As if the pool had such captions: otherwise their words are all unknown.
    words = [*opened.vocabulary[:200], *split_words(" ".join(texts[-3:]))]
    files = tokenizer_files(1024, 16, words)
    made = tokenizers.Tokenizer.from_str(json.dumps(files["tokenizer.json"]))
    written = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    for theirs, vocabulary in ((made, words), (written, opened.vocabulary)):
        theirs.enable_truncation(16)
        theirs.enable_padding(length=16, pad_id=0, pad_token="[padding]")  # noqa: S106 - no secret
        expected = tokenizer(1024, 16, vocabulary)(texts)
        assert [each.ids for each in theirs.encode_batch(texts)] == expected.tolist()
    config = read_json(folder / "open_clip_config.json")["model_cfg"]
    assert config["text_cfg"]["hf_tokenizer_name"] == str(folder)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_siglip_model_is_loaded_with_its_bias(user: Path, pool: Path, run: Run, *, wrapped: bool) -> None:
    model = build_model(load_architecture("mini-ViT-XXS-8").config, find_strategy("siglip"))
    content = model.state_dict()
    if wrapped:  # as open_clip's own training with several GPUs writes it
        content = {"epoch": 1, "state_dict": {f"module.{name}": each for name, each in content.items()}}
    torch.save(content, user / "siglip.pt")
    said = run(f"evaluate siglip.pt --model mini-ViT-XXS-8 --pool {pool} --sets sets/captions")
    assert "image to text R@1" in said


def test_a_pool_with_earlier_versions_is_named_where_its_words_may_be_others(
    user: Path, pool: Path, run: Run
) -> None:
    name = (exported(user, run, "mini-ConvNeXt") / "trial").read_text()
    grown = user / "grown"
    shutil.copytree(pool, grown)
    (grown / "versions").mkdir()
    shutil.copy(grown / "pool.json", grown / "versions" / "0.json")
    weights = f"results/my-study/trials/{name}/weights.pt"
    said = run(f"evaluate {weights} --model mini-ConvNeXt --pool grown --sets {pool}/evaluation/held-out")
    assert "grown has earlier versions" in said
