"""Export of a trained model as a folder that open_clip loads without this project.

open_clip_config.json           architecture and image normalisation
open_clip_pytorch_model.bin     weights
<architecture>.json             architecture alone, for ``open_clip.add_model_config``
trunk/config.json               only if the image tower is a timm model with its own settings
vocabulary.txt                  only if texts are split into a pool's words; one per line, the first has id 1
trial.json                      only of a trial: its id, its training FLOPs and the precision of its training
tokenizer.json, …_config.json   the same for ``open_clip.get_tokenizer``, which reads it with transformers

``open_clip.create_model_and_transforms("local-dir:FOLDER")`` reads the first two.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm

from runners.data.pool.tokenizer import BPE_CONTEXT, BPE_VOCABULARY

CONFIG, WEIGHTS, VOCABULARY = "open_clip_config.json", "open_clip_pytorch_model.bin", "vocabulary.txt"

ORIGIN = "trial.json"

PIXELS = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
"""Normalisation of images in trials: pixels from -1 to 1."""

_FINAL_SIGMA = {"type": "Replace", "pattern": {"Regex": r"(?<=\p{L})Σ(?!\p{L})"}, "content": "ς"}
"""Python lowers a Greek word's last letter so; `Lowercase` lowers each letter by itself."""

PAD, UNKNOWN, END = "[padding]", "[unknown]", "[end of text]"


def write_architecture(  # noqa: PLR0913 - the content of the files
    folder: Path,
    name: str,
    config: Mapping[str, Any],
    *,
    pixels: Mapping[str, Sequence[float]],
    words: Sequence[str],
    sigmoid_bias: bool = False,
    final: Path | None = None,
) -> None:
    """Write all files except the weights, for an architecture in open_clip's model-config form.

    ``pixels`` has ``mean`` and ``std`` of each colour, for pixels from 0 to 1. The pool's words, the most
    frequent first, are ignored for a model with CLIP's byte-pair encoding. A folder that will be moved needs
    its ``final`` path: a timm trunk is found by its absolute path.
    """
    plain, place = json.loads(json.dumps(config)), (final or folder).resolve()
    vision, text = plain["vision_cfg"], plain["text_cfg"]
    settings = vision.pop("timm_model_kwargs", None)
    if settings is not None:
        # open_clip passes only a name to timm, not settings; but timm can read both from a folder.
        name_in_timm = vision["timm_model_name"]
        known: Any = timm.get_pretrained_cfg(name_in_timm)  # timm is not annotated
        facts = known.to_dict(remove_source=True, remove_null=True) if known else {}
        trunk = {"architecture": name_in_timm, "model_args": settings, "pretrained_cfg": facts}
        (folder / "trunk").mkdir()
        _write(folder / "trunk" / "config.json", trunk)
        vision["timm_model_name"] = f"local-dir:{place / 'trunk'}"
    plain.pop("init_logit_bias", None)
    if sigmoid_bias:
        plain["init_logit_bias"] = 0.0  # creates the parameter; its trained value is in the weights
    vocabulary, context = text.get("vocab_size", BPE_VOCABULARY), text.get("context_length", BPE_CONTEXT)
    if vocabulary != BPE_VOCABULARY and words and not text.get("hf_tokenizer_name"):
        known_words = words[: vocabulary - 3]
        (folder / VOCABULARY).write_text("".join(f"{word}\n" for word in known_words), encoding="utf-8")
        for file, content in tokenizer_files(vocabulary, context, known_words).items():
            _write(folder / file, content)
        text["hf_tokenizer_name"] = str(place)
    _write(folder / CONFIG, {"model_cfg": plain, "preprocess_cfg": dict(pixels)})
    _write(folder / f"{name}.json", plain)


def read_architecture(folder: Path) -> dict[str, Any]:
    """Read the architecture of an exported model, in the catalogue's form."""
    config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["model_cfg"]
    trunk = folder / "trunk" / "config.json"
    if trunk.is_file():
        timm = json.loads(trunk.read_text(encoding="utf-8"))
        config["vision_cfg"]["timm_model_name"] = timm["architecture"]
        config["vision_cfg"]["timm_model_kwargs"] = timm["model_args"]
    config.pop("init_logit_bias", None)
    if (folder / VOCABULARY).is_file():
        config["text_cfg"].pop("hf_tokenizer_name", None)
    return config


def read_vocabulary(folder: Path) -> tuple[str, ...]:
    """Read the words of an exported model's vocabulary; empty if it has CLIP's byte-pair encoding."""
    path = folder / VOCABULARY
    try:
        return tuple(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else ()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8") from None


def write_origin(folder: Path, *, trial: str, train_flops: int, precision: str) -> None:
    """Write which trial a model is of, the FLOPs that it was trained with, and the precision."""
    _write(folder / ORIGIN, {"trial": trial, "train_flops": train_flops, "precision": precision})


def read_origin(folder: Path) -> dict[str, Any]:
    """Read what `write_origin` wrote; empty for a model of other origin."""
    path = folder / ORIGIN
    origin: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return origin


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")


def tokenizer_files(vocab_size: int, context_length: int, words: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Describe a tokenizer with the same ids as `runners.data.pool.tokenizer.tokenizer`.

    The words are the vocabulary's, the most frequent first. Returns file name → content.
    """
    special = {PAD: 0, UNKNOWN: vocab_size - 2, END: vocab_size - 1}
    ended = [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": END, "type_id": 0}}]
    tokenizer = {
        "version": "1.0",
        "added_tokens": [
            {"id": place, "content": token, "special": True, "normalized": False}
            | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
            for token, place in special.items()
        ],
        "normalizer": {"type": "Sequence", "normalizers": [_FINAL_SIGMA, {"type": "Lowercase"}]},
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": r"[\p{L}\p{N}_]+"},  # Python's \w: without the marks of other scripts
            "behavior": "Removed",
            "invert": True,
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": ended,
            "pair": ended,
            "special_tokens": {END: {"id": END, "ids": [vocab_size - 1], "tokens": [END]}},
        },
        "model": {
            "type": "WordLevel",
            "vocab": special | {word: place for place, word in enumerate(words, start=1)},
            "unk_token": UNKNOWN,
        },
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": PAD,
        "unk_token": UNKNOWN,
        "eos_token": END,
        "model_max_length": context_length,
        "padding_side": "right",
        "truncation_side": "right",
    }
    return {"tokenizer.json": tokenizer, "tokenizer_config.json": config}
