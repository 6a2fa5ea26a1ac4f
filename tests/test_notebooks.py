"""The notebooks run, with small settings in place of those in the cell tagged "parameters", and store a real run's outputs."""

import base64
import io
import subprocess
import sys
from pathlib import Path

import jax
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

import paca_jax
from paca_jax import data
from paca_jax.checkpoints.workdir import write_variables
from paca_jax.errors import UserError
from paca_jax.models import create_model
from scripts import run_notebooks
from tests.runs import environment

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MAX_BYTES = 500_000
SCENES = 32


def pictures(notebook):
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    return [output for output in outputs if "image/png" in output.get("data", {})]


@pytest.fixture
def execute(monkeypatch):
    """Runs a notebook with settings in place of its own, and returns it."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("XLA_FLAGS", environment()["XLA_FLAGS"])  # one device, as its readers have

    def run(name, **settings):
        path = ROOT / "notebooks" / name
        notebook = nbformat.read(path, as_version=4)
        places = [index for index, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
        lines = [f"{key} = {value!r}" for key, value in settings.items()]
        assert all(f"{key} = " in notebook.cells[places[0]].source for key in settings)
        notebook.cells.insert(places[0] + 1, nbformat.v4.new_code_cell("\n".join(lines)))
        NotebookClient(
            notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
        ).execute()
        return notebook

    return run


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A small untrained model for the test images, as a run's workdir."""
    class_names = data.open_dataset("fashion_mnist_small", "test", data_dir=str(ROOT / "datasets")).class_names
    recipe = {"name": "pacavit_nano", "num_classes": len(class_names)}
    model = create_model(**recipe)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 32, 32, 3), "float32"))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: rng.normal(0, 0.2, leaf.shape).astype(leaf.dtype), shapes)
    workdir = tmp_path_factory.mktemp("weights") / "run"
    write_variables(workdir, variables, {"model": recipe, "class_names": list(class_names)})
    return str(workdir)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """A folder with a few scenes, which the notebooks then need not compose."""
    from paca_jax.data.scenes.builder import Scenes

    folder = tmp_path_factory.mktemp("scenes")
    Scenes(data_dir=str(folder), file_format="array_record", scenes={"train": SCENES, "test": 4}).download_and_prepare()
    return str(folder)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_stores_the_outputs_of_a_run_and_is_on_the_site(path):
    notebook = nbformat.read(path, as_version=4)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert pictures(notebook)
    assert path.stat().st_size < MAX_BYTES
    assert f": notebooks/{path.name}\n" in (ROOT / "mkdocs.yml").read_text()


@pytest.mark.slow
def test_clusters(execute, weights):
    assert len(pictures(execute("clusters.ipynb", SOURCE=weights))) == 2


@pytest.mark.campaign
def test_lesson(execute, tmp_path):
    assert len(pictures(execute("lesson.ipynb", CLUSTERS=(2,), EPOCHS=0.01, RUNS=str(tmp_path)))) == 1


@pytest.mark.campaign
def test_photos(execute, weights, tmp_path):
    settings = {"FOLDER": str(tmp_path / "photos"), "WEIGHTS": weights, "RUN": str(tmp_path / "run"), "EPOCHS": 0.1}
    assert len(pictures(execute("photos.ipynb", **settings))) == 1


@pytest.mark.campaign
def test_segmentation(execute, weights, scenes, tmp_path):
    settings = {"WEIGHTS": weights, "DATA": scenes, "RUN": str(tmp_path), "EPOCHS": 16 / SCENES}
    assert len(pictures(execute("segmentation.ipynb", **settings))) == 2


@pytest.mark.campaign
def test_detection(execute, weights, scenes, tmp_path):
    settings = {"WEIGHTS": weights, "DATA": scenes, "RUN": str(tmp_path), "EPOCHS": 8 / SCENES}
    assert len(pictures(execute("detection.ipynb", **settings))) == 1


CELL = """
import logging
import numpy as np
from PIL import Image
logging.warning("a message")
print("before")
display(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)))
print("after")
"""


def run_notebook(path, *cells):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    nbformat.write(notebook, path)
    return subprocess.run([sys.executable, "-m", "scripts.run_notebooks", path], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
def test_the_script_stores_what_a_notebook_shows(tmp_path):
    done = run_notebook(tmp_path / "a.ipynb", CELL, "import paca_jax; print(paca_jax.list_models()[0])")
    assert done.returncode == 0, done.stderr
    notebook = nbformat.read(tmp_path / "a.ipynb", as_version=4)
    kinds = [[output.get("text", output.output_type) for output in cell.outputs] for cell in notebook.cells]
    assert kinds == [["before\n", "display_data", "after\n"], [f"{paca_jax.list_models()[0]}\n"]]
    (picture,) = pictures(notebook)
    assert Image.open(io.BytesIO(base64.b64decode(picture.data["image/png"]))).mode == "P"
    assert notebook.metadata["language_info"] == {"name": "python"}


@pytest.mark.slow
def test_the_script_leaves_a_notebook_that_fails_as_it_was(tmp_path):
    path = tmp_path / "b.ipynb"
    done = run_notebook(path, "print(1)", "1 / 0")
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].endswith("b.ipynb to run, got ZeroDivisionError: division by zero. Correct its cells.")
    assert not any(cell.outputs for cell in nbformat.read(path, as_version=4).cells)


@pytest.mark.parametrize("content", [None, b"\xff", b"no notebook"])
def test_the_script_takes_notebooks_only(tmp_path, content):
    path = tmp_path / "c.ipynb"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"Expected a notebook, got '.*c\.ipynb'"):
        run_notebooks.run(path)
