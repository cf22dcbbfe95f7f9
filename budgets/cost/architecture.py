"""Architectures in open_clip's model-config form, from the catalogue or from a user's JSON files."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from budgets.cost import model_config
from budgets.cost.counted import Count, read_count
from budgets.cost.model_config import ModelConfig, NoClosedForm
from budgets.cost.towers import convnext, mixer, resnet, swin, text, vit
from budgets.cost.towers.count import ImageTower, TowerCost
from budgets.names import unknown

_CATALOGUE = Path(__file__).parent / "catalogue"
_WHOLE_IMAGE_TOWERS: Mapping[str, Callable[[Mapping[str, Any], int], ImageTower]] = {
    "resnet": resnet.image_tower,
    "convnext": convnext.image_tower,
    "swin": swin.image_tower,
    "mixer": mixer.image_tower,
}


class Uncounted(ValueError):  # noqa: N818 - reads as the state that it reports
    """An architecture has no closed form, and torch has not counted it on this machine yet."""


class ClosedForm:
    """Costs and sizes in closed form of a complete config; see `budgets.cost.counted.Count` for each."""

    shortens_texts = True

    def __init__(self, config: ModelConfig) -> None:
        self._config = config
        self.family = config.family
        self.drops_patches = config.family == "vit"
        self.batch_norm = config.family == "resnet"
        self.image_size = int(config.vision["image_size"])
        self.context_length = int(config.text["context_length"])
        self.vocab_size = int(config.text["vocab_size"])
        self.text_width = int(config.text["width"])

    def image_tower(self, kept_fraction: float) -> ImageTower:
        """Cost of one image."""
        vision, embed_dim = self._config.vision, self._config.embed_dim
        if self.family == "vit":
            return vit.image_tower(vision, embed_dim, kept_fraction)
        return _WHOLE_IMAGE_TOWERS[self.family](vision, embed_dim)

    def text_tower(self, tokens: int) -> TowerCost:
        """Cost of one text of ``tokens`` tokens through its tower and projection."""
        return text.text_tower(self._config.text, self._config.embed_dim, tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """An image tower and a text tower.

    Attributes:
        name: Name in a declaration.
        config: The JSON content, which is what ``open_clip.CLIP`` takes: ``embed_dim``, ``vision_cfg`` and
            ``text_cfg``. One key is this project's own, ``vision_cfg.timm_model_kwargs``; the model builder
            removes it. Must not be modified.
        why_counted: The setting that has no closed form; empty if all have one.

    Raises:
        ValueError: A setting is unknown or has the wrong type. Costs and sizes raise `Uncounted` if the model
            has no closed form and was not counted yet.
    """

    name: str
    config: Mapping[str, Any] = field(hash=False)
    why_counted: str = field(init=False, repr=False, compare=False)
    _costs: ClosedForm | Count | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check and complete the config."""
        costs, why = None, ""
        try:
            costs = ClosedForm(model_config.complete(self.config))
        except NoClosedForm as error:
            why = str(error)
        object.__setattr__(self, "_costs", costs)
        object.__setattr__(self, "why_counted", why)

    @property
    def costs(self) -> ClosedForm | Count:
        """Costs in closed form, or as torch counted them."""
        if self._costs is None:
            object.__setattr__(self, "_costs", read_count(self.config))
        if self._costs is None:
            raise Uncounted(f"{self.why_counted}, and torch has not counted the model on this machine yet")
        return self._costs

    @property
    def closed_form(self) -> bool:
        """True if the costs are in closed form; otherwise torch counts them."""
        return not self.why_counted

    @property
    def embed_dim(self) -> int:
        """Width of the shared embedding."""
        return int(self.config["embed_dim"])

    def image_tower(self, kept_fraction: float) -> ImageTower:
        """Cost of one image through its tower.

        Args:
            kept_fraction: Share of the patches that are kept, in (0, 1]; with a counted model, a strategy's.

        Raises:
            ValueError: Patches would be dropped, but the tower is not a ViT.
        """
        if kept_fraction != 1 and not self.costs.drops_patches:
            raise ValueError(f"patch dropout needs a ViT; {self.name} is a {self.costs.family}")
        return self.costs.image_tower(kept_fraction)

    def smaller(self, image_fraction: float) -> "Architecture":
        """Return the same ViT on images of a share of its side, rounded up to whole patches."""
        if image_fraction == 1:
            return self
        vision = model_config.complete(self.config).vision
        patches = math.ceil(self.costs.image_size // vision["patch_size"] * image_fraction)
        size = {"image_size": patches * vision["patch_size"]}
        return replace(self, config={**self.config, "vision_cfg": {**self.config["vision_cfg"], **size}})


@cache
def catalogue() -> tuple[str, ...]:
    """Return the names of the architectures that come with the project, sorted."""
    return tuple(sorted(path.stem for path in _CATALOGUE.glob("*.json")))


@cache
def open_clip_configs() -> Mapping[str, Path]:
    """Return open_clip's own model configs, by name; they are found without importing open_clip."""
    found = find_spec("open_clip")
    places = () if found is None else (found.submodule_search_locations or ())
    return {path.stem: path for place in places for path in Path(place).glob("model_configs/*.json")}


@cache
def load_architecture(name: str, folder: Path | None = None) -> Architecture:
    """Load the architecture of a given name.

    Args:
        name: Name of a JSON file, without the suffix.
        folder: Folder of a user's own JSON files, searched before the catalogue and open_clip's own configs.

    Returns:
        The same object for the same name and folder.

    Raises:
        ValueError: No file has that name, or its config is not valid; the message names file and setting.
    """
    paths = {**open_clip_configs(), **{each: _CATALOGUE / f"{each}.json" for each in catalogue()}}
    if folder is not None:
        if not folder.is_dir():
            raise ValueError(f"no folder of architectures at '{folder}'")
        paths |= {path.stem: path for path in folder.glob("*.json")}
    if name not in paths:
        raise ValueError(unknown("architecture", name, paths))
    path = paths[name]
    try:
        return Architecture(name=name, config=json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:  # also json's own error, which names the line
        raise ValueError(f"{path}: {error}") from error
