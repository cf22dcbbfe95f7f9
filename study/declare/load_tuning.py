"""The part of a declaration that says what is tuned before the grid runs."""

from collections.abc import Callable

from budgets.declaration import Tuning
from budgets.names import unknown
from study.declare import values
from study.declare.load_grid import Budget
from study.declare.yaml_reader import Section

FIELDS: dict[str, Callable[[str], float]] = {
    "lr_peak": values.positive_number,
    "batch_size": values.batch,
    "weight_decay": values.not_negative,
    "beta1": values.share_below_one,
    "beta2": values.share_below_one,
    "eps": values.positive_number,
    "warmup": values.share_below_one,
    "warmup_samples": values.positive,
    "cooldown": values.share_below_one,
    "gradient_clip": values.positive_number,
    "ema": values.share_below_one,
    "unmasked_tail": values.share_below_one,
}
"""What can be tuned: the numbers of ``training:``, each with the reader of its values."""


def read_tuning(root: Section, budget: Budget) -> Tuning | None:
    """Reads the share, the values to try, their seeds and the metric that selects."""
    section = root.section("tuning")
    if section is None:
        return None
    fields: dict[str, tuple[float, ...]] = {}
    inner = section.section("fields", required=True)
    for name in inner.names() if inner is not None else ():
        assert inner is not None
        if name not in FIELDS:
            inner.error(f"tuning.fields: {unknown('field', name, FIELDS)}", name)
        fields[name] = tuple(sorted(inner.take_list(name, FIELDS.get(name, values.positive_number))))
        if len(fields[name]) < 2:  # noqa: PLR2004 - one of two wins
            inner.error(f"tuning.fields.{name} needs at least two values to choose from", name)
    if inner is not None and not fields:
        section.error("tuning.fields names no field to tune", "fields")
    default = Tuning(share=0, fields={})
    metric = section.take("metric", values.metric, "")
    tuning = Tuning(
        share=section.take("share", values.positive_share),
        fields=fields,
        seeds=section.take_list("seeds", values.positive_or_zero, default.seeds),
        metric=metric or None,
    )
    section.done()
    if budget.study_flops is None:
        section.error("tuning.share is a share of the study budget: declare budget.study", "share")
    return tuning
