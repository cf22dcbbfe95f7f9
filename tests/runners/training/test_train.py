"""Training loop: exact samples, a resumed run equal to an uninterrupted one, divergence reported."""

from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from budgets.cost.architecture import load_architecture
from budgets.cost.strategy import find_strategy, strategies
from budgets.declaration.recipe import PRESETS, Recipe
from runners.data.reading.training_set import InMemory, InMemorySet
from runners.models.model import build_model, compute_context, keep_all_patches
from runners.training.backward import backward
from runners.training.learner import make_learner, make_optimizer
from runners.training.train import Diverged, StepSchedule, to_float, train
from runners.trials.checkpoint import load_checkpoint, save_checkpoint
from tests.runners.tiny import batch_of

STEPS, BATCH = 12, 8
CPU = torch.device("cpu")


class Run:
    """A short run of one strategy with a fixed seed."""

    def __init__(self, name: str, *, lr_peak: float = 1e-3, recipe: Recipe | None = None) -> None:
        self.recipe = recipe or Recipe(precision="fp32")
        architecture, strategy = load_architecture("mini-ViT-XXS-8"), find_strategy(name)
        torch.manual_seed(1)
        model = build_model(architecture.config, strategy)
        self.learner = make_learner(
            model,
            strategy.configured(self.recipe),
            strategy.head(architecture),
            recipe=self.recipe,
            lr_peak=lr_peak,
            steps=STEPS,
            pairs=30,
            precision=self.recipe.precision,
        )
        self.lr_peak = lr_peak
        draw = np.random.default_rng(0)
        images = draw.integers(0, 256, (30, 3, 32, 32)).astype(np.uint8)
        tokens = draw.integers(1, 1023, (30, 16))
        tokens[:, -1] = 1023
        whole = batch_of(strategy, torch.from_numpy(images), torch.from_numpy(tokens))
        self.data = InMemorySet(
            parts=[InMemory(images=whole.images, tokens=whole.tokens, columns=whole.columns)]
        )

    def train(self, first_step: int = 0, stop_after: int = STEPS) -> None:
        def after_step(done: int) -> None:
            if done == stop_after:
                raise StopIteration

        with suppress(StopIteration):
            train(
                self.learner,
                self.data,
                StepSchedule(seed=3, steps=STEPS, batch_size=BATCH, lr_peak=self.lr_peak, recipe=self.recipe),
                first_step=first_step,
                context=partial(compute_context, self.recipe.precision, CPU),
                after_step=after_step,
            )

    @property
    def losses(self) -> Tensor:
        return self.learner.losses

    @property
    def weights(self) -> dict[str, Tensor]:
        weights: dict[str, Tensor] = self.learner.modules.state_dict()
        average = self.learner.average
        return weights if average is None else weights | average.state_dict()


RECIPES = {
    "adafactor": Recipe(optimizer="adafactor", precision="bf16", schedule="constant-with-cooldown"),
    "average": Recipe(ema=0.9, precision="fp32", gradient_clip=None),
    "parts": Recipe(accumulation=3, precision="fp32", gradient_checkpointing=True),
    "fp16": Recipe(precision="fp16", optimizer="adafactor", ema=0.5, accumulation=2),
    "tail": Recipe(precision="fp32", unmasked_tail=0.7),
    "parts and tail": Recipe(accumulation=3, precision="fp32", ema=0.9, unmasked_tail=0.7),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        *((name, "default") for name in strategies()),
        *(("clip", recipe) for recipe in RECIPES if not recipe.endswith("tail")),
        ("flip-50", "parts"),
        ("flip-50", "tail"),
        ("clipa", "tail"),
        ("clipa-resize", "parts and tail"),
    ],
)
def test_resumed_run_equals_uninterrupted_one_bit_for_bit(name: str, recipe: str, tmp_path: Path) -> None:
    whole = Run(name, recipe=RECIPES.get(recipe))
    whole.train()

    stopped = Run(name, recipe=RECIPES.get(recipe))
    stopped.train(stop_after=5)
    save_checkpoint(tmp_path, stopped.learner, step=5)
    resumed = Run(name, recipe=RECIPES.get(recipe))
    first = load_checkpoint(tmp_path, resumed.learner)
    resumed.train(first_step=first)

    assert first == 5
    assert torch.isfinite(whole.losses).all()
    assert torch.equal(resumed.losses, whole.losses)
    assert all(torch.equal(resumed.weights[key], value) for key, value in whole.weights.items())


def test_nan_loss_ends_the_run_and_names_the_step() -> None:
    run = Run("clip")
    with torch.no_grad():
        run.learner.model.text_projection.fill_(float("nan"))

    with pytest.raises(Diverged, match="not finite within steps 0 to 12 of 12"):
        run.train()


def rates(recipe: Recipe, steps: int = 100) -> list[float]:
    return [recipe.learning_rate(step, steps=steps, batch_size=10, peak=2.0) for step in range(steps)]


def test_the_learning_rate_rises_over_the_warmup_and_falls_to_zero_as_a_cosine() -> None:
    found = rates(Recipe())

    assert found[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert found[10] == 2.0
    assert found[55] == pytest.approx(1.0)
    assert found[99] == pytest.approx(0, abs=1e-3)
    assert rates(Recipe(), 3)[0] == 2.0
    assert rates(Recipe(warmup_samples=95)) == found


def test_constant_learning_rate_stays_at_peak_until_cooldown() -> None:
    constant = rates(Recipe(schedule="constant"))
    cooled = rates(Recipe(schedule="constant-with-cooldown", cooldown=0.2))

    assert constant[:10] == cooled[:10] == rates(Recipe())[:10]
    assert set(constant[9:]) == set(cooled[9:81]) == {2.0}
    assert cooled[80:] == pytest.approx([2.0 * (20 - step) / 20 for step in range(20)])


def test_gains_biases_and_temperature_have_no_weight_decay() -> None:
    run = Run("clip")

    decayed, plain = run.learner.optimizer.param_groups

    assert decayed["weight_decay"] == 0.1
    assert {parameter.ndim for parameter in decayed["params"]} == {2, 4}
    assert plain["weight_decay"] == 0.0
    assert {parameter.ndim for parameter in plain["params"]} == {0, 1}
    assert len(decayed["params"]) + len(plain["params"]) == len(list(run.learner.model.parameters()))


@pytest.mark.parametrize("name", ["mini-ViT-XXS-8", "mini-RN"])
def test_embeddings_and_positions_may_have_no_weight_decay(name: str) -> None:
    model = build_model(load_architecture(name).config)
    named = {parameter: name for name, parameter in model.named_parameters()}

    decayed, plain = make_optimizer(model, Recipe(embedding_decay=False), lr_peak=1e-3).param_groups

    apart = {named[each] for each in plain["params"] if each.ndim > 1}
    positions = "attnpool.positional_embedding" if name == "mini-RN" else "positional_embedding"
    assert apart == {"positional_embedding", "token_embedding.weight", f"visual.{positions}"}
    assert "text_projection" in {named[each] for each in decayed["params"]}


@pytest.mark.parametrize("shape", [(20, 48), (48, 20)])
def test_adafactor_has_the_papers_moments_momentum_and_decay(shape: tuple[int, int]) -> None:
    # Zhai et al. 2022 (arXiv 2106.04560), section 3.4: no relative step, a first moment, and in the first
    # step a second moment of this gradient alone: rows times columns over their mean.
    matrix = nn.Linear(shape[1], shape[0], bias=False)
    before, gradient = matrix.weight.detach().clone(), torch.randn(shape)
    optimizer = make_optimizer(matrix, PRESETS["paper"].recipe, lr_peak=1e-3)
    matrix.weight.grad = gradient
    for group in optimizer.param_groups:
        group["lr"] = 0.5e-3  # half of the peak: half of the decay

    optimizer.step()

    squares = gradient.square()
    rows, columns = squares.mean(1, keepdim=True), squares.mean(0, keepdim=True)
    update = (1 - 0.9) * gradient / (rows * columns / rows.mean()).sqrt()
    moved = matrix.weight.detach() - before * (1 - 0.5 * 1e-4)
    torch.testing.assert_close(moved, -0.5e-3 * update, rtol=0.01, atol=1e-6)  # the moment is bf16
    assert optimizer.state[matrix.weight]["exp_avg"].dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["clip", "flip-50", "siglip"])
def test_accumulated_batch_equals_whole_batch_in_loss_and_gradients(name: str) -> None:
    whole, parts = Run(name), Run(name)
    for run in (whole, parts):
        run.learner.model.train()
        if name == "flip-50":  # which patches are dropped depends on the part
            keep_all_patches(run.learner.model)
    batch = next(whole.data.batches(seed=0, batch_size=BATCH, first_step=0, steps=1))
    views = to_float(batch.images), batch.tokens
    context = partial(compute_context, "fp32", CPU)

    at_once = backward(whole.learner, views, context)
    in_parts = backward(parts.learner, views, context, parts=3, seed=0)

    torch.testing.assert_close(in_parts, at_once)
    for (parameter, expected), found in zip(
        whole.learner.model.named_parameters(), parts.learner.model.parameters(), strict=True
    ):
        assert found.grad is not None, parameter
        assert expected.grad is not None, parameter
        assert float((found.grad - expected.grad).norm() / expected.grad.norm()) < 1e-5, parameter


def test_both_passes_of_a_part_drop_the_same_patches() -> None:
    run = Run("flip-50")
    seen = []
    run.learner.model.visual.transformer.register_forward_pre_hook(
        lambda _module, inputs: seen.append(inputs[0].detach().clone())
    )
    run.learner.model.train()
    batch = next(run.data.batches(seed=0, batch_size=BATCH, first_step=0, steps=1))

    context = partial(compute_context, "fp32", CPU)
    backward(run.learner, (to_float(batch.images), batch.tokens), context, parts=2, seed=5)

    first, second, *again = seen
    assert torch.equal(torch.stack([first, second]), torch.stack(again))


def test_gradient_checkpointing_changes_no_gradient() -> None:
    plain = Run("clip")
    checkpointed = Run("clip", recipe=Recipe(precision="fp32", gradient_checkpointing=True))

    for run in (plain, checkpointed):
        run.train(stop_after=2)

    assert checkpointed.learner.model.transformer.grad_checkpointing
    assert all(torch.equal(checkpointed.weights[key], value) for key, value in plain.weights.items())


def test_moving_average_is_evaluated_and_follows_the_weights() -> None:
    decay = 0.75
    run = Run("clip", recipe=Recipe(precision="fp32", ema=decay))
    weight = run.learner.model.visual.proj
    expected: list[Tensor] = []
    run.learner.optimizer.register_step_post_hook(
        lambda *_: expected.append(
            weight.detach().clone() if not expected else expected[-1] * decay + weight.detach() * (1 - decay)
        )
    )

    run.train()

    assert run.learner.evaluated is not run.learner.model
    torch.testing.assert_close(run.learner.evaluated.visual.proj.detach(), expected[-1])


def test_fp16_overflow_skips_the_step_and_halves_the_scale() -> None:
    run = Run("clip", recipe=Recipe(precision="fp16"))
    scaler = run.learner.scaler
    assert scaler is not None
    run.train(stop_after=1)
    scale, before = scaler.get_scale(), run.learner.model.visual.proj.detach().clone()
    run.learner.model.visual.proj.register_hook(lambda gradient: gradient * float("inf"))

    run.train(first_step=1, stop_after=2)

    assert torch.equal(run.learner.model.visual.proj, before)
    assert scaler.get_scale() == scale / 2


def test_two_resolutions_interpolate_the_positions_between_them() -> None:
    run = Run("clipa-resize", recipe=Recipe(precision="fp32", ema=0.9, unmasked_tail=0.25))
    visual, average = run.learner.model.visual, run.learner.average
    assert average is not None
    seen = []
    visual.conv1.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].shape[-1]))

    run.train(stop_after=9)
    before = visual.positional_embedding.detach().clone()
    # Each of the 2 x 2 patches has the mean of four positions, and all of these have its step.
    blocks = before[1:].view(2, 2, 2, 2, -1).mean((1, 3)).permute(2, 0, 1)[None]
    run.learner.strategy.enlarge(run.learner.model)
    enlarged = visual.positional_embedding[1:].T.reshape(1, -1, 4, 4)

    expected = functional.interpolate(blocks, (4, 4), mode="bicubic", antialias=True)
    torch.testing.assert_close(enlarged, expected)
    assert torch.equal(visual.positional_embedding[0], before[0])
    run = Run("clipa-resize", recipe=run.recipe)
    run.learner.model.visual.conv1.register_forward_pre_hook(
        lambda _module, inputs: seen.append(inputs[0].shape[-1])
    )
    run.train()
    assert seen == [16] * 9 + [16] * 9 + [32] * 3
    assert run.losses.isfinite().all()


def test_unmasked_tail_uses_all_tokens() -> None:
    run = Run("clipa", recipe=Recipe(precision="fp32", unmasked_tail=0.25))
    seen = []
    run.learner.model.transformer.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))

    run.train()

    assert [inputs.shape[1] for inputs in seen] == [8] * 9 + [16] * 3
