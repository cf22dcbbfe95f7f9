"""From a strategy to the code that trains it."""

from budgets.architecture import Architecture
from budgets.flops import slip_head_dims
from budgets.strategy import Strategy
from runners.strategies.clip import Clip
from runners.strategies.clip_crop_flip import ClipCropFlip
from runners.strategies.protocol import TrainingStrategy
from runners.strategies.slip import Slip

TRAINABLE = ("clip", "clip-crop-flip", "flip-25", "flip-50", "slip")
"""Strategies that can be run; `budgets.strategy` plans and costs further ones."""


def require_trainable(strategy: Strategy) -> None:
    """Refuses a strategy that can be planned, but not trained.

    Raises:
        ValueError: It is one.
    """
    if strategy.name not in TRAINABLE:
        raise ValueError(
            f"strategy {strategy.name} can be planned, but not trained; trained are: {', '.join(TRAINABLE)}"
        )


def build_strategy(strategy: Strategy, architecture: Architecture) -> TrainingStrategy:
    """Builds the training side of a strategy.

    Raises:
        ValueError: As `require_trainable`.
    """
    require_trainable(strategy)
    if strategy.self_supervised_head:
        return Slip(slip_head_dims(architecture))
    return ClipCropFlip() if strategy.name == "clip-crop-flip" else Clip()
