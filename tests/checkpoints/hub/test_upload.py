"""Uploading to a Hub on this machine, and loading from it again."""

import jax
import numpy as np
import pytest

from paca_jax.checkpoints.hub.folder import write_hub_folder
from paca_jax.checkpoints.hub.upload import check_login, upload_hub_folder
from paca_jax.checkpoints.loading import read_model
from paca_jax.errors import UserError
from tests.checkpoints.hub.conftest import NAMES, RECIPES


@pytest.fixture
def folder(written, tmp_path):
    write_hub_folder(written["classifier"][0], tmp_path / "folder", "me/net", license="mit")
    return tmp_path / "folder"


@pytest.mark.parametrize("kind", RECIPES)
def test_what_is_pushed_loads_again_bit_for_bit(hub, written, tmp_path, kind):
    file, model, variables = written[kind]
    write_hub_folder(file, tmp_path / "folder", "me/net", license="mit")
    (tmp_path / "folder" / "clusters.png").write_bytes(b"picture")
    address = upload_hub_folder(tmp_path / "folder", "me/net", message="Upload it")
    repository = hub.repositories["me/net"]
    assert address == f"{hub.address}/me/net/commit/{repository.branches['main']}"
    assert repository.messages == ["initial commit", "Upload it"]
    assert repository.commits[repository.branches["main"]] == {
        path.name: path.read_bytes() for path in (tmp_path / "folder").iterdir()
    }
    assert not repository.private
    assert 'license: "mit"' in hub.metadata[0]
    loaded = read_model("hf://me/net")
    assert (loaded.model, loaded.class_names) == (model, NAMES)
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, variables)


def test_a_later_push_replaces_files_of_the_same_names(hub, folder):
    repository = hub.add("me/net", {"README.md": b"mine", "other.txt": b"mine"})
    upload_hub_folder(folder, "me/net", message="Upload it")
    files = repository.commits[repository.branches["main"]]
    assert files["README.md"] == (folder / "README.md").read_bytes()
    assert files["other.txt"] == b"mine"


def test_a_branch(hub, folder):
    for message in ("one", "two"):
        upload_hub_folder(folder, "me/net", message=message, branch="try/1")
    repository = hub.repositories["me/net"]
    assert repository.messages == ["initial commit", "one", "two"]
    assert repository.commits[repository.branches["main"]] == {}
    assert read_model("hf://me/net@try/1").class_names == NAMES


def test_private_repositories(hub, folder, monkeypatch):
    upload_hub_folder(folder, "me/secret", message="one", private=True)
    assert hub.repositories["me/secret"].private
    upload_hub_folder(folder, "me/secret", message="two", private=True)
    assert read_model("hf://me/secret").class_names == NAMES
    public = hub.add("me/public", {})
    with pytest.raises(UserError, match="Expected a private repository, got me/public, which is public already"):
        upload_hub_folder(folder, "me/public", message="three", private=True)
    assert "three" not in public.messages


@pytest.mark.parametrize(
    ("token", "repository", "told"),
    [
        (None, "me/net", r"Expected a token of http.*Run hf auth login, or set HF_TOKEN"),
        ("hf_wrong", "me/net", r"Expected permission at http.*/me/net, got the status 401"),
        ("hf_test", "you/net", r"Expected permission at http.*/you/net, got the status 403 \(You don't have the rights"),
        ("hf_test", "net", "Expected a repository of the Hugging Face Hub, OWNER/NAME, got 'net'"),
    ],
)
def test_without_permission(hub, folder, monkeypatch, token, repository, told):
    if token is None:
        monkeypatch.delenv("HF_TOKEN")
    else:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(UserError, match=told) as caught:
        upload_hub_folder(folder, repository, message="one")
    assert "\n" not in str(caught.value)
    assert hub.repositories == {}


def test_a_login_is_checked_before_anything_is_computed(hub, monkeypatch):
    check_login("me/net")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match="Expected a token"):
        check_login("me/net")
    assert hub.requests == []


@pytest.mark.parametrize("failure", ["closed", "broken", "offline"])
def test_without_the_hub(hub, folder, monkeypatch, failure):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    if failure == "closed":
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    elif failure == "broken":
        hub.broken = 500
    else:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        huggingface_hub.close_session()
    told = (
        "Expected an answer about .* 500" if failure == "broken" else "Expected to reach http.* for me/net.*Check the network"
    )
    with pytest.raises(UserError, match=told) as caught:
        upload_hub_folder(folder, "me/net", message="one")
    assert "\n" not in str(caught.value)
