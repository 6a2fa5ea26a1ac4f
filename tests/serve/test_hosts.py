"""The hosts by which a server answers: its own, not those that a site makes point to it."""

import pytest

from paca_jax.serve.hosts import Hosts
from paca_jax.serve.limits import RefusedError
from tests.serve.running import TYPE, form, is_one_sentence, picture

pytestmark = pytest.mark.xdist_group("servers")

GOOD = (
    "localhost",
    "LocalHost:8000",
    "localhost.",
    "localhost:",
    "127.0.0.1",
    "127.0.0.1:443",
    "10.244.1.17:8000",  # of a pod, as Kubernetes asks for its health
    "[::1]",
    "[::1]:8000",
    "[fe80::0a00:27FF:fe4e:66a1]:8000",
    "served.example",  # as tests/serve/running.py allows
    "SERVED.example.:9000",
)
OTHERS = (
    "rebound.example",
    "rebound.example:8000",
    "localhost.rebound.example",
    "notserved.example",
    "a.served.example",
    "127.0.0.1.rebound.example",
    "served.example@rebound.example",
    "*",
)
MALFORMED = ("", ":8000", "localhost:http", "localhost:8000:8000", "::1", "[::1", "[localhost]", "http://localhost/")


@pytest.mark.parametrize("host", GOOD)
def test_the_server_answers_by_its_hosts(server, host):
    assert server.request("GET", "/healthz", {"Host": host}).status == 200


@pytest.mark.parametrize("path", ["/", "/metadata", "/healthz", "/predict", "/explore", "/elsewhere"])
def test_nothing_answers_by_the_name_of_another_site(server, path):
    method = "POST" if path in ("/predict", "/explore") else "GET"
    body = form(picture()) if method == "POST" else b""
    reply = server.request(method, path, {"Host": "rebound.example:8000", "Content-Type": TYPE}, body)
    assert reply.status == 421
    assert is_one_sentence(reply)
    assert reply.json["error"] == (
        "Expected localhost, an IP address or a name of --allowed-host as the host, got 'rebound.example'. "
        "Ask by one of these, or start the server with that name as --allowed-host."
    )


@pytest.mark.parametrize("host", OTHERS)
def test_other_hosts(server, host):
    reply = server.request("GET", "/healthz", {"Host": host})
    assert reply.status == 421
    assert is_one_sentence(reply)


@pytest.mark.parametrize("host", MALFORMED)
def test_what_is_no_host(server, host):
    reply = server.request("GET", "/healthz", {"Host": host})
    assert reply.status == 400
    assert is_one_sentence(reply)


def test_a_missing_host(server):
    reply = server.raw(b"GET /healthz HTTP/1.0\r\n\r\n")
    assert reply.status == 400
    assert reply.json["error"] == "Expected a host such as localhost:8000 in the header Host, got none. Send one."


def test_every_name_may_be_allowed():
    Hosts(["0.0.0.0", "*"]).check("any.example:80")
    with pytest.raises(RefusedError, match=r"got 'any\.example'"):
        Hosts(["0.0.0.0"]).check("any.example:80")
