"""Image-text similarity of a pool's pairs by a trained CLIP: an open_clip model or a checkpoint."""

from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from torch import Tensor

from budgets.cost.architecture import Architecture
from budgets.cost.flops import CONVENTION_NAME, image_forward_macs, text_forward_macs
from budgets.names import unknown
from runners.data.pool.pool import Pool, Scorer
from runners.data.pool.reader import READ_COLUMNS, decode_rows
from runners.host.files import new_file

_ROWS_PER_PART = 2048

CONVENTION = (
    "2 x forward MACs of image tower, text tower at its full context length and projections, once a pair; "
    f"counted as in training ({CONVENTION_NAME})"
)
"""Counting convention of the FLOPs of scoring."""


def clip_scores(  # noqa: PLR0913 - independent options
    pool: Pool,
    model: str,
    pretrained: str,
    *,
    batch_size: int = 256,
    device: str | None = None,
    threads: int = 1,
    done: Callable[[int, int], None],
) -> NDArray[np.float32]:
    """Score every pair; an interrupted run continues where it stopped.

    Args:
        pool: The pool.
        model: Name of an architecture of open_clip.
        pretrained: A tag of its weights, or a checkpoint file.
        batch_size: Pairs per batch.
        device: Device to compute on; by default a GPU if there is one.
        threads: Decoding threads.
        done: Called with the number of scored pairs and the total.

    Returns:
        Cosine similarities, float32 (pairs,), in the index's order; NaN for a pair that cannot be read.

    Raises:
        ValueError: open_clip has no such model or weights, or they cannot be loaded.
    """
    if model not in open_clip.list_models():
        raise ValueError(unknown("model of open_clip", model, open_clip.list_models()))
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    content = blake2b(pool.column("hash").tobytes(), digest_size=8).hexdigest()
    facts = f"{content} {model} {pretrained} {_ROWS_PER_PART}"
    if Path(pretrained).is_file():
        facts += f" {Path(pretrained).stat().st_mtime_ns}"
    mark = blake2b(facts.encode(), digest_size=8).hexdigest()
    folder = pool.path / ".scoring" / mark
    folder.mkdir(parents=True, exist_ok=True)
    network: Any = None
    scores = np.empty(pool.count, np.float32)
    for start in range(0, pool.count, _ROWS_PER_PART):
        rows = np.arange(start, min(start + _ROWS_PER_PART, pool.count))
        file = folder / f"{start:012d}.npy"
        if not file.exists():
            network = network or _load(model, pretrained, where)
            some = [
                _score(pool, rows[first : first + batch_size], network, model, where, threads)
                for first in range(0, len(rows), batch_size)
            ]
            with new_file(file) as partial, partial.open("wb") as opened:
                np.save(opened, np.concatenate(some))
        scores[rows] = np.load(file)
        done(int(rows[-1]) + 1, pool.count)
    return scores


def clip_scorer(name: str, model: str, count: int) -> Scorer:
    """Describe a scorer and the cost of scoring a pool.

    Args:
        name: Name of the score.
        model: Name of an architecture of open_clip.
        count: Pairs in the pool.

    Returns:
        The scorer; its FLOPs are 0, with a note, if the architecture has no closed form.
    """
    try:
        architecture = Architecture(name=model, config=open_clip.get_model_config(model))
        macs = image_forward_macs(architecture) + text_forward_macs(architecture)
    except ValueError as error:
        return Scorer(name=name, convention=f"not counted: {error}")
    return Scorer(name=name, scoring_flops=2 * count * macs, convention=CONVENTION)


def _load(model: str, pretrained: str, device: torch.device) -> Any:  # noqa: ANN401 - open_clip's models
    tags = open_clip.list_pretrained_tags_by_model(model)
    if not Path(pretrained).is_file() and pretrained not in tags:
        raise ValueError(f"no file {pretrained}; {unknown(f'weights of {model}', pretrained, tags)}")
    try:
        network = open_clip.create_model(model, pretrained=pretrained, device=device)
    except Exception as error:  # downloads and unpickling raise many types of errors
        raise ValueError(
            f"open_clip cannot load model '{model}' with weights '{pretrained}': {error}"
        ) from error
    return network.eval()


@torch.no_grad()
def _score(  # noqa: PLR0913, PLR0917 - the parts of a batch
    pool: Pool,
    rows: NDArray[np.int64],
    network: Any,  # noqa: ANN401
    model: str,
    device: torch.device,
    threads: int,
) -> NDArray[np.float32]:
    how = open_clip.get_model_preprocess_cfg(network)
    side = how["size"][0] if isinstance(how["size"], tuple | list) else how["size"]
    frame = pool.rows(rows, READ_COLUMNS)
    pixels, damage = decode_rows(pool, frame, side, threads)
    mean, deviation = (torch.tensor(how[name], device=device).view(3, 1, 1) for name in ("mean", "std"))
    images = (torch.from_numpy(pixels).to(device).float().div_(255) - mean) / deviation
    texts: Tensor = open_clip.get_tokenizer(model)(frame["caption"].tolist()).to(device)
    image, text = network.encode_image(images, normalize=True), network.encode_text(texts, normalize=True)
    scores: NDArray[np.float32] = (image * text).sum(-1).float().cpu().numpy()
    scores[list(damage)] = np.nan
    return scores
