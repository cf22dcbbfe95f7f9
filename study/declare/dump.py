"""A declaration back to YAML, every default written out; `load` reads it as the same declaration."""

from dataclasses import asdict
from typing import Any

import yaml

from budgets.declaration import Declaration, EmbeddedPool, Exclusion, FolderPool, GridBlock, Ladder


def dump_declaration(declaration: Declaration) -> str:
    """Writes the resolved declaration as the YAML that would declare it."""
    training = asdict(declaration.training)
    resources = asdict(declaration.resources)  # its seconds are written without their unit
    content = {
        "study": declaration.name,
        "catalogue": declaration.catalogue,
        "pool": _pool(declaration),
        "storage": declaration.storage,
        "metric": declaration.metric,
        "evaluation": _evaluation(declaration),
        "budget": _budget(declaration),
        "seeds": list(declaration.seeds),
        "grid": [_block(block) for block in declaration.grid],
        "exclude": [_exclusion(rule) for rule in declaration.exclude],
        "training": training | _recipe(training.pop("recipe")),
        "limits": asdict(declaration.limits),
        "resources": _given({name.removesuffix("_s"): value for name, value in resources.items()}),
        "cluster": _cluster(declaration),
        "tuning": _tuning(declaration),
        "loggers": list(declaration.loggers),
    }
    return yaml.safe_dump(_given(content), sort_keys=False, allow_unicode=True)


def _pool(declaration: Declaration) -> dict[str, Any]:
    pool = declaration.pool
    if isinstance(pool, EmbeddedPool):
        return {"embedded": asdict(pool)}
    return {"path": pool.path} if isinstance(pool, FolderPool) else asdict(pool)


def _evaluation(declaration: Declaration) -> dict[str, Any]:
    folders = declaration.evaluation.items()
    sets = {
        name: {"path": path, "probe": True} if name in declaration.probes else path for name, path in folders
    }
    counts = declaration.evaluation_counts.items()
    return sets | {name: {"images": images, "texts": texts} for name, (images, texts) in counts}


def _budget(declaration: Declaration) -> dict[str, Any]:
    budget: dict[str, Any] = {"levels": list(declaration.levels)}
    if declaration.study_flops is not None:
        budget["study"] = declaration.study_flops
    if declaration.fit != "refuse":
        budget["fit"] = declaration.fit
    if declaration.study_flops is not None and not declaration.levels and declaration.ladder != Ladder():
        budget["ladder"] = asdict(declaration.ladder)
    return _given(budget)


def _recipe(recipe: dict[str, Any]) -> dict[str, Any]:
    """Writes a recipe with the keys of a declaration, without those that do not apply."""
    samples = recipe.pop("warmup_samples")
    if samples is not None:
        recipe["warmup"] = f"{samples} samples"
    if recipe["schedule"] != "constant-with-cooldown":
        del recipe["cooldown"]
    if recipe["optimizer"] != "adamw":
        del recipe["eps"]
    for name in ("gradient_clip", "diverged_after", "ema"):
        recipe[name] = recipe[name] or "off"
    return recipe


def _block(block: GridBlock) -> dict[str, Any]:
    return _given(
        {
            "architectures": list(block.architectures),
            "strategies": list(block.strategies),
            "sizes": _sizes(block.sizes),
            "quality": list(block.quality),
            "regime": block.regime,
            "levels": list(block.levels),
            "seeds": list(block.seeds),
            "samples": list(block.samples),
        }
    )


def _exclusion(rule: Exclusion) -> dict[str, Any]:
    axes = {axis: list(values) for axis, values in asdict(rule).items()}
    return _given(axes | {"sizes": _sizes(rule.sizes)})


def _sizes(sizes: tuple[int | None, ...]) -> list[int | str]:
    return ["all" if size is None else size for size in sizes]


def _cluster(declaration: Declaration) -> dict[str, Any]:
    cluster = declaration.cluster
    if cluster is None:
        return {}
    shares = None if cluster.utilisation is None else list(cluster.utilisation)
    return _given(asdict(cluster) | {"utilisation": shares})


def _tuning(declaration: Declaration) -> dict[str, Any]:
    tuning = declaration.tuning
    if tuning is None:
        return {}
    fields = {name: list(values) for name, values in tuning.fields.items()}
    return _given(asdict(tuning) | {"fields": fields, "seeds": list(tuning.seeds)})


def _given(content: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if value not in ({}, [], None)}
