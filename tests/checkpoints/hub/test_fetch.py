"""`hf://OWNER/NAME` as a source of weights, from a Hub on this machine."""

import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from paca_jax.checkpoints import load, read_state_dict
from paca_jax.checkpoints.initial import initial_variables
from paca_jax.checkpoints.loading import read_model
from paca_jax.cli.convert import main as convert
from paca_jax.convert import to_torch
from paca_jax.errors import UserError
from paca_jax.models import create_model
from tests.checkpoints.hub.conftest import NAMES, RECIPES
from tests.runs import run_code

CONFIG = json.dumps({"id2label": {"0": "a", "1": "b", "2": "c"}, "image_size": 40}).encode()


@pytest.fixture
def classifier(written):
    return written["classifier"]


@pytest.fixture
def bare(classifier):
    """The weights of the classifier as tools of others save them: without what describes the model."""
    _, model, variables = classifier
    return {name: np.array(array) for name, array in to_torch(variables, model).items()}


def assert_equal(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_loads_from_a_repository(hub, classifier):
    file, model, variables = classifier
    others = {"pytorch_model.bin": b"no", "optimizer.pt": b"no", "README.md": b"# A"}
    hub.add("me/net", {"model.safetensors": file.read_bytes(), "config.json": CONFIG, **others})
    loaded = read_model("hf://me/net")
    assert loaded.model == model
    assert loaded.class_names == NAMES
    assert_equal(loaded.variables, variables)
    assert sorted(hub.downloads()) == ["config.json", "model.safetensors"]
    read_model("hf://me/net")
    assert len(hub.downloads()) == 2


def test_the_config_of_others_names_classes_and_size(hub, bare):
    hub.add("me/net", {"model.safetensors": safetensors.numpy.save(bare), "config.json": CONFIG})
    loaded = read_model("hf://me/net", "pacavit_nano", **without_size())
    assert loaded.class_names == ("a", "b", "c")
    assert loaded.model.config.image_size == 40


def without_size():
    return {key: value for key, value in RECIPES["classifier"].items() if key not in ("name", "image_size")}


def test_parts_with_an_index(hub, classifier, bare):
    names = sorted(bare)
    parts = {"a.safetensors": names[:9], "b.safetensors": names[9:]}
    index = {"weight_map": {name: part for part, listed in parts.items() for name in listed}}
    content = {part: safetensors.numpy.save({name: bare[name] for name in listed}) for part, listed in parts.items()}
    repository = hub.add(
        "me/net", {**content, "c.safetensors": b"no", "model.safetensors.index.json": json.dumps(index).encode()}
    )
    _, variables = load("hf://me/net", "pacavit_nano", **without_size())
    assert_equal(variables, classifier[2])
    assert sorted(hub.downloads()) == ["a.safetensors", "b.safetensors", "model.safetensors.index.json"]

    index["weight_map"]["head.bias"] = "../../../../escaped.safetensors"
    repository.commit("main", {"model.safetensors.index.json": json.dumps(index).encode()}, "hostile")
    with pytest.raises(UserError, match=r"Expected names of files beside .*escaped"):
        load("hf://me/net")
    repository.commit("main", {"model.safetensors.index.json": b"[]"}, "damaged")
    with pytest.raises(UserError, match="Expected a JSON object"):
        load("hf://me/net")


def test_weights_of_pytorch_if_there_are_no_others(hub, classifier, bare, tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({name: torch.from_numpy(array) for name, array in bare.items()}, tmp_path / "w.bin")
    hub.add("me/net", {"pytorch_model.bin": (tmp_path / "w.bin").read_bytes()})
    assert_equal(load("hf://me/net", "pacavit_nano", **without_size())[1], classifier[2])


def test_revisions(hub, classifier):
    file, _, variables = classifier
    repository = hub.add("me/net", {"model.safetensors": b"nonsense"})
    commit = repository.commit("fixed/1", {"model.safetensors": file.read_bytes()}, "fix")
    for revision in ("fixed/1", commit):
        assert_equal(load(f"HF://me/net@{revision}")[1], variables)
    with pytest.raises(UserError, match="no safetensors or PyTorch file"):
        load("hf://me/net")
    with pytest.raises(UserError, match=r"Expected a branch, tag or commit of .*/me/net, got 'other'"):
        load("hf://me/net@other")


def test_a_new_commit_is_taken(hub, classifier):
    repository = hub.add("me/net", {"model.safetensors": classifier[0].read_bytes()})
    load("hf://me/net")
    repository.commit("main", {"model.safetensors": b"nonsense"}, "worse")
    with pytest.raises(UserError, match="no safetensors or PyTorch file"):
        load("hf://me/net")


@pytest.mark.parametrize(
    "address", ["hf://", "hf://me", "hf://me/net/file", "hf://me/net@", "hf://../..", "hf://me/ne t", "hf://a/b@../c"]
)
def test_wrong_addresses(address):
    with pytest.raises(UserError, match="Expected hf://OWNER/NAME or hf://OWNER/NAME@REVISION"):
        load(address)


def test_what_is_not_there_is_told(hub, classifier, monkeypatch):
    with pytest.raises(UserError, match=r"Expected a repository of models at http.*/me/none, got none.*hf auth login"):
        load("hf://me/none")
    hub.add("me/empty", {"README.md": b"# A"})
    with pytest.raises(UserError, match=r"Expected weights in hf://me/empty, one of model\.safetensors, .* got README\.md"):
        load("hf://me/empty")
    hub.add("me/damaged", {"model.safetensors": classifier[0].read_bytes()[:-1]})
    with pytest.raises(UserError, match="no safetensors file, or a damaged one"):
        load("hf://me/damaged")
    hub.add("me/gated", {"model.safetensors": b""}).gated = True
    with pytest.raises(UserError, match="its owner grants access on request"):
        load("hf://me/gated")
    hub.add("me/private", {"model.safetensors": classifier[0].read_bytes()}, private=True)
    load("hf://me/private")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match="got none, or a private one"):
        load("hf://me/private")


@pytest.mark.parametrize("config", [b"{", b"[]", b'{"id2label": 3}', b'{"image_size": "large"}', b"\xff"])
def test_a_damaged_config_is_told(hub, bare, config):
    hub.add("me/net", {"model.safetensors": safetensors.numpy.save(bare), "config.json": config})
    with pytest.raises(UserError, match=r"config\.json"):
        load("hf://me/net", "pacavit_nano", **without_size())


@pytest.mark.parametrize("failure", ["closed", "broken", "offline"])
def test_without_the_hub_the_cache_is_taken(hub, classifier, failure, caplog, monkeypatch):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    hub.add("me/net", {"model.safetensors": classifier[0].read_bytes()})
    hub.add("me/other", {"model.safetensors": classifier[0].read_bytes()})
    load("hf://me/net")
    if failure == "closed":
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    elif failure == "broken":
        hub.broken = 503
    else:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        huggingface_hub.close_session()
    _, variables = load("hf://me/net")
    assert_equal(variables, classifier[2])
    assert "Takes the copy of hf://me/net in the cache" in caplog.text
    told = "Expected an answer about .* 503" if failure == "broken" else "Expected to reach http.* for me/other"
    with pytest.raises(UserError, match=told) as caught:
        load("hf://me/other")
    assert "\n" not in str(caught.value)


def test_every_command_that_takes_a_source(hub, classifier, tmp_path):
    file, _, variables = classifier
    hub.add("me/net", {"model.safetensors": file.read_bytes()})
    convert(["hf://me/net", str(tmp_path / "w.safetensors")])
    expected = read_state_dict(file)
    assert_equal(read_state_dict(tmp_path / "w.safetensors"), expected)
    assert_equal(initial_variables("hf://me/net", create_model(**RECIPES["classifier"]), allow_new=()), variables)


def test_without_the_package_a_sentence_says_what_to_install():
    code = """
        import sys
        sys.modules["huggingface_hub"] = None
        import paca_jax
        try:
            paca_jax.load("hf://me/net")
        except paca_jax.UserError as error:
            print(error)
    """
    assert "pip install paca-jax[hub]" in run_code(code)


def test_the_package_is_imported_only_when_it_is_needed():
    code = "import sys, paca_jax, paca_jax.checkpoints, paca_jax.cli.push; print('huggingface_hub' in sys.modules)"
    assert run_code(code).strip() == "False"
