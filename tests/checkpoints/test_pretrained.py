"""The cache of official checkpoints, against a server on this machine."""

import functools
import hashlib
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from paca_jax.checkpoints import pretrained
from paca_jax.checkpoints.pretrained import PUBLISHED, fetch_pretrained, is_official_name, pretrained_address
from paca_jax.errors import UserError
from tests import golden

NAME = "pacavit_tiny_p2cconv_100_0"
FILE = f"IMNET_224_{NAME}.pth"


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serves tmp_path/served, and counts requests."""
    served, requests = tmp_path / "served", []
    served.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            requests.append(self.path)

    http = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(served)))
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(pretrained, "BASE_ADDRESS", f"http://127.0.0.1:{http.server_port}/")
    yield served, requests
    http.shutdown()
    thread.join()
    http.server_close()


def test_addresses_follow_the_published_pattern():
    base = "https://github.com/iVMCL/PaCaViT/releases/download/pacavit/"
    assert pretrained_address(NAME) == f"{base}IMNET_224_pacavit_tiny_p2cconv_100_0.pth"
    assert pretrained_address("pacavit_small_p2cconv_100") == f"{base}IMNET_224_pacavit_small_p2cconv_100.pth"
    assert set(PUBLISHED) == set(golden.OFFICIAL) - {"pacavit_convmixer_tiny_100"}


def test_a_folder_of_an_official_models_name_is_no_official_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_official_name(NAME)
    assert not is_official_name(FILE)
    (tmp_path / NAME).mkdir()
    assert not is_official_name(NAME)


@pytest.mark.parametrize(
    ("name", "told"), [("pacavit_convmixer_tiny_100", "not published"), ("pacavit_tiny", "there is no such model")]
)
def test_what_is_not_published_is_told(name, told):
    with pytest.raises(UserError, match=told):
        fetch_pretrained(name)


def test_downloads_once_and_records_the_checksum(server, tmp_path, monkeypatch):
    served, requests = server
    (served / FILE).write_bytes(b"weights")
    monkeypatch.setenv("PACA_JAX_CACHE", str(tmp_path / "cache"))
    path = fetch_pretrained(NAME)
    assert path == tmp_path / "cache" / FILE
    assert path.read_bytes() == b"weights"
    assert (tmp_path / "cache" / f"{FILE}.sha256").read_text().strip() == hashlib.sha256(b"weights").hexdigest()
    assert fetch_pretrained(NAME) == path
    assert len(requests) == 1


def test_a_changed_file_is_refused_until_it_is_fetched_again(server, tmp_path):
    served, _ = server
    (served / FILE).write_bytes(b"weights")
    path = fetch_pretrained(NAME, tmp_path)
    path.write_bytes(b"other")
    with pytest.raises(UserError, match=r"recorded at its first use, got .*Delete the file"):
        fetch_pretrained(NAME, tmp_path)
    assert path.read_bytes() == b"other"
    path.unlink()
    assert fetch_pretrained(NAME, tmp_path).read_bytes() == b"weights"
    path.unlink()
    (served / FILE).write_bytes(b"replaced upstream")
    with pytest.raises(UserError, match=r"delete IMNET_224_.*\.sha256"):
        fetch_pretrained(NAME, tmp_path)


def test_a_file_put_by_hand_is_taken_and_recorded(tmp_path):
    (tmp_path / FILE).write_bytes(b"by hand")
    assert fetch_pretrained(NAME, tmp_path).read_bytes() == b"by hand"
    assert (tmp_path / f"{FILE}.sha256").is_file()


def test_when_the_server_lacks_the_file_address_and_place_are_told(server, tmp_path):
    with pytest.raises(UserError) as caught:
        fetch_pretrained(NAME, tmp_path / "cache")
    assert pretrained.BASE_ADDRESS + FILE in str(caught.value)
    assert str(tmp_path / "cache" / FILE) in str(caught.value)
    assert not (tmp_path / "cache" / FILE).exists()


def test_offline_address_and_place_are_told(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(pretrained, "BASE_ADDRESS", "http://127.0.0.1:9/")
    with pytest.raises(UserError, match=f"put the file by hand at {tmp_path / FILE}"):
        fetch_pretrained(NAME, tmp_path)


@pytest.mark.parametrize("record", [b"", b"\xff\xfe", b"0" * 64])
def test_a_record_of_another_checksum_is_told(tmp_path, record):
    (tmp_path / FILE).write_bytes(b"weights")
    (tmp_path / f"{FILE}.sha256").write_bytes(record)
    with pytest.raises(UserError, match=r"Expected the SHA-256 .* delete .*\.sha256"):
        fetch_pretrained(NAME, tmp_path)
