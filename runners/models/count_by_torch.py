"""Counts a model's FLOPs and parameters with torch on the meta device, where they have no closed form.

The convention is that of `budgets.cost.flops`: products and convolutions of a forward pass, whole attention.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, TypeVar

import open_clip
import timm
import torch
from open_clip.transformer import TextTransformer
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from budgets.cost.architecture import Architecture
from budgets.cost.counted import Count, builder_versions, count_file, read_count
from budgets.cost.flops import FLOPS_PER_MAC
from budgets.cost.strategy import Strategy, strategies
from budgets.names import unknown
from runners.models.model import build_model, encode_text, patch_dropouts, unprojected
from runners.store.files import write_json

COUNTED_PAIRS = 2
"""Pairs that are counted; batch norm in training needs two."""

T = TypeVar("T")
_DEFAULT_CONTEXT, _DEFAULT_IMAGE = 77, 224  # open_clip's
_FAMILIES = {"vision_transformer": "vit", "swin_transformer": "swin", "mlp_mixer": "mixer"}


def ensure_counted(architecture: Architecture) -> Architecture:
    """Count a model that has no closed form, unless its count is shipped or in the cache; return it.

    If open_clip cannot build the model, a ValueError gives its reason.
    """
    if not architecture.closed_form and read_count(architecture.config) is None:
        counted = count_model(architecture)
        path = count_file(architecture.config)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, asdict(counted))
    return architecture


def count_model(architecture: Architecture) -> Count:
    """Count a model; ValueError if open_clip cannot build or run it."""
    config = architecture.config
    vision, text = config["vision_cfg"], config["text_cfg"]
    name = vision.get("timm_model_name")
    if name and not name.startswith(("hf-hub:", "hf_hub:", "local-dir:")) and not timm.is_model(name):
        raise ValueError(
            f"{architecture.name}: vision_cfg.timm_model_name: "
            f"{unknown('timm model', name, timm.list_models())}"
        )
    try:
        # transformers reads values of its attention mask, which the meta device does not have.
        with torch.device("cpu" if text.get("hf_model_name") else "meta"), sdpa_kernel(SDPBackend.MATH):
            return _count(config, vision, text)
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = " ".join(lines[:2])[:300].rstrip(".") or type(error).__name__
        advice = ""
        if name:
            usual = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
            size = "" if usual is None else f", such as timm's own, {usual.input_size[-1]}"
            advice = (
                f". Give vision_cfg an image_size that the trunk takes{size}; "
                '"timm_proj": "", with which the trunk\'s own head projects; other timm_model_kwargs; '
                "or another timm_model_name"
            )
        raise ValueError(
            f"{architecture.name} has no closed form ({architecture.why_counted}), "
            f"and torch cannot count it: {reason}{advice}"
        ) from error


def _count(config: Mapping[str, Any], vision: Mapping[str, Any], text: Mapping[str, Any]) -> Count:
    model = build_model(config).train()
    size, length = vision.get("image_size", _DEFAULT_IMAGE), text.get("context_length", _DEFAULT_CONTEXT)
    images = torch.zeros(COUNTED_PAIRS, 3, size, size)
    all_macs, features = count_macs(lambda: model.encode_image(images))
    _check_features("image", features, config["embed_dim"])
    trunk_macs, unprojected_features = _trunk(model, images)
    projection = _projection(model.visual)
    trunk = {1.0: trunk_macs}
    for fraction in sorted({strategy.kept_fraction for strategy in strategies().values()} - {1.0}):
        if (macs := _masked(config, fraction, images)) is not None:
            trunk[fraction] = macs
    tower = getattr(model, "text", None)
    lengths = {length}
    # Another tokenizer's end of text need not have the highest id, by which CLIPA's cut finds it.
    shortens = tower is None or (isinstance(tower, TextTransformer) and tower.cls_emb is None)
    if shortens and not text.get("hf_tokenizer_name"):
        lengths |= {1, -(-length // 2)}  # three give the cost at all lengths (`Count.text_tower`)
    texts = {}
    for tokens in sorted(lengths):
        ids = torch.zeros(COUNTED_PAIRS, tokens, dtype=torch.long)
        texts[tokens], features = count_macs(lambda ids=ids: encode_text(model, ids))  # type: ignore[misc]
        _check_features("text", features, config["embed_dim"])
    of_loss = sum(part.numel() for part in (model.logit_scale, model.logit_bias) if part is not None)
    image_parameters = _parameters(model.visual)
    modules = (tower or model.token_embedding).modules()
    embedding = next(layer for layer in modules if isinstance(layer, nn.Embedding))
    return Count(
        family=_family(vision),
        image_size=size,
        context_length=length,
        vocab_size=embedding.num_embeddings,
        image_width=unprojected_features.shape[1],
        text_width=embedding.embedding_dim,
        trunk_macs=trunk,
        trunk_parameters=image_parameters - projection,
        projection_macs=all_macs - trunk_macs,
        projection_parameters=projection,
        text_macs=texts,
        text_parameters=_parameters(model) - image_parameters - of_loss,
        batch_norm=any(isinstance(layer, _BatchNorm) for layer in model.modules()),
        counted_by=f"torch {torch.__version__}, {builder_versions()}",
    )


def count_macs(run: Callable[[], T], pairs: int = COUNTED_PAIRS) -> tuple[int, T]:
    """Return the multiply-accumulates of one of the pairs, and what was computed."""
    with FlopCounterMode(display=False) as counter:
        result = run()
    return counter.get_total_flops() // (FLOPS_PER_MAC * pairs), result


def _trunk(model: open_clip.CLIP, images: Tensor) -> tuple[int, Tensor]:
    with unprojected(model.visual):
        macs, features = count_macs(lambda: model.visual(images))
    if features.ndim != COUNTED_PAIRS:
        raise ValueError(f"the image tower's features have the shape {tuple(features.shape)}, not (N, width)")
    return macs, features


def _masked(config: Mapping[str, Any], fraction: float, images: Tensor) -> int | None:
    """Return the trunk's MACs where only a share of the patches is kept; None if it cannot drop any."""
    try:
        model = build_model(config, Strategy(name="masked", kept_fraction=fraction)).train()
    except (TypeError, AssertionError, RuntimeError, ValueError):
        return None
    return _trunk(model, images)[0] if patch_dropouts(model) else None


def _check_features(what: str, features: object, width: int) -> None:
    """Raise an error unless a tower returns one vector of the embedding's width for each sample."""
    shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
    if shape != (COUNTED_PAIRS, width):
        wanted = COUNTED_PAIRS, width
        raise ValueError(f"its {what} tower returns {shape}, not {wanted} for {COUNTED_PAIRS} samples")


def _projection(visual: nn.Module) -> int:
    """Count the parameters that `unprojected` leaves out."""
    part = {"VisionTransformer": "proj", "TimmModel": "head"}.get(type(visual).__name__, "")
    projection = getattr(visual, part, None)
    if isinstance(projection, nn.Module):
        return _parameters(projection)
    return 0 if projection is None else projection.numel()


def _parameters(module: nn.Module) -> int:
    return sum(part.numel() for part in module.parameters())


def _family(vision: Mapping[str, Any]) -> str:
    """Return the kind of image tower: ``vit``, ``resnet``, or by the module of timm that defines it."""
    name = vision.get("timm_model_name")
    if not name:
        return "resnet" if isinstance(vision.get("layers"), list | tuple) else "vit"
    if not timm.is_model(name):
        return "timm"
    module = str(timm.model_entrypoint(name).__module__).rpartition(".")[2]
    return _FAMILIES.get(module, module)
