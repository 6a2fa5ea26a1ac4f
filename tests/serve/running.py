"""Servers in a thread of the test process, and the requests of a client."""

import contextlib
import http.client
import io
import json
import re
import socket
import threading
import time
from typing import NamedTuple

import numpy as np
from PIL import Image

from paca_jax.serve.application import Application
from paca_jax.serve.hosts import Hosts
from paca_jax.serve.server import bind, make_server

LONGEST = 120.0  # seconds
BOUNDARY = "----picture"
TYPE = f"multipart/form-data; boundary={BOUNDARY}"


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


class Running:
    """A server of an application."""

    def __init__(self, answering, limits):
        self.answering, self.application = answering, Application(answering, limits, Hosts(["served.example"]))
        self._socket = bind("127.0.0.1", 0)
        self._socket.listen()
        self.port = self._socket.getsockname()[1]
        self._server = make_server(self.application, LONGEST)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],))
        self._thread.start()

    @property
    def connections(self):
        """The number of connections that are open."""
        return len(self._server.server_state.connections)

    def stop(self):
        self._server.should_exit = True
        self._thread.join()

    def raw(self, message, method="GET"):
        """Sends bytes, and returns the reply to a request of the given method."""
        with socket.create_connection(("127.0.0.1", self.port), LONGEST) as connection:
            with contextlib.suppress(ConnectionError):  # the server may answer before it has read all
                connection.sendall(message)
            return read_reply(connection, method)

    def request(self, method, path, headers=None, body=b""):
        """Sends a request with the usual headers, and returns the reply."""
        lines = {"Host": "localhost", "Connection": "close", "Content-Length": str(len(body))} | (headers or {})
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value is not None)
        return self.raw(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body, method)

    def get(self, path):
        return self.request("GET", path)

    def post(self, path, content, **options):
        """Uploads a picture."""
        return self.request("POST", path, {"Content-Type": TYPE}, form(content, **options))


@contextlib.contextmanager
def running(answering, limits):
    started = Running(answering, limits)
    try:
        yield started
    finally:
        started.stop()


class Gate:
    """Holds the thread of the model while it is shut, and counts the pictures of each batch."""

    def __init__(self, answering, monkeypatch):
        self.batches, self._compute, self._open = [], answering.compute, threading.Event()
        monkeypatch.setattr(answering, "compute", self)

    def __call__(self, views):
        self.batches.append(len(views))
        assert self._open.wait(LONGEST)
        return self._compute(views)

    def open(self):
        self._open.set()


def form(content, field="picture", name="photo.png"):
    """Returns the body of a form with one file."""
    return part(f'form-data; name="{field}"; filename="{name}"', content) + END


END = f"--{BOUNDARY}--\r\n".encode()


def part(disposition, content):
    return f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n\r\n".encode() + content + b"\r\n"


def read_reply(connection, method="GET"):
    """Reads a response; fails if the server closes the connection without one."""
    response = http.client.HTTPResponse(connection, method=method)
    response.begin()
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Reply(response.status, headers, response.read())


def picture(size=(50, 37), seed=0, kind="png", **options):
    """Returns a file with an image of smooth noise, of a (height, width)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BICUBIC).save(file, kind, **options)
    return file.getvalue()


def until(holds):
    """Returns once something holds."""
    end = time.monotonic() + LONGEST
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def is_one_sentence(reply):
    """Returns whether a reply is an error in the house style, with the headers of every response."""
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["content-security-policy"].startswith("default-src 'none'")
    return list(reply.json) == ["error"] and re.fullmatch(r"Expected .+\. [A-Z].+\.", reply.json["error"]) is not None
