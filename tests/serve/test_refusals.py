"""Requests that are no uploads of pictures: each is refused with the right status, and no file is opened."""

import io
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.serve.opened import Opened
from tests.serve.running import BOUNDARY, END, TYPE, form, is_one_sentence, part, picture

pytestmark = pytest.mark.xdist_group("servers")

PNG, JPEG = picture(), picture(kind="jpeg")
SECRET = Path("/etc/passwd")


@pytest.fixture(scope="module")
def audit(server):
    assert server.post("/predict", PNG).status == 200  # compiles, which reads and writes JAX's cache of programs
    return Opened()


@pytest.fixture
def opened(audit, server):
    """What is opened during the test; afterwards the server must still answer."""
    audit.events.clear()
    audit.listening = True
    yield audit
    audit.listening = False
    assert audit.strange == []
    assert server.get("/healthz").json == {"ready": True, "requests": 0, "waiting": 0}


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height):
    """Returns a PNG file of a size, of which only the first rows are there."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(10_000))) + chunk(b"IEND", b"")


def jpeg(width, height):
    """Returns a JPEG file whose header has another size."""
    start = JPEG.index(b"\xff\xc0") + 5
    return JPEG[:start] + struct.pack(">HH", height, width) + JPEG[start + 4 :]


def archive():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as found:
        found.writestr("../../photo.png", PNG)
    return file.getvalue()


def other(kind):
    file = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file, kind)
    return file.getvalue()


PATHS = {
    "parent folders": ("GET", "/../../../../etc/passwd", 404),
    "encoded dots": ("GET", "/%2e%2e/%2e%2e/%2e%2e/etc/passwd", 404),
    "encoded slashes": ("GET", "/..%2f..%2f..%2fetc%2fpasswd", 404),
    "encoded twice": ("GET", "/%252e%252e%252fetc%252fpasswd", 404),
    "backslashes": ("GET", "/..\\..\\windows\\win.ini", 404),
    "absolute path": ("GET", "/etc/passwd", 404),
    "two slashes": ("GET", "//etc/passwd", 404),
    "encoded absolute path": ("GET", "/%2fetc%2fpasswd", 404),
    "below a route": ("GET", "/predict/../../etc/passwd", 404),
    "the page's own file": ("GET", "/index.html", 404),
    "a static folder": ("GET", "/static/style.css", 404),
    "null byte": ("GET", "/metadata%00.json", 404),
    "overlong dots": ("GET", "/%c0%ae%c0%ae/etc/passwd", 404),
    "a URL of a file": ("GET", "file:///etc/passwd", 404),
    "a URL elsewhere": ("GET", "http://169.254.169.254/latest/meta-data", 404),
    "a line break": ("GET", "/%0d%0aSet-Cookie:%20a=b", 404),
    "markup": ("GET", "/<script>alert(1)</script>", 404),
    "a long path": ("GET", f"/{'a' * 10_000}", 404),
    "slash at the end": ("POST", "/predict/", 404),
    "no mask": ("POST", "/mask", 404),
    "GET of an upload": ("GET", "/predict", 405),
    "GET with a path": ("GET", "/explore?picture=/etc/passwd", 405),
    "PUT": ("PUT", "/predict", 405),
    "DELETE": ("DELETE", "/", 405),
    "PATCH": ("PATCH", "/metadata", 405),
    "OPTIONS": ("OPTIONS", "/predict", 405),
    "TRACE": ("TRACE", "/", 405),
    "POST of a page": ("POST", "/healthz", 405),
    "an unknown method": ("BREW", "/", 405),
    "CONNECT": ("CONNECT", "example.com:443", 404),
}
HEADERS = {
    "JSON": ({"Content-Type": "application/json"}, 415),
    "a bare picture": ({"Content-Type": "image/png"}, 415),
    "another form": ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
    "another multipart": ({"Content-Type": f"multipart/mixed; boundary={BOUNDARY}"}, 415),
    "no type": ({}, 415),
    "compressed": ({"Content-Type": TYPE, "Content-Encoding": "gzip"}, 415),
    "a charset without text": ({"Content-Type": f"{TYPE}; charset=undefined"}, 400),
    "a charset of domains": ({"Content-Type": f"{TYPE}; charset=punycode"}, 400),
    "no boundary": ({"Content-Type": "multipart/form-data"}, 400),
    "an empty boundary": ({"Content-Type": "multipart/form-data; boundary="}, 400),
    "another boundary": ({"Content-Type": "multipart/form-data; boundary=other"}, 400),
    "a long boundary": ({"Content-Type": f"multipart/form-data; boundary={'b' * 5000}"}, 400),
    "no length": ({"Content-Type": TYPE, "Content-Length": None}, 411),
    "malformed chunks": ({"Content-Type": TYPE, "Content-Length": None, "Transfer-Encoding": "chunked"}, 400),
    "a huge length": ({"Content-Type": TYPE, "Content-Length": "1000000000000"}, 413),
    "a length beyond numbers": ({"Content-Type": TYPE, "Content-Length": "9" * 5000}, 400),
    "a negative length": ({"Content-Type": TYPE, "Content-Length": "-1"}, 400),
    "a length in words": ({"Content-Type": TYPE, "Content-Length": "many"}, 400),
    "two lengths": ({"Content-Type": TYPE, "content-length": "7"}, 400),
    "no host": ({"Content-Type": TYPE, "Host": None}, 400),
    "a null byte": ({"Content-Type": TYPE, "X-Name": "a\0b"}, 400),
    "a space in a name": ({"Content-Type": TYPE, "X Name": "a"}, 400),
}
BODIES = {
    "empty": (b"", 400),
    "no part": (END, 400),
    "text": (b"picture=photo.png", 400),
    "no end": (form(PNG)[: -len(END)], 400),
    "cut in the head of a part": (form(PNG)[:60], 400),
    "no name": (part("form-data", PNG) + END, 400),
    "no disposition": (f"--{BOUNDARY}\r\n\r\n".encode() + PNG + b"\r\n" + END, 400),
    "a line break in a part's head": (part('form-data; name="picture"\r\n\0: x; filename="a"', PNG) + END, 400),
    "another field": (form(PNG, field="image"), 400),
    "two pictures": (part('form-data; name="picture"; filename="a"', PNG) + form(PNG), 400),
    "a further field": (part('form-data; name="path"', b"/etc/passwd") + form(PNG), 400),
    "a path as text": (part('form-data; name="picture"', b"/etc/passwd") + END, 400),
    "an empty file": (form(b""), 415),
    "a text file": (form(SECRET.read_bytes(), name="../../../../etc/passwd"), 415),
    "SVG": (form(b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>', name="a.svg"), 415),
    "HTML": (form(b"<!doctype html><script>alert(1)</script>", name="a.html"), 415),
    "a zip archive": (form(archive(), name="a.png"), 415),
    "PostScript": (form(other("eps"), name="a.png"), 415),
    "GIF": (form(other("gif")), 415),
    "TIFF": (form(other("tiff")), 415),
    "PNG cut in half": (form(PNG[: len(PNG) // 2]), 400),
    "JPEG cut in half": (form(JPEG[: len(JPEG) // 2]), 400),
    "the first bytes of PNG": (form(PNG[:8]), 400),
    "the first bytes of JPEG": (form(JPEG[:3]), 400),
    "the first bytes of WebP": (form(b"RIFF\xff\xff\xff\x7fWEBP" + bytes(100)), 400),
    "PNG with a changed byte": (form(PNG[:60] + bytes([PNG[60] ^ 1]) + PNG[61:]), 400),
    "PNG without pixels": (form(png(0, 8)), 400),
    "PNG of 64.1 megapixels": (form(png(8192, 7825)), 413),
    "PNG of 10^9 pixels": (form(png(50_000, 20_000)), 413),
    "PNG of 2^60 pixels": (form(png(2**30, 2**30)), 413),
    "JPEG of 65,000 x 65,000": (form(jpeg(65_000, 65_000)), 413),
    "a file of 16 MB and a byte": (form(bytes(16_000_001)), 413),
    "a file of 17 MB": (form(bytes(17_000_000)), 413),
}


MESSAGES = {
    "garbage": b"GARBAGE\r\n\r\n",
    "a line break in the target": b"GET /\r\nInjected: x HTTP/1.1\r\n\r\n",
    "an unknown version": b"GET / HTTP/one\r\nHost: a\r\n\r\n",
    "a path without end": b"GET /" + b"a" * 20_000,
    "a header without end": b"GET / HTTP/1.1\r\nX-Name: " + b"a" * 20_000,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "no ASCII": "GET /\u00e9 HTTP/1.1\r\nHost: a\r\n\r\n".encode(),
}


@pytest.mark.parametrize(("method", "path", "status"), PATHS.values(), ids=PATHS.keys())
def test_a_path_that_is_no_route(server, opened, method, path, status):
    reply = server.request(method, path, {"Content-Type": TYPE}, form(PNG) if method == "POST" else b"")
    assert reply.status == status
    assert is_one_sentence(reply)
    assert "set-cookie" not in reply.headers
    assert "root:" not in reply.body.decode()


@pytest.mark.parametrize(("headers", "status"), HEADERS.values(), ids=HEADERS.keys())
def test_a_request_of_another_kind(server, opened, headers, status):
    reply = server.request("POST", "/predict", headers, form(PNG))
    assert reply.status == status
    assert is_one_sentence(reply)


@pytest.mark.parametrize("length", [None, "10"], ids=["alone", "with a length that does not count"])
def test_chunks_have_no_length(server, opened, length):
    body = form(PNG)
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    headers = {"Content-Type": TYPE, "Content-Length": length, "Transfer-Encoding": "chunked"}
    reply = server.request("POST", "/predict", headers, chunks)
    assert reply.status == 411
    assert is_one_sentence(reply)


@pytest.mark.parametrize("path", ["/predict", "/explore"])
@pytest.mark.parametrize(("body", "status"), BODIES.values(), ids=BODIES.keys())
def test_a_body_that_is_no_picture(server, opened, path, body, status):
    reply = server.request("POST", path, {"Content-Type": TYPE}, body)
    assert reply.status == status
    assert is_one_sentence(reply)


@pytest.mark.parametrize("path", ["/predict", "/mask", "/explore"])
def test_a_picture_whose_resized_shape_is_too_large(servers, path):
    reply = servers["segmentor"].post(path, picture((60_000, 1)))
    assert reply.status == 413
    assert is_one_sentence(reply)


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES.keys())
def test_bytes_that_are_no_request(server, opened, message):
    reply = server.raw(message)
    assert reply.status == 400
    assert is_one_sentence(reply)


@pytest.mark.parametrize(
    "name",
    [
        "../../../../etc/passwd",
        "..%2f..%2fetc%2fpasswd",
        "/etc/passwd",
        "C:\\windows\\win.ini",
        "\\\\host\\share\\a.png",
        "file:///etc/passwd",
        "a\0.png",
        "|id",
        "$(id)",
        "a" * 4000,
        "",
    ],
)
def test_the_name_of_a_file_is_ignored(server, opened, name):
    reply = server.post("/predict", PNG, name=name)
    assert (reply.status, reply.json) == (200, server.post("/predict", PNG).json)


def test_a_large_upload_stays_in_memory(server, opened):
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "png")
    assert len(file.getvalue()) > 2**20  # from where on forms usually go to a file
    assert server.post("/predict", file.getvalue()).status == 200


def test_what_is_opened_is_noticed(audit, tmp_path):
    audit.events.clear()
    audit.listening = True
    (tmp_path / "file.png").write_bytes(PNG)
    os.listdir(tmp_path)
    audit.listening = False
    assert [event for event, _ in audit.strange] == ["open", "os.listdir"]
    audit.events.clear()


def test_a_head_request_has_no_body(server):
    reply = server.request("HEAD", "/metadata")
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert reply.headers["x-content-type-options"] == "nosniff"
