"""The routes of the server, as an ASGI application."""

import asyncio
import dataclasses
import functools
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from paca_jax.errors import UserError, shorten
from paca_jax.serve.answering import Answering, SegmentationAnswering
from paca_jax.serve.batching import Batcher
from paca_jax.serve.hosts import Hosts
from paca_jax.serve.index import index_page
from paca_jax.serve.limits import Limits, RefusedError
from paca_jax.serve.upload import read_upload
from paca_jax.version import __version__

_THREADS = 2  # that decode pictures, and as many that write answers, which do not wait for the pictures of others
_PAGES = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"
_HEADERS = {
    "content-security-policy": f"{_PAGES}; form-action 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_EXPLORER = {"content-security-policy": f"{_PAGES}; form-action 'none'; script-src 'unsafe-inline'"}

_Answer = Callable[[bytes], Coroutine[Any, Any, Response]]  # to an uploaded file


class Application:
    """An ASGI application that answers uploads of pictures with predictions and explorers.

    Attributes:
        open_requests: the number of uploads that are read, wait or are computed.
        batcher: the queue in front of the model.
    """

    def __init__(self, answering: Answering, limits: Limits, hosts: Hosts) -> None:
        self._answering, self._limits, self._hosts = answering, limits, hosts
        self.batcher = Batcher()
        self._decoders, self._writers = ThreadPoolExecutor(_THREADS, "decoder"), ThreadPoolExecutor(_THREADS, "writer")
        self.open_requests = 0
        posts: dict[str, _Answer] = {"/predict": self._predict}
        if isinstance(answering, SegmentationAnswering):
            posts["/mask"] = functools.partial(self._mask, answering)
        if answering.has_clusters:
            posts["/explore"] = self._explore
        gets = {"/": self._index, "/metadata": self._metadata, "/healthz": self._health}
        self._routes = [*gets, *posts]
        self._page = index_page(answering, limits, self._routes)
        routes = [Route(path, endpoint, methods=["GET"]) for path, endpoint in gets.items()]
        routes += [Route(path, self._upload(answer), methods=["POST"]) for path, answer in posts.items()]
        handlers: dict[Any, Any] = {
            RefusedError: _refused,
            UserError: _failed,
            HTTPException: self._no_route,
            ClientDisconnect: _left,
            Exception: _broken,
        }
        starlette = Starlette(routes=routes, exception_handlers=handlers)
        starlette.router.redirect_slashes = False
        self._starlette: ASGIApp = starlette

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request; every response has the headers of `secured`."""

        async def send_with_headers(message: Message) -> None:
            await send(secured(message) if message["type"] == "http.response.start" else message)

        try:
            self._hosts.check(Headers(scope=scope).get("host"))
        except RefusedError as error:
            answer: ASGIApp = _error(error.status, str(error))
        else:
            answer = self._starlette
        await answer(scope, receive, send_with_headers)

    async def _index(self, request: Request) -> Response:
        return HTMLResponse(self._page)

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"ready": True, "requests": self.open_requests, "waiting": self.batcher.waiting})

    async def _metadata(self, request: Request) -> Response:
        answering = self._answering
        return JSONResponse(
            {
                "model": answering.name,
                "task": answering.task,
                "classes": answering.classes,
                "routes": self._routes,
                "limits": dataclasses.asdict(self._limits),
                "version": __version__,
            }
        )

    def _upload(self, answer: _Answer) -> Callable[[Request], Awaitable[Response]]:
        """Returns the endpoint of a function that answers uploads, within the limits."""

        async def endpoint(request: Request) -> Response:
            limits, content = self._limits, None
            if self.open_requests >= limits.requests:
                raise RefusedError(503, f"Expected at most {limits.requests} requests at a time, got one more. Send it later.")
            self.open_requests += 1
            try:
                async with asyncio.timeout(limits.seconds):
                    content = await read_upload(request, limits)
                    return await _unless_left(request, answer(content))
            except TimeoutError as error:
                if content is None:
                    late = f"Expected a request within {limits.seconds:g} s, got a part of it. Send a smaller file."
                    raise RefusedError(408, late) from error
                late = f"Expected an answer within {limits.seconds:g} s, got none yet. Send the request again later."
                raise RefusedError(504, late) from error
            finally:
                self.open_requests -= 1

        return endpoint

    async def _predict(self, content: bytes) -> Response:
        return JSONResponse(
            {"predictions": await _in_thread(self._writers, self._answering.entries, await self._output(content))}
        )

    async def _mask(self, answering: SegmentationAnswering, content: bytes) -> Response:
        mask = await _in_thread(self._writers, answering.mask, await self._output(content))
        return Response(mask, media_type="image/png")

    async def _explore(self, content: bytes) -> Response:
        # Decoded only when its turn comes: a picture takes much more memory than its file.
        page = await self.batcher.run(self._answering.explore, content, "explorer", 1)
        return HTMLResponse(page, headers=_EXPLORER)

    async def _output(self, content: bytes) -> Any:
        view = await _in_thread(self._decoders, self._answering.prepare, content)
        return await self.batcher.run(self._answering.compute, view, ("output", view.group), view.most)

    async def _no_route(self, request: Request, error: HTTPException) -> Response:
        path = repr(shorten(request.url.path, 100))
        if error.status_code == 405:
            allowed = (error.headers or {}).get("Allow", "another method")
            sentence = f"Expected {allowed} for {path}, got {shorten(request.method, 20)!r}. Use that."
        else:
            sentence = f"Expected one of the addresses {', '.join(self._routes)}, got {path}. Correct it."
        return _error(error.status_code, sentence, error.headers)


async def _in_thread(threads: ThreadPoolExecutor, function: Callable[[Any], Any], value: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(threads, function, value)


async def _unless_left(request: Request, answer: Coroutine[Any, Any, Response]) -> Response:
    """Returns an answer, or gives it up once the client of a request that has been read leaves.

    Raises:
        ClientDisconnect: if it does.
    """
    answering, leaving = asyncio.ensure_future(answer), asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise ClientDisconnect
        return answering.result()
    finally:
        answering.cancel()
        leaving.cancel()


def secured(message: Message) -> Message:
    """Returns the start of a response with headers that forbid a browser what no page of the server does."""
    given = {name.lower() for name, _ in message["headers"]}
    added = [(name.encode(), value.encode()) for name, value in _HEADERS.items() if name.encode() not in given]
    return {**message, "headers": [*message["headers"], *added]}


async def _refused(request: Request, error: RefusedError) -> Response:
    return _error(error.status, str(error), {"retry-after": "1"} if error.status == 503 else {})


async def _failed(request: Request, error: UserError) -> Response:
    """Answers what the model cannot: its weights or its options are at fault, not the request."""
    return _error(500, str(error))


async def _broken(request: Request, error: Exception) -> Response:
    return _error(500, "Expected an answer of the model, got a fault of the server. Look at what it has printed.")


async def _left(request: Request, error: ClientDisconnect) -> Response:
    return _error(400, "Expected the whole request, got its beginning. Send it again.")


def _error(status: int, sentence: str, headers: Any = None) -> Response:
    return JSONResponse({"error": sentence}, status, headers)
