"""One client connection: uvicorn's protocol, a shorter way for predictions, and the news that the client left.

A small prediction needs no ASGI scope, no task and no coroutine: its parts go to `App.begin`, and its reply is written
when the model has answered. That halves what a request costs here. To uvicorn such a request looks like one of its own
cycles under way (`Prompt`), so that pipelining, shutdown and idle time-outs are its business still. Everything else
takes uvicorn's way to the ASGI application, whose task is cancelled when its client leaves. It must never be told of
the end of a request that was answered.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from worker_image.server.codecs.call import JSON, Field, Reply
from worker_image.server.memory import LARGE_BYTES

if TYPE_CHECKING:
    from worker_image.server.app import App
    from worker_image.server.prediction import Prediction

# Where the application leaves its task for the connection to find: a key of the request's scope.
TASK = "modelfleet.task"
_MOST_DIGITS = 8
_USUAL_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"


class Prompt:
    """A prediction under way, with what uvicorn asks of the cycle that a connection is at."""

    __slots__ = ("_connection", "disconnected", "keep_alive", "prediction", "response_complete")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.prediction: Prediction | None = None
        self.response_complete = False
        self.keep_alive = True
        self.disconnected = False

    @property
    def message_event(self) -> Prompt:
        """uvicorn sets a cycle's event when its connection is lost."""
        return self

    def set(self) -> None:
        if self.prediction is not None and self.disconnected:
            self.prediction.abandon()

    def answer(self, reply: Reply) -> None:
        self.response_complete = True
        if not self.disconnected:
            connection = self._connection
            connection.write(reply, keep_alive=self.keep_alive and connection.app.keeps_connections)


class Connection(HttpToolsProtocol):
    app: App  # uvicorn calls it; we know what else it can
    _prompt: Prompt | None = None
    _path = ""
    _fields: dict[bytes, bytes]  # by their lower-case names
    _parts: list[bytes]  # of its body

    def on_message_begin(self) -> None:
        """uvicorn makes its scope here: for predictions it would be made in vain."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._prompt = None

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._fields = fields = dict(self.headers)
        self.expect_100_continue = fields.get(b"expect", b"").lower() == b"100-continue"
        if self._is_prompt(fields):
            self.cycle = self._prompt = Prompt(self)  # type: ignore[assignment]
            self._parts = []
            return
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers += headers  # the scope has this very list
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._prompt is None:
            super().on_body(body)
        else:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        prompt = self._prompt
        if prompt is None:
            super().on_message_complete()
            return
        self._prompt = None
        prompt.prediction = self.app.begin(self._path, self._fields, self._parts, prompt.answer)

    def _is_prompt(self, fields: dict[bytes, bytes]) -> bool:
        """A prediction with a small body of known length, on a connection with nothing else under way."""
        path = self.app.prompt_paths.get(self.url)
        if path is None or self.parser.get_method() != b"POST" or self.expect_100_continue:
            return False
        if not self._is_free():
            return False
        if (
            self.parser.get_http_version() != "1.1"
            or not self.parser.should_keep_alive()
            or self.parser.should_upgrade()
        ):
            return False
        self._path = path
        # More digits are a body that is not small, and none one of unknown length.
        length = fields.get(b"content-length", b"")
        return 0 < len(length) < _MOST_DIGITS and int(length) < LARGE_BYTES

    def _is_free(self) -> bool:
        """Nothing is under way, and what is answered can be sent."""
        return (self.cycle is None or self.cycle.response_complete) and not self.flow.write_paused

    def write(self, reply: Reply, *, keep_alive: bool) -> None:
        """Sends a whole reply, and goes on with what may have come behind the request."""
        if self.transport.is_closing():
            return
        body = reply.body
        if reply.status == 200 and keep_alive and not reply.parts and not reply.fields and reply.content_type is JSON:
            self.transport.write(_USUAL_HEAD % (len(body), body))
        else:
            self.transport.write(b"".join((STATUS_LINE[reply.status], _head(reply, keep_alive=keep_alive), body)))
            if reply.parts:
                self.transport.writelines(reply.parts)
        if not keep_alive:
            self.transport.close()
        # Else nothing waits behind the request, and an idle connection is the gateway's to close: no timer is set.
        if self.pipeline or self.flow.read_paused:
            self.on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        cycle: Any = self.cycle
        if cycle is not None and cycle.disconnected and not isinstance(cycle, Prompt):
            scope: dict[str, Any] = cycle.scope
            task: asyncio.Task[None] | None = scope.get(TASK)
            if task is not None:
                task.cancel()


def _head(reply: Reply, *, keep_alive: bool) -> bytes:
    length = len(reply.body) + sum(map(len, reply.parts)) if reply.parts else len(reply.body)
    fields = b"".join(b"%b: %b\r\n" % field for field in reply.header_fields)
    close = b"" if keep_alive else b"connection: close\r\n"
    return b"content-type: %b\r\ncontent-length: %d\r\n%b%b\r\n" % (reply.content_type, length, fields, close)


def request_id(headers: Iterable[Field]) -> str:
    """The gateway's, or one made up where it gave none."""
    for name, value in headers:
        if name == b"x-request-id":
            return str(value.decode("latin-1"))
    return uuid.uuid4().hex
