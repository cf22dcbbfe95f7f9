"""Loading of open_clip models for evaluation: an exported folder, a checkpoint, or a known tag."""

import json
import re
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from open_clip.transform import PreprocessCfg, image_transform_v2
from safetensors import safe_open
from torch import Tensor

from budgets.cost.architecture import catalogue, load_architecture
from budgets.names import unknown
from runners.data.evaluation.evaluation_set import Decode
from runners.data.pool.pictures import open_image
from runners.data.pool.tokenizer import BPE_CONTEXT, BPE_VOCABULARY, tokenizer
from runners.host.faults import format_error
from runners.models.export import (
    CONFIG,
    PIXELS,
    WEIGHTS,
    read_architecture,
    read_vocabulary,
    write_architecture,
)

_LOCAL, _TOWERS = "local-dir:", ("vision_cfg", "text_cfg")


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoder:
    """A model in evaluation mode, with its preprocessing and precision.

    ``normalise`` turns uint8 images, (n, 3, S, S), into the model's input.
    """

    model: Any  # of open_clip, which is not annotated
    normalise: Callable[[Tensor], Tensor]
    tokenize: Callable[[list[str]], Tensor]
    device: torch.device
    context: Callable[[], AbstractContextManager[object]] = nullcontext

    @torch.no_grad()
    def images(self, images: NDArray[np.uint8]) -> Tensor:
        """Return normalised features (n, D) of a batch of uint8 images (n, 3, S, S)."""
        with self.context():
            inputs = self.normalise(torch.from_numpy(images).to(self.device))
            features: Tensor = self.model.encode_image(inputs, normalize=True)
            return features

    @torch.no_grad()
    def texts(self, texts: list[str]) -> Tensor:
        """Return normalised features (n, D) of a batch of texts."""
        with self.context():
            features: Tensor = self.model.encode_text(self.tokenize(texts).to(self.device), normalize=True)
            return features

    @torch.no_grad()
    def classifier(self, classnames: tuple[str, ...], templates: tuple[str, ...]) -> Tensor:
        """Return the classes' normalised mean prompts, the weights of zero-shot; float32 (D, classes).

        Templates are prompts with ``{c}`` where the class name goes, as CLIP_benchmark writes them.
        """
        with self.context():
            weights: Tensor = open_clip.build_zero_shot_classifier(
                self.model,
                tokenizer=self.tokenize,
                classnames=classnames,
                templates=[template.replace("{c}", "{}") for template in templates],
                device=self.device,
            )
            return weights.float()


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedModel(Encoder):
    """A model that was not trained in this process.

    ``config`` is its architecture in open_clip's model-config form. ``decode`` turns an image file into uint8
    (3, S, S), resized to the model's input.
    """

    config: Mapping[str, Any]
    decode: Decode


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSource:
    """The model to load."""

    checkpoint: str  # an exported folder, a checkpoint file, or a pretrained tag of open_clip
    model: str = ""  # of the catalogue or of open_clip, or a JSON file; empty for an exported folder
    words: Sequence[str] = ()  # the pool's, for a model whose texts are split into them
    mean: tuple[float, ...] = ()  # of each colour, for pixels from 0 to 1; by default the checkpoint's own
    std: tuple[float, ...] = ()  # standard deviation, as the mean


def load_model(source: ModelSource, device: torch.device) -> LoadedModel:
    """Load a model; ValueError if a part of it does not exist or is damaged, or if they do not match."""
    path = Path(source.checkpoint)
    if path.is_dir():
        if source.model:
            raise ValueError(
                f"--model {source.model}: {path} is a folder, which names its model itself; leave out --model"
            )
        if not (path / CONFIG).is_file():
            raise ValueError(f"{path} is not an exported model: {path / CONFIG} is missing")
        if not [*path.glob("*.bin"), *path.glob("*.safetensors")]:
            raise ValueError(f"{path} has no weights: {path / WEIGHTS} is missing")
        return _load(f"{_LOCAL}{path}", None, replace(source, words=read_vocabulary(path)), device)
    if not source.model:
        raise ValueError("--model is missing: name the architecture, such as ViT-B-32, or a JSON file")
    if not path.is_file():
        _check_tag(source)
        return _load(source.model, source.checkpoint, source, device)
    name, config, known = _architecture(source.model)
    # Weights of trials, and of architectures that only this project trains, expect pixels from -1 to 1; other
    # checkpoints keep open_clip's mean and standard deviation.
    pixels = PIXELS if (path.parent / "result.json").is_file() or not known else {}
    weights = WEIGHTS if path.suffix != ".safetensors" else Path(WEIGHTS).with_suffix(path.suffix).name
    with tempfile.TemporaryDirectory(prefix="model-") as scratch:
        folder = Path(scratch)
        biased = "init_logit_bias" in config or "logit_bias" in weight_names(path)
        write_architecture(folder, name, config, pixels=pixels, words=(), sigmoid_bias=biased)
        (folder / weights).symlink_to(path.resolve())
        return _load(f"{_LOCAL}{folder}", None, source, device)


def device_named(name: str | None) -> torch.device:
    """Return a named device, or raise ValueError; None is the first GPU, or the processor without one."""
    gpus = torch.cuda.device_count()
    if name is None:
        return torch.device("cuda" if gpus else "cpu")
    gpu_name = re.fullmatch(r"cuda(?::(\d{1,4}))?", name)
    if name != "cpu" and (gpu_name is None or int(gpu_name[1] or 0) >= gpus):
        known = ", ".join(["cpu", *(["cuda"] if gpus else []), *(f"cuda:{gpu}" for gpu in range(gpus))])
        raise ValueError(f"--device {name}: this machine has {known}")
    return torch.device(name)


def by_pool_words(model: str) -> bool:
    """Return whether a model, as in `ModelSource`, splits its texts into the words of its training pool."""
    return _by_pool_words(_architecture(model)[1]["text_cfg"])


def weight_names(weights: Path) -> set[str]:
    """Return the names of a checkpoint's weights, also of one of open_clip's own training.

    Raises:
        ValueError: The file is damaged, or holds no weights, or also other objects.
    """
    try:
        if weights.suffix == ".safetensors":
            with safe_open(weights, framework="pt") as file:
                names = list(file.keys())
        else:
            mapped = zipfile.is_zipfile(weights)  # files of torch before 1.6 can't be mapped into memory
            content = torch.load(weights, map_location="cpu", mmap=mapped, weights_only=True)
            names = list(content.get("state_dict", content).keys())
    except Exception as error:  # readers of damaged files raise many types of errors
        # Of other bytes torch says only what it looked up; of objects, to load them without its safeguard.
        reason = "" if isinstance(error, LookupError) else f" ({format_error(error).partition('. ')[0]})"
        raise ValueError(f"{weights} is not a checkpoint of weights, or is damaged{reason}") from error
    return {str(name).removeprefix("module.") for name in names}


def _load(name: str, tag: str | None, source: ModelSource, device: torch.device) -> LoadedModel:
    wanted = source.checkpoint + (f" as {source.model}" if source.model else "")
    try:
        model = open_clip.create_model(
            name,
            pretrained=tag,
            device=device,
            # Weights of some tags were trained with QuickGELU, which the architecture of their name lacks.
            force_quick_gelu=tag is not None
            and bool(open_clip.get_pretrained_cfg(name, tag).get("quick_gelu")),
            require_pretrained=name.startswith(_LOCAL),
        ).eval()
    except FileNotFoundError:
        raise
    except Exception as error:  # of damaged files and odd configs many types of errors
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = " ".join(lines[:2])[:400] or type(error).__name__
        raise ValueError(f"open_clip cannot load {wanted}: {reason}") from error
    local = name.removeprefix(_LOCAL)
    config = open_clip.get_model_config(name) if local == name else read_architecture(Path(local))
    how = open_clip.get_model_preprocess_cfg(model)
    how |= {key: value for key, value in (("mean", source.mean), ("std", source.std)) if value}
    for key in ("mean", "std"):
        given = how[key]
        if not isinstance(given, list | tuple) or [type(n) in {int, float} for n in given] != [True] * 3:
            raise ValueError(f"{wanted}: preprocess_cfg.{key} must be three numbers; found {given!r}")
    mean, std = (torch.tensor(how[key], device=device).view(-1, 1, 1) for key in ("mean", "std"))
    return LoadedModel(
        model=model,
        config=config,
        decode=_decoder(how),
        normalise=lambda images: images.float().div_(255).sub_(mean).div_(std),
        tokenize=_tokenizer(name, config["text_cfg"], source),
        device=device,
    )


def _architecture(model: str) -> tuple[str, Mapping[str, Any], bool]:
    """Return an architecture's name, its config, and whether others may have trained weights for it."""
    path = Path(model)
    if path.suffix == ".json":
        if not path.is_file():
            raise ValueError(f"no such architecture file: {path}")
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is not valid JSON: {error}") from error
        if not isinstance(config, dict):
            raise ValueError(f"{path} is not an open_clip model config: it must be a JSON object")
        missing = [key for key in ("embed_dim", "vision_cfg", "text_cfg") if key not in config]
        missing += [f"{key} as an object" for key in _TOWERS if not isinstance(config.get(key, {}), dict)]
        if missing:
            raise ValueError(f"{path} is not an open_clip model config: it lacks {', '.join(missing)}")
        return path.stem, config, True
    known = open_clip.list_models()
    if model in known:
        return model, open_clip.get_model_config(model), True
    if model in catalogue():
        return model, load_architecture(model).config, False
    raise ValueError(unknown("model", model, {*known, *catalogue()}))


def _check_tag(source: ModelSource) -> None:
    """Raise an error for a value that is neither a file nor a tag, before open_clip searches the network."""
    if source.model not in open_clip.list_models():
        _architecture(source.model)
        raise ValueError(f"no such checkpoint: {source.checkpoint}")
    tags = open_clip.list_pretrained_tags_by_model(source.model)
    if source.checkpoint not in tags:
        raise ValueError(
            f"no such checkpoint: {source.checkpoint} is neither a file nor a tag of open_clip for "
            f"{source.model}; its tags: {', '.join(tags) or 'none'}"
        )


def _decoder(how: Mapping[str, Any]) -> Decode:
    """Return open_clip's image transform up to, but not including, the conversion to a tensor."""
    whole = image_transform_v2(PreprocessCfg(**how), is_train=False).transforms
    resize = whole[:-2]  # the last two make the tensor and normalise it

    def decode(payload: bytes) -> NDArray[np.uint8]:
        with open_image(payload) as image:
            for step in resize:
                image = step(image)  # noqa: PLW2901 - a chain of transforms
            return np.asarray(image.convert("RGB")).transpose(2, 0, 1)

    return decode


def _by_pool_words(text: Mapping[str, Any]) -> bool:
    return text.get("vocab_size", BPE_VOCABULARY) != BPE_VOCABULARY and not text.get("hf_tokenizer_name")


def _tokenizer(name: str, text: Mapping[str, Any], source: ModelSource) -> Callable[[list[str]], Tensor]:
    size, length = text.get("vocab_size", BPE_VOCABULARY), text.get("context_length", BPE_CONTEXT)
    by_pool_words = _by_pool_words(text)
    if source.words and by_pool_words:
        encode = tokenizer(size, length, source.words)
        return lambda texts: torch.from_numpy(encode(texts))
    if by_pool_words and "siglip" not in name.lower():
        raise ValueError(
            f"the model has {size:,} tokens, so its texts are split into the words of its pool: name the "
            "pool with --pool FOLDER, or evaluate an exported model, which contains them"
        )
    try:
        theirs: Callable[[list[str]], Tensor] = open_clip.get_tokenizer(name)
    except (OSError, ImportError) as error:
        raise ValueError(f"open_clip has no tokenizer for {name}: {error}") from error
    return theirs
