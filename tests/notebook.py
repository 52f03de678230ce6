"""Runs the cells of a notebook as Jupyter would; `python -m tests.notebook FILE` writes what they show into it.

The cells are plain Python, so nothing of Jupyter is needed: nbclient and ipykernel would be some thirty packages.
"""

import ast
import base64
import json
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

COLOURS = 64  # of a picture that is kept in the file


def run(path: Path) -> list[object]:
    """Runs all cells of code; returns the value that each shows, or None."""
    values: dict[str, Any] = {"__name__": "__main__"}
    shown = []
    for number, cell in enumerate(_code(json.loads(path.read_text(encoding="utf-8")))):
        body = ast.parse("".join(cell["source"]), f"{path.name}, cell {number + 1}").body
        last = body.pop() if isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), path.name, "exec"), values)
        shown.append(
            None if last is None else eval(compile(ast.Expression(last.value), path.name, "eval"), values)
        )
    return shown


def write(path: Path) -> None:
    """Runs a notebook and keeps what its cells show."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for number, (cell, value) in enumerate(zip(_code(notebook), run(path), strict=True), start=1):
        cell["execution_count"] = number
        cell["outputs"] = [] if value is None else [_output(number, value)]
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _code(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def _output(number: int, value: object) -> dict[str, Any]:
    data: dict[str, Any] = {"text/plain": [repr(value)]}
    if isinstance(value, Image.Image):
        file = BytesIO()
        value.quantize(COLOURS).save(file, "PNG", optimize=True)
        data = {"image/png": base64.b64encode(file.getvalue()).decode(), "text/plain": [f"<picture {value.size}>"]}
    return {"output_type": "execute_result", "execution_count": number, "data": data, "metadata": {}}


if __name__ == "__main__":
    write(Path(sys.argv[1]))
