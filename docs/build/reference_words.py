"""What docs/declaration.md says beyond the data classes: readers in words, headings, keys without a field."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from budgets import declaration as declared
from budgets.devices import devices
from budgets.quantity import parse_seconds, parse_share
from budgets.recipe import Recipe
from study.declare import values

INTRODUCTION = """
# The declaration

Every key of a study's YAML file. `python -m study new NAME` writes a commented file to start from;
`python -m study plan FILE` checks one and shows what it asks for. An unknown key, a value that is not allowed
and keys that contradict each other are errors with file, line and the nearest valid name, all at once.
This page is written by `python -m docs.build.reference` from the loader and the data classes; a test holds it
to them.

Numbers are written as people do: `10M` or `1_000_000` pairs; `1e18`, `900 GFLOP`, `2 EFLOP` or
`3 gpu-days of h100 at 40%` of compute; `10%` or `0.1` for a share; `30 s`, `2 min` or `1.5 h`. A single value
stands for a list of one. The default `–` is: nothing.
"""

WORDS: Mapping[Callable[[str], Any], tuple[str, tuple[str, ...]]] = MappingProxyType(
    {
        str: ("a text", ()),
        parse_seconds: ("a time", ("30 s", "2 min")),
        parse_share: ("a share from 0 to 1", ("10%", "0.1")),
        values.batch: ("a whole number above 0", ()),
        values.compute: ("compute", ("900 GFLOP", "1e18")),
        values.device_count: ("a whole number above 0", ()),
        values.device_name: (
            ", ".join(f"`{name}`" for name in sorted({d.name for d in devices().values()})),
            (),
        ),
        values.devices_of_a_trial: ("a whole number from 0", ()),
        values.level_count: ("a whole number from 1 to 100", ()),
        values.metric: ("`<evaluation set>/<metric>`", ("held-out/top1",)),
        values.name: ("letters, digits, `.`, `_`, `-`", ()),
        values.not_negative: ("a number from 0", ()),
        values.path: ("a folder", ()),
        values.positive: ("a whole number above 0", ("4096", "10M")),
        values.positive_number: ("a number above 0", ("2.5", "1e-3")),
        values.positive_or_zero: ("a whole number from 0", ()),
        values.positive_share: ("a share above 0", ("10%",)),
        values.quality: ("`all`, `topNN`, or `subset:NAME`", ("top40",)),
        values.ratio: ("a number from 1.01", ("2",)),
        values.share_below_one: ("a number or share from 0, below 1", ("0.98", "98%")),
        values.size: ("pairs, or `all`", ("10M", "all")),
        values.storage: ("an absolute path, or an fsspec URL", ("/shared/clip", "s3://bucket/clip")),
        values.warmup: ("a share, or samples", ("10%", "10k samples")),
        values.yes_or_no: ("`true` or `false`", ()),
    }
)
"""What a reader takes, in words and by examples."""

CLASSES: Mapping[str, tuple[type, ...]] = MappingProxyType(
    {
        "": (declared.Declaration,),
        "pool": (declared.FolderPool, declared.DescribedPool),
        "pool.embedded": (declared.EmbeddedPool,),
        "budget": (declared.Declaration,),
        "budget.ladder": (declared.Ladder,),
        "grid[]": (declared.GridBlock,),
        "exclude[]": (declared.Exclusion,),
        "training": (declared.Training, Recipe),
        "limits": (declared.Limits,),
        "resources": (declared.Resources,),
        "cluster": (declared.Cluster,),
        "tuning": (declared.Tuning,),
        "evaluation": (),
        "evaluation.NAME": (),
    }
)
"""Section → the classes that its keys end up in."""

FIELD_OF: Mapping[str, str] = MappingProxyType(
    {
        "study": "name",
        "budget.study": "study_flops",
        "resources.backoff": "backoff_s",
        "resources.checkpoint": "checkpoint_s",
        "resources.wait": "wait_s",
    }
)
"""Keys whose field has another name."""

MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "budget": "What may be spent",
        "loggers": "Other tools that are written to ([watching](watching.md))",
        "tuning.fields": "Field of `training` → the values to try ([which](#presets))",
        "evaluation": "Further evaluation sets",
        "evaluation.NAME": "A set: its folder in CLIP_benchmark's webdataset layout, or a section of these",
        "evaluation.NAME.path": "Its folder",
        "evaluation.NAME.probe": "Whether linear and few-shot probes are fitted to its training split",
        "evaluation.NAME.images": "Its images, where the pool is only described",
        "evaluation.NAME.texts": "Its texts, where the pool is only described",
        "pool.embedded": "The pool that comes with the project, generated from a seed",
        "training.preset": "[Settings](#presets) that are taken over; what is declared goes before them",
        "training.warmup": (
            "Share of the steps in which the learning rate rises linearly to its peak, or the samples seen "
            "that it takes, rounded up to whole batches"
        ),
    }
)
"""Keys that have no field of their own, or that a field does not explain to one who writes YAML."""

DEFAULTS: Mapping[str, str] = MappingProxyType(
    {
        "budget": "needed by `fixed-compute` blocks",
        "budget.study": "–",
        "budget.ladder": "as below, without `levels`",
        "pool.name": "required of a described pool",
        "pool.pairs": "required of a described pool",
        "training.lr_peak": "required unless a preset has it or it is tuned",
    }
)

HEADINGS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "": ("The file", ""),
        "pool": (
            "`pool`",
            "One of three: `embedded`, `path`, or `name`, `pairs` and `scored` of a pool that is not here.",
        ),
        "pool.embedded": ("`pool.embedded`", ""),
        "evaluation": ("`evaluation`", ""),
        "evaluation.NAME": ("`evaluation.NAME`", ""),
        "budget": ("`budget`", "`levels`, `study`, or both; `ladder` and `fit` go with `study`."),
        "budget.ladder": ("`budget.ladder`", ""),
        "grid[]": (
            "`grid`",
            (
                "A list of blocks, each the product of its lists. `levels` goes with `regime: fixed-compute` "
                "alone, `samples` with `regime: equal-samples`, which needs it."
            ),
        ),
        "exclude[]": ("`exclude`", "A list of rules; each names at least one axis."),
        "training": (
            "`training`",
            (
                "The same for all trials. `cooldown` goes with `schedule: constant-with-cooldown`, `eps` "
                "with `optimizer: adamw`. A batch must be a multiple of ranks times `accumulation`."
            ),
        ),
        "limits": ("`limits`", ""),
        "resources": ("`resources`", "`cpus`, and `gpus` or `ranks`, must be multiples of `nodes`."),
        "cluster": ("`cluster`", ""),
        "tuning": (
            "`tuning`",
            "Needs `budget.study`. See [Presets](#presets) for the fields that can be tuned.",
        ),
    }
)
"""Section → its heading and what holds for all of it."""
