"""A declaration back to YAML, every default written out; `load` reads it as the same declaration."""

import yaml

from budgets.declaration import Declaration
from study.declare.walk import plain


def dump_declaration(declaration: Declaration) -> str:
    """Return the resolved declaration as the YAML that would declare it."""
    return yaml.safe_dump(plain(declaration), sort_keys=False, allow_unicode=True)
