"""Check of a strategy before its trials: torch counts the FLOPs that it states, and a step runs."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from budgets.cost.architecture import Architecture, load_architecture
from budgets.cost.flops import sample_cost
from budgets.cost.strategy import Batch, Strategy
from budgets.cost.strategy_files import place_in
from budgets.declaration.recipe import Recipe
from runners.models.count_by_torch import COUNTED_PAIRS, count_macs
from runners.models.model import build_model, compute_context
from runners.training.backward import backward
from runners.training.learner import make_learner
from runners.training.pair_state import loss_of_new_pairs

ColumnValues = Callable[[Tensor], Mapping[str, Tensor]]
"""Token ids of some pairs' captions → the values of the columns that a strategy names, for these pairs."""

PAIRS_OF_LOSS = 256
_MARGIN = 0.01
_SMALL = "mini-ViT-XXS-8"


def check_strategy(
    strategy: Strategy, architecture: Architecture, columns: ColumnValues = lambda _tokens: {}
) -> None:
    """Count the forward pass of two pairs on the meta device, and run a step of two pairs of a small model.

    Nothing is checked if it does not apply to the architecture. The loss is counted for 256 pairs: of two it
    is next to nothing.

    Raises:
        ValueError: The FLOPs differ from the stated ones by more than 1 %, or a step fails; the message names
            the line of the strategy's file.
    """
    small = load_architecture(_SMALL)
    try:
        if strategy.inapplicable(architecture) is not None:
            return
        if strategy.inapplicable(small) is None:
            _run_step(strategy, small, columns)
        towers, loss = counted_macs(strategy, architecture, columns)
        cost = sample_cost(architecture, strategy, batch_size=PAIRS_OF_LOSS)
    except Exception as error:
        place = place_in(inspect.getfile(type(strategy)), error)
        raise ValueError(f"{place}: {strategy.name} fails: {type(error).__name__}: {error}") from error
    for what, counted, stated, by in (
        ("towers and head", towers, cost.forward_macs - cost.similarity_macs, "its views and head_cost"),
        (f"loss of {PAIRS_OF_LOSS} pairs", loss, cost.similarity_macs, "similarity_macs"),
    ):
        if abs(counted - stated) > _MARGIN * stated:
            file = f"{strategy.file.path}: " if strategy.file else ""
            raise ValueError(
                f"{file}{strategy.name}: torch counts {counted:,} MACs a sample in the {what} with "
                f"{architecture.name}, but {by} state {stated:,}"
            )


def counted_macs(
    strategy: Strategy, architecture: Architecture, columns: ColumnValues = lambda _tokens: {}
) -> tuple[int, int]:
    """Count a sample's multiply-accumulates: in towers and head, and in the loss of 256 pairs."""
    # transformers reads values of its attention mask, which the meta device does not have.
    device = "cpu" if architecture.config["text_cfg"].get("hf_model_name") else "meta"
    with torch.device(device):
        model, head = build_model(architecture.config, strategy).train(), strategy.head(architecture)
    views = [view.to(device) for view in _views(strategy, architecture, columns)]
    with sdpa_kernel(SDPBackend.MATH):
        towers, features = count_macs(lambda: strategy.features(model, head, *views))
    many = [each.repeat(PAIRS_OF_LOSS // COUNTED_PAIRS, *[1] * (each.ndim - 1)) for each in features]
    many = [each.float() if each.is_floating_point() else each for each in many]
    loss, _ = count_macs(lambda: loss_of_new_pairs(strategy, model, many), pairs=PAIRS_OF_LOSS)
    return towers, loss


def _run_step(strategy: Strategy, architecture: Architecture, columns: ColumnValues) -> None:
    """Run a step of two pairs; ValueError if the loss is no finite number or does not train both towers."""
    torch.manual_seed(0)
    model, head = build_model(architecture.config, strategy).train(), strategy.head(architecture)
    learner = make_learner(model, strategy, head, recipe=Recipe(), lr_peak=1e-3, steps=1, pairs=COUNTED_PAIRS)
    ids, state = torch.arange(COUNTED_PAIRS), learner.by_pair
    values = None if state is None else state.look_up(ids, progress=0.0, epochs=1.0)
    context = partial(compute_context, "fp32", torch.device("cpu"))
    loss = backward(learner, _views(strategy, architecture, columns), context, values=values)
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


def _views(strategy: Strategy, architecture: Architecture, columns: ColumnValues) -> tuple[Tensor, ...]:
    """Return the views of two images of noise, with a text of one word and one without."""
    costs, generator = architecture.costs, torch.Generator().manual_seed(0)
    images = torch.rand(COUNTED_PAIRS, 3, costs.image_size, costs.image_size, generator=generator) * 2 - 1
    tokens = torch.zeros(COUNTED_PAIRS, costs.context_length, dtype=torch.long)
    tokens[0, 0], tokens[0, 1], tokens[1, 0] = 1, costs.vocab_size - 1, costs.vocab_size - 1
    ids = torch.arange(COUNTED_PAIRS)
    return strategy.views(Batch(images=images, tokens=tokens, ids=ids, columns=columns(tokens)), generator)
