"""How trials are optimised: what they all share, and the settings of the paper as a preset."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

PRECISIONS = ("auto", "bf16", "fp16", "fp32")
OPTIMIZERS = ("adamw", "adafactor")
SCHEDULES = ("cosine", "constant-with-cooldown", "constant")


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """The optimisation that all trials share.

    Attributes:
        weight_decay: Decay of matrices at the peak learning rate: AdamW's is multiplied by the learning
            rate, Adafactor's by the learning rate over its peak.
        beta1: Decay of the first moment.
        beta2: Decay of the second moment; Adafactor's highest.
        eps: AdamW's epsilon.
        warmup: Share of the steps in which the learning rate rises linearly to its peak.
        gradient_clip: Greatest norm of the gradient; None leaves it as it is.
        precision: ``bf16`` autocast, ``fp16`` autocast with a loss scale, ``fp32``, or ``auto``: bf16 where
            the device computes in it.
        optimizer: ``adamw``, or ``adafactor`` as in Zhai et al. 2022 (arXiv 2106.04560): second moments
            factored, first moments in bf16, no relative steps.
        schedule: The learning rate after the warm-up: ``cosine`` to zero, ``constant``, or
            ``constant-with-cooldown``, which ends in a linear fall to zero.
        cooldown: Share of the steps that the fall takes.
        warmup_samples: The warm-up in samples seen, whole batches; takes the place of ``warmup``.
        accumulation: Parts that a batch is computed in. The loss is that of the whole batch: features of
            all parts first, then each part once more for its gradients (Gao et al. 2021, arXiv 2101.06983).
            Batch norm alone sees parts. The second forward pass is recomputation, which is not counted.
        ema: Decay of the moving average of the weights that is evaluated; 0 evaluates the weights.
        unmasked_tail: Share of the steps, the last ones, in which strategies that mask see all tokens.
        gradient_checkpointing: Whether activations are recomputed in the backward pass, which is not
            counted; open_clip has it for all towers but its ModifiedResNet.
        compile: Whether the towers are compiled by torch.
        diverged_after: Share of the steps after which a trial whose loss stays no better than chance ends
            as diverged (`runners.training.divergence`); None ends it at a loss that is no number alone.
    """

    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-6
    warmup: float = 0.1
    gradient_clip: float | None = 1.0
    precision: str = "auto"
    optimizer: str = "adamw"
    schedule: str = "cosine"
    cooldown: float = 0.2
    warmup_samples: int | None = None
    accumulation: int = 1
    ema: float = 0.0
    unmasked_tail: float = 0.0
    gradient_checkpointing: bool = False
    compile: bool = False
    diverged_after: float | None = 0.5

    def warmup_steps(self, steps: int, batch_size: int) -> int:
        """Steps of a run in which the learning rate rises."""
        if self.warmup_samples is None:
            return round(self.warmup * steps)
        return -(-self.warmup_samples // batch_size)

    def cooldown_steps(self, steps: int) -> int:
        """Steps of a run, its last ones, in which the learning rate falls to zero linearly."""
        return round(self.cooldown * steps) if self.schedule == "constant-with-cooldown" else 0

    def tail_steps(self, steps: int) -> int:
        """Steps of a run, its last ones, that see all tokens; a step more has none or one more of them."""
        return int(self.unmasked_tail * steps + 0.5)


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """Settings that a declaration takes over by a name; what it declares itself goes before them.

    Attributes:
        recipe: What all trials share.
        batch_size: Pairs in a batch of plain CLIP.
        lr_peak: Peak learning rate of every architecture, or None where each must be declared.
    """

    recipe: Recipe
    batch_size: int
    lr_peak: float | None


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "default": Preset(recipe=Recipe(), batch_size=64, lr_peak=None),
        # Li, Xie and Cubuk 2024, section 3: Adafactor, beta 0.9 and 0.999, weight decay 1e-4, peak 1e-3,
        # cosine, batch 16k. It does not say warm-up, clipping and precision: these are the default's.
        "paper": Preset(
            recipe=Recipe(optimizer="adafactor", beta2=0.999, weight_decay=1e-4),
            batch_size=16_384,
            lr_peak=1e-3,
        ),
    }
)
