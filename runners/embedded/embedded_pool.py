"""Construction of the embedded pool and its evaluation sets."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from budgets.cost.architecture import load_architecture
from budgets.cost.flops import CONVENTION, encoding_flops, sample_cost
from budgets.cost.strategy import find_strategy
from budgets.declaration.data_sections import EMBEDDED_VERSION
from budgets.declaration.recipe import Recipe
from runners.data.build.write import fill_pool
from runners.data.evaluation.evaluation_set import EvaluationSet, write_evaluation_set
from runners.data.pool.pool import Origin, Pool, Scorer
from runners.embedded.bank import BANK_FILE, CONCEPTS, Bank, load_bank
from runners.embedded.pair import ZERO_SHOT, Pair, evaluation_image, retrieval_pair, training_pair
from runners.store.files import new_folder

# The scorer of quality: what a plan charges stands here, where no torch is imported; `scorer.py` does the
# work.
ARCHITECTURE = "mini-ConvNeXt"
CLEAN_PAIRS = 2048
SAMPLES = 40_960
BATCH = 64
LR_PEAK = 1e-3
SEED = 7919  # of the clean pairs and the training; no pool of a study has pairs of this seed
RECIPE = Recipe()
_SCORER_NAME = f"{ARCHITECTURE} trained on {CLEAN_PAIRS:,} clean pairs for {SAMPLES:,} samples"


EVALUATION_SIZES = {"held-out": 2000, "seen": 2000, "style": 2000, "validation": 1000, "retrieval": 512}
"""Images in each evaluation set (see ``evaluation_set``)."""

_EVALUATION_SEED = 0

ScorePairs = Callable[[NDArray[np.uint8], list[str]], NDArray[np.float32]]
"""Images uint8 (n, 3, 32, 32) and their n captions → a quality score for each, float32 (n,)."""

_SCORED_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingPairs:
    """The first pairs of a seed, each generated on request by `training_pair`."""

    seed: int
    count: int
    noise: Literal["mild", "none"] = "mild"

    def __len__(self) -> int:
        """Return the number of pairs."""
        return self.count

    def __getitem__(self, index: int) -> Pair:
        """Return the pair at an index."""
        return training_pair(self.seed, range(self.count)[index], bank=load_bank(), noise=self.noise)

    def __iter__(self) -> Iterator[Pair]:
        """Iterate over all pairs."""
        return map(self.__getitem__, range(self.count))


def build_embedded_pool(  # noqa: PLR0913 (independent options)
    path: str | Path,
    *,
    pairs: int,
    seed: int,
    score: ScorePairs | None,
    scorer: Scorer | None = None,
    evaluation_sizes: Mapping[str, int] = EVALUATION_SIZES,
) -> Pool:
    """Generate, score and write a pool, with its evaluation sets in ``<path>/evaluation/``.

    Evaluation sets depend on neither ``pairs`` nor ``seed``: all embedded pools share them. ``score`` gets
    some thousands of pairs at a time; ``scorer`` is recorded with its FLOPs.

    Raises:
        ValueError: ``path`` exists, or there are no pairs.
    """
    path = Path(path)
    sequence = TrainingPairs(seed=seed, count=pairs)
    with new_folder(path) as partial:
        scores = None if score is None else _scores(score, sequence)
        provenance = {
            "generator": "embedded",
            "generator_version": EMBEDDED_VERSION,
            "bank_sha256": sha256(BANK_FILE.read_bytes()).hexdigest(),
            "seed": seed,
            "noise": sequence.noise,
        }
        origin = Origin(name=path.name, scorer=scorer, provenance=provenance)
        fill_pool(partial, sequence, scores, origin)
        for name, size in evaluation_sizes.items():
            write_evaluation_set(partial / "evaluation" / name, evaluation_set(name, size))
    return Pool.open(path)


def evaluation_counts(sizes: Mapping[str, int] = EVALUATION_SIZES) -> dict[str, tuple[int, int]]:
    """Count the images and texts that an evaluation on each set encodes, without generating the sets."""
    prompts = len(CONCEPTS) * len(ZERO_SHOT)
    return {name: (size, size if name == "retrieval" else prompts) for name, size in sizes.items()}


def evaluation_set(name: str, size: int, *, seed: int = _EVALUATION_SEED) -> EvaluationSet:
    """Generate one of the evaluation sets.

    - ``held-out``: zero-shot over 100 classes, on a rendition of each concept that never occurs in training.
    - ``seen``: the same, on training sprites in new scenes.
    - ``style``: the same, on sprites of a maker whose artwork never occurs in training.
    - ``validation``: for tuning. It shares the renditions and classes of ``held-out``, because each concept
      has only one held-out rendition; its scenes differ. Tuning on it is not blind to those drawings.
    - ``retrieval``: scenes as in training with full and true captions, all different in content.
    """
    bank = load_bank()
    if name == "retrieval":
        return _retrieval(size, seed, bank)
    drawn = [evaluation_image(name, seed, index, bank=bank) for index in range(size)]
    return EvaluationSet(
        images=np.stack([image for image, _ in drawn]).transpose(0, 3, 1, 2),
        labels=np.array([label for _, label in drawn], np.int64),
        classnames=tuple(concept.name for concept in bank),
        templates=ZERO_SHOT,
    )


def _retrieval(size: int, seed: int, bank: Bank) -> EvaluationSet:
    chosen: dict[tuple[tuple[int, ...], str], Pair] = {}
    index = 0
    # Two scenes of the same things on the same tint would each be a correct answer to the other's caption.
    while len(chosen) < size:
        pair = retrieval_pair(seed, index, bank=bank)
        chosen.setdefault((tuple(sorted(pair.things)), pair.tint), pair)
        index += 1
    return EvaluationSet(
        images=np.stack([pair.image for pair in chosen.values()]).transpose(0, 3, 1, 2),
        captions=tuple((pair.caption,) for pair in chosen.values()),
    )


def _scores(score: ScorePairs, pairs: TrainingPairs) -> NDArray[np.float32]:
    scores = []
    for start in range(0, len(pairs), _SCORED_AT_ONCE):
        some = [pairs[place] for place in range(start, min(start + _SCORED_AT_ONCE, len(pairs)))]
        images = np.stack([pair.image for pair in some]).transpose(0, 3, 1, 2)
        scores.append(score(np.ascontiguousarray(images), [pair.caption for pair in some]))
    return np.concatenate(scores)


def scorer(pairs: int) -> Scorer:
    """Describe the scorer: its training FLOPs and the forward FLOPs of scoring a pool."""
    architecture = load_architecture(ARCHITECTURE)
    train = SAMPLES * sample_cost(architecture, find_strategy("clip"), batch_size=BATCH).train_flops
    score = encoding_flops(architecture, images=pairs, texts=pairs)
    return Scorer(
        name=_SCORER_NAME, model=_SCORER_NAME, pairs=pairs,
        train_flops=train, scoring_flops=score, convention=CONVENTION,
    )  # fmt: skip
