"""An author's ASGI app, mounted below `/models/NAME/`: its HTTP requests and its WebSockets.

Owns what stands between the app and the server: the scope that the app sees, the limit on bodies, and what becomes of
an app that raises. It runs on the server's own event loop, so a handler that blocks stops the whole server; the
watchdog ends a loop that stays blocked. An app is not cancelled when its client leaves: as ASGI has it, it is told
`http.disconnect`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np

from worker_image.server import log
from worker_image.server.connection import request_id
from worker_image.server.errors import RequestError, last_line_of, one_line
from worker_image.server.lifespan import Application, Lifespan
from worker_image.server.tensors import NO_PARAMETERS, Parameters, Tensor, Tensors

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Predict = Callable[[Tensors, tuple[str, ...], float | None, Parameters], Awaitable[Tensors]]

# What Starlette answers, before it raises further what a handler raised. It says nothing, so ours goes out instead.
_NOTHING_SAID = b"Internal Server Error"
_MOST_HELD_BYTES = 65_536
INTERNAL_ERROR = 1011
TRY_AGAIN_LATER = 1013
SWITCHED = 101


class Site:
    """`predict` is the model's, with its batching: handlers find it as `request.state.predict`."""

    def __init__(self, app: Application, model: str, directory: Path, max_body_bytes: int, predict: Predict) -> None:
        self.prefix = f"/models/{model}/"
        self.lifespan = Lifespan(app, directory)
        self._app = app
        self._root = self.prefix.removesuffix("/")
        self._directory = directory
        self._max_body_bytes = max_body_bytes
        self._predict = predict

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> int:
        """The status of the answer."""
        if scope["type"] == "websocket":
            return await self._answer_websocket(scope, receive, send)
        exchange = Exchange(receive, send, self._max_body_bytes)
        own_id = request_id(scope["headers"])
        failure: RequestError | None = None
        try:
            exchange.check_length(scope)
            await self._app(self._inner(scope), exchange.receive, exchange.send)
            if exchange.is_silent:
                failure = RequestError("MODEL_FAILED", "app: it returned without an answer; correct the model")
        except RequestError as exc:
            failure = exc
        except (Exception, SystemExit) as exc:
            failure = self._failure(scope, exc, own_id)
        await exchange.finish(failure, own_id)
        return exchange.status

    async def _answer_websocket(self, scope: Scope, receive: Receive, send: Send) -> int:
        is_accepted = False

        async def sent(message: Message) -> None:
            nonlocal is_accepted
            is_accepted = is_accepted or message["type"] == "websocket.accept"
            await send(message)

        try:
            await self._app(self._inner(scope), receive, sent)
        except (Exception, SystemExit) as exc:
            own_id = request_id(scope["headers"])
            failure = exc if isinstance(exc, RequestError) else self._failure(scope, exc, own_id)
            if not is_accepted:
                await _refuse_websocket(scope, send, failure, own_id)
                return failure.status
            await _close_websocket(send, failure)
        return SWITCHED

    def _inner(self, scope: Scope) -> Scope:
        """As the app sees it: mounted, with a state of its own."""
        state = {"predict": self._predict_for(scope), **self.lifespan.state}
        return {**scope, "root_path": self._root, "state": state}

    def _predict_for(self, scope: Scope) -> Callable[..., Awaitable[Tensors]]:
        now = asyncio.get_running_loop().time
        left_ms = next((value for name, value in scope["headers"] if name == b"x-request-timeout-ms"), b"")
        deadline = now() + int(left_ms) / 1000 if left_ms.isdigit() else None

        async def predict(
            inputs: dict[str, Any], outputs: tuple[str, ...] = (), parameters: Parameters = NO_PARAMETERS
        ) -> Tensors:
            tensors = {name: _tensor(value) for name, value in inputs.items()}
            left_s = None if deadline is None else deadline - now()
            return await self._predict(tensors, tuple(outputs), left_s, parameters)

        return predict

    def _failure(self, scope: Scope, exc: BaseException, own_id: str) -> RequestError:
        said = one_line(exc) + last_line_of(exc, self._directory)
        path, stack = scope["path"], log.stack(exc)
        log.event("app failed", level="error", request_id=own_id, path=path, reason=said, stack=stack)
        failure = RequestError("MODEL_FAILED", f"app: it raised {said}; the model's log has the details")
        failure.__cause__ = exc
        return failure


def websocket_protocol() -> Any:
    """uvicorn's class for WebSockets, imported only where an app may need it: that takes 50 ms."""
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

    return WebSocketsSansIOProtocol


class Exchange:
    """One request and its answer. One with 500 is held until the app returned: when it raises, ours may say more."""

    def __init__(self, receive: Receive, send: Send, max_body_bytes: int) -> None:
        self.status = 500
        self._receive = receive
        self._send = send
        self._most = max_body_bytes
        self._received = 0
        self._refusal: RequestError | None = None
        self._held: list[Message] = []
        self._held_bytes = 0
        self._is_sent = False
        self._is_complete = False

    @property
    def is_silent(self) -> bool:
        return not self._is_sent and not self._held and self._refusal is None

    def check_length(self, scope: Scope) -> None:
        for name, value in scope["headers"]:
            if name == b"content-length" and int(value) > self._most:
                raise self._too_large(int(value))

    async def receive(self) -> Message:
        message = await self._receive()
        self._received += len(message.get("body", b""))
        if self._received > self._most:
            # The app may take it for an error of its own and answer something else.
            self._refusal = self._too_large(self._received)
            raise self._refusal
        return message

    async def send(self, message: Message) -> None:
        if self._refusal is not None and not self._is_sent:
            return
        if message["type"] == "http.response.start" and message["status"] == RequestError("MODEL_FAILED", "").status:
            self._held.append(message)
        elif self._held and not self._is_sent:
            self._held.append(message)
            self._held_bytes += len(message.get("body", b""))
            if message.get("more_body", False) or self._held_bytes > _MOST_HELD_BYTES:
                await self._release()
        else:
            await self._pass_on(message)

    async def finish(self, failure: RequestError | None, own_id: str) -> None:
        """The app is done. What it began and did not complete is cut off by the server, which sees that."""
        failure = self._refusal or failure
        if self._is_sent:
            if failure is not None and not self._is_complete:
                self.status = failure.status
            return
        if failure is not None and (not self._held or self._says_nothing() or self._refusal):
            self.status = failure.status
            await _send_error(self._send, failure, own_id)
            return
        await self._release()

    def _says_nothing(self) -> bool:
        return b"".join(message.get("body", b"") for message in self._held[1:]) == _NOTHING_SAID

    async def _release(self) -> None:
        held, self._held = self._held, []
        for message in held:
            await self._pass_on(message)

    async def _pass_on(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self._is_sent = True
        elif not message.get("more_body", False):
            self._is_complete = True
        await self._send(message)

    def _too_large(self, size: int) -> RequestError:
        return RequestError("TOO_LARGE", f"body: {size} bytes; at most {self._most} are taken; send less")


def _tensor(value: Any) -> Tensor:
    tensor = np.asarray(value)
    return tensor.astype(object) if tensor.dtype.kind in "US" else tensor


async def refuse(scope: Scope, send: Send, exc: RequestError) -> int:
    """Without asking an app. The status of the answer."""
    own_id = request_id(scope["headers"])
    if scope["type"] == "websocket":
        await _refuse_websocket(scope, send, exc, own_id)
    else:
        await _send_error(send, exc, own_id)
    return exc.status


async def _send_error(send: Send, exc: RequestError, own_id: str) -> None:
    body = exc.body(own_id)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": exc.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _refuse_websocket(scope: Scope, send: Send, exc: RequestError, own_id: str) -> None:
    """Before it was accepted: an answer like any other, where the server can send one."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": TRY_AGAIN_LATER, "reason": ""})
        return
    body = exc.body(own_id)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "websocket.http.response.start", "status": exc.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})


async def _close_websocket(send: Send, exc: RequestError) -> None:
    # A close frame has room for 123 bytes.
    reason = exc.sentence.encode()[:120].decode("utf-8", "ignore")
    with contextlib.suppress(Exception):  # the client may have left, or the app have closed before it raised
        await send({"type": "websocket.close", "code": INTERNAL_ERROR, "reason": reason})
