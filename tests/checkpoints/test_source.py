"""Sources of weights: the raw and the averaged, folders of Hugging Face, addresses, and what is said about each."""

import functools
import json
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy

import paca_jax
from paca_jax.checkpoints import load, write_state_dict
from paca_jax.checkpoints.initial import initial_variables
from paca_jax.checkpoints.loading import read_model
from paca_jax.checkpoints.manager import Checkpoints
from paca_jax.cli.convert import main
from paca_jax.convert import to_torch
from paca_jax.errors import UserError
from paca_jax.models import create_model
from paca_jax.train.state import state_of
from tests import golden

NANO = {"name": "pacavit_nano", "num_classes": 3}
NAMES = ["ant", "bee", "cat"]


@pytest.fixture(scope="module")
def nano():
    return golden.random_weights(create_model(**NANO))


@pytest.fixture
def run(tmp_path, nano):
    """A workdir whose averaged variables are twice the raw ones."""
    state = state_of(nano[1], optax.sgd(0.1), averaged=True)
    state = state.replace(ema=jax.tree.map(lambda array: 2 * array, state.ema))
    checkpoints = Checkpoints(tmp_path / "run", 1, "eval/accuracy")
    checkpoints.save(1, state.parts, {"model": NANO | {"image_size": 64}, "class_names": NAMES}, None)
    checkpoints.close()
    return tmp_path / "run"


@pytest.fixture
def pair(tmp_path, nano):
    """A file whose averaged weights are twice the raw ones."""
    torch = pytest.importorskip("torch")
    raw = {key: torch.from_numpy(np.array(value)) for key, value in nano[2].items()}
    torch.save({"model": raw, "model_ema": {key: 2 * value for key, value in raw.items()}}, tmp_path / "checkpoint.bin")
    return tmp_path / "checkpoint.bin"


def _bias(variables):
    return np.asarray(variables["params"]["head"]["bias"])


WAYS = {
    "load": lambda place, out, **options: load(place, **options)[1],
    "init_from": lambda place, out, **options: initial_variables(str(place), create_model(**NANO), (), **options),
    "convert": lambda place, out, **options: _converted(place, out, **options),
}


def _converted(place, out, weights=None):
    main([str(place), str(out), *([] if weights is None else ["--weights", weights])])
    return load(out)[1]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("weights", "of_run", "of_file"), [(None, 2, 1), ("raw", 1, 1), ("ema", 2, 2)])
def test_raw_and_averaged_weights_can_be_chosen_everywhere(run, pair, nano, tmp_path, way, weights, of_run, of_file):
    options = {} if weights is None else {"weights": weights}
    for place, factor in ((run, of_run), (pair, of_file)):
        variables = WAYS[way](place, tmp_path / f"{place.name}.safetensors", **options)
        np.testing.assert_array_equal(_bias(variables), factor * _bias(nano[1]))


def test_what_was_taken_is_logged(run, pair, caplog):
    load(run)
    assert "Takes the averaged variables" in caplog.text
    load(pair, weights="ema")
    assert "Takes the averaged ones ('model_ema'); weights='raw' takes the raw ones ('model')." in caplog.text


def test_averaged_weights_that_are_not_there_are_told(tmp_path, nano, capsys):
    write_state_dict(tmp_path / "w.safetensors", nano[2], NANO)
    main([str(tmp_path / "w.safetensors"), str(tmp_path / "run")])
    capsys.readouterr()
    for place in ("w.safetensors", "run"):
        with pytest.raises(UserError, match=r"Expected averaged (weights|variables)"):
            load(tmp_path / place, weights="ema")
        with pytest.raises(SystemExit, match="2"):
            main([str(tmp_path / place), str(tmp_path / "new.safetensors"), "--weights=ema"])
        assert capsys.readouterr().err.count("\n") == 1


def test_the_tensors_decide_and_a_name_that_disagrees_is_said(tmp_path, caplog):
    model = create_model("pacahead_nano", num_classes=4)
    path = tmp_path / "upernet_pacavit_nano_ade20k.safetensors"
    write_state_dict(path, to_torch(golden.random_variables(model), model))
    assert load(path)[0] == model
    assert f"The name of {path.name} says upernet_nano, its tensors are those of pacahead_nano." in caplog.text
    caplog.clear()
    assert load(path.rename(tmp_path / "pacavit_nano_ade20k.bin"))[0] == model
    assert "says" not in caplog.text  # it names the backbone


def test_a_size_that_the_file_does_not_say_is_said_unless_given(tmp_path, nano, caplog):
    write_state_dict(tmp_path / "w.safetensors", nano[2])
    assert load(tmp_path / "w.safetensors")[0].config.image_size == 32
    assert "does not say the size of its images: takes 32 pixels" in caplog.text
    caplog.clear()
    assert load(tmp_path / "w.safetensors", image_size=64)[0].config.image_size == 64
    assert not caplog.text


def test_the_size_of_a_segmentors_images_keeps_its_proportion(tmp_path):
    model = create_model("pacahead_nano", num_classes=4, short_side=100, long_side=300)
    recipe = {"name": "pacahead_nano", "num_classes": 4, "short_side": 100, "long_side": 300}
    write_state_dict(tmp_path / "w.safetensors", to_torch(golden.random_variables(model), model), recipe)
    config = load(tmp_path / "w.safetensors", image_size=50)[0].config
    assert (config.short_side, config.long_side) == (50, 150)


def test_a_folder_of_hugging_face(tmp_path, nano, caplog):
    (tmp_path / "model.safetensors").write_bytes(safetensors.numpy.save(nano[2]))
    assert load(tmp_path)[0].config.image_size == 32
    config = {"id2label": {"2": "cat", "0": "ant", "1": "bee"}, "image_size": 64}
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = read_model(tmp_path)
    assert (loaded.class_names, loaded.model.config.image_size) == (tuple(NAMES), 64)
    timm = {"label_names": NAMES, "pretrained_cfg": {"input_size": [3, 96, 96], "mean": [0.5, 0.5, 0.5]}}
    (tmp_path / "config.json").write_text(json.dumps(timm))
    loaded = read_model(tmp_path)
    assert (loaded.class_names, loaded.model.config.image_size) == (tuple(NAMES), 96)
    assert any("normalizes images with mean (0.5, 0.5, 0.5)" in note for note in loaded.notes)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match=r"JSON object in .*config\.json"):
        load(tmp_path)


@pytest.mark.parametrize("form", ["file", "workdir"])
def test_weights_for_rgb_become_those_for_gray_only_when_asked(tmp_path, nano, form):
    model, variables, state = nano
    write_state_dict(tmp_path / "w.safetensors", state, NANO)
    place = tmp_path / "w.safetensors"
    if form == "workdir":
        main([str(place), str(tmp_path / "run")])
        place = tmp_path / "run"
    with pytest.raises(UserError, match=r"images of 1 channel, got some for 3\. rgb_to_gray=True"):
        load(place, image_channels=1)
    gray, filled = load(place, rgb_to_gray=True)
    assert gray.config.image_channels == 1
    image = jax.random.normal(jax.random.key(0), (1, 32, 32, 1))
    expected = jax.jit(model.apply)(variables, jnp.repeat(image, 3, axis=-1))
    np.testing.assert_allclose(jax.jit(gray.apply)(filled, image), expected, atol=1e-4)
    started = initial_variables(str(place), gray, (), rgb_to_gray=True)
    np.testing.assert_array_equal(started["params"]["stem"]["conv1"]["kernel"], filled["params"]["stem"]["conv1"]["kernel"])
    with pytest.raises(UserError, match="got 3 and 3"):
        initial_variables(str(place), model, (), rgb_to_gray=True)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serves tmp_path/served at an address, and counts requests."""
    requests = []
    (tmp_path / "served").mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            requests.append(self.path)

    http = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(tmp_path / "served")))
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("PACA_JAX_CACHE", str(tmp_path / "cache"))
    yield tmp_path / "served", f"http://127.0.0.1:{http.server_port}", requests
    http.shutdown()
    thread.join()
    http.server_close()


def test_an_address_is_downloaded_once(server, nano, tmp_path):
    served, address, requests = server
    write_state_dict(served / "a" / "w.safetensors", nano[2], NANO)
    write_state_dict(served / "b" / "w.safetensors", nano[2], NANO | {"image_size": 64})
    for _ in range(2):
        assert load(f"{address}/a/w.safetensors?download=true")[0].config.image_size == 32
        assert load(f"{address}/b/w.safetensors")[0].config.image_size == 64
    assert len(requests) == 2
    initial_variables(f"{address}/b/w.safetensors", nano[0], ())
    main([f"{address}/b/w.safetensors", str(tmp_path / "out.safetensors")])
    assert len(requests) == 2


def test_an_address_of_something_else_is_told_and_not_kept(server, tmp_path):
    served, address, _ = server
    (served / "page.html").write_text("<!DOCTYPE html><html>Sign in</html>")
    with pytest.raises(UserError, match="got a web page"):
        load(f"{address}/page.html")
    with pytest.raises(UserError, match=r"Could not download .*none\.pth"):
        load(f"{address}/none.pth")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    for wrong in (address, f"{address}/", "http://[::1/w.pth", f"{address}/two%0Alines.pth", f"{address}/%00.pth"):
        with pytest.raises(UserError, match="the address of a file of weights"):
            load(wrong)


@pytest.mark.parametrize("place", ["s3://bucket/w.pth", "ftp://host/w.safetensors", "", " "])
def test_other_addresses_are_told_in_one_sentence(place, tmp_path, capsys):
    with pytest.raises(UserError, match=r"Expected a path"):
        load(place)
    with pytest.raises(SystemExit, match="2"):
        main([place, str(tmp_path / "out.safetensors")])
    assert capsys.readouterr().err.count("\n") == 1


def test_a_home_folder_is_expanded(tmp_path, nano, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_state_dict("~/w.safetensors", nano[2], NANO)
    assert (tmp_path / "w.safetensors").is_file()
    assert load("~/w.safetensors")[0] == nano[0]
    main(["~/w.safetensors", "~/run"])
    assert load("~/run")[0] == nano[0]


def test_the_names_of_classes_of_any_source(tmp_path, nano, run, caplog):
    state = nano[2]
    write_state_dict(tmp_path / "named.safetensors", state, NANO, NAMES)
    write_state_dict(tmp_path / "plain.safetensors", state)
    for place in (run, run / "checkpoints" / "1", tmp_path / "named.safetensors"):
        assert paca_jax.class_names(place) == tuple(NAMES)
    assert paca_jax.class_names(tmp_path / "plain.safetensors") is None
    assert paca_jax.class_names("pacavit_tiny_p2cconv_100_0") == paca_jax.IMAGENET_CLASSES  # without a download
    assert not caplog.records  # as reading the variables of the run would write


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("none", "There is nothing to load"),
        ("empty", "is not the workdir of a run"),
        ("mask_rcnn_tiny", "its weights are not published. Published weights: "),
    ],
)
def test_names_of_classes_of_no_source_are_told(tmp_path, monkeypatch, place, message):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as raised:
        paca_jax.class_names(place)
    assert len(str(raised.value)) < 600
