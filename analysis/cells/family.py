"""The family of an architecture: the models that share one axis of sizes."""

import re
from functools import cache

from budgets.cost.architecture import load_architecture

_FAMILIES = {
    "vit": "ViT", "resnet": "ResNet", "convnext": "ConvNeXt", "swin": "Swin", "mixer": "Mixer",
}  # fmt: skip


@cache
def family(architecture: str) -> str:
    """Return the family in the catalogue, or the leading letters of a name that is not in it.

    Names without leading letters, such as a number of parameters, are sizes of one family, ``model``.
    """
    try:
        return _FAMILIES[load_architecture(architecture).family]
    except ValueError:
        match = re.match(r"[A-Za-z]+", architecture)
        return match[0] if match else "model"
