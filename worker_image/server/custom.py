"""What a model of somebody's own serves beside predictions: streams of answers, and paths below `/models/NAME/`.

Owns how these requests go in and out, and that each is counted until it is over. They take the longer way, as ASGI
requests with a task each. It runs nothing itself: `streaming.py` runs generators, `site.py` calls the author's app.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from worker_image.server import log, trace
from worker_image.server.batching.execute import Part
from worker_image.server.codecs.call import Call, Events, Field, Reply
from worker_image.server.connection import TASK
from worker_image.server.errors import RequestError
from worker_image.server.metrics import Metrics
from worker_image.server.prediction import CLIENT_LEFT
from worker_image.server.predictors import Ask, StreamAsk, StreamPredictor
from worker_image.server.site import Site, refuse
from worker_image.server.streaming import Streams
from worker_image.server.tensors import Tensors

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Door(Protocol):
    """What every request passes: the app's. `keeps_connections` is False once the server is to end."""

    keeps_connections: bool

    def admit(self) -> None:
        """Raises `RequestError` while the model is not ready, or too busy."""
        ...

    async def read_call(self, scope: Scope, receive: Receive) -> Call:
        """The whole request, within its limits."""
        ...

    async def predict(self, part: Part, time_left_s: float | None) -> Tensors:
        """As for any other request."""
        ...

    def refuse(self, headers: list[Field], exc: RequestError) -> Reply:
        """The answer that says why; what the model is to blame for is logged."""
        ...


class Custom:
    def __init__(self, model: str, metrics: Metrics, door: Door, routes: dict[str, StreamPredictor]) -> None:
        self._model = model
        self._prefix = f"/models/{model}/"
        self._metrics = metrics
        self._door = door
        self._routes = routes
        self._streams: Streams | None = None
        self._site: Site | None = None

    def open(self, streams: Streams | None, site: Site | None) -> None:
        self._streams = streams
        self._site = site

    def finds(self, scope: Scope) -> bool:
        """Whether the request is one of these. A WebSocket has no other place to go."""
        path = scope["path"]
        return scope["type"] != "http" or path.startswith(self._prefix) or self._is_stream(scope, path)

    def knows(self, path: str) -> bool:
        """Whether it is a stream's path, by whatever method it is asked."""
        return path in self._routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        metrics = self._metrics
        # The request has a task of its own, whose context this is.
        log.asking.set((dict(scope["headers"]),))
        trace.current.set(trace.asked(log.asking.get()[0]))
        answer = self._answer_stream if self._is_stream(scope, scope["path"]) else self._answer_site
        started = time.perf_counter()
        metrics.in_flight += 1
        try:
            status = await answer(scope, receive, self._closing(send))
        except asyncio.CancelledError:
            # `connection.py` cancels the task of a client that left; nobody awaits this one, so it ends here.
            status = CLIENT_LEFT
        finally:
            metrics.in_flight -= 1
        if scope["type"] == "http":
            metrics.observe_response(status, time.perf_counter() - started)
        else:
            # How long a WebSocket lasts says nothing of how long an answer takes.
            metrics.responses[status] += 1

    def _closing(self, send: Send) -> Send:
        """An answer that begins once the server is to end is the last on its connection, and says so. One of a request
        whose trace is kept says how it came to begin."""
        told = trace.current.get()

        async def closing(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                more: list[Field] = [] if self._door.keeps_connections else [(b"connection", b"close")]
                if told is not None:
                    more.append(told.field(is_open=True))
                if more:
                    message = {**message, "headers": [*message.get("headers", ()), *more]}
            await send(message)

        return closing

    def _is_stream(self, scope: Scope, path: str) -> bool:
        return path in self._routes and scope.get("method") == "POST"

    async def _answer_stream(self, scope: Scope, receive: Receive, send: Send) -> int:
        """The status for the metrics: the client has had 200 when it fails in the middle, and reads why at the end."""
        scope[TASK] = asyncio.current_task()
        told = trace.current.get()
        try:
            call = await self._door.read_call(scope, receive)
            if told is not None:
                told.read()
            ask = self._routes[scope["path"]](call)
            if told is not None:
                ask = told.following(ask) if isinstance(ask, Ask) else ask
                told.decoded(ask.part.rows)
            if isinstance(ask, Ask):
                return await _send_whole(send, ask.encode(await self._door.predict(ask.part, call.time_left_s)))
            events = await self._begun(ask, call.time_left_s)
        except RequestError as exc:
            return await _send_whole(send, self._door.refuse(scope["headers"], exc))
        try:
            headers = [(b"content-type", events.content_type), *events.fields]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async for event in events:
                await send({"type": "http.response.body", "body": event, "more_body": True})
        except RequestError as exc:
            last = events.last_words(self._door.refuse(scope["headers"], exc).body)
            await send({"type": "http.response.body", "body": last})
            return exc.status
        else:
            await send({"type": "http.response.body", "body": b""})
            return 200
        finally:
            await events.aclose()

    async def _begun(self, ask: StreamAsk, time_left_s: float | None) -> Events:
        """With its first event: what fails before it is an ordinary error with a status."""
        assert self._streams is not None
        events = ask.events(await self._streams.start(ask.part, time_left_s))
        try:
            await events.begin()
        except BaseException:
            await events.aclose()
            raise
        return events

    async def _answer_site(self, scope: Scope, receive: Receive, send: Send) -> int:
        try:
            self._door.admit()
            if self._site is None or not scope["path"].startswith(self._prefix):
                raise RequestError("NOT_FOUND", f"{scope['path']}: no such path; {self._what_there_is()}")
        except RequestError as exc:
            return await refuse(scope, send, exc)
        return await self._site.answer(scope, receive, send)

    def _what_there_is(self) -> str:
        if self._site is None:
            return f"model {self._model!r} has no app of its own; predictions go to /v2/models/{self._model}/infer"
        return f"the app of model {self._model!r} is below {self._prefix}"


async def _send_whole(send: Send, reply: Reply) -> int:
    length = sum(map(len, (reply.body, *reply.parts)))
    headers = [(b"content-type", reply.content_type), (b"content-length", b"%d" % length), *reply.header_fields]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    for part in (reply.body, *reply.parts):
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
    return reply.status
