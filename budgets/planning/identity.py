"""A trial's id: a hash of everything that decides its result, and of nothing else.

Settings of the recipe that have their default are left out of the hash, so that a setting that is added later
changes no id. If a default changes, `_VERSION` must rise with it: otherwise trials that were run with the
former default would count as trials of the new one.

Devices, accumulation, gradient checkpointing and compilation change a result only by rounding and are not
part of the id: a trial may continue with others. Batch norm is the exception, because its statistics are
those of a part of the batch, and recomputation updates its running statistics twice. With batch norm,
accumulation and gradient checkpointing enter the id.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING

from budgets.declaration.recipe import Recipe
from budgets.quality import BY

if TYPE_CHECKING:
    from budgets.planning.planned_trial import Cell, Trial

_VERSION = 1
_ROUNDING_ALONE = {"accumulation", "gradient_checkpointing", "compile"}
_OF_BATCH_NORM = {"accumulation", "gradient_checkpointing"}


def trial_id(trial: "Trial") -> str:
    """Derive the id: 12 hexadecimal digits, the same in any study.

    Costs are not part of it, so that a correction of the FLOP accounting keeps the ids.
    """
    # ``top40 by mine`` is ``top40`` of the pool in the order of ``mine``, which ``trial.pool`` names.
    return _digest(trial, _cell(trial.cell, _quality(trial).partition(BY)[0]), trial.samples_seen)


def trunk_id(trial: "Trial") -> str:
    """Derive the id of a trial's trunk: the same for trials that differ only in how long they train."""
    cell = trial.cell
    subset = (
        f"[{cell.subset_size},{_text(_quality(trial))},{_text(cell.architecture)},{_text(cell.strategy)}]"
    )
    return _digest(trial, subset, 0)


def _digest(trial: "Trial", cell: str, samples: int) -> str:
    # The text is what `_json` gives for the whole content, with sorted keys. It is put together from cached
    # parts that trials share, because large grids have very many trials.
    content = (
        f'[{_VERSION},{{"architecture_config":{_config(trial.cell.architecture, trial.architecture_config)},'
        f'"batch_size":{trial.batch_size},"cell":{cell},"evaluation_sets":{_text(trial.evaluation_sets)},'
        f'"lr_peak":{trial.lr_peak!r},"pool":{_text(trial.pool)},'
        f'"recipe":{_recipe(trial.recipe, trial.batch_norm)},"samples_seen":{samples},"seed":{trial.seed}}}]'
    )
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def _quality(trial: "Trial") -> str:
    """Return the quality; of a mixture, its components without their names.

    A mixture of one component is a subset of its pool.
    """
    if len(trial.mixture) > 1:
        parts = [each.content[1:] for each in trial.mixture]
        return f"mixture {_json(parts)}"
    return trial.mixture[0].quality if trial.mixture else trial.cell.quality


def _cell(cell: "Cell", quality: str) -> str:
    level = "null" if cell.level_flops is None else cell.level_flops
    return (
        f'{{"architecture":{_text(cell.architecture)},"level_flops":{level},"quality":{_text(quality)},'
        f'"regime":{_text(cell.regime)},"strategy":{_text(cell.strategy)},"subset_size":{cell.subset_size}}}'
    )


# A large grid has very many trials but few architectures: each config is serialised once.
_configs: dict[str, tuple[Mapping[str, object], str]] = {}


def _config(name: str, config: Mapping[str, object]) -> str:
    """Return the config as text."""
    known = _configs.get(name)
    if known is None or known[0] is not config:
        known = _configs[name] = config, _json(config)
    return known[1]


@cache
def _recipe(recipe: Recipe, batch_norm: bool) -> str:  # noqa: FBT001 - cached by position
    default = Recipe()
    left_out = _ROUNDING_ALONE - _OF_BATCH_NORM if batch_norm else _ROUNDING_ALONE
    names = [each.name for each in fields(recipe) if each.name not in left_out]
    return _json(
        {name: getattr(recipe, name) for name in names if getattr(recipe, name) != getattr(default, name)}
    )


def _json(content: object) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


_text = cache(_json)
