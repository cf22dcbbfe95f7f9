"""Architectures in open_clip's model-config form, from the catalogue or from a user's JSON files."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from budgets.cost import model_config
from budgets.cost.counted import Count, read_count
from budgets.cost.layers import ImageTower, TowerCost
from budgets.cost.model_config import ModelConfig, NoClosedForm
from budgets.cost.open_clip_towers import resnet_tower, text_tower, vit_tower
from budgets.names import unknown

_CATALOGUE = Path(__file__).parent / "catalogue"
_FAMILIES = {
    "vit": "ViT", "resnet": "ResNet", "convnext": "ConvNeXt", "swin": "Swin", "mixer": "Mixer",
}  # fmt: skip
_TIMM_FAMILIES = ("convnext", "swin", "mixer")  # models of one kind differ in size alone


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
            return vit_tower(vision, embed_dim, kept_fraction)
        return resnet_tower(vision, embed_dim)

    def text_tower(self, tokens: int) -> TowerCost:
        """Cost of one text of ``tokens`` tokens through its tower and projection."""
        return text_tower(self._config.text, self._config.embed_dim, tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """An image tower and a text tower.

    Attributes:
        config: The JSON content, which is what ``open_clip.CLIP`` takes: ``embed_dim``, ``vision_cfg`` and
            ``text_cfg``. One key is this project's own, ``vision_cfg.timm_model_kwargs``; the model builder
            removes it. Must not be modified.
        own: True for a user's own file.
        why_counted: The setting that has no closed form; empty if all have one.

    Raises:
        ValueError: A setting is unknown or has the wrong type. Costs and sizes raise `Uncounted` if the model
            has no closed form and was not counted yet.
    """

    name: str
    config: Mapping[str, Any] = field(hash=False)
    own: bool = field(default=False, repr=False, compare=False)
    why_counted: str = field(init=False, repr=False, compare=False)
    _costs: ClosedForm | Count | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check and complete the config."""
        costs, why = None, ""
        try:
            costs = ClosedForm(model_config.complete_config(self.config))
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
    def family(self) -> str:
        """The family: the models that share one axis of sizes.

        It is the kind of image tower, by the config. Other models of open_clip without a closed form are
        known by their names instead: all of MobileCLIP is one family, whatever its towers are.
        """
        vision = self.config["vision_cfg"]
        kind = "resnet" if isinstance(vision.get("layers"), list | tuple) else "vit"
        if vision.get("timm_model_name"):  # may have its source before it, such as hf-hub:timm/
            kind = _leading_letters(vision["timm_model_name"].rpartition("/")[2])
        if self.closed_form or self.own or kind in _TIMM_FAMILIES:
            return _FAMILIES.get(kind, kind)
        return _leading_letters(self.name)

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
        vision = model_config.complete_config(self.config).vision
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
    package = find_spec("open_clip")
    places = () if package is None else (package.submodule_search_locations or ())
    return {path.stem: path for place in places for path in Path(place).glob("model_configs/*.json")}


@cache
def load_architecture(name: str, folder: str | Path | None = None) -> Architecture:
    """Load the architecture of a given name, which is that of a JSON file without the suffix.

    A user's own ``folder`` is searched before the catalogue and open_clip's own configs. The same name and
    folder give the same object.

    Raises:
        ValueError: No file has that name, or its config is not valid; the message names file and setting.
    """
    paths = {**open_clip_configs(), **{shipped: _CATALOGUE / f"{shipped}.json" for shipped in catalogue()}}
    mine = None if folder is None else Path(folder)
    if mine is not None:
        if not mine.is_dir():
            raise ValueError(f"no folder of architectures at '{folder}'")
        paths |= {path.stem: path for path in mine.glob("*.json")}
    if name not in paths:
        raise ValueError(unknown("architecture", name, paths))
    path = paths[name]
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        return Architecture(name=name, config=config, own=path.parent == mine)
    except ValueError as error:  # also json's own error, which names the line
        raise ValueError(f"{path}: {error}") from error


def own_architectures(folder: str | Path | None) -> dict[str, Architecture]:
    """Return the architectures of a user's own folder, by name; none without a folder."""
    if folder is None:
        return {}
    return {path.stem: load_architecture(path.stem, folder) for path in sorted(Path(folder).glob("*.json"))}


def family_of(name: str, architectures: Mapping[str, Architecture]) -> str:
    """Return the family of a study's architecture, given the study's ``architectures``.

    Of a name without a config, as in an imported table, it is the leading letters. Names without leading
    letters, such as a number of parameters, are sizes of one family, ``model``.
    """
    return architectures[name].family if name in architectures else _family_of_known(name)


@cache
def _family_of_known(name: str) -> str:
    try:
        return load_architecture(name).family
    except ValueError:
        return _leading_letters(name)


def _leading_letters(name: str) -> str:
    match = re.match(r"[A-Za-z]+", name)
    return match[0] if match else "model"
