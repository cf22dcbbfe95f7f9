"""Cost of the embedded pool's quality score: training a small CLIP, and scoring the pool.

No torch is imported here, so that a plan can charge the cost; `scorer.py` does the work.
"""

from budgets.cost.architecture import load_architecture
from budgets.cost.flops import CONVENTION, encoding_flops, sample_cost
from budgets.cost.strategy import strategy
from budgets.declaration.recipe import Recipe
from runners.data.pool.pool import Scorer

ARCHITECTURE = "mini-ConvNeXt"
CLEAN_PAIRS = 2048
SAMPLES = 40_960
BATCH = 64
LR_PEAK = 1e-3
SEED = 7919  # of the clean pairs and the training; no pool of a study has pairs of this seed
RECIPE = Recipe()
SCORER_NAME = f"{ARCHITECTURE} trained on {CLEAN_PAIRS:,} clean pairs for {SAMPLES:,} samples"


def scorer(pairs: int) -> Scorer:
    """Describe the scorer: its training FLOPs and the forward FLOPs of scoring a pool."""
    architecture = load_architecture(ARCHITECTURE)
    train = SAMPLES * sample_cost(architecture, strategy("clip"), batch_size=BATCH).train_flops
    score = encoding_flops(architecture, images=pairs, texts=pairs)
    return Scorer(name=SCORER_NAME, train_flops=train, scoring_flops=score, convention=CONVENTION)
