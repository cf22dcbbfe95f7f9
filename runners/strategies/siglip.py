"""SigLIP: a sigmoid loss on every image-text pair of the batch separately (arXiv 2303.15343)."""

import math

from budgets.cost.architecture import Architecture
from budgets.cost.strategy import Model, Tensor
from runners.strategies.clip import Clip


class SigLip(Clip):
    """CLIP's views and features with SigLIP's loss, whose logits have a learned bias."""

    def similarity_macs(self, architecture: Architecture, batch_size: int) -> int:
        """Multiply-accumulates of one matrix of images and texts, for a sample."""
        return batch_size * architecture.embed_dim

    def loss(self, model: Model, *features: Tensor) -> Tensor:
        """Return the sum of all answers' cross-entropies over the number of pairs (equation 1)."""
        import torch
        from torch.nn.functional import logsigmoid

        from runners.training.over_pairs import over_pairs

        image, text = features
        scale, bias = model.logit_scale.exp(), model.logit_bias

        def share(rows: Tensor) -> Tensor:
            logits = scale * image[rows] @ text.T + bias
            answers = torch.full_like(logits, -1.0).scatter_(1, rows[:, None], 1.0)
            return -logsigmoid(answers * logits).sum()

        return over_pairs(image, share) / len(image)

    def chance(self, batch_size: int) -> float:
        """Return the lowest loss of a constant answer for all image-text pairs of the batch."""
        others = batch_size - 1
        return math.log(batch_size) + (others * math.log(batch_size / others) if others else 0.0)


STRATEGIES = (
    SigLip(
        name="siglip", label="SigLIP", paper="Zhai et al. 2023", bytes_per_entry=20,
        init_logit_scale=math.log(10), init_logit_bias=-10.0,  # section 3.2
    ),
)  # fmt: skip
