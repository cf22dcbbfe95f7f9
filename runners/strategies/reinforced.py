"""CLIP that also learns a teacher's similarities, from stored embeddings (MobileCLIP, arXiv 2311.17049).

``data score --with MODEL --column teacher`` stores the embeddings of a pool's pairs. The loss is the paper's
with one teacher; images are not augmented, and there are no synthetic captions. Weight and temperature are
its authors' for MobileCLIP-B (loss weights 0.25 and 0.75, logit scale 100 in
github.com/apple/ml-mobileclip, training/configs/run_datacompdr1b.sh); for smaller models the weight is 1.
"""

from dataclasses import dataclass

from budgets.cost.architecture import Architecture
from budgets.cost.strategy import Batch, Generator, Model, Module, Tensor
from runners.strategies.clip import Clip


@dataclass(frozen=True, kw_only=True)
class Reinforced(Clip):
    """CLIP's loss and distillation; ``columns`` are the teacher's embeddings of images and of texts.

    Attributes:
        weight: Share of the distillation in the loss, the paper's λ; the rest is CLIP's loss.
        temperature: The teacher's, which divides its cosines.
    """

    weight: float = 0.75
    temperature: float = 0.01

    def similarity_macs(self, architecture: Architecture, batch_size: int) -> int:
        """Multiply-accumulates of CLIP's two matrices and the teacher's, taken to be as wide."""
        return 2 * super().similarity_macs(architecture, batch_size)

    def views(self, batch: Batch, generator: Generator) -> tuple[Tensor, ...]:
        """Return images and texts unchanged, and the teacher's embeddings."""
        return (*super().views(batch, generator), *(batch.columns[name] for name in self.columns))

    def features(self, model: Model, head: Module | None, *views: Tensor) -> tuple[Tensor, ...]:
        """Return the normalised features of images and texts, and the teacher's."""
        images, tokens, *teacher = views
        return (*super().features(model, head, images, tokens), *teacher)

    def loss(self, model: Model, *features: Tensor) -> Tensor:
        """Return the mean cross-entropy with the pairs and with the teacher's choices, in both directions.

        The cross-entropy with the teacher is the paper's divergence from it plus the entropy of its choices,
        which has no gradient: at chance it does not depend on the teacher.
        """
        from torch.nn.functional import cross_entropy

        from runners.training.over_pairs import over_pairs

        image, text, *teacher = features
        their_image, their_text = (feature.detach() for feature in teacher)
        scale = model.logit_scale.exp()

        def one_way(
            rows: Tensor, ours: Tensor, others: Tensor, theirs: Tensor, their_others: Tensor
        ) -> Tensor:
            logits = scale * ours[rows] @ others.T
            choices = (theirs[rows] @ their_others.T / self.temperature).softmax(1)
            of_pairs = cross_entropy(logits, rows, reduction="sum")
            return of_pairs.lerp(cross_entropy(logits, choices, reduction="sum"), self.weight)

        def share(rows: Tensor) -> Tensor:
            by_image = one_way(rows, image, text, their_image, their_text)
            return by_image + one_way(rows, text, image, their_text, their_image)

        return over_pairs(image, share) / (2 * len(image))


STRATEGIES = (
    Reinforced(
        name="reinforced", label="Reinforced CLIP", paper="Vasu et al. 2024", bytes_per_entry=32,
        columns=("teacher_image", "teacher_text"),
    ),
)  # fmt: skip
