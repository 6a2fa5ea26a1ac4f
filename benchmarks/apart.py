"""Calls that run in a process of their own, so that what is compared shares neither memory nor threads."""

import multiprocessing
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from paca_jax.errors import UserError

Calls = Mapping[Hashable, Callable[[], object]]


@contextmanager
def apart(make: Callable[..., Calls], *arguments: Any) -> Iterator[dict[Hashable, Callable[[], None]]]:
    """Makes calls in a new process, and ends it afterwards.

    Args:
        make: a function of a module, which returns the calls.
        arguments: what it takes; they are pickled.

    Yields:
        For each of the calls one that lets the other process make it, and returns when it is done.

    Raises:
        UserError: that `make` or a call raises, or if the process ends.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, make, arguments), daemon=True)
    process.start()
    there.close()
    try:
        yield {name: partial(_ask, here, name) for name in _answer(here)}
    finally:
        here.close()
        process.join()


def _ask(connection: Connection, name: Hashable) -> None:
    connection.send(name)
    _answer(connection)


def _answer(connection: Connection) -> Any:
    try:
        answer = connection.recv()
    except EOFError as error:
        raise UserError("Expected an answer of a process that was started, but it has ended; see what it printed.") from error
    if isinstance(answer, UserError):
        raise answer
    return answer


def _serve(connection: Connection, make: Callable[..., Calls], arguments: tuple[Any, ...]) -> None:
    try:
        calls = make(*arguments)
        connection.send(list(calls))
        while True:
            try:
                name = connection.recv()
            except EOFError:
                return
            calls[name]()
            connection.send(None)
    except UserError as error:
        connection.send(error)
