"""``python -m study new``: a commented declaration to start from."""

from collections.abc import Iterator
from pathlib import Path

from budgets import values
from study.declare.load import DECLARATIONS

_TEMPLATE = Path(__file__).parents[1] / "declare" / "template.yaml"


def new_study(name: str) -> Iterator[str]:
    """Writes ``NAME.yaml`` where the command runs, and yields the lines that say what to do with it.

    Raises:
        ValueError: The name can't name a study, or there is such a study already.
    """
    values.name(name)
    if name in {path.stem for path in DECLARATIONS.glob("*.yaml")}:
        raise ValueError(f"the study '{name}' comes with the project; choose another name")
    path = Path(f"{name}.yaml")
    text = _TEMPLATE.read_text(encoding="utf-8").replace("study: NAME", f"study: {name}")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ValueError(f"{path} exists already; choose another name, or remove it first") from None
    yield f"{path} written; edit it, then: python -m study plan {path}"
