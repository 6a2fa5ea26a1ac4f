"""Fine-tuning of official weights on a folder of photos, with the commands of the documentation."""

import sys

import jax
import numpy as np
import pytest
from PIL import Image
from skimage import data as photographs

import paca_jax
from paca_jax.checkpoints.workdir import read_variables
from paca_jax.convert import to_torch
from paca_jax.models import create_model
from tests import golden
from tests.runs import run_main, scalars

NAME = "pacavit_tiny_p2cconv_100_0"
CLASSES = {"astronaut": photographs.astronaut, "cat": photographs.chelsea, "coffee": photographs.coffee}
PER_CLASS = 8


@pytest.fixture
def photos(tmp_path):
    """Crops of photographs, one sub-folder per class; the first of each is rotated, with an EXIF tag that says so."""
    rng = np.random.default_rng(0)
    for name, photograph in CLASSES.items():
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        picture = Image.fromarray(photograph())
        for index in range(PER_CLASS):
            width, height = 160, 120
            left, top = rng.integers(picture.width - width), rng.integers(picture.height - height)
            crop = picture.crop((left, top, left + width, top + height))
            exif = Image.Exif()
            if index == 0:
                crop, exif[0x0112] = crop.transpose(Image.Transpose.ROTATE_90), 6
            crop.save(folder / f"{index}.jpg", exif=exif)
    return tmp_path / "photos"


@pytest.fixture
def official(tmp_path):
    """A checkpoint in the form of the official one of the tiny model."""
    torch = pytest.importorskip("torch")
    model = create_model(NAME)
    state = to_torch(golden.random_variables(model), model)
    path = tmp_path / f"IMNET_224_{NAME}.pth"
    torch.save({"state_dict": {name: torch.from_numpy(np.array(value)) for name, value in state.items()}}, path)
    return path


def test_photos_fine_tune_a_converted_checkpoint(photos, official, tmp_path):
    weights, workdir = tmp_path / "tiny", tmp_path / "run"
    done = run_main(sys.executable, "-m", "paca_jax.convert", str(official), str(weights))
    assert done.returncode == 0, done.stderr
    overrides = {"image_size": 64, "batch_size": 4, "num_steps": 3, "warmup_steps": 1, "dataset.num_workers": 1}
    done = run_main(
        *(sys.executable, "main.py", "--config=configs/photos.py", f"--workdir={workdir}"),
        *(f"--config.dataset.data_dir={photos}", f"--config.init_from={weights}"),
        *(f"--config.{key}={value}" for key, value in overrides.items()),
    )
    assert done.returncode == 0, done.stderr
    assert "Starts fresh: " in done.stderr
    assert "params/head/kernel" in done.stderr
    last = scalars(workdir)[-1]
    assert last["step"] == 3
    assert 0 <= last["eval/accuracy"] <= 1

    variables, metadata = read_variables(workdir)
    assert metadata["class_names"] == list(CLASSES)
    assert variables["params"]["head"]["kernel"].shape == (384, len(CLASSES))
    model, variables = paca_jax.load(workdir)
    picture = paca_jax.preprocess(photos / "cat" / "0.jpg", model)
    assert jax.jit(model.apply)(variables, picture[None]).shape == (1, len(CLASSES))
