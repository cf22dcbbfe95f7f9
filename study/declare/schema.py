"""JSON schema of a declaration: editors complete and check a study's YAML file by it."""

import json

from budgets.cost.architecture import catalogue, open_clip_configs
from budgets.cost.strategy import strategies
from budgets.declaration.declaration import Declaration
from budgets.declaration.keys import Section
from budgets.declaration.value_forms import Schema

FILE = "study.schema.json"
"""Name of the file that ``study new`` writes beside a declaration, whose first line names it."""


def declaration_schema() -> Schema:
    """Return the schema.

    A user's own architecture is none of the names that are completed, so any name is allowed.
    """
    names = {"architecture": {*catalogue(), *open_clip_configs()}, "strategy": strategies()}
    whole = Section(kind=Declaration).schema()
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A study of Scaling study",
        **whole,
        "$defs": {
            kind: {"anyOf": [{"enum": sorted(known)}, {"type": "string"}]} for kind, known in names.items()
        },
    }


def schema_text() -> str:
    """Return the schema as the text of its file."""
    return json.dumps(declaration_schema(), ensure_ascii=False) + "\n"
