"""The console's stream: what changed, once a second, as server-sent events. One ticker serves all who listen.

A second is looked at once and written once, however many read it: `Hub` makes the texts, a `Listener` is somebody's
queue of them, and `EventStream` the HTTP answer. With nobody listening nothing runs. Who does not read is let go, who
is one too many is told so, and when the control plane ends every stream ends at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from typing import Annotated

import msgspec
import structlog
from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.types import Receive, Scope, Send

from orchestrator.api import live
from orchestrator.api.context import Control
from orchestrator.core.errors import UnavailableError
from orchestrator.loops.control import ControlPlane
from orchestrator.loops.tasks import wait_until_set
from router.contract import GatewayReport

log = structlog.get_logger("modelfleet")

EVERY_S = 1.0
NEWS_WAIT_S = 0.3
MOST_LISTENERS = 32
# One who takes nothing for so long is let go; the browser comes back by itself, and begins with the whole.
PATIENCE_S = 5.0
REPORT_TIMEOUT_S = 0.5
MOST_EVENTS = 200
# How soon a browser that lost its stream comes back.
_RETRY = b"retry: 2000\n\n"
_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}

router = APIRouter()


class TooManyListenersError(UnavailableError):
    """All places are taken; one is free when a console is closed."""


class Listener:
    """Somebody's queue of texts; None ends it. `model` is the one that is looked at, "" for none."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.texts: asyncio.Queue[bytes | None] = asyncio.Queue()


class Hub:
    """Looks once a second while somebody listens."""

    def __init__(self, control: ControlPlane) -> None:
        self._control = control
        self._listeners: set[Listener] = set()
        self._ticker: asyncio.Task[None] | None = None
        self._rows: dict[str, live.FleetRow] = {}
        self._models: dict[str, live.ModelUpdate] = {}
        self._report: GatewayReport | None = None
        self._last_event = 0
        self._journal_seen = 0
        self._numbers_seen = 0
        self._encoder = msgspec.json.Encoder()

    @property
    def count(self) -> int:
        return len(self._listeners)

    async def join(self, model: str) -> Listener:
        """A new listener, whose queue begins with the whole. Raises `TooManyListenersError`."""
        if self._ticker is None:
            self._begin()
            await self._ask_gateway()
        if self.count >= MOST_LISTENERS:
            raise TooManyListenersError(
                f"stream: {MOST_LISTENERS} are open; there can be no more; close a console that nobody looks at"
            )
        listener = Listener(model)
        listener.texts.put_nowait(_RETRY + self._whole())
        if model:
            update = live.model_update(self._control, model, self._report, time.time())
            listener.texts.put_nowait(self._event("model", update))
        self._listeners.add(listener)
        self._watch()
        return listener

    def leave(self, listener: Listener) -> None:
        self._listeners.discard(listener)
        self._watch()

    def _begin(self) -> None:
        newest = self._control.store.events(limit=1)
        self._last_event = newest[-1].id if newest else 0
        self._journal_seen = self._control.journal.changed.count
        self._rows = live.fleet_rows(self._control, time.time())
        self._ticker = asyncio.create_task(self._run(), name="console stream")

    def _watch(self) -> None:
        """Says which models are looked at: more of them is read."""
        watched = frozenset(each.model for each in self._listeners if each.model)
        self._models = {name: update for name, update in self._models.items() if name in watched}
        self._control.recorder.watched = watched

    # -- each second ----------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            await self._tick_on()
        finally:
            self._ticker = None
            for listener in self._listeners:
                listener.texts.put_nowait(None)

    async def _tick_on(self) -> None:
        due = time.monotonic()
        while not self._control.stopped.is_set():
            due = max(due + EVERY_S, time.monotonic())
            await wait_until_set(self._control.stopped, due - time.monotonic())
            await self._wait_for_numbers()
            if not self._listeners:
                return
            try:
                await self._tick()
            except Exception:  # a second that could not be shown is none the less followed by the next
                log.exception("the console's stream left out a second")

    async def _wait_for_numbers(self) -> None:
        """A moment more: what is read each second is best shown when it was just read."""
        numbers = self._control.recorder.changed
        await numbers.wait(self._numbers_seen, NEWS_WAIT_S)
        self._numbers_seen = numbers.count

    async def _tick(self) -> None:
        self._watch()
        await self._ask_gateway()
        events = self._news()
        fleet = self._changes() + events
        models = {name: self._model_text(name) for name in self._control.recorder.watched}
        for listener in self._listeners:
            listener.texts.put_nowait(fleet + models.get(listener.model, b""))

    async def _ask_gateway(self) -> None:
        self._report = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REPORT_TIMEOUT_S):
                self._report = await self._control.keeper.report()

    def _changes(self) -> bytes:
        now = time.time()
        rows, before = live.fleet_rows(self._control, now), self._rows
        changed = [row for name, row in rows.items() if before.get(name) != row]
        gone = [name for name in before if name not in rows]
        self._rows = rows
        return self._fleet_text(changed, gone, whole=False, now=now)

    def _whole(self) -> bytes:
        """As everybody else has it now, so that the changes of the next second are right for this one too."""
        return self._fleet_text(list(self._rows.values()), [], whole=True, now=time.time())

    def _fleet_text(self, shown: list[live.FleetRow], gone: list[str], *, whole: bool, now: float) -> bytes:
        update = live.fleet_update(
            self._control, self._rows, shown, gone, whole=whole, report=self._report, now=now
        )  # fmt: skip
        return self._event("fleet", update)

    def _model_text(self, name: str) -> bytes:
        """Nothing while it is as it was."""
        update = live.model_update(self._control, name, self._report, time.time())
        before = self._models.get(name)
        if before is not None and msgspec.structs.replace(before, at=update.at) == update:
            return b""
        self._models[name] = update
        return self._event("model", update)

    def _news(self) -> bytes:
        if self._control.journal.changed.count == self._journal_seen:
            return b""
        self._journal_seen = self._control.journal.changed.count
        found = self._control.store.events(after=self._last_event, limit=MOST_EVENTS)
        if found:
            self._last_event = found[-1].id
        return b"".join(self._event("journal", each) for each in found)

    def _event(self, name: str, body: object) -> bytes:
        return b"event: %s\ndata: %s\n\n" % (name.encode(), self._encoder.encode(body))


class EventStream(Response):
    """The answer: what comes into a listener's queue, until it ends, its reader leaves, or takes nothing any more."""

    def __init__(self, listener: Listener, left: Callable[[Listener], None], patience_s: float = PATIENCE_S) -> None:
        """`left` is told when it ended, however it did."""
        super().__init__(media_type="text/event-stream", headers=_HEADERS)
        del self.headers["content-length"]
        self._listener = listener
        self._tell = left
        self._patience_s = patience_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's
        writing = asyncio.create_task(self._write(send), name="console stream: write")
        leaving = asyncio.create_task(_left(receive), name="console stream: left")
        try:
            await asyncio.wait((writing, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._tell(self._listener)
            await _end((writing, leaving))

    async def _write(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        while (text := await self._listener.texts.get()) is not None:
            async with asyncio.timeout(self._patience_s):
                await send({"type": "http.response.body", "body": text, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, TimeoutError):
            log.info("a console that read nothing was let go")
        elif isinstance(result, Exception):
            log.error("console stream failed", exc_info=result)


def hub_of(request: Request, control: Control) -> Hub:
    hub: Hub | None = getattr(request.app.state, "hub", None)
    if hub is None:
        hub = request.app.state.hub = Hub(control)
    return hub


@router.get("/stream")
async def stream(
    hub: Annotated[Hub, Depends(hub_of)],
    model: Annotated[str, Query(max_length=200, description="also what changes about this model")] = "",
) -> Response:
    """Server-sent events: `fleet` (`FleetUpdate`) each second, `model` (`ModelUpdate`) when that changed, and `journal`
    (`Event`)."""
    return EventStream(await hub.join(model), hub.leave)
