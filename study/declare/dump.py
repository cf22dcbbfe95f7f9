"""A declaration as YAML with every default; `load` reads it back as the same declaration."""

from typing import Any

import yaml

from budgets.declaration.declaration import Declaration
from budgets.declaration.keys import Section
from budgets.names import without_secrets


def dump_declaration(declaration: Declaration) -> str:
    """Return the resolved declaration as the YAML that would declare it, without the storage's password."""
    content = plain(declaration)
    if declaration.storage is not None:
        content["storage"] = without_secrets(declaration.storage)
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def plain(declaration: Declaration) -> dict[str, Any]:
    """Return a declaration with every default, but without keys that contradict others."""
    content = Section(kind=Declaration).write(declaration) or {}
    if (samples := declaration.training.recipe.warmup_samples) is not None:
        content["training"]["warmup"] = f"{samples} samples"
    return content
