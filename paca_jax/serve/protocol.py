"""HTTP/1.1 as uvicorn speaks it, with refusals in JSON and limits of the time that a client may be silent."""

import json
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from paca_jax.serve.application import secured

HEAD_SECONDS = 10.0  # for the head of a request, or between two requests of a connection
TAKING_SECONDS = 60.0  # for a client to take an answer
_NO_REQUEST = "Expected a request in HTTP/1.1 with a head of at most 16 KiB, got something else. Correct it."


class Protocol(H11Protocol):
    """HTTP/1.1 that answers what is no request in JSON too, and drops clients that send no request or take no answer."""

    def connection_made(self, transport: Any) -> None:
        """Waits for the first request."""
        super().connection_made(transport)
        self._close_without_request()

    def pause_writing(self) -> None:
        """Waits for the client to take the answer."""
        super().pause_writing()
        self._not_taken = self.loop.call_later(TAKING_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Goes on once it has."""
        super().resume_writing()
        self._not_taken.cancel()

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
