"""Speed of the training loop, compared with a loop written the way open_clip trains.

Run ``python benchmarks/train.py`` from the root of the checkout.

Both loops train the same model from the same weights on the same shards with the same batch size, in turns.
The reference has webdataset's pipeline (shards, shuffle, PIL, transform, tokenizer, batches), ``ClipLoss``,
AdamW without weight decay on gains and biases, gradient clipping and a cosine schedule; it runs in fp32 and
in bf16 autocast, with torch's default attention. Ours is `runners.training.train` on the decoded pool.

On the processor each loop uses one thread and no loader processes. Speeds are samples per second of processor
time, so that other load matters less, and the best of all turns counts. The ratio is to the faster of the
reference's two precisions. FLOPs are those of `budgets.cost.flops`; the peak is the best product of two
square matrices in the precision of our loop on as many threads, measured between the turns. On the same
batches our loss curve must follow the reference in fp32; in the timed turns, where the orders differ, the
last losses must agree. Strategies that read columns or keep numbers by pair train the smallest model, and are
compared with CLIP.

With ``--device cuda`` the model is ViT-B/32 with batches of 1,024 simulated JPEGs, timed by wall clock, with
eight loader processes, and both loops read the same batches in the same way; `benchmarks/loader.py` compares
the ways of reading.

On the processor the loss alone is measured too, at a batch of 8,192 and a width of 512, on one rank and on
two: its time in products of a rank's rows of the similarity matrix, and its peak of memory in GiB. Limits are
those of gradients derived by hand (docs/dev/log.md). The last lines are name, value, limit, and pass or fail;
the exit code is 1 if one fails.
"""

import argparse
import math
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import open_clip
import torch
import webdataset
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measured import Result, at_least, at_most, own_peak, verdict
from budgets.cost.architecture import Architecture, load_architecture
from budgets.cost.flops import sample_cost
from budgets.cost.strategy import Strategy, find_strategy
from budgets.declaration.recipe import Recipe
from runners.data.build.rescore import set_column
from runners.data.pool.pool import Pool
from runners.data.pool.tokenizer import tokenizer
from runners.data.reading.training_data import Source, TrainingData, empty_for, on_device
from runners.data.reading.training_set import StreamedSet, open_data
from runners.embedded.embedded_pool import build_embedded_pool
from runners.models.model import build_model, compute_context, resolve_precision
from runners.training.backward import joint_loss
from runners.training.learner import make_learner
from runners.training.ranks import rank, rank_count, run_ranks
from runners.training.train import StepSchedule, to_float, train

# Batch sizes of the shipped studies; larger for the largest model, so that its matrix products are large.
LADDER = {
    "mini-ViT-XXS-8": 64, "mini-ViT-XS-8": 64, "mini-ViT-S-8": 64, "mini-ViT-M-8": 64, "mini-ConvNeXt": 64,
    "mini-ViT-L-8": 256,
}  # fmt: skip
CLIP = find_strategy("clip")
RECIPE = Recipe()
LR_PEAK, SEED = 1e-3, 0
_LONG_PRODUCT_S = 0.1
WARM = 8  # warm-up steps of each turn, not timed
SAME_CURVE, SAME_LAST = 0.01, 0.05  # of the loss; bf16 rounds to 0.4 %
RATIO, SHARE = 1.5, 0.5
LOSSES = {"clip": (14.0, 0.81), "siglip": (12.0, 0.93)}  # most products of a rank's rows, and GiB
_LOSS_WIDTH, _ROWS = 512, 1024
OTHERS, OF_CLIP = ("fastclip", "reinforced", "recaptions"), 0.8  # and their speed over CLIP's
PAIRS = 4096

Batches = Iterable[tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Settings that both loops share."""

    architecture: Architecture
    folder: Path
    device: torch.device
    batch: int
    steps: int
    workers: int

    def now(self) -> float:
        """Return processor seconds, or wall-clock seconds on a GPU."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    @property
    def schedule(self) -> StepSchedule:
        """The schedule of training steps."""
        return StepSchedule(
            seed=SEED, steps=self.steps, batch_size=self.batch, lr_peak=LR_PEAK, recipe=RECIPE
        )

    def model(self) -> open_clip.CLIP:
        """Build the model with its initial weights."""
        torch.manual_seed(SEED)
        return build_model(self.architecture.config).to(self.device)

    def tokens(self, texts: Iterable[str]) -> Tensor:
        """Return token ids of texts."""
        text: Any = self.architecture.config["text_cfg"]
        ids = tokenizer(text["vocab_size"], text["context_length"], Pool.open(self.folder).vocabulary)
        return torch.from_numpy(ids(list(texts)))

    def data(self, columns: Sequence[str] = ()) -> TrainingData:
        """Open the data of our loop, decoded before the timing starts, as in a study's trials."""
        pool = Pool.open(self.folder)
        source, size = Source(pool=pool, rows=np.arange(pool.count)), self.architecture.costs.image_size
        streamed = StreamedSet(sources=[source], image_size=size, tokens=self.tokens, workers=self.workers)
        return open_data(replace(streamed, columns=columns))


def ours(setting: Setting, strategy: Strategy = CLIP) -> tuple[float, Tensor, float]:
    """Run our loop; return samples/s, the loss of each step, and the share of time it waited for data."""
    data, marks = setting.data(strategy.columns), list[float]()
    waited, ended, walls = 0.0, math.nan, list[float]()
    learner = make_learner(
        setting.model(), strategy, recipe=RECIPE, lr_peak=LR_PEAK, steps=setting.steps, pairs=PAIRS
    )

    def before_step() -> None:
        nonlocal waited
        if len(marks) == 1:
            waited += time.perf_counter() - ended

    def after_step(done: int) -> None:
        nonlocal ended
        if done in {WARM, setting.steps}:
            marks.append(setting.now())
            walls.append(time.perf_counter())
        ended = time.perf_counter()

    precision = resolve_precision(RECIPE.precision, setting.device)
    train(
        learner,
        data,
        setting.schedule,
        first_step=0,
        context=partial(compute_context, precision, setting.device),
        before_step=before_step,
        after_step=after_step,
    )
    return _speed(setting, marks), learner.losses.cpu(), waited / (walls[1] - walls[0])


def add_columns(pool: Pool) -> None:
    """Add the columns that `OTHERS` read: other captions, and embeddings as wide as the small models'."""
    draw = np.random.default_rng(SEED)
    arrays = [draw.normal(size=(pool.count, 64)) / 8 for _ in range(2)]
    texts = pool.frame["caption"].to_numpy(object)
    set_column(pool, {"recaption": [texts], "teacher_image": arrays[:1], "teacher_text": arrays[1:]})


def reference(setting: Setting, precision: str, batches: Batches) -> tuple[float, Tensor]:
    """Run the reference loop; return samples/s and the loss of each step."""
    model, marks, losses = setting.model().to(memory_format=torch.contiguous_format), list[float](), []
    model.train()
    plain = [p for name, p in model.named_parameters() if p.ndim < 2 or "logit_scale" in name]  # noqa: PLR2004
    decayed = [p for name, p in model.named_parameters() if p.ndim >= 2 and "logit_scale" not in name]  # noqa: PLR2004
    groups = [
        {"params": plain, "weight_decay": 0.0},
        {"params": decayed, "weight_decay": RECIPE.weight_decay},
    ]
    betas = RECIPE.beta1, RECIPE.beta2
    optimizer = torch.optim.AdamW(groups, lr=LR_PEAK, betas=betas, eps=RECIPE.eps)
    loss_of, schedule = open_clip.ClipLoss(cache_labels=True), setting.schedule
    gradient_clip = RECIPE.gradient_clip or math.inf
    for step, (images, texts) in enumerate(islice(batches, setting.steps)):
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate(step)
        there = images.to(setting.device, non_blocking=True), texts.to(setting.device, non_blocking=True)
        optimizer.zero_grad()
        with torch.autocast(setting.device.type, torch.bfloat16, enabled=precision == "bf16"):
            loss = loss_of(*model(*there))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), gradient_clip)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, float(np.log(100)))
        losses.append(loss.detach())
        if step + 1 in {WARM, setting.steps}:
            marks.append(setting.now())
    return _speed(setting, marks), torch.stack(losses).float().cpu()


def usual_batches(setting: Setting) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches as open_clip reads them, with its evaluation transform: ours does not augment either."""
    transform = open_clip.image_transform(
        setting.architecture.costs.image_size, is_train=False, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
    )
    text: Any = setting.architecture.config["text_cfg"]
    ids = tokenizer(text["vocab_size"], text["context_length"], Pool.open(setting.folder).vocabulary)
    shards = sorted(str(path) for path in setting.folder.rglob("*.tar") if "evaluation" not in path.parts)
    pipeline = webdataset.DataPipeline(
        webdataset.ResampledShards(shards, seed=SEED),
        webdataset.tarfile_to_samples(),
        webdataset.shuffle(5000, initial=1000),
        webdataset.decode("pilrgb"),
        webdataset.rename(image="jpg;png", text="txt"),
        webdataset.map_dict(image=transform, text=lambda caption: torch.from_numpy(ids([caption])[0])),
        webdataset.to_tuple("image", "text"),
        webdataset.batched(setting.batch, partial=False),
    )
    workers, on_gpu = setting.workers, setting.device.type == "cuda"
    return iter(webdataset.WebLoader(pipeline, batch_size=None, num_workers=workers, pin_memory=on_gpu))


def our_batches(setting: Setting) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of our loop in its order, as floats on its device."""
    size, steps, empty = setting.batch, setting.steps, empty_for(setting.device)
    batches = setting.data().batches(seed=SEED, batch_size=size, first_step=0, steps=steps, empty=empty)
    for batch in on_device(batches, setting.device):
        yield to_float(batch.images), batch.tokens


def matmul_peak(setting: Setting) -> float:
    """Measure the FLOP/s of products of square matrices in the precision of our loop.

    On a processor the matrices grow until a product takes a tenth of a second.
    """
    precision = resolve_precision(RECIPE.precision, setting.device)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    best = 0.0
    for side in (8192,) if setting.device.type == "cuda" else (256, 512, 1024, 2048):
        left = torch.randn(side, side, device=setting.device).to(dtype)
        left @ left
        began = setting.now()
        left @ left
        times = max(1, min(30, int(0.3 / (setting.now() - began))))
        began = setting.now()
        for _ in range(times):
            left @ left
        seconds = (setting.now() - began) / times
        best = max(best, 2 * side**3 / seconds)
        if seconds > _LONG_PRODUCT_S:
            break
    return best


def _speed(setting: Setting, marks: list[float]) -> float:
    began, ended = marks
    return (setting.steps - WARM) * setting.batch / (ended - began)


def measure(setting: Setting, turns: int) -> tuple[float, float]:
    """Measure one model and print the results; return the ratio of speeds and the share of the peak."""
    name = setting.architecture.name
    bare, followed = reference(setting, "fp32", our_batches(setting))
    waits: list[float] = []
    batches = our_batches if setting.device.type == "cuda" else usual_batches

    def ours_waiting() -> tuple[float, Tensor]:
        speed, losses, waited = ours(setting)
        waits.append(waited)
        return speed, losses

    runs: dict[str, Callable[[], tuple[float, Tensor]]] = {
        "ours": ours_waiting,
        "reference, fp32": lambda: reference(setting, "fp32", batches(setting)),
        "reference, bf16": lambda: reference(setting, "bf16", batches(setting)),
    }
    best, last, peak = dict.fromkeys(runs, 0.0), dict.fromkeys(runs, 0.0), 0.0
    off = float("nan")
    for _ in range(turns):
        for label, run in runs.items():
            speed, losses = run()
            best[label] = max(best[label], speed)
            last[label] = losses[-max(1, setting.steps // 6) :].mean().item()
            if label == "ours":
                off = ((losses - followed).abs() / followed).max().item()
            peak = max(peak, matmul_peak(setting))
    cost = sample_cost(setting.architecture, CLIP, batch_size=setting.batch).train_flops
    print(f"{name}, batch {setting.batch}, {cost / 1e6:.1f} MFLOPs a sample; peak {peak / 1e9:,.0f} GFLOP/s")
    for label, speed in best.items():
        flops = speed * cost
        print(
            f"  {label}: {speed:,.0f} samples/s, {flops / 1e9:,.1f} GFLOP/s, {flops / peak:.1%} of the peak; "
            f"last losses {last[label]:.3f}"
        )
    faster = max(best["reference, fp32"], best["reference, bf16"])
    print(
        f"  {best['ours'] / faster:.2f} x the faster reference; on our batches its curve in fp32 is "
        f"{off:.2%} off ours at most, and it does {bare:,.0f} samples/s; ours waits {min(waits):.1%} of the "
        "time for data"
    )
    assert off < SAME_CURVE, f"{name}: the loss is off the reference's by {off:.2%} on the same batches"
    spread = max(last.values()) / min(last.values()) - 1
    assert spread < SAME_LAST, f"{name}: the last losses differ by {spread:.1%}"
    return best["ours"] / faster, best["ours"] * cost / peak


def loss_cost(name: str, pairs: int) -> tuple[float, float]:
    """Return the time of a rank's share of a loss, in products of its rows, and its peak memory in GiB."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(SEED)
    sides = nn.functional.normalize(torch.randn(2, pairs, _LOSS_WIDTH, generator=generator), dim=2)
    local = [side.chunk(rank_count())[rank()].clone().requires_grad_() for side in sides]
    scale, bias = torch.tensor(2.6).requires_grad_(), torch.tensor(-10.0).requires_grad_()
    model, held = SimpleNamespace(logit_scale=scale, logit_bias=bias), own_peak()
    began = time.process_time()
    joint_loss(find_strategy(name), model, local, (scale, bias))
    seconds, grown = time.process_time() - began, own_peak() - held
    began = time.process_time()
    for rows in local[0].detach().split(_ROWS):
        rows @ sides[1].T
    return seconds / (time.process_time() - began), grown


def measure_losses(pairs: int) -> Iterator[Result]:
    """Measure losses on one rank and on two, each in processes of their own."""
    for name, (most_products, most_gib) in LOSSES.items():
        for ranks in (1, 2):
            products, gib = run_ranks(partial(loss_cost, name, pairs), count=ranks, gpus=False)
            yield at_most(f"train_loss_{name}_{ranks}_products", products, most_products)
            yield at_most(f"train_loss_{name}_{ranks}_gib", gib, most_gib)


def main() -> int:
    """Run the benchmark and return the exit code."""
    parser = argparse.ArgumentParser(description="Measure the speed of training.")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--models", nargs="+", metavar="MODEL", help="models to measure (default: the small ladder)"
    )
    parser.add_argument(
        "--batch", type=int, help="batch size (default: 64, 256 for the largest model, 1024 on a GPU)"
    )
    parser.add_argument(
        "--steps", type=int, default=48, help=f"steps per turn, the first {WARM} not timed (default: 48)"
    )
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument(
        "--loss-pairs", type=int, default=8192, help="batch of which the loss is measured (default: 8192)"
    )
    options = parser.parse_args()
    if options.steps <= WARM:
        parser.error(f"--steps must be above {WARM}")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU")
    warnings.simplefilter("ignore")
    device = torch.device(options.device)
    on_gpu = device.type == "cuda"
    models = options.models or (("ViT-B-32",) if on_gpu else tuple(LADDER))
    torch.set_num_threads(1)
    lines = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "pool"
        if on_gpu:
            from benchmarks.loader import make_shards  # noqa: PLC0415 (only a GPU needs it)

            make_shards(folder, 16_384)
        else:
            add_columns(build_embedded_pool(folder, pairs=PAIRS, seed=0, score=None, evaluation_sizes={}))
        for model in models:
            setting = Setting(
                architecture=load_architecture(model),
                folder=folder,
                device=device,
                batch=options.batch or (1024 if on_gpu else LADDER.get(model, 64)),
                steps=options.steps,
                workers=8 if on_gpu else 0,
            )
            ratio, share = measure(setting, options.turns)
            lines.append(at_least(f"train_{model}_ratio", ratio, RATIO))
            if model == (models[-1] if on_gpu else max(LADDER, key=lambda name: LADDER[name])):
                lines.append(at_least(f"train_{model}_matmul_share", share, SHARE))
            if model == models[0] and not on_gpu:
                speeds = dict.fromkeys(("clip", *OTHERS), 0.0)
                for strategy in list(speeds) * options.turns:
                    speeds[strategy] = max(speeds[strategy], ours(setting, find_strategy(strategy))[0])
                shares = {other: speeds[other] / speeds["clip"] for other in OTHERS}
                lines += [at_least(f"train_{other}_of_clip", shares[other], OF_CLIP) for other in OTHERS]
    if not on_gpu:
        lines += measure_losses(options.loss_pairs)
    return verdict(lines)


if __name__ == "__main__":
    sys.exit(main())
