"""Runs the example notebook and stores its outputs in it, as a browser shows them."""

import ast
import contextlib
import io
import json
import tempfile
from base64 import b64encode
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "examples" / "figures-for-a-paper.ipynb"


def run(notebook: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run the cells of a notebook in a folder, store their outputs, and return the names that they define.

    Args:
        notebook: Content of the file; its code cells get outputs and execution counts.
        folder: The working directory of the cells.
    """
    mpl.use("agg")
    names: dict[str, Any] = {}
    with contextlib.chdir(folder):
        cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        for count, cell in enumerate(cells, start=1):
            *body, last = ast.parse("".join(cell["source"])).body
            asked = ast.Expression(last.value) if isinstance(last, ast.Expr) else None
            done = ast.Module(body if asked else [*body, last], type_ignores=[])
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(compile(done, "cell", "exec"), names)  # noqa: S102 (our own notebook)
                value = eval(compile(asked, "cell", "eval"), names) if asked else None  # noqa: S307 (the same)
            stream = {"output_type": "stream", "name": "stdout", "text": printed.getvalue()}
            shown = {"output_type": "execute_result", "execution_count": count, "metadata": {}}
            cell["execution_count"] = count
            cell["outputs"] = [stream] if printed.getvalue() else []
            cell["outputs"] += [] if value is None else [{**shown, "data": _forms(value)}]
    return names


def _forms(value: object) -> dict[str, str]:
    """Return what a notebook shows of a value, by media type."""
    forms: dict[str, str] = {"text/plain": repr(value)}
    if isinstance(value, Figure):
        value.savefig(png := io.BytesIO(), format="png", dpi=160)
        forms["image/png"] = b64encode(png.getvalue()).decode()
    elif (html := getattr(value, "_repr_html_", None)) is not None:
        forms["text/html"] = html()
    return forms


if __name__ == "__main__":
    content = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "results").symlink_to(ROOT / "results")
        run(content, Path(name))
    NOTEBOOK.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
