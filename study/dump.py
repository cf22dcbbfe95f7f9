"""A declaration back to YAML, every default written out; `study.load` reads it as the same declaration."""

from dataclasses import asdict
from typing import Any

import yaml

from budgets.declaration import Declaration, EmbeddedPool, GridBlock


def dump_declaration(declaration: Declaration) -> str:
    """Writes the resolved declaration as the YAML that would declare it."""
    pool = declaration.pool
    training = asdict(declaration.training)
    budget: dict[str, Any] = {"levels": list(declaration.levels)}
    if declaration.study_flops is not None:
        budget["study"] = declaration.study_flops
    resources = asdict(declaration.resources)
    content = {
        "study": declaration.name,
        "pool": {"embedded": asdict(pool)} if isinstance(pool, EmbeddedPool) else {"path": pool.path},
        "metric": declaration.metric,
        "evaluation": declaration.evaluation,
        "budget": budget,
        "seeds": list(declaration.seeds),
        "grid": [_block(block) for block in declaration.grid],
        "training": training | training.pop("recipe"),
        "limits": asdict(declaration.limits),
        "resources": resources | {"checkpoint": resources.pop("checkpoint_s")},
    }
    return yaml.safe_dump({key: value for key, value in content.items() if value != {}}, sort_keys=False)


def _block(block: GridBlock) -> dict[str, Any]:
    content: dict[str, Any] = {
        "architectures": list(block.architectures),
        "strategies": list(block.strategies),
        "sizes": ["all" if size is None else size for size in block.sizes],
        "quality": list(block.quality),
        "regime": block.regime,
        "levels": list(block.levels),
        "seeds": list(block.seeds),
        "samples": list(block.samples),
    }
    return {key: value for key, value in content.items() if value not in ([], None)}
