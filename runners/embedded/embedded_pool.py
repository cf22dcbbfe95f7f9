"""Construction of the embedded pool and its evaluation sets."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from budgets.cost.architecture import load_architecture
from budgets.cost.flops import CONVENTION, encoding_flops, sample_cost
from budgets.cost.strategy import find_strategy
from budgets.declaration.data_sections import EMBEDDED_VERSION
from budgets.declaration.recipe import Recipe
from runners.data.build.new_shards import PAIRS_PER_SHARD, keys_of, write_pairs
from runners.data.build.source import SCORE_FIELD
from runners.data.evaluation.evaluation_set import EvaluationSet, write_evaluation_set
from runners.data.index.parts import SCORE
from runners.data.index.selection import BINS, SCORE_PREFIX
from runners.data.index.writing import write_parts
from runners.data.pool.describe import describe_pool
from runners.data.pool.pool import Pool, Scorer
from runners.data.pool.shards import PairEntry, close_shard, content_hash, encode_image, frame_of
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
    some thousands of pairs at a time; ``scorer`` is recorded with its FLOPs. The score is named like its
    field of the samples' json.

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
        fill_pool(Pool.without_pairs(partial, path.name, provenance), sequence, scores, scorer)
        for name, size in evaluation_sizes.items():
            write_evaluation_set(partial / "evaluation" / name, evaluation_set(name, size))
    return Pool.open(path)


def fill_pool(
    pool: Pool,
    pairs: Sequence[Pair] | TrainingPairs,
    scores: NDArray[np.float32] | None,
    scorer: Scorer | None = None,
) -> None:
    """Write a new pool, best tenth of the pairs first, into its folder, which the caller then moves.

    Scores are one per pair, higher is better, shape (pairs,). Each pair is requested twice, so a lazy
    sequence keeps memory small.

    Raises:
        ValueError: There are no pairs, or the number of scores is not that of the pairs.
    """
    if scores is None:
        scores = np.full(len(pairs), np.nan, np.float32)
    if len(pairs) == 0 or scores.shape != (len(pairs),):
        raise ValueError(
            f"a pool needs pairs, one score each; found {len(pairs)} pairs, scores of shape {scores.shape}"
        )
    finite = [float(score) if np.isfinite(score) else np.nan for score in scores]
    described = [_described(pairs[place], score) for place, score in enumerate(finite)]
    frame = frame_of(entry for entry, _ in described).assign(
        kind="png", facts=[facts for _, facts in described]
    )
    best_first = frame.sort_values(["score", "hash"], ascending=[False, True])  # without a score last
    tenth = np.where(best_first["score"].isna(), -1, np.arange(len(frame)) * BINS // len(frame))
    frame = best_first.iloc[np.lexsort((best_first.index, best_first["hash"], tenth))]
    (pool.path / "shards").mkdir()
    written = []
    for start in range(0, len(frame), PAIRS_PER_SHARD):
        rows, name = frame[start : start + PAIRS_PER_SHARD], f"shards/{start // PAIRS_PER_SHARD:05d}.tar"
        images = (encode_image(pairs[place].image) for place in rows.index)
        with (pool.path / name).open("wb") as file:
            written.append(write_pairs(file, rows, images, keys_of(rows, start)).assign(shard=name))
            close_shard(file)
    index = pd.concat(written, ignore_index=True).drop(columns=["kind", "facts"])
    # The score is named like its field in the shards, as an index of them would name it.
    index = index.rename(columns={SCORE: SCORE_PREFIX + SCORE_FIELD}).dropna(axis="columns", how="all")
    scorer = replace(scorer or Scorer(name=""), name=SCORE_FIELD)
    describe_pool(pool, write_parts(pool.path, index), scorer=scorer)


def _described(pair: Pair, score: float) -> tuple[PairEntry, str]:
    """Return a pair's entry, which has no place yet, and the other fields of its json."""
    image = encode_image(pair.image)
    height, width = pair.image.shape[:2]
    facts = pair.facts if np.isnan(score) else {**pair.facts, SCORE_FIELD: score}
    entry = PairEntry(
        key="", shard="", offset=0, length=len(image), caption=pair.caption, width=width, height=height,
        hash=content_hash(image, pair.caption), score=score,
    )  # fmt: skip
    return entry, json.dumps(facts)


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
