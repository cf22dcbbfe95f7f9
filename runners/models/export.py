"""A trained model as a folder that open_clip loads by itself, with nothing of this project installed.

open_clip_config.json           the architecture, and how images are brought to the model
open_clip_pytorch_model.bin     the weights
<architecture>.json             the architecture alone, for ``open_clip.add_model_config``
trunk/config.json               only where the image tower is a timm model with settings of its own
vocabulary.txt                  only where texts are split into a pool's words; one a line, the first has id 1
tokenizer.json, …_config.json   the same for ``open_clip.get_tokenizer``, which reads it through transformers

``open_clip.create_model_and_transforms("local-dir:FOLDER")`` reads the first two.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm

from runners.data.pool.tokenizer import BPE_VOCABULARY
from runners.models.export_tokenizer import tokenizer_files

CONFIG, WEIGHTS, VOCABULARY = "open_clip_config.json", "open_clip_pytorch_model.bin", "vocabulary.txt"

PIXELS = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
"""How trials see images: from -1 to 1."""


def write_architecture(  # noqa: PLR0913 - what the files say
    folder: Path,
    name: str,
    config: Mapping[str, Any],
    *,
    pixels: Mapping[str, Sequence[float]],
    words: Sequence[str],
    sigmoid_bias: bool = False,
    final: Path | None = None,
) -> None:
    """Write all but the weights.

    Args:
        folder: Where to.
        name: The architecture's.
        config: In open_clip's model-config form, ``timm_model_kwargs`` allowed.
        pixels: ``mean`` and ``std`` of each colour, of pixels from 0 to 1.
        words: The pool's, most frequent first; without effect on a model of CLIP's byte-pair encoding.
        sigmoid_bias: Whether the model has SigLIP's bias.
        final: Where the folder will stand, if not here; a timm trunk is found by its whole path.
    """
    plain, place = json.loads(json.dumps(config)), (final or folder).resolve()
    vision, text = plain["vision_cfg"], plain["text_cfg"]
    settings = vision.pop("timm_model_kwargs", None)
    if settings is not None:
        # open_clip hands timm a name and no settings; but timm reads both from a folder.
        name_in_timm = vision["timm_model_name"]
        known: Any = timm.get_pretrained_cfg(name_in_timm)  # timm is not annotated
        facts = known.to_dict(remove_source=True, remove_null=True) if known else {}
        trunk = {"architecture": name_in_timm, "model_args": settings, "pretrained_cfg": facts}
        (folder / "trunk").mkdir()
        _write(folder / "trunk" / "config.json", trunk)
        vision["timm_model_name"] = f"local-dir:{place / 'trunk'}"
    if sigmoid_bias:
        plain["init_logit_bias"] = 0.0  # the trained one is in the weights
    if text.get("vocab_size") != BPE_VOCABULARY and words:
        known_words = words[: text["vocab_size"] - 3]
        lines = (f"{word}\n" for word in known_words)
        (folder / VOCABULARY).write_text("".join(lines), encoding="utf-8")
        files = tokenizer_files(text["vocab_size"], text["context_length"], known_words)
        for file, content in files.items():
            _write(folder / file, content)
        text["hf_tokenizer_name"] = str(place)
    _write(folder / CONFIG, {"model_cfg": plain, "preprocess_cfg": dict(pixels)})
    _write(folder / f"{name}.json", plain)


def read_architecture(folder: Path) -> dict[str, Any]:
    """The architecture of an exported model, as the catalogue writes it."""
    config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["model_cfg"]
    trunk = folder / "trunk" / "config.json"
    if trunk.is_file():
        told = json.loads(trunk.read_text(encoding="utf-8"))
        config["vision_cfg"] |= {
            "timm_model_name": told["architecture"],
            "timm_model_kwargs": told["model_args"],
        }
    config.pop("init_logit_bias", None)
    if (folder / VOCABULARY).is_file():
        config["text_cfg"].pop("hf_tokenizer_name", None)
    return config


def read_vocabulary(folder: Path) -> tuple[str, ...]:
    """The words that an exported model knows; none where it has CLIP's byte-pair encoding."""
    path = folder / VOCABULARY
    return tuple(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else ()


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
