"""Runs notebooks and stores their outputs, small enough for the repository.

    python -m scripts.run_notebooks notebooks/lesson.ipynb [FILE ...]

They run on the CPU with this checkout's code, each in its own folder. What they print and display is stored, pictures with a
palette of 256 colors; log messages are not. A notebook that fails stays as it was.
"""

import base64
import io
import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from PIL import Image

from paca_jax import explain
from paca_jax.command_line import Parser, command_line
from paca_jax.errors import UserError, one_line
from paca_jax.files import write_file

ROOT = Path(__file__).resolve().parent.parent


def run(path: Path) -> None:
    """Executes a notebook and stores it with its outputs.

    Raises:
        UserError: if there is no such file, it is no notebook, or one of its cells fails.
    """
    try:
        notebook = nbformat.read(path, as_version=4)
    except (OSError, ValueError) as error:
        raise UserError(f"Expected a notebook, got {str(path)!r}: {one_line(str(error)[:80])}. Give an .ipynb file.") from error
    where = {"metadata": {"path": str(path.parent)}}
    client = NotebookClient(notebook, kernel_name="python3", resources=where, record_timing=False)
    try:
        client.execute()
    except CellExecutionError as error:
        raise UserError(f"Expected {path} to run, got {error.ename}: {error.evalue}. Correct its cells.") from error
    notebook.metadata["language_info"] = {"name": "python"}  # without the version of this machine
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = _stored(cell.outputs)
    write_file(path, nbformat.writes(notebook) + "\n")


def _stored(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Returns outputs without log messages; what was printed in one go is one."""
    stored: list[NotebookNode] = []
    for output in outputs:
        if "image/png" in output.get("data", {}):
            output.data["image/png"] = _with_palette(output.data["image/png"])
            output.data.pop("image/jpeg", None)  # the same picture once more
        if output.get("name") == "stdout" and stored and stored[-1].get("name") == "stdout":
            stored[-1].text += output.text
        elif output.get("name") != "stderr":
            stored.append(output)
    return stored


def _with_palette(png: str) -> str:
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    return base64.b64encode(explain.to_png(picture.quantize(256))).decode()


def main() -> None:
    """Runs the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("notebooks", metavar="FILE", type=Path, nargs="+")
    arguments = parser.parse_args()
    os.environ |= {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    with command_line():
        for path in arguments.notebooks:
            run(path)


if __name__ == "__main__":
    main()
