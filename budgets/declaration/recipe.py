"""Optimisation settings that all trials share, and the paper's settings as a preset."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Literal

from budgets.declaration import values
from budgets.declaration.keys import NO_KEY, Clashes, Given

LrRule = Literal["none", "linear", "sqrt"]
LR_EXPONENTS: Mapping[LrRule, float] = MappingProxyType({"none": 0.0, "linear": 1.0, "sqrt": 0.5})
"""Rule → exponent of the batch in the peak learning rate."""

PLAIN_PASSES = 3
"""Time of a step without recomputation, in forward passes: its own and the backward pass of two."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """The optimisation that all trials share."""

    weight_decay: Annotated[float, values.decay] = 0.1
    """Decay of matrices at the peak learning rate: AdamW's is multiplied by the learning rate, Adafactor's by
    the learning rate over its peak."""
    beta1: Annotated[float, values.share_below_one] = 0.9
    """Decay of the first moment."""
    beta2: Annotated[float, values.share_below_one] = 0.98
    """Decay of the second moment; Adafactor's highest."""
    eps: Annotated[float, values.epsilon] = 1e-6
    """AdamW's epsilon."""
    warmup: Annotated[float, values.warmup] = 0.1
    """Share of the steps, or number of samples, in which the learning rate rises linearly to its peak;
    samples are rounded up to whole batches."""
    warmup_samples: Annotated[int | None, NO_KEY] = None
    """The warm-up in samples seen, if it was declared in samples; replaces ``warmup``."""
    gradient_clip: Annotated[float | None, values.norm_or_off] = 1.0
    """Largest norm of the gradient; ``off`` (None) does not clip."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """``bf16`` autocast, ``fp16`` autocast with a loss scale, ``fp32``, or ``auto``: bf16 where the hardware
    has it, else fp16 on a GPU (V100, T4) and fp32 on a CPU."""
    optimizer: Literal["adamw", "adafactor"] = "adamw"
    """``adamw``, or ``adafactor`` as in Zhai et al. 2022 (arXiv 2106.04560): second moments factored, first
    moments in bf16, no relative steps."""
    schedule: Literal["cosine", "constant-with-cooldown", "constant", "trunk"] = "cosine"
    """The learning rate after the warm-up: ``cosine`` to zero, ``constant``, ``constant-with-cooldown``,
    which ends in a linear fall to zero, or ``trunk``: the same, where all levels of a curve and seed share
    their steps before the cooldown, so that each level costs only what it adds."""
    cooldown: Annotated[float, values.positive_share] = 0.2
    """Share of the steps, at the end, in which the learning rate falls to zero."""
    cooled: Annotated[bool, NO_KEY] = True
    """False for a trial of a trunk: it ends at its milestone, before cooldown and unmasked tail."""
    accumulation: Annotated[int, values.batch] = 1
    """Parts in which a batch is computed. The loss is that of the whole batch: features of all parts first,
    then each part once more for its gradients (Gao et al. 2021, arXiv 2101.06983). Only batch norm sees
    parts. The second forward pass is recomputation, which is not counted."""
    ema: Annotated[float, values.decay_or_off] = 0.0
    """Decay of the moving average of the weights that is evaluated; ``off`` (0) evaluates the weights. The
    plan warns of trials so short that more than 5 % of the average are the initial weights."""
    unmasked_tail: Annotated[float | None, values.tail_or_strategys] = 0.0
    """Share of the steps, at the end, in which masking strategies see all tokens; ``strategy`` (None) takes
    each strategy's own share from its paper (`budgets.cost.strategy`). Strategies that train on smaller
    images use their own share even if this is 0."""
    embedding_decay: bool = True
    """Decay positions and token embeddings too, as open_clip and SLIP do; big_vision decays only kernels."""
    randaugment: Annotated[float, values.positive_share] = 1.0
    """Probability with which each of RandAugment's two operations is applied: 1 in big_vision, 0.5 in
    timm."""
    slip_views: Literal["small", "original"] = "small"
    """SLIP's views of an image: ``small`` for images of few pixels, or ``original`` as in SLIP's code, which
    also crops the image that CLIP sees. Images below 64 pixels always have the small ones."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass, which is not counted; open_clip can do so for all towers
    but its ModifiedResNet."""
    compile: bool = False
    """Compile the towers with torch."""
    resized_images: Annotated[int | None, values.side_or_off] = None
    """Pixels of the shorter side to which larger images are resized, once, in a copy that all trials read
    ([copies](data.md#copies-of-subsets)); ``off`` (None) reads them as they are."""
    diverged_after: Annotated[float | None, values.share_or_off] = 0.5
    """Share of the steps that must be flat, at chance and after the warm-up, for a trial to end as diverged
    (`runners.training.train`); ``off`` (None) ends it only at a loss that is not a number."""

    def clashes(self, given: Given) -> Clashes:
        """Yield each key that contradicts another, with the error."""
        if given("cooldown") and not self.cools_down:
            allowed = "schedule: constant-with-cooldown or trunk"
            yield "cooldown", f"cooldown needs {allowed}, found {self.schedule}"
        # While a declaration is loaded, ``warmup`` itself holds samples, as a whole number.
        if self.schedule == "trunk" and self.warmup_samples is None and not isinstance(self.warmup, int):
            yield "warmup", "warmup must be in samples with schedule: trunk, such as warmup: 10k samples"
        if given("eps") and self.optimizer != "adamw":
            yield "eps", f"eps is AdamW's, the optimizer is {self.optimizer}"

    @property
    def passes(self) -> int:
        """Time of a step in forward passes; accumulation and gradient checkpointing recompute one each."""
        return PLAIN_PASSES + (self.accumulation > 1) + self.gradient_checkpointing

    @property
    def slowdown(self) -> float:
        """Time of a step over that of one without recomputation."""
        return self.passes / PLAIN_PASSES

    def warmup_steps(self, steps: int, batch_size: int) -> int:
        """Number of steps of a run in which the learning rate rises."""
        if self.warmup_samples is None:
            return round(self.warmup * steps)
        return -(-self.warmup_samples // batch_size)

    @property
    def cools_down(self) -> bool:
        """True if the learning rate is constant and then falls to zero linearly."""
        return self.cooled and self.schedule in {"constant-with-cooldown", "trunk"}

    def cooldown_steps(self, steps: int) -> int:
        """Number of last steps of a run in which the learning rate falls linearly to zero."""
        return round(self.cooldown * steps) if self.cools_down else 0

    def learning_rate(self, step: int, *, steps: int, batch_size: int, peak: float) -> float:
        """Learning rate of a step, counted from 0: a linear rise to the peak, then the schedule."""
        # Step `rise - 1` reaches the peak; the first step is already above zero.
        rise = self.warmup_steps(steps, batch_size)
        if step < rise:
            return peak * (step + 1) / rise
        if self.schedule == "cosine":
            return peak * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))
        fall = self.cooldown_steps(steps)
        return peak * min(1.0, (steps - step) / fall) if fall else peak

    def tail_steps(self, steps: int) -> int:
        """Number of last steps of a run that see all tokens; one more step of the run adds at most one."""
        assert self.unmasked_tail is not None, "the planner takes the strategy's"
        return int(self.unmasked_tail * steps + 0.5) if self.cooled else 0

    def trunk_steps(self, steps: int) -> int:
        """Number of first steps of a run that longer runs share; 0 without trunks.

        The rest is the run's branch: its cooldown, and its unmasked tail if that is longer.
        """
        if self.schedule != "trunk":
            return 0
        return steps - max(self.cooldown_steps(steps), self.tail_steps(steps))

    def averaged_from(self, steps: int) -> int:
        """First step, counted from 0, whose weights the evaluated average takes in.

        The mean of a trial of a trunk stands in for a cooldown: it takes in as large a share of the steps.
        """
        return 0 if self.ema else steps - max(1, round(self.cooldown * steps))


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """Settings under a name; keys that a declaration gives override them.

    Attributes:
        recipe: Settings that all trials share.
        batch_size: Pairs in a batch of plain CLIP.
        lr_peak: Peak learning rate of every architecture; None if each must be declared.
        lr_rule: Growth of the peak learning rate with the batch.
    """

    recipe: Recipe
    batch_size: int
    lr_peak: float | None
    lr_rule: LrRule = "none"


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "default": Preset(recipe=Recipe(), batch_size=64, lr_peak=None),
        # Li, Xie and Cubuk 2024, section 3: Adafactor, beta 0.9 and 0.999, weight decay 1e-4, peak 1e-3,
        # cosine, batch 16k. Warm-up, clipping and precision are not given, so they are the defaults. The
        # paper trained with big_vision, which decays only kernels. FLIP's rate is linear in the batch and its
        # last steps are unmasked; SLIP's views are those of its own code.
        "paper": Preset(
            recipe=Recipe(
                optimizer="adafactor",
                beta2=0.999,
                weight_decay=1e-4,
                unmasked_tail=None,
                embedding_decay=False,
                slip_views="original",
            ),
            lr_rule="linear",
            batch_size=16_384,
            lr_peak=1e-3,
        ),
    }
)
