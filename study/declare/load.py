"""Reader of declarations."""

from dataclasses import replace
from pathlib import Path

from budgets.cost.architecture import catalogue, load_architecture, open_clip_configs
from budgets.cost.strategy import strategies
from budgets.declaration import values
from budgets.declaration.declaration import Declaration
from budgets.declaration.keys import Section
from budgets.declaration.marked_file import Node
from budgets.declaration.recipe import PRESETS, Recipe
from study.declare.yaml_reader import read_top


def load_declaration(path: Path, folder: Path | None = None) -> Declaration:
    """Read and check a declaration.

    Args:
        path: The file.
        folder: Folder that relative paths are relative to; by default that of the file, and for the
            ``study.yaml`` that a run saved the working directory, as in the run.

    Raises:
        DeclarationError: All errors of the file, one per line, each with its line number.
    """
    if folder is None:
        folder = Path() if _is_saved(path) else path.parent
    top = read_top(path, folder)
    # Planning alone executes a user's files, and then checks the names.
    known = None if "strategy_files" in top.inside else tuple(strategies())
    top.file.names = {"architecture": _architectures(top), "strategy": known}
    declaration: Declaration = Section(kind=Declaration).read(top, None)
    # An error of reading may have left an axis incomplete.
    if all(
        node.sound for key, node in top.inside.items() if key in {"grid", "exclude", "resources", "training"}
    ):
        for at, message in declaration.unmatched():
            top.clash(at, message)
    top.file.raise_any()
    return _completed(declaration)


def _is_saved(path: Path) -> bool:
    """Return whether a declaration is the copy that a run keeps in the study's folder."""
    files = ("spent.parquet", "plan.parquet", "left-out.parquet")
    spent, *tables = (path.with_name(file).is_file() for file in files)
    # A user may have written a plan of that name beside a declaration of that name.
    return path.name == "study.yaml" and (spent or all(tables))


def _completed(declaration: Declaration) -> Declaration:
    """Return a declaration with the rates of its preset, and with a warm-up that was declared in samples."""
    training, recipe = declaration.training, declaration.training.recipe
    preset = PRESETS[training.preset]
    used = (name for block in declaration.grid for name in block.architectures)
    rates = {} if preset.lr_peak is None else dict.fromkeys(used, preset.lr_peak)
    if isinstance(recipe.warmup, int):
        recipe = replace(recipe, warmup=Recipe().warmup, warmup_samples=recipe.warmup)
    return replace(declaration, training=replace(training, lr_peak=rates | training.lr_peak, recipe=recipe))


def _architectures(top: Node) -> tuple[str, ...]:
    """Return the architectures that may be used: the catalogue's, open_clip's, the declared folder's."""
    node, configs = top.inside.get("catalogue"), dict[str, Path]()
    declared = None if node is None else values.path.read(node, None)
    if node is not None and declared:
        configs = {file.stem: file for file in sorted(Path(declared).glob("*.json"))}
        if not configs:
            node.error(f"catalogue: '{node.value}' must be a folder with JSON files")
        for name in configs:
            try:
                load_architecture(name, declared)
            except (ValueError, OSError) as error:
                node.error(f"catalogue: {error}")
    return tuple(sorted({*open_clip_configs(), *catalogue(), *configs}))
