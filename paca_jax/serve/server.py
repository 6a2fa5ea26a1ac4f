"""The server process: its socket, uvicorn in a thread, and its end by a signal."""

import logging
import math
import os
import signal
import socket
import threading
from types import FrameType

import uvicorn

from paca_jax.command_line import patient
from paca_jax.errors import UserError
from paca_jax.serve.application import Application
from paca_jax.serve.protocol import Protocol


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
