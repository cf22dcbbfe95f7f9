"""From a strategy to the code that trains it."""

from budgets.cost.architecture import Architecture
from budgets.cost.flops import slip_head_dims, text_tokens
from budgets.cost.strategy import Strategy
from runners.strategies.clip import Clip
from runners.strategies.clip_crop_flip import ClipCropFlip
from runners.strategies.clip_randaugment import ClipRandAugment
from runners.strategies.clip_stacked_randaugment import ClipStackedRandAugment
from runners.strategies.clipa import Clipa
from runners.strategies.protocol import TrainingStrategy
from runners.strategies.siglip import SigLip
from runners.strategies.slip import Slip

_AUGMENTED: dict[str, type[Clip]] = {
    "clip-crop-flip": ClipCropFlip,
    "clip-randaugment": ClipRandAugment,
    "clip-stacked-randaugment": ClipStackedRandAugment,
}


def build_strategy(strategy: Strategy, architecture: Architecture) -> TrainingStrategy:
    """Build the training side of a strategy; its masking and its bias are the model's."""
    if strategy.self_supervised_head:
        return Slip(slip_head_dims(architecture))
    if strategy.sigmoid_loss:
        return SigLip()
    if strategy.text_fraction < 1:
        return Clipa(text_tokens(architecture, strategy))
    return _AUGMENTED.get(strategy.name, Clip)()
