"""Costs of towers without a closed form, as torch counted them on the meta device; kept in a cache file.

`runners.models.count_by_torch` counts a model once and writes the file; planning reads it and needs no torch.
The file's name is a hash of the config and of the versions of open_clip and timm, which build the model.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from budgets.cost.layers import ImageTower, TowerCost
from budgets.machine_cache import machine_cache

_BUILDERS = ("open_clip_torch", "timm")
_VERSION = 2  # of the counting and of the file


@dataclass(frozen=True, kw_only=True, slots=True)
class Count:
    """Costs of a model, counted by torch: multiply-accumulates (MACs), parameters and sizes.

    Attributes:
        family: Kind of image tower: ``vit``, ``resnet``, or the module of timm that defines it.
        image_size: Side of the square input image, in pixels.
        context_length: Length of a text, in tokens.
        image_width: Features that the image tower outputs before its projection.
        text_width: Width of the text tower's token embedding.
        trunk_macs: Kept share of the patches → MACs of an image before its projection; 1 alone if patches
            cannot be dropped.
        text_macs: Tokens → MACs of a text; the whole context alone if texts cannot be shortened.
        text_parameters: Parameters of the text tower with its projection.
        batch_norm: True if a tower has batch norm, whose statistics depend on how a batch is split.
        counted_by: The packages whose model was counted, with their versions.
    """

    family: str
    image_size: int
    context_length: int
    vocab_size: int
    image_width: int
    text_width: int
    trunk_macs: Mapping[float, int]
    trunk_parameters: int
    projection_macs: int
    projection_parameters: int
    text_macs: Mapping[int, int]
    text_parameters: int
    batch_norm: bool
    counted_by: str

    @property
    def drops_patches(self) -> bool:
        """True if image patches can be dropped."""
        return len(self.trunk_macs) > 1

    @property
    def shortens_texts(self) -> bool:
        """True if training can read fewer tokens than the context has."""
        return len(self.text_macs) > 1

    def image_tower(self, kept_fraction: float) -> ImageTower:
        """Cost of one image; ValueError unless ``kept_fraction`` is a key of ``trunk_macs``."""
        if kept_fraction not in self.trunk_macs:
            kept = ", ".join(f"{share:g}" for share in self.trunk_macs)
            raise ValueError(f"kept_fraction {kept_fraction:g}: this model is counted only at {kept}")
        return ImageTower(
            trunk=TowerCost(self.trunk_macs[kept_fraction], self.trunk_parameters),
            projection=TowerCost(self.projection_macs, self.projection_parameters),
            width=self.image_width,
        )

    def text_tower(self, tokens: int) -> TowerCost:
        """Cost of one text; ValueError unless ``tokens`` is a key of ``text_macs``."""
        if tokens not in self.text_macs:
            lengths = ", ".join(map(str, self.text_macs))
            raise ValueError(f"texts of {tokens} tokens: this model is counted only at {lengths}")
        return TowerCost(self.text_macs[tokens], self.text_parameters)


def builder_versions() -> str:
    """Return the packages that build models, with their installed versions."""
    return ", ".join(f"{name} {_installed(name)}" for name in _BUILDERS)


def count_file(config: Mapping[str, Any]) -> Path:
    """Return the file of this machine's cache that holds the count of a config."""
    content = json.dumps([_VERSION, builder_versions(), config], sort_keys=True, default=list)
    name = hashlib.sha256(content.encode()).hexdigest()[:16]
    return machine_cache() / "counts" / f"{name}.json"


def read_count(config: Mapping[str, Any]) -> Count | None:
    """Read the count of a config; None if it was not counted on this machine."""
    try:
        content = json.loads(count_file(config).read_text(encoding="utf-8"))
        # JSON has text keys only.
        content["trunk_macs"] = {float(kept): macs for kept, macs in content["trunk_macs"].items()}
        content["text_macs"] = {int(tokens): macs for tokens, macs in content["text_macs"].items()}
        return Count(**content)
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None  # a model with a damaged file is counted again


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "?"
