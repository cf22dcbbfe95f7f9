"""The family of an architecture: what one axis of model sizes holds."""

import re
from functools import cache

from budgets.cost.architecture import load_architecture

_FAMILIES = {
    "vit": "ViT", "resnet": "ResNet", "convnext": "ConvNeXt", "swin": "Swin", "mixer": "Mixer",
}  # fmt: skip


@cache
def family(architecture: str) -> str:
    """What one size axis holds: the catalogue's family, or the letters that an unknown name begins with.

    Names that begin with no letter, such as a number of parameters, are sizes of one family.
    """
    try:
        return _FAMILIES[load_architecture(architecture).family]
    except ValueError:
        match = re.match(r"[A-Za-z]+", architecture)
        return match[0] if match else "model"
