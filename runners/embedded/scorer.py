"""Quality score of the embedded pool: cosine in a small CLIP trained on clean pairs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from budgets.cost.architecture import load_architecture
from budgets.cost.strategy import find_strategy
from runners.data.pool.pool import Pool
from runners.data.pool.tokenizer import tokenizer, vocabulary_of
from runners.data.reading.training_set import InMemory, InMemorySet
from runners.embedded.embedded_pool import (
    ARCHITECTURE,
    BATCH,
    CLEAN_PAIRS,
    LR_PEAK,
    RECIPE,
    SAMPLES,
    SEED,
    ScorePairs,
    TrainingPairs,
    build_embedded_pool,
    scorer,
)
from runners.host.seeds import derive_seed
from runners.models.model import build_model, compute_context, resolve_precision
from runners.training.learner import make_learner
from runners.training.train import StepSchedule, to_float, train

_SCORED_AT_ONCE = 512


def build_scored_pool(path: Path, *, pairs: int, seed: int) -> Pool:
    """Generate an embedded pool, score it and write it; ValueError if the path exists."""
    return build_embedded_pool(path, pairs=pairs, seed=seed, score=train_scorer(), scorer=scorer(pairs))


def train_scorer() -> ScorePairs:
    """Train the scorer, on one thread so that a pool's scores do not depend on the number of cores.

    It returns each pair's cosine, (N,), for images, uint8 (N, 3, 32, 32), and captions.
    """
    pairs = TrainingPairs(seed=SEED, count=CLEAN_PAIRS, noise="none")
    captions = [pair.caption for pair in pairs]
    config = load_architecture(ARCHITECTURE).config
    text = config["text_cfg"]
    to_ids = tokenizer(text["vocab_size"], text["context_length"], vocabulary_of(captions))
    images = np.stack([pair.image for pair in pairs]).transpose(0, 3, 1, 2)
    device = torch.device("cpu")
    context = partial(compute_context, resolve_precision(RECIPE.precision, device), device)
    steps = SAMPLES // BATCH
    with _one_thread():
        torch.manual_seed(derive_seed(SEED, "initial weights"))
        model = build_model(config)
        train(
            make_learner(model, find_strategy("clip"), recipe=RECIPE, lr_peak=LR_PEAK, steps=steps),
            InMemorySet(
                parts=[
                    InMemory(
                        images=torch.from_numpy(np.ascontiguousarray(images)),
                        tokens=torch.from_numpy(to_ids(captions)),
                    )
                ]
            ),
            StepSchedule(seed=SEED, steps=steps, batch_size=BATCH, lr_peak=LR_PEAK, recipe=RECIPE),
            first_step=0,
            context=context,
        )
    model.eval()

    @torch.no_grad()
    def score(images: NDArray[np.uint8], captions: Sequence[str]) -> NDArray[np.float32]:
        tokens = torch.from_numpy(to_ids(captions))
        cosines = []
        with _one_thread(), context():
            for part, ids in zip(
                torch.from_numpy(images).split(_SCORED_AT_ONCE), tokens.split(_SCORED_AT_ONCE), strict=True
            ):
                image = model.encode_image(to_float(part), normalize=True).float()
                cosines.append((image * model.encode_text(ids, normalize=True).float()).sum(1))
        result: NDArray[np.float32] = torch.cat(cosines).numpy()
        return result

    return score


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
