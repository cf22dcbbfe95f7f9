"""Image-text similarity of a pool's pairs by a trained CLIP, which `scoring_source` names."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pandas as pd
import torch
from numpy.typing import NDArray

from budgets.cost.architecture import Architecture
from budgets.cost.flops import CONVENTION_NAME, encoding_flops
from budgets.machine_cache import machine_cache
from runners.data.build.build import make_files
from runners.data.pool.damage import Damage
from runners.data.pool.pool import Pool, Scorer
from runners.data.pool.reader import READ_COLUMNS, decode_rows
from runners.data.reading.training_data import ahead
from runners.host.workers import Processes, Report, Workers
from runners.models.count_by_torch import ensure_counted
from runners.models.load_model import Encoder, LoadedModel, ModelSource, device_named, load_model
from runners.store.copies import pool_at
from runners.store.files import locked
from runners.store.shared_folder import SCORING, SharedFolder

_ROWS_PER_PART, _MOST_PARTS = 8192, 50_000
_CONFIG = "model.json"
_VERSION = 2  # of the scores of a model: parts of an interrupted scoring by another version are not used

CONVENTION = (
    "2 x forward MACs of image tower, text tower at its full context length and projections, once a pair; "
    f"counted as in training ({CONVENTION_NAME})"
)
"""Counting convention of the FLOPs of scoring."""


def scoring_source(scorer: str, pool: Pool) -> ModelSource:
    """Return the model that a scorer names: an exported folder, or ``MODEL:PRETRAINED``.

    MODEL is a name of open_clip or of the catalogue or a JSON file, PRETRAINED a tag or a checkpoint file.
    The words of the pool to score are those of a catalogue model that was trained on it.
    """
    if not Path(scorer).is_dir():
        model, _, pretrained = scorer.partition(":")
        return ModelSource(checkpoint=pretrained, model=model, words=pool.vocabulary)
    return ModelSource(checkpoint=scorer)


def clip_scores(  # noqa: PLR0913 - independent options
    pool: Pool,
    source: ModelSource,
    *,
    embeddings: bool = False,
    batch_size: int = 256,
    device: str | None = None,
    threads: int | None = None,
    shared: SharedFolder | None = None,
    workers: Workers | None = None,
    report: Report,
) -> tuple[Iterator[NDArray[Any]], Mapping[str, Any]]:
    """Score every pair; an interrupted run continues where it stopped.

    Returns cosine similarities in the index's order, float32, some pairs at a time, NaN for a pair that
    cannot be read; and the model's architecture, as open_clip's model-config. With ``embeddings`` there are
    the normalised features of images and texts instead, float16 (pairs, 2, width), zero for such a pair.

    The model computes in bf16 on a GPU that has it, else in fp32; each process loads it once, and only if
    there is something left to score. By default it computes on a GPU if there is one, in this process, with
    as many decoding threads as torch computes with, and all processes see the pool's folder.

    Raises:
        ValueError: There is no such model or checkpoint, or they cannot be loaded.
    """
    size = max(_ROWS_PER_PART, -(-pool.count // _MOST_PARTS))
    facts = f"{_VERSION} {pool.unranked} {source.model} {source.checkpoint} {size}{' both' * embeddings}"
    if Path(source.checkpoint).exists():
        facts += f" {Path(source.checkpoint).stat().st_mtime_ns}"
    shared = shared or SharedFolder(path=pool.path)
    below = f"{SCORING}{blake2b(facts.encode(), digest_size=8).hexdigest()}/"
    source, files = _shared_files(source, shared, below)
    task = _Scoring(
        pool=replace(pool),  # without what it has read
        source=source,
        files=files,
        shared=shared,
        below=below,
        embeddings=embeddings,
        size=size,
        batch_size=batch_size,
        device=device,
        threads=threads,
    )
    names = {start: f"{below}{start:012d}.npy" for start in range(0, pool.count, size)}
    make_files(task, names, shared, workers or Processes(), partial(report, "scoring"))
    config = json.loads(shared.text(below + _CONFIG))
    return (np.load(shared.path / name) for name in names.values()), config


def _shared_files(source: ModelSource, shared: SharedFolder, below: str) -> tuple[ModelSource, list[str]]:
    """Upload a model's files for workers that share a URL; return the source with their names, and these."""
    named, names = {"checkpoint": source.checkpoint, "model": source.model}, list[str]()
    for kind, path in ((kind, Path(text)) for kind, text in named.items() if text and shared.url):
        if path.exists():
            # A result.json beside weights marks them as those of a trial.
            for file in path.rglob("*") if path.is_dir() else (path, path.with_name("result.json")):
                if file.is_file():
                    names.append(f"{below}{kind}/{file.relative_to(path.parent)}")
                    shared.file(names[-1]).symlink_to(file.resolve())
            named[kind] = f"{below}{kind}/{path.name}"
    shared.keep_all(names)
    return replace(source, checkpoint=named["checkpoint"], model=named["model"]), names


# Without slots: cached_property stores its value in the instance's dict.
@dataclass(frozen=True, kw_only=True)
class _Scoring:
    """Scores the part of a pool that begins at a row; each process loads the model at its first call."""

    pool: Pool
    source: ModelSource  # the names of files in the shared folder are relative
    files: Sequence[str]  # of the model, in the shared folder
    shared: SharedFolder
    below: str  # folder in the shared one for the scores of each part, and for the model's config
    embeddings: bool  # in place of scores
    size: int  # pairs of a part
    batch_size: int
    device: str | None
    threads: int | None

    @cached_property
    def here(self) -> Pool:
        """The pool; of one below a URL, the copy of this machine."""
        return Pool.open(pool_at(self.shared.url)) if self.shared.url else self.pool

    @cached_property
    def loaded(self) -> LoadedModel:
        # One after the other: open_clip writes the weights that it downloads in place.
        machine_cache().mkdir(parents=True, exist_ok=True)
        with locked(machine_cache() / ".loading"), self.shared.here() as folder:
            folder.fetch(self.files)
            checkpoint, model = (
                str(folder.path / text) if text.startswith(self.below) else text
                for text in (self.source.checkpoint, self.source.model)
            )
            device = device_named(self.device)
            loaded = load_model(replace(self.source, checkpoint=checkpoint, model=model), device)
            folder.write(self.below + _CONFIG, json.dumps(loaded.config, indent=1, sort_keys=True) + "\n")
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return replace(loaded, context=partial(torch.autocast, device.type, torch.bfloat16, enabled=fast))

    def __call__(self, start: int) -> int:
        stop, loaded = min(start + self.size, self.pool.count), self.loaded
        how = open_clip.get_model_preprocess_cfg(loaded.model)
        usual = (how["resize_mode"], how["interpolation"]) == ("shortest", "bicubic")
        side = how["size"][0] if isinstance(how["size"], tuple | list) else how["size"]

        def read(first: int) -> tuple[pd.DataFrame, NDArray[np.uint8], dict[int, Damage]]:
            rows = np.arange(first, min(first + self.batch_size, stop))
            frame, threads = self.here.index.rows(rows, READ_COLUMNS), self.threads or torch.get_num_threads()
            return frame, *decode_rows(self.here, frame, side, threads, None if usual else loaded.decode)

        batches = ahead(map(read, range(start, stop, self.batch_size)))
        scores = np.concatenate([_score(loaded, *batch, embeddings=self.embeddings) for batch in batches])
        with self.shared.here() as folder:
            folder.write_array(f"{self.below}{start:012d}.npy", scores)
        return stop - start


def clip_scorer(
    name: str, config: Mapping[str, Any], count: int, *, model: str, train_flops: int = 0
) -> Scorer:
    """Describe a scorer, whose architecture is in open_clip's form, and the cost of scoring some pairs.

    ``model`` and ``train_flops`` are those of `Scorer`. The FLOPs of scoring are 0, with a note, if they
    cannot be counted.
    """
    flops, convention = 0, CONVENTION
    try:
        architecture = ensure_counted(Architecture(name=name, config=dict(config)))
        flops = encoding_flops(architecture, images=count, texts=count)
    except ValueError as error:
        convention = f"not counted: {error}"
    return Scorer(
        name=name, model=model, pairs=count,
        train_flops=train_flops, scoring_flops=flops, convention=convention,
    )  # fmt: skip


def _score(
    encoder: Encoder,
    frame: pd.DataFrame,
    pixels: NDArray[np.uint8],
    damage: Mapping[int, Damage],
    *,
    embeddings: bool = False,
) -> NDArray[Any]:
    image, text = encoder.images(pixels), encoder.texts(frame["caption"].tolist())
    if embeddings:
        both: NDArray[np.float16] = torch.stack([image, text], dim=1).half().cpu().numpy()
        both[list(damage)] = 0
        return both
    scores: NDArray[np.float32] = (image.float() * text.float()).sum(-1).cpu().numpy()
    scores[list(damage)] = np.nan
    return scores
