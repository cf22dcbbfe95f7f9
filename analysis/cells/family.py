"""The family of an architecture: the models that share one axis of sizes."""

import re
from functools import cache

from budgets.cost.architecture import load_architecture

_FAMILIES = {
    "vit": "ViT", "resnet": "ResNet", "convnext": "ConvNeXt", "swin": "Swin", "mixer": "Mixer",
}  # fmt: skip


@cache
def family(architecture: str) -> str:
    """Return the family of a model whose costs are in closed form, or the leading letters of another's name.

    Names without leading letters, such as a number of parameters, are sizes of one family, ``model``.
    """
    try:
        found = load_architecture(architecture)
        if found.closed_form:
            return _FAMILIES[found.costs.family]
    except ValueError:
        pass
    match = re.match(r"[A-Za-z]+", architecture)
    return match[0] if match else "model"
