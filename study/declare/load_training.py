"""The part of a declaration that says how trials train, within which limits, and on what."""

from collections.abc import Sequence

from budgets.declaration import Cluster, GridBlock, Limits, Resources, Training
from budgets.quantity import parse_seconds, parse_share
from budgets.recipe import OPTIMIZERS, PRECISIONS, PRESETS, SCHEDULES, Recipe
from study.declare import values
from study.declare.yaml_reader import OneOf, Section


def read_training(
    root: Section,
    architectures: tuple[str, ...],
    grid: tuple[GridBlock, ...],
    *,
    tuned: tuple[str, ...] = (),
) -> Training:
    """Reads the recipe and each architecture's peak learning rate.

    Args:
        root: The file.
        architectures: Every name that the declaration may use.
        grid: Whose architectures a preset's learning rate is for.
        tuned: Fields that are tuned; a peak learning rate need not be declared then.
    """
    section = root.section("training", required=True)
    if section is None:
        return Training(lr_peak={})
    preset = PRESETS[section.take("preset", OneOf("preset", tuple(PRESETS)), "default")]
    if not section.has("lr_peak") and preset.lr_peak is None and "lr_peak" not in tuned:
        section.error("training.lr_peak is missing: the peak learning rate of each architecture")
    lr_peak = section.take_mapping("lr_peak", values.positive_number, OneOf("architecture", architectures))
    if preset.lr_peak is not None:
        used = (name for block in grid for name in block.architectures)
        lr_peak = dict.fromkeys(used, preset.lr_peak) | lr_peak
    training = Training(
        lr_peak=lr_peak,
        batch_size=section.take("batch_size", values.batch, preset.batch_size),
        recipe=_read_recipe(section, preset.recipe),
    )
    section.done()
    return training


def _read_recipe(section: Section, default: Recipe) -> Recipe:
    warmup = section.take("warmup", values.warmup, default.warmup)
    clip = section.take("gradient_clip", values.OrOff(values.positive_number), default.gradient_clip or 0.0)
    after = section.take("diverged_after", values.OrOff(values.positive_share), default.diverged_after or 0.0)
    recipe = Recipe(
        optimizer=section.take("optimizer", OneOf("optimizer", OPTIMIZERS), default.optimizer),
        weight_decay=section.take("weight_decay", values.not_negative, default.weight_decay),
        beta1=section.take("beta1", values.share_below_one, default.beta1),
        beta2=section.take("beta2", values.share_below_one, default.beta2),
        eps=section.take("eps", values.positive_number, default.eps),
        schedule=section.take("schedule", OneOf("schedule", SCHEDULES), default.schedule),
        warmup=warmup if isinstance(warmup, float) else Recipe().warmup,
        warmup_samples=warmup if isinstance(warmup, int) else None,
        cooldown=section.take("cooldown", values.positive_share, default.cooldown),
        gradient_clip=clip or None,
        accumulation=section.take("accumulation", values.batch, default.accumulation),
        ema=section.take("ema", values.OrOff(values.share_below_one), default.ema),
        unmasked_tail=section.take("unmasked_tail", values.share_below_one, default.unmasked_tail),
        precision=section.take("precision", OneOf("precision", PRECISIONS), default.precision),
        gradient_checkpointing=section.take(
            "gradient_checkpointing", values.yes_or_no, default.gradient_checkpointing
        ),
        compile=section.take("compile", values.yes_or_no, default.compile),
        diverged_after=after or None,
    )
    if section.has("cooldown") and recipe.schedule != "constant-with-cooldown":
        section.error(
            f"training.cooldown goes with schedule: constant-with-cooldown, found {recipe.schedule}",
            "cooldown",
        )
    if section.has("eps") and recipe.optimizer != "adamw":
        section.error(f"training.eps is AdamW's, the optimizer is {recipe.optimizer}", "eps")
    return recipe


def read_limits(root: Section) -> Limits:
    """Reads what makes a cell not worth its compute."""
    section = root.section("limits")
    default = Limits()
    if section is None:
        return default
    limits = Limits(
        min_steps=section.take("min_steps", values.positive, default.min_steps),
        max_epochs=section.take("max_epochs", values.positive_number, default.max_epochs),
        damage=section.take("damage", parse_share, default.damage),
    )
    section.done()
    return limits


def read_resources(root: Section) -> Resources:
    """Reads what one trial occupies."""
    section = root.section("resources")
    default = Resources()
    if section is None:
        return default
    resources = Resources(
        cpus=section.take("cpus", values.device_count, default.cpus),
        gpus=section.take("gpus", values.devices_of_a_trial, default.gpus),
        nodes=section.take("nodes", values.device_count, default.nodes),
        ranks=section.take("ranks", values.device_count, default.ranks),
        retries=section.take("retries", values.positive_or_zero, default.retries),
        backoff_s=section.take("backoff", parse_seconds, default.backoff_s),
        checkpoint_s=section.take("checkpoint", parse_seconds, default.checkpoint_s),
        checkpoint_steps=section.take("checkpoint_steps", values.positive_or_zero, default.checkpoint_steps),
        custom=section.take_mapping("custom", values.positive_number, values.resource),
        wait_s=section.take("wait", parse_seconds, default.wait_s),
    )
    section.done()
    if resources.gpus and resources.ranks > 1:
        section.error("resources.ranks goes without GPUs: each of resources.gpus has its rank", "ranks")
    for key in ("cpus", "gpus") if resources.gpus else ("cpus", "ranks"):
        amount = getattr(resources, key)
        if amount % resources.nodes:
            section.error(
                f"resources.{key} = {amount} can't be spread evenly over resources.nodes = {resources.nodes}",
                key,
            )
    return resources


def check_batch(
    root: Section, training: Training, resources: Resources, *, tuned: Sequence[float] = ()
) -> None:
    """Notes a batch, of those that are tuned, too, that its ranks and parts can't share evenly."""
    shares = max(resources.gpus, resources.ranks) * training.recipe.accumulation
    uneven = [size for size in tuned or (training.batch_size,) if size % shares]
    if uneven:
        where = "tuning.fields" if tuned else "training"
        root.error(
            f"{where}.batch_size = {uneven[0]:g} can't be cut into {shares} equal parts: "
            "ranks (resources.gpus, or resources.ranks) times training.accumulation",
            "tuning" if tuned else "training",
        )


def check_storage(root: Section, storage: str, resources: Resources) -> None:
    """Notes a trial that is wider than its storage lets it be."""
    if "://" in storage and resources.nodes > 1:
        root.error(
            f"storage: a trial over resources.nodes = {resources.nodes} needs a folder that they share; "
            f"{storage} is copied to each node by itself",
            "storage",
        )


def read_cluster(root: Section, resources: Resources) -> Cluster | None:
    """Reads the devices that the study is priced on."""
    section = root.section("cluster")
    if section is None:
        return None
    shares = section.take_list("utilisation", values.positive_share, ())
    price = section.take("price_per_hour", values.positive_number, 0.0)
    cluster = Cluster(
        device=section.take("device", values.device_name),
        count=section.take("count", values.device_count, 1),
        utilisation=(min(shares), max(shares)) if shares else None,
        price_per_hour=price or None,
    )
    section.done()
    if len(shares) > 2:  # noqa: PLR2004 - the ends of a range
        section.error(
            "cluster.utilisation is one share of the peak, or the lowest and the highest", "utilisation"
        )
    if isinstance(cluster.count, int) and cluster.count < max(1, resources.gpus or 0):
        section.error(
            f"cluster.count = {cluster.count} is fewer than resources.gpus = {resources.gpus} of one trial",
            "count",
        )
    return cluster
