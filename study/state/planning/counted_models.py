"""Models of a grid that have no closed form: torch counts them once on each machine."""

from collections.abc import Iterator
from pathlib import Path

from budgets.cost.architecture import Architecture, load_architecture
from budgets.cost.counted import read_count
from budgets.declaration.declaration import Declaration
from budgets.declaration.keys import at_key


def count_models(declaration: Declaration) -> None:
    """Have torch count each model of the grid that has no closed form, once on this machine.

    Raises:
        ValueError: open_clip can't build it; the message gives its reason.
    """
    for architecture in _without_closed_form(declaration):
        if read_count(architecture.config) is None:
            from runners.models.count_by_torch import ensure_counted  # noqa: PLC0415 - torch takes seconds

            with at_key("grid" if declaration.catalogue is None else "catalogue"):
                ensure_counted(architecture)


def counted_models(declaration: Declaration) -> str:
    """Name the models of a grid whose FLOPs torch counted, with the reason; empty if there are none."""
    return "; ".join(
        f"{each.name} ({each.why_counted}"
        f"{'' if (count := read_count(each.config)) is None else f'; {count.counted_by}'})"
        for each in _without_closed_form(declaration)
    )


def _without_closed_form(declaration: Declaration) -> Iterator[Architecture]:
    folder = None if declaration.catalogue is None else Path(declaration.catalogue)
    for name in sorted({name for block in declaration.grid for name in block.architectures}):
        architecture = load_architecture(name, folder)
        if not architecture.closed_form:
            yield architecture
