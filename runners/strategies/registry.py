"""Registry of training strategies: from a strategy's costs to the code that trains it."""

from budgets.cost.architecture import Architecture
from budgets.cost.flops import slip_head_dims, text_tokens
from budgets.cost.strategy import Strategy
from budgets.declaration.recipe import Recipe
from runners.strategies.clip import Clip
from runners.strategies.clip_augmented import AUGMENTATIONS, ClipAugmented
from runners.strategies.clipa import Clipa
from runners.strategies.siglip import SigLip
from runners.strategies.slip import Slip


def build_strategy(strategy: Strategy, architecture: Architecture, recipe: Recipe | None = None) -> Clip:
    """Build the training side of a strategy; its masking and its bias are part of the model."""
    recipe = recipe or Recipe()
    if strategy.self_supervised_head:
        return Slip(slip_head_dims(architecture), original_views=recipe.slip_views == "original")
    if strategy.sigmoid_loss:
        return SigLip()
    if strategy.text_fraction < 1:
        side = architecture.smaller(strategy.image_fraction).costs.image_size
        return Clipa(text_tokens(architecture, strategy), None if strategy.image_fraction == 1 else side)
    if strategy.name in AUGMENTATIONS:
        augment = AUGMENTATIONS[strategy.name]
        return ClipAugmented(augment, recipe.randaugment if strategy.randaugment else 0.0)
    return Clip()
