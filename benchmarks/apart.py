"""Calls that run in a separate process, so that the compared programs share neither memory nor threads."""

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
    """Creates calls in a new process, which ends with the context.

    Args:
        make: a function of a module that returns the calls.
        arguments: its arguments, which are pickled.

    Yields:
        For each call, one that runs it in the other process and returns when it is done.

    Raises:
        UserError: if `make` or a call raises one, or the process ends.
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
        raise UserError("Expected a result from a benchmark process, got its end. See its output.") from error
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
