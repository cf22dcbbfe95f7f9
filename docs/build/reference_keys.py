"""The keys of a declaration, heard from the loader while it reads declarations that have every section."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from study.declare import load
from study.declare.yaml_reader import Problems, Section

T = TypeVar("T")

EXAMPLES = (
    """
study: folder
pool: {path: FOLDER}
evaluation: {NAME: {path: FOLDER, probe: true}}
budget: {study: 1 PFLOP, ladder: {levels: 3}}
grid: [{architectures: [ViT-B-32]}]
exclude: [{strategies: [clip]}]
training: {preset: paper}
limits: {}
resources: {}
cluster: {device: h100}
tuning: {share: 10%, fields: {lr_peak: [1e-3, 2e-3]}}
""",
    "{pool: {name: NAME, pairs: 10M}, evaluation: {NAME: {images: 50k, texts: 80k}}, grid: [{}]}",
    "{pool: {embedded: {pairs: 8192}}, evaluation: {NAME: FOLDER}, grid: [{}]}",
)
"""Declarations whose sections are all that there are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """What the loader asked for.

    Attributes:
        path: Where it stands, such as ``grid[].levels``.
        read: What reads its value, or each of its values; None for a section.
        form: ``value``, ``list``, ``mapping`` of names to values, ``section``, or ``sections``.
        required: Whether it must be given.
        default: What the loader takes without it.
    """

    path: str
    read: Callable[[str], Any] | None
    form: str
    required: bool
    default: object = None


class _Heard(Problems):
    """Takes no note of errors, but of each key that is asked for."""

    def __init__(self) -> None:
        super().__init__(Path("an example"))
        self.keys: dict[str, Key] = {}

    def hear(self, key: Key) -> None:
        self.keys.setdefault(key.path, key)


class _Listening(Section):
    """A section that tells what it is asked for."""

    def take(self, key: str, read: Callable[[str], T], default: T | None = None) -> T:
        self._hear(key, read, "value", required=default is None, default=default)
        return super().take(key, read, default)

    def take_list(
        self, key: str, read: Callable[[str], T], default: tuple[T, ...] | None = None
    ) -> tuple[T, ...]:
        self._hear(key, read, "list", required=default is None, default=default)
        return super().take_list(key, read, default)

    def take_mapping(
        self, key: str, read: Callable[[str], T], check_key: Callable[[str], str] = str
    ) -> dict[str, T]:
        self._hear(key, read, "mapping", required=False)
        return super().take_mapping(key, read, check_key)

    def section(self, key: str, *, required: bool = False) -> "_Listening | None":
        self._hear(key, None, "section", required=required)
        return super().section(key, required=required)

    def sections(self, key: str, *, required: bool = True) -> Iterator["_Listening"]:
        self._hear(key, None, "sections", required=required)
        return super().sections(key, required=required)

    def _hear(
        self,
        key: str,
        read: Callable[[str], Any] | None,
        form: str,
        *,
        required: bool,
        default: object = None,
    ) -> None:
        assert isinstance(self.problems, _Heard)
        path = re.sub(r"\[\d+\]", "[]", self._field(key))
        self.problems.hear(Key(path=path, read=read, form=form, required=required, default=default))


def keys() -> dict[str, Key]:
    """Gives every key that the loader takes, by its path.

    Raises:
        ValueError: Nothing was asked of a section: no example has it.
    """
    heard = _Heard()
    for example in EXAMPLES:
        node = yaml.compose(example)
        assert node is not None
        load.read_declaration(_Listening(node, "", heard))
    for path, key in heard.keys.items():
        inner = f"{path}[]." if key.form == "sections" else f"{path}."
        if key.read is None and not any(other.startswith(inner) for other in heard.keys):
            raise ValueError(f"no example of docs.build.reference_keys has the section '{path}'")
    return {path: key for path, key in heard.keys.items() if not path.startswith("tuning.fields.")}
