"""Any open_clip model on any evaluation sets: the metrics, and what they cost."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from budgets.cost.architecture import Architecture
from budgets.cost.flops import encoding_flops
from runners.data.evaluation.evaluation_facts import SetFacts
from runners.data.evaluation.evaluation_suite import found_sets
from runners.data.evaluation.set_reader import SetReader
from runners.evaluate.evaluate import evaluate
from runners.evaluate.features import Encoder, encode_set
from runners.evaluate.variants import variant_means
from runners.models.count_by_torch import ensure_counted
from runners.models.load_model import LoadedModel
from runners.models.model import compute_context


def named_sets(folders: Sequence[Path]) -> dict[str, Path]:
    """Return name → folder of the sets; each folder is a set, or holds some.

    Raises:
        ValueError: A folder does not exist or holds no set, or two sets have one name.
    """
    sets: dict[str, Path] = {}
    for folder in folders:
        for name, path in found_sets(str(folder)).items():
            if name in sets:
                raise ValueError(f"--sets: {sets[name]} and {path} are both called '{name}'")
            sets[name] = Path(path)
    return sets


def evaluate_model(
    loaded: LoadedModel,
    sets: Mapping[str, Path],
    facts: Mapping[str, SetFacts],
    *,
    precision: str,
    device: torch.device,
) -> dict[str, float]:
    """Return the metrics of a model, as ``<set>/<metric>``; each image and text is encoded once.

    Raises:
        ValueError: A set can't be read.
    """
    context = partial(compute_context, precision, device)
    encoder = Encoder(
        model=loaded.model,
        tokenize=loaded.tokenize,
        normalise=loaded.normalise,
        device=device,
        context=context,
    )
    threads, features = torch.get_num_threads(), {}
    for name, path in sets.items():
        data = SetReader(path=path, decode=loaded.decode, threads=threads)
        features[name] = encode_set(encoder, data, probe="probe_top1" in facts[name].metrics)
    metrics = evaluate(features, context=context)
    return metrics | variant_means(metrics)


def forward_flops(loaded: LoadedModel, *, images: int, texts: int) -> int | None:
    """Return the FLOPs of encoding images and texts once each; None where they cannot be counted."""
    try:
        architecture = ensure_counted(Architecture(name="the model", config=dict(loaded.config)))
        return encoding_flops(architecture, images=images, texts=texts)
    except ValueError:
        return None
