"""A training strategy: what it costs, and what it computes, in one class; the registry of all strategies.

A strategy goes from a batch of images and texts to a loss in three steps: views, features of the views, and
the loss of the features of all pairs. Features of parts of a batch are computed separately (accumulation,
several devices): ``runners/training/backward.py`` splits and joins them. The files of ``runners/strategies``
hold the shipped strategies.

Costs are numbers and closed forms: plans read them without torch, which is imported by the methods that
compute.
"""

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from hashlib import sha256
from importlib import import_module
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from budgets.cost.architecture import Architecture
from budgets.cost.layers import TowerCost
from budgets.declaration.recipe import Recipe
from budgets.names import unknown

if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor
    Module = torch.nn.Module
    Generator = torch.Generator
else:
    Tensor, Module, Generator = Any, Any, Any
Model = Any  # open_clip.CLIP, which has no annotations

_SHIPPED, _GROUP = "runners.strategies", "scaling_study.strategies"
_OF_STRATEGIES = {"randaugment", "slip_views"}  # settings of the recipe that only some read


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Some pairs, N of them.

    Attributes:
        images: Floats in [-1, 1], (N, 3, H, W); as they are read, uint8.
        tokens: Token ids of the captions, int64 (N, context length).
        ids: Place of each pair in the trial's subset, int64 (N,). In a mixture the places of a pool follow
            those of the pools before it.
        columns: The columns of the pool's index that the strategy names: numbers, (N,); arrays, float16
            (N, width); or token ids of texts, like ``tokens``, those of the caption where a text is missing.
    """

    images: Tensor
    tokens: Tensor
    ids: Tensor
    columns: Mapping[str, Tensor] = field(default_factory=dict)

    def changed(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """Return the batch with each of its tensors changed."""
        columns = {name: change(column) for name, column in self.columns.items()}
        return Batch(
            images=change(self.images), tokens=change(self.tokens), ids=change(self.ids), columns=columns
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class StrategyFile:
    """A user's file with strategies, as it was when it was read; two with the same text are equal."""

    path: str = field(compare=False)
    text: str

    @property
    def version(self) -> str:
        """Twelve hexadecimal digits that stand for its text."""
        return sha256(self.text.encode()).hexdigest()[:12]


@dataclass(frozen=True, kw_only=True)
class PairValues:
    """The numbers that a strategy keeps by pair (`Strategy.pair_state`), of the pairs of a step, (N,) each.

    Attributes:
        progress: Share of the training that was done before this step, in [0, 1).
        epochs: Epochs of the whole training.
        before: Values before the step, by name.
        after: Values after it, a copy of ``before`` in which the loss replaces those of this rank's rows.
    """

    progress: float
    epochs: float
    before: Mapping[str, Tensor]
    after: Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class CountedCost:
    """What torch counts of a sample, with an architecture, of a strategy that states no costs.

    Attributes:
        architecture: Name of the architecture.
        head: Parameters of the head, and the multiply-accumulates of all that is not a pass of CLIP's through
            both towers; below 0 where it runs less than these.
        similarity_macs: Multiply-accumulates of the loss of `COUNTED_BATCH` pairs.
    """

    architecture: str
    head: TowerCost
    similarity_macs: int


COUNTED_BATCH = 256
"""Pairs whose loss is counted: of few pairs it is next to nothing."""


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """A strategy; subclasses replace the methods that differ, and their instances give the numbers.

    A field that has the name of a setting of the recipe is set by the recipe (`configured`).

    Attributes:
        label: Its name in figures and tables; by default ``name``.
        paper: Its source.
        image_views: Passes through the image tower; all but the first are not projected.
        kept_fraction: Share of the image patches that are kept, in (0, 1]; below 1 is patch dropout.
        text_fraction: Share of the text's context that is kept, in (0, 1].
        image_fraction: Side of the images as a share of the full one, in (0, 1]; below 1, training starts
            on smaller images and ends on full ones.
        batch_factor: Factor of the declared batch.
        unmasked_tail: Share of the training, at its end, that its paper leaves unmasked; 0 if it never masks.
        init_logit_scale: Initial logarithm of the factor of the cosines; None for the model's own.
        init_logit_bias: Initial bias of the logits, which is trained; None for a loss without one.
        bytes_per_entry: Memory of the loss, for each entry of the batch's similarity matrix.
        columns: Columns of the pool's index that its batches have.
        counted: What torch counts, set by the planner where a user's strategy states no costs.
        file: The user's file that lists it, set by the loader; None for a shipped or installed one.
    """

    name: str
    label: str = ""
    paper: str = ""
    image_views: int = 1
    text_views: int = 1
    kept_fraction: float = 1.0
    text_fraction: float = 1.0
    image_fraction: float = 1.0
    batch_factor: int = 1
    unmasked_tail: float = 0.0
    init_logit_scale: float | None = None
    init_logit_bias: float | None = None
    bytes_per_entry: int = 16
    columns: tuple[str, ...] = ()
    counted: tuple[CountedCost, ...] = ()
    file: StrategyFile | None = None

    def __init_subclass__(cls, **arguments: Any) -> None:  # noqa: ANN401 - passed on
        """Refuse a number in the body of a class, which its instances would not have."""
        super().__init_subclass__(**arguments)
        numbers = {field.name for field in fields(Strategy)} & vars(cls).keys()
        for name in numbers - cls.__annotations__.keys():
            raise TypeError(f"{cls.__name__}.{name}: give it to the instance, {cls.__name__}({name}=…)")

    @property
    def masks(self) -> bool:
        """True if the model sees fewer tokens of the image or of the text than in evaluation."""
        return self.kept_fraction < 1 or self.text_fraction < 1 or self.image_fraction < 1

    @property
    def view_bytes(self) -> int:
        """Peak memory of `views` for each pixel and channel of an image, which is fp32 and counts, too."""
        return 4 * self.image_views

    @property
    def unmasked(self) -> "Strategy":
        """The strategy during an unmasked tail: all tokens, with the batch size unchanged."""
        return replace(self, kept_fraction=1.0, text_fraction=1.0, image_fraction=1.0)

    def text_tokens(self, context_length: int) -> int:
        """Length of the texts in training, in tokens."""
        return max(1, int(context_length * self.text_fraction))

    def similarity_macs(self, architecture: Architecture, batch_size: int) -> int:
        """Multiply-accumulates of the loss for a sample: here of a matrix of images and one of texts."""
        counted = (cost.similarity_macs for cost in self.counted if cost.architecture == architecture.name)
        return next(counted, 2 * COUNTED_BATCH * architecture.embed_dim) * batch_size // COUNTED_BATCH

    def head_cost(self, architecture: Architecture) -> TowerCost:
        """Cost of a sample in the head: the multiply-accumulates of all its views, and its parameters."""
        counted = (cost.head for cost in self.counted if cost.architecture == architecture.name)
        return next(counted, TowerCost())

    def inapplicable(self, architecture: Architecture) -> str | None:
        """Return the reason why the strategy cannot train the architecture, or None if it can."""
        name = architecture.name
        if self.kept_fraction < 1 and not architecture.costs.drops_patches:
            reason = f"patch dropout needs a ViT, but {name} is a {architecture.costs.family}"
        elif self.image_fraction < 1 and not (
            architecture.closed_form and architecture.costs.family == "vit"
        ):
            reason = f"smaller images need open_clip's plain ViT, but {name} is another tower"
        elif self.text_fraction < 1 and not architecture.costs.shortens_texts:
            reason = f"the text tower of {name} cannot read shortened texts"
        else:
            return None
        return f"{reason} ({self.name})"

    def recipe(self, declared: Recipe, _architecture: Architecture) -> Recipe:
        """Return the recipe of its trials: its own tail if none is declared, defaults of what it ignores.

        With smaller images the tail can't be 0: a model can't be evaluated at a resolution that it never saw.
        """
        ignored = _OF_STRATEGIES - {field.name for field in fields(self)}
        recipe = replace(declared, **{name: getattr(Recipe(), name) for name in ignored})
        tail = recipe.unmasked_tail if self.masks else 0.0
        own_tail = tail is None or (self.image_fraction < 1 and not tail)
        return replace(recipe, unmasked_tail=self.unmasked_tail if own_tail else tail)

    def configured(self, recipe: Recipe) -> "Strategy":
        """Return the strategy with the settings of a trial's recipe."""
        shared = {field.name for field in fields(self)} & {field.name for field in fields(recipe)}
        return replace(self, **{name: getattr(recipe, name) for name in shared})

    def head(self, _architecture: Architecture) -> Module | None:
        """Build what is trained beside the model; None if there is nothing."""
        return None

    def views(self, batch: Batch, _generator: Generator) -> tuple[Tensor, ...]:
        """Return the inputs of the towers for a batch, each with N pairs: here images and texts unchanged.

        The generator, on the CPU, is the source of the step's augmentation.
        """
        return batch.images, batch.tokens

    def features(self, model: Model, head: Module | None, *views: Tensor) -> tuple[Tensor, ...]:
        """Return features of the views of some pairs, with a row for each; towers in training mode.

        What needs no gradient, such as ids, may be among them.
        """
        raise NotImplementedError

    def loss(self, model: Model, *features: Tensor) -> Tensor:
        """Return the loss of the whole batch, a scalar, from the features of all its pairs, in fp32.

        Its gradients follow by autograd. `runners.training.over_pairs` sums over pairs in chunks, each rank
        its own ones.
        """
        raise NotImplementedError

    def pair_state(self) -> Mapping[str, float]:
        """Return the initial values of the numbers that it keeps for each pair, by name."""
        return {}

    def loss_by_pair(self, model: Model, values: PairValues, *features: Tensor) -> Tensor:
        """Return the loss as `loss` does, of a strategy that keeps numbers by pair, and set the new ones."""
        raise NotImplementedError

    def temperature_rate(self, _peak: float, _logit_scale: Tensor) -> Tensor | None:
        """Return the learning rate of the logarithmic factor of the cosines; None for that of all else."""
        return None

    def chance(self, batch_size: int) -> float:
        """Return the loss of features without information."""
        raise NotImplementedError

    def enlarge(self, model: Model) -> None:
        """Prepare a model that saw smaller images for full ones, before the tail's first step.

        All state of this change is in the weights, so that a checkpoint of the tail needs nothing else.
        """


@cache
def strategies() -> Mapping[str, Strategy]:
    """Return all strategies by name: those that the modules of ``runners/strategies`` and of packages list.

    A module lists its own in ``STRATEGIES``. An installed package names its module by an entry point of the
    group ``scaling_study.strategies``.

    Raises:
        ValueError: A package's module cannot be loaded, or a name is taken.
    """
    places = import_module(_SHIPPED).__path__
    modules = [import_module(f"{_SHIPPED}.{module.name}") for module in pkgutil.iter_modules(places)]
    by_name = dict[str, Strategy]()
    for entry in entry_points(group=_GROUP):
        try:
            modules.append(entry.load())
        except (ImportError, AttributeError) as error:
            raise ValueError(f"{entry.value}: its strategies cannot be loaded: {error}") from error
    for module in modules:
        for strategy in module.STRATEGIES:
            if strategy.name in by_name:
                raise ValueError(f"{module.__name__}: the strategy {strategy.name} is there already")
            by_name[strategy.name] = strategy
    return MappingProxyType(by_name)


def find_strategy(name: str, user_strategies: Mapping[str, Strategy] = MappingProxyType({})) -> Strategy:
    """Return the strategy of a given name, those of the user included.

    Raises:
        ValueError: The name is unknown; the message gives the nearest name and all valid ones.
    """
    known = {**strategies(), **user_strategies}
    if name not in known:
        raise ValueError(unknown("strategy", name, known))
    return known[name]
