from pathlib import Path

import jax
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

from paca_jax import data
from paca_jax.checkpoints.workdir import write_variables
from paca_jax.models import create_model

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "notebooks" / "clusters.ipynb"


@pytest.fixture
def workdir(tmp_path):
    """A small untrained model for the test images, as a run's workdir."""
    class_names = data.open_dataset("fashion_mnist_small", "test", data_dir=str(ROOT / "datasets")).class_names
    recipe = {"name": "pacavit_nano", "num_classes": len(class_names)}
    model = create_model(**recipe)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 32, 32, 3), "float32"))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: rng.normal(0, 0.2, leaf.shape).astype(leaf.dtype), shapes)
    write_variables(tmp_path / "run", variables, {"model": recipe, "class_names": list(class_names)})
    return tmp_path / "run"


def test_the_committed_notebook_has_no_outputs():
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        assert cell.cell_type != "code" or (not cell.outputs and cell.execution_count is None)


@pytest.mark.slow
def test_the_notebook_runs_and_shows_clusters(workdir, monkeypatch):
    monkeypatch.setenv("PACA_JAX_NOTEBOOK_SOURCE", str(workdir))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(NOTEBOOK.parent)}}
    ).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 2
