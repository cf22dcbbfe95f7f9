"""Architectures, in open_clip's own model-config form: from the catalogue or from a user's JSON files."""

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
        name: As in a declaration.
        config: As in the JSON, what ``open_clip.CLIP`` takes: ``embed_dim``, ``vision_cfg`` and ``text_cfg``.
            One key is ours, ``vision_cfg.timm_model_kwargs``: the model builder takes it out. Not to be
            changed.

    Raises:
        ValueError: The config has a setting that is unknown, of the wrong kind or not counted in closed form.
    """

    name: str
    config: Mapping[str, Any] = field(hash=False)
    _full: ModelConfig = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check and completes the config."""
        object.__setattr__(self, "_full", model_config.complete(self.config))

    @property
    def family(self) -> str:
        """Kind of image tower: ``vit``, ``resnet``, ``convnext``, ``swin`` or ``mixer``."""
        return self._full.family

    @property
    def is_vit(self) -> bool:
        """Whether image patches can be left out."""
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
        """Number of different tokens."""
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
            ValueError: Patches would be left out by a tower that needs all of them.
        """
        if self.is_vit:
            return vit.image_tower(self._full.vision, self.embed_dim, kept_fraction)
        if kept_fraction != 1:
            raise ValueError(f"patch dropout needs a ViT; {self.name} is a {self.family}")
        return _WHOLE_IMAGE_TOWERS[self.family](self._full.vision, self.embed_dim)

    def text_tower(self, tokens: int) -> TowerCost:
        """Cost of one text of so many tokens through its tower and projection."""
        return text.text_tower(self._full.text, self.embed_dim, tokens)


@cache
def catalogue() -> tuple[str, ...]:
    """Names of the architectures that come with the project, sorted."""
    return tuple(sorted(path.stem for path in _CATALOGUE.glob("*.json")))


@cache
def load_architecture(name: str, folder: Path | None = None) -> Architecture:
    """The architecture of that name.

    Args:
        name: Name of a JSON file, without its ending.
        folder: A user's own JSON files, looked in before the catalogue.

    Returns:
        The same object for the same name and folder.

    Raises:
        ValueError: There is no such file, or no valid config in it; the message names file and setting.
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
    except ValueError as error:  # of json as well: it names the line
        raise ValueError(f"{path}: {error}") from error
