"""Image-text similarity of a pool's pairs by a trained CLIP, named as `scoring_source` says."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pandas as pd
import torch
from numpy.typing import NDArray

from budgets.cost.architecture import Architecture
from budgets.cost.flops import CONVENTION_NAME, image_forward_macs, text_forward_macs
from runners.data.pool.damage import Damage
from runners.data.pool.pool import Pool, Scorer
from runners.data.pool.reader import READ_COLUMNS, decode_rows
from runners.host.files import new_file
from runners.models.count import ensure_counted
from runners.models.load_model import Loaded, Source, load_model

_ROWS_PER_PART = 2048

CONVENTION = (
    "2 x forward MACs of image tower, text tower at its full context length and projections, once a pair; "
    f"counted as in training ({CONVENTION_NAME})"
)
"""Counting convention of the FLOPs of scoring."""


def scoring_source(scorer: str, pool: Pool) -> Source:
    """Return the model that a scorer names.

    Args:
        scorer: ``MODEL:PRETRAINED``, where MODEL is a name of open_clip or of the catalogue or a JSON file,
            and PRETRAINED a tag or a checkpoint file; or an exported folder.
        pool: The pool to score; its words are those of a catalogue model that was trained on it.

    Raises:
        ValueError: It is a trial's folder, which does not name its pool's words.
    """
    folder = Path(scorer)
    if not folder.is_dir():
        model, _, pretrained = scorer.partition(":")
        return Source(checkpoint=pretrained, model=model, words=pool.vocabulary)
    if (folder / "result.json").is_file():
        raise ValueError(f"{folder} is a trial: `study export` it, and name the exported folder")
    return Source(checkpoint=scorer)


def clip_scores(  # noqa: PLR0913 - independent options
    pool: Pool,
    source: Source,
    *,
    batch_size: int = 256,
    device: str | None = None,
    threads: int = 1,
    done: Callable[[int, int], None],
) -> tuple[NDArray[np.float32], Mapping[str, Any]]:
    """Score every pair; an interrupted run continues where it stopped.

    Args:
        pool: The pool.
        source: The model; computed in bf16 on a GPU that has it, else in fp32.
        batch_size: Pairs per batch.
        device: Device to compute on; by default a GPU if there is one.
        threads: Decoding threads.
        done: Called with the number of scored pairs and the total.

    Returns:
        Cosine similarities, float32 (pairs,), in the index's order, NaN for a pair that cannot be read; and
        the model's architecture, as open_clip's model-config.

    Raises:
        ValueError: There is no such model or checkpoint, or they cannot be loaded.
    """
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    loaded = load_model(source, where)
    facts = f"{pool.unranked} {source.model} {source.checkpoint} {_ROWS_PER_PART}"
    if Path(source.checkpoint).exists():
        facts += f" {Path(source.checkpoint).stat().st_mtime_ns}"
    folder = pool.path / ".scoring" / blake2b(facts.encode(), digest_size=8).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    size = open_clip.get_model_preprocess_cfg(loaded.model)["size"]
    side = size[0] if isinstance(size, tuple | list) else size
    scores = np.empty(pool.count, np.float32)
    for start in range(0, pool.count, _ROWS_PER_PART):
        rows = np.arange(start, min(start + _ROWS_PER_PART, pool.count))
        file = folder / f"{start:012d}.npy"
        if not file.exists():
            batches = (rows[first : first + batch_size] for first in range(0, len(rows), batch_size))
            read = _decoded(pool, batches, side, threads)
            with new_file(file) as partial, partial.open("wb") as opened:
                np.save(opened, np.concatenate([_score(loaded, *batch, where) for batch in read]))
        scores[rows] = np.load(file)
        done(int(rows[-1]) + 1, pool.count)
    return scores, loaded.config


def clip_scorer(name: str, config: Mapping[str, Any], count: int) -> Scorer:
    """Describe a scorer and the cost of scoring a pool.

    Args:
        name: Name of the score.
        config: The model's architecture, as open_clip's model-config.
        count: Pairs in the pool.

    Returns:
        The scorer; its FLOPs are 0, with a note, if they cannot be counted.
    """
    try:
        architecture = ensure_counted(Architecture(name=name, config=dict(config)))
        macs = image_forward_macs(architecture) + text_forward_macs(architecture)
    except ValueError as error:
        return Scorer(name=name, convention=f"not counted: {error}")
    return Scorer(name=name, scoring_flops=2 * count * macs, convention=CONVENTION)


_Batch = tuple[pd.DataFrame, NDArray[np.uint8], dict[int, Damage]]


def _decoded(pool: Pool, batches: Iterable[NDArray[np.int64]], side: int, threads: int) -> Iterator[_Batch]:
    """Yield rows, images and damage of each batch; the next one is decoded meanwhile."""

    def decode(rows: NDArray[np.int64]) -> _Batch:
        frame = pool.rows(rows, READ_COLUMNS)
        return frame, *decode_rows(pool, frame, side, threads)

    with ThreadPoolExecutor(1) as ahead:
        following: Future[_Batch] | None = None
        for rows in batches:
            ready, following = following, ahead.submit(decode, rows)
            if ready is not None:
                yield ready.result()
        if following is not None:
            yield following.result()


@torch.no_grad()
def _score(
    loaded: Loaded,
    frame: pd.DataFrame,
    pixels: NDArray[np.uint8],
    damage: Mapping[int, Damage],
    device: torch.device,
) -> NDArray[np.float32]:
    images = loaded.normalise(torch.from_numpy(pixels).to(device))
    texts = loaded.tokenize(frame["caption"].tolist()).to(device)
    fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    with torch.autocast(device.type, torch.bfloat16, enabled=fast):
        model: Any = loaded.model
        image, text = model.encode_image(images, normalize=True), model.encode_text(texts, normalize=True)
    scores: NDArray[np.float32] = (image.float() * text.float()).sum(-1).cpu().numpy()
    scores[list(damage)] = np.nan
    return scores
