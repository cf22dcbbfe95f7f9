"""FLIP (arXiv 2212.00794): CLIP on a share of the image patches, and a batch that is larger instead.

The model drops the patches in training (`runners.models.model.build_model`). 32 epochs are followed by 0.32
without masking.
"""

from runners.strategies.clip import Clip

STRATEGIES = tuple(
    Clip(
        name=f"flip-{percent}", label=f"FLIP ({percent} %)", paper="Li et al. 2023",
        kept_fraction=percent / 100, batch_factor=100 // percent, unmasked_tail=0.01,
    )
    for percent in (50, 25)
)  # fmt: skip
