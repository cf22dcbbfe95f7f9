"""The claims of "Scaling (Down) CLIP" (Li et al. 2024, arXiv 2404.08197) in the order of the paper.

Ids, wording and thresholds follow ``results/paper/claims.csv``. Sizes are the paper's own: a claim about
sizes that a study does not have is not testable there. A claim whose parts differ in their verdict on the
paper's own figures is judged part by part.
"""

from analysis.claims.data import DATA
from analysis.claims.models import MODELS
from analysis.claims.robustness import ROBUSTNESS
from analysis.claims.strategies import STRATEGIES

CLAIMS = tuple(sorted((*DATA, *MODELS, *ROBUSTNESS, *STRATEGIES), key=lambda claim: claim.name))
