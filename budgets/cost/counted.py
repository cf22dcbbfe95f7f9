"""Costs of models without a closed form, as torch counted them on the meta device.

Counts of the catalogue's models are shipped: `SHIPPED`, written by ``python -m docs.build.counts``.
`runners.models.count_by_torch` counts any other model once and writes a file into this machine's cache; its
name is a hash of the config and of the versions of open_clip and timm, which build the model. Planning reads
these files and needs no torch.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from math import prod
from pathlib import Path
from typing import Any

from budgets.cost.layers import ImageTower, TowerCost
from budgets.machine_cache import machine_cache

_BUILDERS = ("open_clip_torch", "timm")
_VERSION = 3  # of the counting and of the file
_CATALOGUE = Path(__file__).parent / "catalogue"

SHIPPED = Path(__file__).parent / "counts.json"
"""Counts of the catalogue's models without a closed form, by name."""


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
        text_macs: Tokens → MACs of a text, at three lengths; the whole context alone if texts cannot be
            shortened.
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
            counted = ", ".join(f"{share:g}" for share in self.trunk_macs)
            raise ValueError(f"kept_fraction {kept_fraction:g}: this model is counted only at {counted}")
        return ImageTower(
            trunk=TowerCost(self.trunk_macs[kept_fraction], self.trunk_parameters),
            projection=TowerCost(self.projection_macs, self.projection_parameters),
            width=self.image_width,
        )

    def text_tower(self, tokens: int) -> TowerCost:
        """Cost of one text; ValueError if it is shorter than the context and texts cannot be shortened.

        A transformer's cost is a polynomial of degree two in its tokens: three lengths give all others.
        """
        if tokens not in self.text_macs and not self.shortens_texts:
            raise ValueError(f"texts of {tokens} tokens: this model is counted only at {self.context_length}")
        macs = sum(
            counted
            * prod(Fraction(tokens - other, length - other) for other in self.text_macs if other != length)
            for length, counted in self.text_macs.items()
        )
        return TowerCost(int(macs), self.text_parameters)


def builder_versions() -> str:
    """Return the packages that build models, with their installed versions."""
    return ", ".join(f"{name} {_installed(name)}" for name in _BUILDERS)


def count_file(config: Mapping[str, Any]) -> Path:
    """Return the file of this machine's cache that holds the count of a config."""
    content = _canonical([_VERSION, builder_versions(), config])
    name = hashlib.sha256(content.encode()).hexdigest()[:16]
    return machine_cache() / "counts" / f"{name}.json"


def shipped_count(config: Mapping[str, Any]) -> Count | None:
    """Return the count that the project ships; None if this is no config of the catalogue."""
    return _shipped().get(_canonical(config))


def read_count(config: Mapping[str, Any]) -> Count | None:
    """Read the count of a config; None if none is shipped and it was not counted on this machine."""
    if count := shipped_count(config):
        return count
    try:
        return _read(json.loads(count_file(config).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None  # a model with a damaged file is counted again


@cache
def _shipped() -> Mapping[str, Count]:
    """Return the shipped counts by their configs: a user's copy of one has its count under any name."""
    counts = json.loads(SHIPPED.read_text(encoding="utf-8"))
    configs = {name: (_CATALOGUE / f"{name}.json").read_text(encoding="utf-8") for name in counts}
    return {_canonical(json.loads(configs[name])): _read(content) for name, content in counts.items()}


def _canonical(content: object) -> str:
    return json.dumps(content, sort_keys=True, default=list)


def _read(content: Mapping[str, Any]) -> Count:
    # JSON has text keys only.
    trunk = {float(fraction): macs for fraction, macs in content["trunk_macs"].items()}
    texts = {int(tokens): macs for tokens, macs in content["text_macs"].items()}
    return Count(**{**content, "trunk_macs": trunk, "text_macs": texts})


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "?"
