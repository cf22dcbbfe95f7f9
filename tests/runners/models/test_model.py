"""Models start like open_clip's, with CLIP's temperature, and get inputs of their size."""

import ast
import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.transformer import PatchDropout
from safetensors.torch import save_file
from torch.overrides import TorchFunctionMode

from budgets.cost.architecture import load_architecture
from budgets.cost.strategy import find_strategy
from budgets.declaration.recipe import Recipe
from runners.host.process import set_gpu_arithmetic
from runners.models.export import read_architecture, read_vocabulary, write_architecture
from runners.models.load_model import ModelSource, by_pool_words, load_model, weight_names
from runners.models.model import (
    DevicePatchDropout,
    build_model,
    clamp_logit_scale,
    patch_dropouts,
    resolve_precision,
)
from runners.training import learner
from runners.training.learner import make_learner
from runners.training.train import to_float
from study.state.environment import environment
from tests.root import ROOT


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mini-ViT-XS-8", "mini-RN", "ViT-S-32"])
def test_model_has_open_clips_initial_weights(name: str) -> None:
    config: Any = copy.deepcopy(dict(load_architecture(name).config))

    torch.manual_seed(5)
    ours = build_model(config).state_dict()
    torch.manual_seed(5)
    theirs = open_clip.CLIP(**config).state_dict()

    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], value) for key, value in theirs.items())


def test_the_temperature_starts_at_that_of_clip_and_is_kept_between_1_and_100() -> None:
    model = build_model(load_architecture("mini-ViT-XXS-8").config)
    assert model.logit_scale.exp().item() == pytest.approx(1 / 0.07)

    for value, kept in ((9.0, 100.0), (-3.0, 1.0), (math.log(50), 50.0)):
        with torch.no_grad():
            model.logit_scale.fill_(value)
        clamp_logit_scale(model)
        assert model.logit_scale.exp().item() == pytest.approx(kept, rel=1e-4)


def test_pixels_are_scaled_to_minus_one_to_one() -> None:
    assert to_float(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1.0, 1.0]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "tokens"), [("paper-ViT-Ti-16", 16), ("ViT-Ti-16", 77)])
def test_a_step_at_224_pixels_trains_both_towers(name: str, tokens: int) -> None:
    architecture = load_architecture(name)
    model, how = build_model(architecture.config), find_strategy("clip")
    texts = torch.ones(2, tokens, dtype=torch.long)
    texts[0, 3], texts[1, -1] = 9, 9  # where they end

    how.loss(model, *how.features(model, None, torch.rand(2, 3, 224, 224) * 2 - 1, texts)).backward()

    assert all(each.grad is not None and each.grad.isfinite().all() for each in model.parameters())
    # The last text reaches to the end of the context.
    assert model.positional_embedding.grad.norm(dim=1).min() > 0


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's own, as it loads its compiler
@pytest.mark.parametrize(
    ("capability", "precision"),
    [((7, 0), "fp16"), ((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16"), ((12, 0), "bf16")],
)
def test_automatic_precision_of_a_gpu_is_bf16_from_ampere_on(
    capability: tuple[int, int], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    assert resolve_precision("auto", torch.device("cuda", 0)) == precision
    assert resolve_precision("fp32", torch.device("cuda", 0)) == "fp32"


def _tag_as_gpu(_storage: object) -> str:
    return "cuda:0"


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows what happens without a GPU")
def test_weights_saved_from_a_gpu_are_read_without_one(tmp_path: Path) -> None:
    torch.serialization.register_package(0, _tag_as_gpu, lambda _storage, _location: None)
    try:
        torch.save({"logit_bias": torch.zeros(1)}, tmp_path / "weights.pt")
    finally:
        registry = torch.serialization._package_registry  # noqa: SLF001 - there is no function to undo it
        registry[:] = [entry for entry in registry if entry[1] is not _tag_as_gpu]
    with pytest.raises(RuntimeError, match="CUDA device"):
        torch.load(tmp_path / "weights.pt", weights_only=True)

    assert weight_names(tmp_path / "weights.pt") == {"logit_bias"}


def test_names_are_read_from_every_format_of_weights(tmp_path: Path) -> None:
    weights = {"module.logit_bias": torch.zeros(1)}
    torch.save({"state_dict": weights}, tmp_path / "zip.pt")
    torch.save(weights, tmp_path / "before-1.6.pt", _use_new_zipfile_serialization=False)
    save_file(weights, tmp_path / "file.safetensors")
    assert [weight_names(path) for path in tmp_path.iterdir()] == [{"logit_bias"}] * 3


@pytest.mark.slow
def test_every_file_is_loaded_to_a_named_device() -> None:
    calls = [
        (path.name, {keyword.arg for keyword in node.keywords})
        for room in ("budgets", "runners", "analysis", "study")
        for path in (ROOT / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
    ]
    assert {name for name, _ in calls} >= {"checkpoint.py", "load_model.py"}
    assert all("map_location" in keywords for _, keywords in calls)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # torch._dynamo imports it
def test_compiled_checkpointed_towers_over_ranks_are_not_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner, "rank_count", lambda: 2)
    monkeypatch.setattr(learner, "DistributedDataParallel", lambda towers: towers)
    architecture = load_architecture("mini-ViT-XXS-8")
    for checkpointing in (False, True):
        monkeypatch.setattr(torch._dynamo.config, "optimize_ddp", True)  # noqa: SLF001 - torch's own name
        recipe = Recipe(compile=True, gradient_checkpointing=checkpointing)
        model = build_model(architecture.config)

        make_learner(model, find_strategy("clip"), recipe=recipe, lr_peak=1e-3, steps=1)

        assert torch._dynamo.config.optimize_ddp != checkpointing  # noqa: SLF001 - the same


def test_gpu_arithmetic_is_that_of_open_clips_training(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_float32_matmul_precision()
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    try:
        set_gpu_arithmetic("cpu")
        assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark) == (before, False)
        set_gpu_arithmetic("cuda")
        assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark) == ("high", True)
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.set_float32_matmul_precision(before)
    found = environment()
    assert (found["gpu fp32 products"], found["gpu cudnn benchmark"]) == ("TF32", "on")


@pytest.mark.parametrize("class_token", [True, False])
@pytest.mark.parametrize("prob", [0.5, 0.75, 0.99])
def test_patch_dropout_keeps_open_clips_patches(prob: float, *, class_token: bool) -> None:
    images = torch.rand(8, 17, 4)
    kept = []
    for kind in (PatchDropout, DevicePatchDropout):
        torch.manual_seed(5)
        kept.append(kind(prob, exclude_first_token=class_token)(images))

    assert torch.equal(*kept)
    assert kept[0].shape[1] == class_token + max(1, int((17 - class_token) * (1 - prob)))
    model = build_model(load_architecture("mini-ViT-XXS-8").config, find_strategy("flip-50"))
    dropped = [module for module in model.visual.modules() if isinstance(module, PatchDropout)]
    assert [type(module) for module in dropped] == [DevicePatchDropout]


def test_patches_are_drawn_on_the_images_device() -> None:
    devices: list[str] = []

    class Devices(TorchFunctionMode):
        def __torch_function__(
            self,
            call: Callable[..., object],
            _types: object,
            args: tuple[object, ...] = (),
            kwargs: dict[str, object] | None = None,
        ) -> object:
            made = call(*args, **(kwargs or {}))
            devices.extend(each.device.type for each in [made] if isinstance(each, torch.Tensor))
            return made

    with Devices():
        kept = DevicePatchDropout(0.5)(torch.empty(8, 17, 4, device="meta"))

    assert kept.shape == (8, 9, 4)
    assert len(devices) > 5
    assert set(devices) == {"meta"}, "what is made on the CPU would have to be copied"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # torch._dynamo imports it
def test_compiled_model_keeps_weight_names_and_outputs() -> None:
    architecture = load_architecture("mini-ViT-XXS-8")
    how = find_strategy("clip")
    torch.manual_seed(0)
    model = build_model(architecture.config)
    images, texts = torch.rand(2, 3, 32, 32), torch.tensor([[1, 9, *[0] * 14], [1, 2, 9, *[0] * 13]])
    names, plain = list(model.state_dict()), how.features(model, None, images, texts)

    make_learner(model, how, recipe=Recipe(compile=True), lr_peak=1e-3, steps=1)

    assert list(model.state_dict()) == names
    with torch.compiler.set_stance("force_eager"):  # compiling takes minutes
        compiled = how.features(model, None, images, texts)
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(plain, compiled, strict=True))
    compiled_parts = [each for each in model.modules() if getattr(each, "_compiled_call_impl", None)]
    assert [type(each).__name__ for each in compiled_parts] == ["VisionTransformer", "Transformer"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's own, while it compiles
def test_compiled_patch_dropout_keeps_the_same_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch._inductor.config, "fallback_random", False)  # noqa: SLF001 - torch's own name
    architecture, how = load_architecture("mini-ViT-XXS-8"), find_strategy("flip-50")
    model = build_model(architecture.config, how)
    recipe = Recipe(compile=True)
    make_learner(model, how, how.head(architecture), recipe=recipe, lr_peak=1e-3, steps=1)
    (dropout,) = patch_dropouts(model.visual)  # alone, because compiling a tower takes minutes
    images, kept = torch.rand(8, 17, 4), []
    for drop in (dropout, torch.compile(dropout)):
        torch.manual_seed(0)
        kept.append(drop(images))

    assert torch.equal(*kept)


@pytest.mark.slow
@pytest.mark.parametrize("named", ["timm/ViT-B-16-SigLIP", ""])
def test_a_model_with_a_tokenizer_of_its_own_does_not_take_the_words_of_a_pool(
    named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config: Any = copy.deepcopy(dict(load_architecture("mini-ViT-XXS-8").config))
    torch.save(open_clip.CLIP(**config).state_dict(), tmp_path / "weights.pt")
    if named:
        config["text_cfg"]["hf_tokenizer_name"] = named
    (tmp_path / "own.json").write_text(json.dumps(config), encoding="utf-8")
    theirs = torch.tensor([[7]])
    monkeypatch.setattr(open_clip, "get_tokenizer", lambda _name: lambda _texts: theirs)
    model = str(tmp_path / "own.json")
    source = ModelSource(checkpoint=str(tmp_path / "weights.pt"), model=model, words=("red", "ball"))

    loaded = load_model(source, torch.device("cpu"))

    found = loaded.tokenize(["red ball"])
    assert found.tolist() == theirs.tolist() if named else found[0, :4].tolist() == [1, 2, 1023, 0]
    assert by_pool_words(model) == (not named)
    assert not by_pool_words("ViT-B-16-SigLIP")
    assert not by_pool_words("ViT-B-32")


def test_an_architecture_without_context_length_and_vocabulary_is_exported_with_open_clips(
    tmp_path: Path,
) -> None:
    config = {"embed_dim": 8, "vision_cfg": {"layers": 1, "width": 64, "patch_size": 16, "image_size": 32},
              "text_cfg": {"width": 64, "heads": 1, "layers": 1}}  # fmt: skip
    write_architecture(tmp_path, "own", config, pixels={}, words=("a", "b"), sigmoid_bias=False)
    assert read_architecture(tmp_path)["text_cfg"] == config["text_cfg"]
    assert read_vocabulary(tmp_path) == (), "it has CLIP's byte-pair encoding"
