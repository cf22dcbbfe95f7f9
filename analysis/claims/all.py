"""The claims of "Scaling (Down) CLIP" (Li et al. 2024, arXiv 2404.08197) in the order of the paper.

Ids, wording and thresholds are those of ``results/paper/claims.csv``; sizes are the paper's own, so that a
claim about other sizes than a study has is not testable there. A claim that the paper's own figures support
in one part and contradict in another is judged in these parts.
"""

from analysis.claims.data import DATA
from analysis.claims.models import MODELS
from analysis.claims.robustness import ROBUSTNESS
from analysis.claims.strategies import STRATEGIES

CLAIMS = tuple(sorted((*DATA, *MODELS, *ROBUSTNESS, *STRATEGIES), key=lambda claim: claim.name))
