"""Requests beyond the limits of number and time, clients that leave, and models that fail."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest

from paca_jax.checkpoints.loading import read_model
from paca_jax.errors import UserError
from paca_jax.serve import protocol
from paca_jax.serve.answering import make_answering
from paca_jax.serve.limits import Limits
from tests.serve.conftest import LIMITS
from tests.serve.running import LONGEST, TYPE, Gate, form, is_one_sentence, picture, read_reply, running, until

pytestmark = pytest.mark.xdist_group("servers")

SOON = 0.3  # seconds; that long a request that never gets its answer takes


@pytest.fixture
def gate(server, monkeypatch):
    """What holds the model; it is open when the test ends."""
    held = Gate(server.answering, monkeypatch)
    yield held
    held.open()


def head(length, path="/predict"):
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {TYPE}\r\nContent-Length: {length}\r\n\r\n".encode()


def test_a_full_server_refuses_and_then_answers(server, gate):
    with running(server.answering, Limits(requests=2, batch_size=4)) as full, ThreadPoolExecutor(2) as clients:
        waiting = [clients.submit(full.post, "/predict", picture()) for _ in range(2)]
        until(lambda: full.application.open_requests == 2)
        refused = full.post("/predict", picture())
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert is_one_sentence(refused)
        assert full.get("/healthz").json["requests"] == 2
        gate.open()
        assert [reply.result().status for reply in waiting] == [200, 200]
        assert full.post("/predict", picture()).status == 200


def test_an_answer_that_is_late_is_refused(server, gate):
    with running(server.answering, Limits(seconds=2.0, batch_size=4)) as impatient, ThreadPoolExecutor(2) as clients:
        sent = [clients.submit(impatient.post, "/predict", picture()) for _ in range(2)]  # one in the model, one waiting
        replies = [reply.result() for reply in sent]
        assert [reply.status for reply in replies] == [504, 504]
        assert all(map(is_one_sentence, replies))
        gate.open()


def test_an_answer_does_not_wait_for_the_pictures_of_others(server, gate, monkeypatch):
    decoding, may_go_on = threading.Semaphore(0), threading.Event()

    def prepare(content):
        decoding.release()
        assert may_go_on.wait(LONGEST)
        return prepare_at_once(content)

    with ThreadPoolExecutor(4) as clients:
        first = clients.submit(server.post, "/predict", picture())
        until(lambda: gate.batches)
        prepare_at_once = server.answering.prepare
        monkeypatch.setattr(server.answering, "prepare", prepare)
        others = [clients.submit(server.post, "/predict", picture()) for _ in range(3)]
        assert decoding.acquire(timeout=LONGEST)
        assert decoding.acquire(timeout=LONGEST)
        gate.open()
        try:
            assert first.result(LONGEST).status == 200
        finally:
            may_go_on.set()
        assert [other.result().status for other in others] == [200, 200, 200]


def test_an_upload_that_does_not_end_is_refused(server):
    with running(server.answering, Limits(seconds=SOON)) as impatient:
        reply = impatient.raw(head(1000) + b"--")
        assert reply.status == 408
        assert is_one_sentence(reply)


def test_a_connection_without_a_request_is_closed(server, monkeypatch):
    monkeypatch.setattr(protocol, "HEAD_SECONDS", SOON)
    for beginning in (b"", b"GET / HT"):
        with socket.create_connection(("127.0.0.1", server.port), LONGEST) as connection:
            connection.sendall(beginning)
            assert connection.recv(1) == b""


def test_an_answer_that_is_not_taken_is_dropped(server, monkeypatch):
    monkeypatch.setattr(protocol, "TAKING_SECONDS", SOON)
    monkeypatch.setattr(server.answering, "explore", lambda contents: ["a" * 50_000_000])
    until(lambda: server.connections == 0)
    upload = form(picture())
    with socket.create_connection(("127.0.0.1", server.port), LONGEST) as connection:
        connection.sendall(head(len(upload), "/explore") + upload + head(len(upload), "/explore") + upload)
        assert connection.recv(12) == b"HTTP/1.1 200"
        until(lambda: server.connections == 0)
        until(lambda: server.application.open_requests == 0)


def test_a_client_that_leaves_costs_nothing(server, gate):
    upload = form(picture())
    for sent in (upload[:50], upload):
        with socket.create_connection(("127.0.0.1", server.port), LONGEST) as connection:
            connection.sendall(head(len(upload)) + sent)
            until(lambda: server.application.open_requests == 1)
            if sent == upload:
                until(lambda: gate.batches)
        until(lambda: server.application.open_requests == 0)
    gate.open()
    assert server.post("/predict", picture()).status == 200


def test_what_a_client_waited_for_that_left_is_not_computed(server, gate):
    upload = form(picture())
    with ThreadPoolExecutor(1) as clients:
        first = clients.submit(server.post, "/predict", picture())
        until(lambda: gate.batches)
        with socket.create_connection(("127.0.0.1", server.port), LONGEST) as connection:
            connection.sendall(head(len(upload)) + upload)
            until(lambda: server.application.batcher.waiting == 1)
        until(lambda: server.application.batcher.waiting == 0)
        gate.open()
        assert first.result().status == 200
    assert gate.batches == [1]
    assert server.get("/healthz").json["requests"] == 0


def test_a_connection_takes_several_requests(server):
    upload = form(picture())
    with socket.create_connection(("127.0.0.1", server.port), LONGEST) as connection:
        statuses = []
        for body in (upload, form(b"text"), upload):
            connection.sendall(head(len(body)) + body)
            statuses.append(read_reply(connection).status)
    assert statuses == [200, 415, 200]


@pytest.mark.parametrize("kind", [RuntimeError, MemoryError])
def test_a_fault_of_the_model_is_told_and_the_server_goes_on(server, monkeypatch, caplog, kind):
    def fail(views):
        raise kind("secret")

    with monkeypatch.context() as broken:
        broken.setattr(server.answering, "compute", fail)
        reply = server.post("/predict", picture())
    assert reply.status == 500
    assert is_one_sentence(reply)
    assert "secret" not in reply.json["error"]
    until(lambda: "secret" in caplog.text)
    assert server.post("/predict", picture()).status == 200


@pytest.mark.parametrize("path", ["/predict", "/explore"])
def test_weights_that_give_no_numbers_are_told(places, path):
    loaded = read_model(places["classifier"], None)
    loaded.variables["params"] = jax.tree.map(lambda leaf: leaf * np.nan, loaded.variables["params"])
    with running(make_answering(loaded, LIMITS, effects=False), LIMITS) as broken:
        reply = broken.post(path, picture())
        assert reply.status == 500
        assert "Expected finite outputs of the model, got NaN" in reply.json["error"]


@pytest.mark.parametrize(
    "options",
    [{"megabytes": 0.0}, {"megapixels": float("nan")}, {"requests": 0}, {"seconds": -1.0}, {"batch_size": 1000}],
)
def test_limits_have_ranges(options):
    with pytest.raises(UserError, match=f"Expected {next(iter(options))} to be a"):
        Limits(**options)
