"""Architectures in open_clip's model-config form, from the catalogue or from a user's JSON files."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from budgets.cost import model_config
from budgets.cost.model_config import ModelConfig
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """An image tower and a text tower.

    Attributes:
        name: Name in a declaration.
        config: The JSON content, which is what ``open_clip.CLIP`` takes: ``embed_dim``, ``vision_cfg`` and
            ``text_cfg``. One key is this project's own, ``vision_cfg.timm_model_kwargs``; the model builder
            removes it. Must not be modified.

    Raises:
        ValueError: A setting is unknown, has the wrong type, or its cost has no closed form.
    """

    name: str
    config: Mapping[str, Any] = field(hash=False)
    _full: ModelConfig = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check and complete the config."""
        object.__setattr__(self, "_full", model_config.complete(self.config))

    @property
    def family(self) -> str:
        """Kind of image tower: ``vit``, ``resnet``, ``convnext``, ``swin`` or ``mixer``."""
        return self._full.family

    @property
    def is_vit(self) -> bool:
        """True if image patches can be dropped."""
        return self.family == "vit"

    @property
    def image_size(self) -> int:
        """Side of the square input image, in pixels."""
        return int(self._full.vision["image_size"])

    @property
    def context_length(self) -> int:
        """Length of a text, in tokens."""
        return int(self._full.text["context_length"])

    @property
    def vocab_size(self) -> int:
        """Number of distinct tokens."""
        return int(self._full.text["vocab_size"])

    @property
    def embed_dim(self) -> int:
        """Width of the shared embedding."""
        return self._full.embed_dim

    def image_tower(self, kept_fraction: float) -> ImageTower:
        """Cost of one image through its tower.

        Args:
            kept_fraction: Share of the patches that are kept, in (0, 1].

        Raises:
            ValueError: Patches would be dropped, but the tower is not a ViT.
        """
        if self.is_vit:
            return vit.image_tower(self._full.vision, self.embed_dim, kept_fraction)
        if kept_fraction != 1:
            raise ValueError(f"patch dropout needs a ViT; {self.name} is a {self.family}")
        return _WHOLE_IMAGE_TOWERS[self.family](self._full.vision, self.embed_dim)

    def text_tower(self, tokens: int) -> TowerCost:
        """Cost of one text of ``tokens`` tokens through its tower and projection."""
        return text.text_tower(self._full.text, self.embed_dim, tokens)


@cache
def catalogue() -> tuple[str, ...]:
    """Names of the architectures that come with the project, sorted."""
    return tuple(sorted(path.stem for path in _CATALOGUE.glob("*.json")))


@cache
def load_architecture(name: str, folder: Path | None = None) -> Architecture:
    """Load the architecture of a given name.

    Args:
        name: Name of a JSON file, without its ending.
        folder: Folder of a user's own JSON files, searched before the catalogue.

    Returns:
        The same object for the same name and folder.

    Raises:
        ValueError: No file has that name, or its config is not valid; the message names file and setting.
    """
    names = set(catalogue())
    if folder is not None:
        if not folder.is_dir():
            raise ValueError(f"no folder of architectures at '{folder}'")
        names |= {path.stem for path in folder.glob("*.json")}
    if name not in names:
        raise ValueError(unknown("architecture", name, names))
    path = _CATALOGUE / f"{name}.json"
    if folder is not None and (folder / f"{name}.json").is_file():
        path = folder / f"{name}.json"
    try:
        return Architecture(name=name, config=json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:  # also json's own error, which names the line
        raise ValueError(f"{path}: {error}") from error
