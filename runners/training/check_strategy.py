"""Check of a strategy before its trials: torch counts the FLOPs that it states, and a step runs."""

import inspect
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from budgets.cost.architecture import Architecture, load_architecture
from budgets.cost.flops import sample_cost
from budgets.cost.layers import TowerCost
from budgets.cost.strategy import COUNTED_BATCH, Batch, CountedCost, Strategy, find_strategy
from budgets.cost.strategy_files import place_in
from budgets.declaration.recipe import Recipe
from runners.models.count_by_torch import COUNTED_PAIRS, count_macs
from runners.models.model import build_model, compute_context
from runners.training.backward import backward
from runners.training.learner import make_learner
from runners.training.pair_state import loss_of_new_pairs

Widths = Mapping[str, int]
"""Width of each column that a strategy names, as in `ColumnFacts`."""

_MARGIN = 0.01
_SMALL = "mini-ViT-XXS-8"


def check_strategy(
    strategy: Strategy, architecture: Architecture, widths: Widths = MappingProxyType({})
) -> CountedCost | None:
    """Count the forward pass of two pairs on the meta device, and run a step of two pairs of a small model.

    Nothing is checked if it does not apply to the architecture. Returns the count if it differs from CLIP's
    costs by more than 1 % or has parameters of its own, and the strategy states no other costs.

    Raises:
        ValueError: The FLOPs differ from the stated ones by more than 1 %, or a step fails; the message names
            the line of the strategy's file.
    """
    small = load_architecture(_SMALL)
    try:
        if strategy.inapplicable(architecture) is not None:
            return None
        if strategy.inapplicable(small) is None:
            _run_step(strategy, small, widths)
        towers, loss, parameters = count_strategy(strategy, architecture, widths)
        cost = sample_cost(architecture, strategy, batch_size=COUNTED_BATCH)
    except Exception as error:
        place = place_in(inspect.getfile(type(strategy)), error)
        raise ValueError(f"{place}: {strategy.name} fails: {type(error).__name__}: {error}") from error
    counts = (
        ("towers and head", towers, cost.forward_macs - cost.similarity_macs, "its views and head_cost"),
        (f"loss of {COUNTED_BATCH} pairs", loss, cost.similarity_macs, "similarity_macs"),
    )
    differing = [count for count in counts if abs(count[1] - count[2]) > _MARGIN * count[2]]
    if cost != sample_cost(architecture, find_strategy("clip"), batch_size=COUNTED_BATCH):
        for what, counted, stated, by in differing:
            file = f"{strategy.file.path}: " if strategy.file else ""
            raise ValueError(
                f"{file}{strategy.name}: torch counts {counted:,} MACs a sample in the {what} with "
                f"{architecture.name}, but {by} state {stated:,}"
            )
    elif differing or parameters:
        head = TowerCost(towers - cost.image_macs - cost.text_macs, parameters)
        return CountedCost(architecture=architecture.name, head=head, similarity_macs=loss)
    return None


def count_strategy(strategy: Strategy, architecture: Architecture, widths: Widths) -> tuple[int, int, int]:
    """Count a sample's multiply-accumulates in towers and head, and in the loss; the head's parameters."""
    # transformers reads values of its attention mask, which the meta device does not have.
    device = "cpu" if architecture.config["text_cfg"].get("hf_model_name") else "meta"
    with torch.device(device):
        model, head = build_model(architecture.config, strategy).train(), strategy.head(architecture)
    views = [view.to(device) for view in _views(strategy, architecture, widths)]
    with sdpa_kernel(SDPBackend.MATH):
        towers, features = count_macs(lambda: strategy.features(model, head, *views))
    many = [feature.repeat(COUNTED_BATCH // COUNTED_PAIRS, *[1] * (feature.ndim - 1)) for feature in features]
    many = [feature.float() if feature.is_floating_point() else feature for feature in many]
    loss, _ = count_macs(lambda: loss_of_new_pairs(strategy, model, many), pairs=COUNTED_BATCH)
    return towers, loss, 0 if head is None else sum(parameter.numel() for parameter in head.parameters())


def _run_step(strategy: Strategy, architecture: Architecture, widths: Widths) -> None:
    """Run a step of two pairs; ValueError if the loss is no finite number or does not train both towers."""
    torch.manual_seed(0)
    model, head = build_model(architecture.config, strategy).train(), strategy.head(architecture)
    learner = make_learner(model, strategy, head, recipe=Recipe(), lr_peak=1e-3, steps=1, pairs=COUNTED_PAIRS)
    ids, state = torch.arange(COUNTED_PAIRS), learner.by_pair
    values = None if state is None else state.look_up(ids, progress=0.0, epochs=1.0)
    context = partial(compute_context, "fp32", torch.device("cpu"))
    loss = backward(learner, _views(strategy, architecture, widths), context, values=values)
    if not loss.isfinite():
        raise ValueError(f"its loss must be a finite number, found {loss.item()}")
    reached = {
        "image" if name.startswith("visual.") else "text"
        for name, weights in model.named_parameters()
        if weights.ndim and weights.grad is not None and weights.grad.any()
    }
    if missing := {"image", "text"} - reached:
        raise ValueError(
            f"the gradient of its loss does not reach the {' or the '.join(sorted(missing))} tower"
        )


def _views(strategy: Strategy, architecture: Architecture, widths: Widths) -> tuple[Tensor, ...]:
    """Return the views of two images of noise, with a text of one word and one without."""
    costs, generator = architecture.costs, torch.Generator().manual_seed(0)
    images = torch.rand(COUNTED_PAIRS, 3, costs.image_size, costs.image_size, generator=generator) * 2 - 1
    tokens = torch.zeros(COUNTED_PAIRS, costs.context_length, dtype=torch.long)
    tokens[0, 0], tokens[0, 1], tokens[1, 0] = 1, costs.vocab_size - 1, costs.vocab_size - 1
    ids = torch.arange(COUNTED_PAIRS)
    columns = {name: column_of(tokens, widths[name]) for name in strategy.columns}
    return strategy.views(Batch(images=images, tokens=tokens, ids=ids, columns=columns), generator)


def column_of(tokens: Tensor, width: int) -> Tensor:
    """Return made-up values of a column as a batch has them: texts like the captions, or unit vectors."""
    if not width:
        return tokens
    if width == 1:
        return torch.ones(len(tokens))
    return torch.nn.functional.normalize(torch.randn(len(tokens), width), dim=1).half()
