"""The server process: its socket, uvicorn in a thread, and its end by a signal."""

import json
import logging
import math
import os
import signal
import socket
import threading
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from paca_jax.command_line import patient
from paca_jax.errors import UserError
from paca_jax.serve.application import Application, secured

HEAD_SECONDS = 10.0  # for the head of a request, or between two requests of a connection
_NO_REQUEST = "Expected a request in HTTP/1.1 with a head of at most 16 KiB, got something else. Correct it."


class Protocol(H11Protocol):
    """HTTP/1.1 that answers what is no request in JSON too, and closes connections on which none comes."""

    def connection_made(self, transport: Any) -> None:
        """Waits for the first request."""
        super().connection_made(transport)
        self._close_without_request()

    def on_response_complete(self) -> None:
        """Waits for the next request."""
        self._close_without_request()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answers what is no request."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = json.dumps({"error": _NO_REQUEST}).encode()
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", b"%d" % len(body)),
                (b"connection", b"close"),
            ]
            start = secured({"type": "http.response.start", "headers": headers})
            events = (h11.Response(status_code=400, headers=start["headers"]), h11.Data(data=body), h11.EndOfMessage())
            for event in events:
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
        if self.cycle is not None:  # of a request whose body is malformed: nobody reads its answer
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def _close_without_request(self) -> None:
        last = self.cycle

        def close() -> None:
            if self.cycle is last:
                self.timeout_keep_alive_handler()

        self.loop.call_later(HEAD_SECONDS, close)


def bind(host: str, port: int) -> socket.socket:
    """Returns a socket at an address, which does not listen yet; port 0 takes a free one.

    Raises:
        UserError: if that is not an address of this machine, or is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        found = socket.socket(family, kind, protocol)
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, os.name == "posix")
            found.bind(address)
        except OSError:
            found.close()
            raise
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"Expected a free address, got {host} port {port}: {reason}. Choose another --host or --port."
        ) from error
    return found


def address(listening: socket.socket) -> str:
    """Returns the address of a socket as a browser takes it."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def make_server(application: Application, seconds: float) -> uvicorn.Server:
    """Returns a server of an application.

    Args:
        application: the application.
        seconds: how long requests may take that are open when the server ends.
    """
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of each malformed form
    config = uvicorn.Config(
        application,
        http=Protocol,
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(seconds),
    )
    return uvicorn.Server(config)


def run(server: uvicorn.Server, bound: socket.socket) -> None:
    """Serves until Ctrl-C or SIGTERM, and then answers the requests that are open.

    Raises:
        KeyboardInterrupt: after Ctrl-C.
    """
    received = []

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        server.should_exit = True

    # In a thread, because uvicorn would raise the signal again in the main one after its end.
    thread = threading.Thread(target=server.run, args=([bound],), name="server")
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with patient():
            thread.start()
            thread.join()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if signal.SIGINT in received:
        raise KeyboardInterrupt
