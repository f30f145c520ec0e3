"""What stands before every route: foreign Host names and large bodies are refused before anything reads them.

A web page can give a name of its own the address 127.0.0.1, and reach this port with it: the Host field tells. It is
plain ASGI, for a layer that takes answers apart would take every second of the console's stream apart.
"""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.api.answers import refusal

MAX_BODY_BYTES = 2 * 1024 * 1024
LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})


class Guard:
    """Around `app`. What it lets through is not kept by browsers, and not guessed at, unless a route says otherwise."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif refused := _refuse(Headers(scope=scope)):
            await refused(scope, receive, send)
        else:
            await self._app(scope, receive, _with_defaults(send))


def _refuse(headers: Headers) -> Response | None:
    host = headers.get("host", "").rsplit(":", 1)[0]
    if host not in LOOPBACK_NAMES:
        sentence = f"host {host!r}: the admin API answers to 127.0.0.1 and localhost alone; use one"
        return refusal(403, "FORBIDDEN", sentence)
    length = headers.get("content-length", "0")
    if "transfer-encoding" in headers or not length.isdigit() or int(length) > MAX_BODY_BYTES:
        sentence = f"request body: at most {MAX_BODY_BYTES} bytes, with a content-length; send less"
        return refusal(413, "TOO_LARGE", sentence)
    return None


def _with_defaults(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.setdefault("cache-control", "no-store")
            headers.setdefault("x-content-type-options", "nosniff")
        await send(message)

    return sending
