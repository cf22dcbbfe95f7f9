"""Construction of open_clip models from the catalogue, their tokenizers, and their precision."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import timm
import torch
from numpy.typing import NDArray
from open_clip.tokenizer import HFTokenizer
from open_clip.transformer import PatchDropout, VisionTransformer, text_global_pool
from timm.layers.patch_dropout import PatchDropout as TimmPatchDropout
from torch import Tensor, nn
from torch.amp import is_autocast_available
from torch.nn.attention import SDPBackend, sdpa_kernel

from budgets.cost.architecture import Architecture
from budgets.cost.strategy import Strategy
from runners.data.pool.tokenizer import Tokenize, tokenizer

# CLIP's clamp of the temperature: logits are scaled by at most 100 = exp(4.6052).
_LOGIT_SCALE_MAX = 4.6052

_PLAIN = Strategy(name="plain")
_BF16_CAPABILITY = (8, 0)  # Ampere; V100 has 7.0, T4 7.5
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def build_model(config: Mapping[str, Any], strategy: Strategy = _PLAIN) -> open_clip.CLIP:
    """Build a model with open_clip's own initialisation, from torch's current random state.

    Training keeps the strategy's share of the image patches; evaluation keeps all. The temperature starts at
    the strategy's value, and there is a bias if the strategy has one.
    """
    vision = dict(config["vision_cfg"])
    if settings := {**_timm_size(vision), **vision.pop("timm_model_kwargs", {})}:
        vision["timm_model_name"] = _timm_entry(vision["timm_model_name"], settings)
    if strategy.kept_fraction < 1:
        vision["patch_dropout"] = 1 - strategy.kept_fraction
    text = dict(config["text_cfg"])
    kind = open_clip.CLIP
    if config.get("custom_text") or "hf_model_name" in text:
        kind, text["hf_model_pretrained"] = open_clip.CustomTextCLIP, False
    not_arguments = {"vision_cfg", "text_cfg", "custom_text", "init_logit_bias"}
    rest = {name: value for name, value in config.items() if name not in not_arguments}
    for name in ("init_logit_scale", "init_logit_bias"):
        if (value := getattr(strategy, name)) is not None:
            rest[name] = value
    model = kind(vision_cfg=vision, text_cfg=text, **rest)
    for module in model.visual.modules():
        if type(module) is PatchDropout:
            module.__class__ = DevicePatchDropout
    # Channels last speeds up convolutions, ModifiedResNet's by half on a CPU; a ViT has only one.
    return (
        model if isinstance(model.visual, VisionTransformer) else model.to(memory_format=torch.channels_last)
    )


def keep_all_patches(model: open_clip.CLIP) -> None:
    """Switch off patch dropout, as in the unmasked tail of FLIP."""
    for layer in patch_dropouts(model.visual):
        layer.prob = 0.0  # type: ignore[assignment] # a number, not a module


def patch_dropouts(model: nn.Module) -> list[nn.Module]:
    """Return the layers that drop image patches in training: open_clip's, or timm's in a timm tower."""
    return [layer for layer in model.modules() if isinstance(layer, PatchDropout | TimmPatchDropout)]


class DevicePatchDropout(PatchDropout):  # type: ignore[misc] # open_clip is not annotated
    """open_clip's patch dropout with draws on the images' device; open_clip draws on the CPU and copies.

    On the CPU both versions keep the same patches. torch seeds all devices at once, so that both passes of an
    accumulated batch and a recomputed layer keep the same patches on a GPU too.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Keep a random share of the patches (N, patches, width) in training, and the class token."""
        if not self.training or self.prob == 0:
            return x
        first = x[:, :1] if self.exclude_first_token else x[:, :0]
        x = x[:, first.shape[1] :]
        count, patches = x.shape[:2]
        num_keep = max(1, int(patches * (1 - self.prob)))
        # The order of topk is that of open_clip, whose rows of results must stay reproducible.
        chosen = torch.randn(count, patches, device=x.device).topk(num_keep, dim=-1).indices
        x = x[torch.arange(count, device=x.device)[:, None], chosen]
        return torch.cat((first, x), dim=1) if self.exclude_first_token else x


def clamp_logit_scale(model: open_clip.CLIP) -> None:
    """Clamp the temperature to CLIP's bounds; called after each optimiser step."""
    with torch.no_grad():
        model.logit_scale.clamp_(0, _LOGIT_SCALE_MAX)


def encode_text(model: open_clip.CLIP, tokens: Tensor) -> Tensor:
    """Return normalised text features, as open_clip does, for texts that may be shorter than the context.

    Token ids are (N, length); a shorter length uses the first positions of the context.
    """
    length = tokens.shape[1]
    tower = getattr(model, "text", model)  # a CLIP holds the parts of its tower itself
    if length == model.context_length or not hasattr(tower, "positional_embedding"):
        full: Tensor = model.encode_text(tokens, normalize=True)
        return full
    embedded = tower.token_embedding(tokens) + tower.positional_embedding[:length]
    mask = None if tower.attn_mask is None else tower.attn_mask[:length, :length]
    read = tower.ln_final(tower.transformer(embedded, attn_mask=mask))
    pool, end = ("text_pool_type", "text_eos_id") if tower is model else ("pool_type", "eos_id")
    pooled = text_global_pool(read, tokens, getattr(tower, pool), eos_token_id=getattr(tower, end))
    projection = tower.text_projection
    if projection is not None:
        pooled = projection(pooled) if isinstance(projection, nn.Linear) else pooled @ projection
    return nn.functional.normalize(pooled, dim=-1)


def model_tokenizer(architecture: Architecture, words: Sequence[str]) -> Tokenize:
    """Return the tokenizer of a model: the one that ``text_cfg.hf_tokenizer_name`` names at Hugging Face.

    A model without it has CLIP's byte-pair encoding if it has that vocabulary, or else the pool's words, the
    most frequent first.

    Raises:
        ValueError: The named tokenizer cannot be loaded, or the vocabulary has no room for a word.
    """
    text = architecture.config["text_cfg"]
    name, length = text.get("hf_tokenizer_name"), architecture.costs.context_length
    if not name:
        return tokenizer(architecture.costs.vocab_size, length, words)
    try:
        theirs: Any = HFTokenizer(name, context_length=length, **(text.get("tokenizer_kwargs") or {}))
    except Exception as error:  # a missing package, a network that is down, a name that is not known
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{architecture.name}: text_cfg.hf_tokenizer_name {name} cannot be loaded: {reason}. Install "
            "transformers and download it, or remove the setting to split texts into the pool's words"
        ) from error
    return partial(_by_hugging_face, theirs)


def _by_hugging_face(encode: HFTokenizer, texts: Sequence[str]) -> NDArray[np.int64]:
    ids: NDArray[np.int64] = encode(list(texts)).numpy()
    return ids


@contextmanager
def unprojected(visual: nn.Module) -> Iterator[None]:
    """Let an image tower return its pooled features without projection, inside a ``with`` block.

    open_clip has no option for this, but skips the projection of a ViT if ``proj`` is None. A
    ModifiedResNet is not changed: its attention pooling includes the projection.
    """
    part = {"VisionTransformer": "proj", "TimmModel": "head"}.get(type(visual).__name__)
    if part is None:
        yield
        return
    projection = getattr(visual, part)
    setattr(visual, part, nn.Identity() if part == "head" else None)
    try:
        yield
    finally:
        setattr(visual, part, projection)


def resolve_precision(precision: str, device: torch.device) -> str:
    """Turn ``auto`` into the fastest precision that the device computes in; return other values unchanged.

    bf16 where the hardware has it, otherwise fp16 on a GPU and fp32 on a CPU. torch emulates bf16 on older
    GPUs, so that `torch.cuda.is_bf16_supported` is true for a V100, which is faster in fp16.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= _BF16_CAPABILITY else "fp16"
    return "bf16" if _processor_has_bf16() else "fp32"


def has_precision(precision: str, device: torch.device) -> bool:
    """Return whether a device computes in a precision that ``auto`` chose, without emulating it."""
    if precision == "bf16":
        return resolve_precision("auto", device) == "bf16"
    return precision == "fp32" or device.type == "cuda"


def compute_context(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Return the context in which models run: autocast, and unfused attention on a CPU."""
    stack = ExitStack()
    stack.enter_context(attention_context(device))
    if precision in _AUTOCAST:
        stack.enter_context(torch.autocast(device.type, dtype=_AUTOCAST[precision]))
    return stack


def attention_context(device: torch.device) -> AbstractContextManager[Any]:
    """Return the context for attention, which is also needed when checkpointed layers are recomputed.

    On a CPU, fused attention is several times slower than the plain one on short sequences in bf16.
    """
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context without autocast, for operations that need fp32."""
    if not is_autocast_available(device.type):  # the meta device, used to count FLOPs
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def _timm_size(vision: Mapping[str, Any]) -> dict[str, int]:
    """Return the setting that builds a timm model for the config's images, if it is built for others."""
    name, size = vision.get("timm_model_name", ""), int(vision.get("image_size", 0))
    usual = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    if not size or usual is None or not usual.fixed_input_size or usual.input_size[-1] == size:
        return {}
    return {"img_size": size}


def _timm_entry(name: str, settings: Mapping[str, Any]) -> str:
    """Register a timm model with its settings under a new name: open_clip passes only a name to timm."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    entry_name = f"{name}_{digest}"
    if not timm.is_model(entry_name):

        def entry(**overrides: Any) -> nn.Module:  # noqa: ANN401 - timm's own arguments
            model: nn.Module = timm.create_model(name, **{**settings, **overrides})
            return model

        entry.__name__ = entry_name
        timm.models.register_model(entry)
    return entry_name


def _processor_has_bf16() -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return False
    return re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", cpuinfo.read_text(encoding="utf-8")) is not None
