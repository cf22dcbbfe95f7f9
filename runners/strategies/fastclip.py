"""FastCLIP-v3: a contrastive loss over all pairs, by moving estimates for each (arXiv 2407.01445).

For image i of a batch of B pairs, with cosines s and the temperature τ,

    g(i) = 1 / (B - 1) · Σ_{j ≠ i} exp((s_ij - s_ii) / τ),    u(i) ← (1 - γ) u(i) + γ g(i)

and likewise for its text. The loss is that of the paper's RGCL-g with global temperature, halved as CLIP's:

    F = mean of τ/2 · (log(ε + u_image) + log(ε + u_text)) + RHO · τ,

whose gradient by the weights is that of τ/2 · (g_image / (ε + u_image) + g_text / (ε + u_text)) at fixed τ
and u. By the temperature, F's own gradient is added to this one, which the authors' code counts twice: its
loss holds each g as that of the anchor and as that of the others. Their RHO was found with that code
(github.com/Optimization-AI/fast_clip, src/fast_clip/loss.py). Logarithms of u are kept: at a low τ, g exceeds
any float.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from budgets.cost.architecture import Architecture
from budgets.cost.strategy import Model, PairValues, Tensor
from budgets.declaration.recipe import Recipe
from runners.strategies.clip import Clip

_LOW_TEMPERATURE, _SLOWER = 0.03, 1 / 3  # section 5: of the temperature's learning rate


@dataclass(frozen=True, kw_only=True)
class FastClip(Clip):
    """CLIP's views and features with FastCLIP's loss; as its value it gives CLIP's loss of the batch.

    Attributes:
        gamma: The last γ, the share of an estimate that a step renews.
        gamma_decay: Share of the epochs in which γ falls from 1 to the last one, as a half cosine by epoch.
        rho: Weight of the temperature in the loss.
        epsilon: Smallest estimate, ε.
        temperature_factor: Learning rate of the temperature's logarithm, constant, over the peak rate.
        g_counts: How often g counts in the temperature's gradient: 2 as in the authors' code, for which
            ``rho`` was found, or 1 as F has it, with a ``rho`` of its own.
    """

    gamma: float = 0.2
    gamma_decay: float = 0.5
    rho: float = 6.5
    epsilon: float = 1e-14
    temperature_factor: float = 0.2
    g_counts: float = 2.0

    def recipe(self, declared: Recipe, architecture: Architecture) -> Recipe:
        """Return the recipe of its trials; ValueError for one whose trials of several lengths share steps."""
        if declared.schedule == "trunk":
            raise ValueError(
                f"{self.name} cannot train with schedule: trunk, because γ depends on the training's "
                "length; declare schedule: constant-with-cooldown"
            )
        return super().recipe(declared, architecture)

    def pair_state(self) -> Mapping[str, float]:
        """Return the logarithms of estimates of 0, of a pair that was not seen yet."""
        return {"image": -math.inf, "text": -math.inf}

    def temperature_rate(self, peak: float, logit_scale: Tensor) -> Tensor:
        """Return the constant rate, or a third of it at a low temperature."""
        import torch

        rate = self.temperature_factor * peak
        return torch.where(logit_scale > -math.log(_LOW_TEMPERATURE), _SLOWER * rate, rate)

    def inner_rate(self, progress: float, epochs: float) -> float:
        """Return γ, the same for a whole epoch: 1 in the first."""
        done = min(1.0, math.floor(progress * epochs + 1e-9) / max(self.gamma_decay * epochs, 1e-9))
        return self.gamma + (1 - self.gamma) * (1 + math.cos(math.pi * done)) / 2

    def loss_by_pair(self, model: Model, values: PairValues, *features: Tensor) -> Tensor:
        """Return CLIP's loss with the gradient of F, and set the new estimates."""
        import torch
        from torch.nn.functional import softplus

        from runners.training.over_pairs import over_pairs

        image, text = features
        temperature, others = (-model.logit_scale).exp(), math.log(len(image) - 1)
        of_g = temperature.detach() + self.g_counts * (temperature - temperature.detach())
        gamma = self.inner_rate(values.progress, values.epochs)
        log_decay = math.log1p(-gamma) if gamma < 1 else -math.inf
        least = torch.tensor(math.log(self.epsilon), device=image.device)

        def share(rows: Tensor) -> Tensor:
            total = torch.zeros((), device=image.device)
            positive = (image[rows] * text[rows]).sum(1, keepdim=True)
            for name, anchors, all_others in (("image", image, text), ("text", text, image)):
                margins = (anchors[rows] @ all_others.T - positive) / of_g
                log_g = margins.scatter(1, rows[:, None], -math.inf).logsumexp(1) - others
                new, before = log_g.detach(), values.before[name][rows]
                moved = torch.logaddexp(log_decay + before, math.log(gamma) + new)
                estimate = torch.where(before.isneginf(), new, moved)
                values.after[name][rows] = estimate
                divisor = torch.logaddexp(estimate, least)
                gradient = temperature.detach() * (log_g - divisor).exp() + temperature * divisor
                total = total + (gradient - gradient.detach() + softplus(new + others)).sum()
            return total

        bound = self.rho * temperature
        loss: Tensor = over_pairs(image, share) / (2 * len(image)) + bound - bound.detach()
        return loss


STRATEGIES = (FastClip(name="fastclip", label="FastCLIP", paper="Wei et al. 2024", bytes_per_entry=32),)
