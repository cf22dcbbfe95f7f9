"""open_clip's model config, checked and completed with open_clip's own defaults.

Only settings whose cost is known in closed form (or zero) are accepted; any other raises `NoClosedForm`, so
that no trial is planned with a wrong FLOP count: `runners.models.count_by_torch` counts such a model. One key
is this project's own: ``timm_model_kwargs``, the arguments of timm's constructor.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from budgets.names import unknown

_VIT = {
    "image_size": 224,
    "layers": 12,
    "width": 768,
    "head_width": 64,
    "mlp_ratio": 4.0,
    "patch_size": 16,
    "ls_init_value": None,
    "no_ln_pre": False,
    "pos_embed_type": "learnable",
    "final_ln_after_pool": False,
    "pool_type": "tok",
    "act_kwargs": None,
    "norm_kwargs": None,
}
_RESNET = {"image_size": 224, "layers": (3, 4, 6, 3), "width": 64, "head_width": 64, "patch_size": None}
_TIMM = {
    "image_size": 224,
    "timm_model_name": "",
    "timm_model_pretrained": False,
    "timm_model_kwargs": {},
    "timm_pool": None,
    "timm_proj": None,
    "timm_proj_bias": False,
    "timm_drop": 0.0,
    "timm_drop_path": None,
}
_TEXT = {
    "context_length": 77,
    "vocab_size": 49408,
    "hf_tokenizer_name": None,
    "tokenizer_kwargs": None,
    "width": 512,
    "heads": 8,
    "layers": 12,
    "mlp_ratio": 4.0,
    "ls_init_value": None,
    "pad_id": 0,
    "eos_id": 2,
    "no_causal_mask": False,
    "pool_type": "argmax",
    "proj_bias": False,
    "act_kwargs": None,
    "norm_kwargs": None,
}
_TOP = {
    "embed_dim": 512,
    "vision_cfg": {},
    "text_cfg": {},
    "quick_gelu": False,
    "custom_text": False,
    "init_logit_scale": None,
    "init_logit_bias": None,  # the strategy decides whether there is one
}
_COUNTED: Mapping[str, frozenset[str]] = {
    "": frozenset({*_TOP, "nonscalar_logit_scale"}),
    "vision_cfg.": frozenset(
        {*_VIT, *_RESNET, *_TIMM}
        | {"attentional_pool", "attn_pooler_queries", "attn_pooler_heads", "block_type"}
        | {"qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc"}
    ),
    "text_cfg.": frozenset(
        {*_TEXT, "embed_cls", "final_ln_after_pool", "proj_type", "block_type"}
        | {"qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc"}
        | {"hf_model_name", "hf_model_pretrained", "hf_proj_type", "hf_pooler_type"}
    ),
}
"""Settings of open_clip by section; torch counts a model with one that has no closed form."""

_NOT_OURS: Mapping[tuple[str, str], str] = {
    ("", "multimodal_cfg"): "a captioning decoder (CoCa), which no strategy trains; remove it, and "
    "output_tokens, to train the two towers",
    ("vision_cfg.", "output_tokens"): "only a captioning decoder reads them; remove it",
    ("text_cfg.", "output_tokens"): "only a captioning decoder reads them; remove it",
    ("vision_cfg.", "patch_dropout"): "patches are dropped by the strategies flip-50, flip-25 and clipa",
}
_CHOICES: Mapping[str, tuple[object, ...]] = {
    "vision_cfg.pool_type": ("tok", "avg"),
    "vision_cfg.pos_embed_type": ("learnable", "sin_cos_2d"),
    "text_cfg.pool_type": ("argmax", "first", "last", "eos"),
}
_SMALLEST_VOCABULARY = 4
_MAY_BE_ZERO = ("pad_id", "eos_id", "timm_drop", "timm_drop_path", "ls_init_value", "init_logit_scale")
_OPTIONAL: Mapping[str, object] = {
    "timm_drop_path": 0.0, "ls_init_value": 0.0, "init_logit_scale": 0.0,
    "act_kwargs": {}, "norm_kwargs": {}, "tokenizer_kwargs": {}, "hf_tokenizer_name": "",
    "timm_pool": "", "timm_proj": "",
}  # fmt: skip
"""A value of the type that a setting has if it is not null."""


class NoClosedForm(ValueError):  # noqa: N818 - reads as the state that it reports
    """A config has a setting, or a value of one, whose cost has no closed form here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """A complete config: every setting of ``vision_cfg`` and ``text_cfg``.

    ``family`` is the kind of image tower: ``vit`` or ``resnet``.
    """

    family: str
    embed_dim: int
    vision: Mapping[str, Any]
    text: Mapping[str, Any]


def complete_config(config: Mapping[str, Any]) -> ModelConfig:
    """Check a config, as in a JSON file of open_clip, and fill in its missing settings.

    Raises:
        NoClosedForm: A setting or its value is not among those with a closed form.
        ValueError: A setting has the wrong type, is out of range, or conflicts with another.
    """
    for key in ("embed_dim", "vision_cfg", "text_cfg"):
        if not isinstance(config, Mapping) or key not in config:
            raise ValueError(f"'{key}' is missing; a model config has embed_dim, vision_cfg and text_cfg")
    top = _checked("", config, _TOP)
    text = _checked("text_cfg.", config["text_cfg"], _TEXT)
    if text["width"] % text["heads"]:
        raise ValueError(f"text_cfg: width {text['width']} cannot be split into {text['heads']} heads")
    if text["vocab_size"] < _SMALLEST_VOCABULARY:
        raise ValueError(
            f"text_cfg.vocab_size: found {text['vocab_size']}; allowed: at least {_SMALLEST_VOCABULARY}, "
            "padding, end of text, unknown words and a word"
        )
    own_tokenizer = not text["hf_tokenizer_name"]  # of this project, or CLIP's
    if own_tokenizer and text["pool_type"] == "eos" and text["eos_id"] != text["vocab_size"] - 1:
        raise ValueError(
            f"text_cfg.eos_id: found {text['eos_id']}; texts end with token {text['vocab_size'] - 1}, from "
            'which pool_type "eos" reads the features'
        )
    family, vision = _vision(config["vision_cfg"])
    return ModelConfig(family=family, embed_dim=top["embed_dim"], vision=vision, text=text)


def _vision(given: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    if given.get("timm_model_name"):
        if given.get("timm_model_pretrained"):
            raise ValueError(
                "vision_cfg.timm_model_pretrained: found True; allowed: False, trials start anew"
            )
        _checked("vision_cfg.", given, _TIMM)
        raise NoClosedForm(f"vision_cfg.timm_model_name {given['timm_model_name']} has no closed form here")
    if isinstance(given.get("layers"), list | tuple):
        vision = _checked("vision_cfg.", given, _RESNET)
        if vision["image_size"] % 32 or vision["width"] * 32 % vision["head_width"]:
            raise ValueError(
                "vision_cfg: a ResNet needs an image_size that is a multiple of 32 and a head_width that "
                "divides 32 x width; "
                f"found {vision['image_size']}, {vision['head_width']} and width {vision['width']}"
            )
        return "resnet", vision
    vision = _checked("vision_cfg.", given, _VIT)
    size, patch, width = vision["image_size"], vision["patch_size"], vision["width"]
    if size < patch:
        raise ValueError(f"vision_cfg: patch_size {patch} is over image_size {size}")
    heads = width // vision["head_width"]
    if not heads or width % heads:
        raise ValueError(f"vision_cfg: width {width} cannot be split into heads of {vision['head_width']}")
    if vision["pos_embed_type"] == "sin_cos_2d" and width % 4:
        raise ValueError(f"vision_cfg: sin_cos_2d needs a width that is a multiple of 4; found {width}")
    return "vit", vision


def _checked(section: str, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults overridden by the given settings, each checked against its default's type."""
    uncounted = ""  # raised last: a wrong setting is reported before one without a closed form
    for key, value in given.items():
        if (section, key) in _NOT_OURS:
            raise ValueError(f"{section}{key}: {_NOT_OURS[section, key]}")
        allowed = _CHOICES.get(section + key)
        if key not in defaults:
            if key not in _COUNTED[section]:
                where = section.rstrip(".") or "model config"
                raise ValueError(unknown(f"setting in {where}", key, _COUNTED[section]))
            uncounted = f"{section}{key} has no closed form here"
        elif allowed is not None and value not in allowed:
            uncounted = f"{section}{key}: found {value!r}; closed forms: {', '.join(map(repr, allowed))}"
        elif value is None and defaults[key] is None:
            continue
        elif problem := _problem(value, _OPTIONAL.get(key, defaults[key]), zero=key in _MAY_BE_ZERO):
            raise ValueError(f"{section}{key}: found {value!r}; allowed: {problem}")
    if uncounted:
        raise NoClosedForm(uncounted)
    complete = {**defaults, **{key: tuple(v) if isinstance(v, list) else v for key, v in given.items()}}
    if "mlp_ratio" in complete and int(complete["width"] * complete["mlp_ratio"]) < 1:
        raise ValueError(f"{section}mlp_ratio: {complete['mlp_ratio']:g} leaves the MLP no width")
    return complete


def _problem(value: object, default: object, *, zero: bool) -> str | None:
    """Return a description of the allowed values if ``value`` is not one of them, else None."""
    least = 0 if zero else 1
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    number = number if math.isfinite(number) else math.nan
    items = value if isinstance(value, list | tuple) else ()
    length = len(default) if isinstance(default, tuple) else 0
    kinds: Mapping[type, tuple[bool, str]] = {
        bool: (isinstance(value, bool), "true or false"),
        int: (_is_count(value, least), f"a whole number of at least {least}"),
        float: (number > 0 or (zero and number == 0), "a positive number" + " or 0" * zero),
        str: (isinstance(value, str), "a name"),
        dict: (isinstance(value, dict), "a table of settings"),
        tuple: (
            len(items) == length and all(_is_count(item, 1) for item in items),
            f"a list of {length} whole numbers of at least 1",
        ),
    }
    fits, allowed = kinds.get(type(default), (True, ""))
    return None if fits else allowed


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
