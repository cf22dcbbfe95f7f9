"""The claims of "Scaling (Down) CLIP" (Li et al. 2024, arXiv 2404.08197) in the order of the paper.

Ids, wording and thresholds are those of ``results/paper/claims.csv``; sizes are the paper's own, so that a
claim about other sizes than a study has is not testable there.
"""

import pandas as pd

from analysis.claims.data import DATA
from analysis.claims.models import MODELS
from analysis.claims.slice import Claim, Effect
from analysis.claims.strategies import STRATEGIES


def _unmeasured(_frame: pd.DataFrame) -> list[Effect]:
    """Claims on single variants at equal accuracy, and on figures of them, are not compared yet."""
    return []


_OTHERS = tuple(
    Claim(name=name, text=text, where=where, compare=_unmeasured)
    for name, text, where in (
        ("C05", "Single variants can differ: 25M pairs gain on -A, -R and -Sketch past 16 epochs.",
         "Sec 4, App. Fig 20"),
        ("C19", "Accuracy on variants is near linear in ImageNet accuracy, but for ImageNet-A.",
         "Sec 5, App. Fig 21"),
        ("C20", "At equal ImageNet accuracy larger ViTs are more robust.", "Sec 5, App. Fig 21"),
        ("C29", "At low total compute ResNet-50 is the best architecture.", "Sec 6, Fig 12b"),
        ("C32", "At equal ImageNet accuracy Swin-T and ViT-B/32 do better on variants.",
         "Sec 6, App. Fig 23"),
        ("C35", "Retrieval: ResNet-50 is ahead with few samples, ViT-B/32 past 400M, Mixer the worst.",
         "Sec 6, Fig 15"),
    )
)  # fmt: skip

CLAIMS = tuple(sorted((*DATA, *MODELS, *STRATEGIES, *_OTHERS), key=lambda claim: claim.name))
