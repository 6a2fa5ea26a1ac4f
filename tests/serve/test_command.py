"""`paca serve`: a process that is interrupted, ports, flags, and packages that are missing."""

import contextlib
import re
import signal
import socket
import subprocess
import sys

import pytest

from paca_jax.cli.pictures.serve import main
from tests.runs import ROOT, environment
from tests.serve.running import LONGEST, TYPE, form, picture, read_reply, until

SIGNALS = {"SIGINT": (signal.SIGINT, 130, "Stopped by Ctrl-C.\n"), "SIGTERM": (signal.SIGTERM, 0, "")}

BODY = form(picture())


def refuses(port):
    try:
        socket.create_connection(("127.0.0.1", port), LONGEST).close()
    except ConnectionRefusedError:
        return True
    return False


@contextlib.contextmanager
def reading_an_upload(place):
    """Starts a server, and yields it, its port, and a connection on which it waits for a body."""
    line = [sys.executable, "-m", "paca_jax", "serve", str(place), "--port=0", "--batch-size=1"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(line, cwd=ROOT, env=environment(), text=True, **pipes) as process:
        try:
            assert process.stdout.readline() == "Compiling pacavit_nano.\n"
            told = process.stdout.readline()
            port = int(re.fullmatch(r"Serving pacavit_nano at http://127\.0\.0\.1:(\d+)/ until Ctrl-C\.\n", told)[1])
            head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {TYPE}\r\nContent-Length: {len(BODY)}\r\n"
            with socket.create_connection(("127.0.0.1", port), LONGEST) as connection:
                connection.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
                assert connection.recv(1000).startswith(b"HTTP/1.1 100")
                yield process, port, connection
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status", "said"), SIGNALS.values(), ids=SIGNALS.keys())
def test_an_interrupted_server_answers_what_is_open(places, number, status, said):
    with reading_an_upload(places["classifier"]) as (process, port, connection):
        process.send_signal(number)
        until(lambda: refuses(port))
        connection.sendall(BODY)
        reply = read_reply(connection)
        assert (reply.status, list(reply.json)) == (200, ["predictions"])
        assert process.communicate(timeout=LONGEST) == ("", said)
        assert process.returncode == status


@pytest.mark.slow
def test_a_second_interrupt_ends_the_server_at_once(places):
    with reading_an_upload(places["classifier"]) as (process, port, _):
        process.send_signal(signal.SIGINT)
        until(lambda: refuses(port))
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=LONGEST) == ("", "Stopped by Ctrl-C.\n")
        assert process.returncode == 130


def error_of(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_a_port_in_use(places, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        error = error_of(capsys, str(places["classifier"]), f"--port={port}")
    assert error == (
        f"error: Expected a free address, got 127.0.0.1 port {port}: Address already in use. Choose another --host or --port.\n"
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--host=256.0.0.1"], "Expected a free address, got 256.0.0.1 port 8000"),
        (["--host=192.0.2.1"], "Expected a free address, got 192.0.2.1 port 8000"),
        (["--host=a..b"], "Expected a free address, got a..b port 8000"),
        (["--port=70000"], "Expected port to be a whole number from 0 to 65535, got 70000"),
        (["--port=http"], "--port"),
        (
            ["--port=0", "--allowed-host=http://a.example"],
            "Expected a host such as photos.example.org, without scheme and port",
        ),
        (["--port=0", "--allowed-host=a.example:80"], "got 'a.example:80'. Correct it."),
        (["--port=0", "--allowed-host=*.example"], "got '*.example'. Correct it."),
        (["--port=0", "--allowed-host="], "got ''. Correct it."),
        (["--max-megabytes=0"], "Expected megabytes to be a number above 0"),
        (["--max-seconds=nan"], "Expected seconds to be a number above 0"),
        (["--batch-size=0"], "Expected batch_size to be a whole number from 1"),
        (["--max-pixels=3"], "There is no flag --max-pixels"),
    ],
)
def test_wrong_flags(places, capsys, flags, message):
    error = error_of(capsys, str(places["classifier"]), *flags)
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error


def test_a_place_without_a_model(tmp_path, capsys):
    assert "nothing_there" in error_of(capsys, str(tmp_path / "nothing_there"), "--port=0")


@pytest.mark.parametrize("package", ["starlette", "uvicorn", "python_multipart"])
def test_a_missing_package(places, capsys, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    error = error_of(capsys, str(places["classifier"]))
    assert error == f"error: The server needs the package {package}, which is not installed. Run pip install paca-jax[serve].\n"
