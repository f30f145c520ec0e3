"""The routes that read logs: of replicas, gateway and control plane, merged by time, now or as they come.

A thread reads each source. What a line says is read here once, so that every reader of the API has its parts; which
lines somebody wants to see is his to choose.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from orchestrator.adapters import log_files
from orchestrator.adapters.engine import LogLine
from orchestrator.api import schemas
from orchestrator.api.context import Control
from orchestrator.core.errors import FleetError, NotFoundError, UserError
from orchestrator.core.log_lines import Reordered, read
from orchestrator.loops.control import ControlPlane

router = APIRouter()

MOST_LINES = 100_000
# How often a follower of logs looks whether the control plane ends, and what has waited long enough.
CHECK_S = 0.1
# So much later than another source's a line may come and still be shown in order: files are looked at five times a
# second, and an engine's stream takes less.
WINDOW_S = 0.5
# How often a follower looks for replicas that have come.
LOOK_S = 1.0
# The access log is written once a second (`router/access.py`).
WINDOW_WITH_ACCESS_S = 1.5

Kind = Literal["replica", "gateway", "control_plane"]
Tail = Annotated[int, Query(ge=0, le=MOST_LINES, description="at most so many old lines of each source")]


@dataclass(frozen=True, slots=True)
class Source:
    """One log. `open` gives its last lines, and when it gets an event its new ones until that is set."""

    name: str
    kind: Kind
    version: str
    open: Callable[[int, threading.Event | None], Iterator[LogLine]]
    file: str = ""  # of one that has several

    @property
    def key(self) -> tuple[str, str]:
        return self.name, self.file


Queue: TypeAlias = "asyncio.Queue[tuple[LogLine, Source]]"


@router.get("/models/{model}/logs")
async def of_model(
    control: Control,
    model: str,
    version: str = "",
    replica: str = "",
    tail: Tail = 100,
    follow: bool = False,
    gateway: bool = False,
    control_plane: bool = False,
) -> StreamingResponse:
    """What replicas of a model printed, as one JSON object a line; with `follow`, what they print from now on too.
    With `gateway` and `control_plane` their logs as well."""
    _check_model(control, model)

    def find() -> list[Source]:
        return [*_replicas(control, model, version, replica), *_parts(control, gateway, control_plane)]

    return _answer(control, find, tail, follow)


@router.get("/logs")
async def of_parts(
    control: Control, tail: Tail = 100, follow: bool = False, gateway: bool = False, control_plane: bool = False
) -> StreamingResponse:
    """The logs of the gateway, with its access log, and of the control plane."""
    if not (gateway or control_plane):
        raise UserError("logs: neither gateway nor control_plane is asked for; name one, or ask /models/MODEL/logs")
    return _answer(control, lambda: _parts(control, gateway, control_plane), tail, follow)


def _answer(control: ControlPlane, find: Callable[[], list[Source]], tail: int, follow: bool) -> StreamingResponse:
    lines = _followed(control, find, tail) if follow else _merged(find(), tail)
    return StreamingResponse(lines, media_type="application/x-ndjson")


def _check_model(control: ControlPlane, model: str) -> None:
    known = control.loop.desired.models
    if model not in known and all(r.key.model != model for r in control.loop.observed.replicas):
        names = ", ".join(sorted(known)) or "none"
        raise NotFoundError(f"model {model!r}: not in this cluster; the models are: {names}; name one of them")


def _replicas(control: ControlPlane, model: str, version: str, replica: str) -> list[Source]:
    """Those that there are now."""
    found = [r for r in control.loop.observed.replicas if r.key.model == model and version in ("", r.key.version)]
    found = [r for r in found if replica in ("", r.id) and r.id not in control.executor.pending]

    def opener(id_: str) -> Callable[[int, threading.Event | None], Iterator[LogLine]]:
        return lambda tail, stopped: control.engine.logs(id_, tail=tail, follow=stopped is not None, stopped=stopped)

    return [Source(r.id, "replica", r.key.version, opener(r.id)) for r in found]


def _parts(control: ControlPlane, gateway: bool, control_plane: bool) -> list[Source]:
    logs = control.state.logs
    asked: list[tuple[Kind, str]] = [("gateway", "gateway.log"), ("gateway", "access.log")] if gateway else []
    asked += [("control_plane", "control.log")] if control_plane else []
    found = []
    for kind, file in asked:
        name = kind.replace("_", "-")

        def opened(tail: int, stopped: threading.Event | None, file: str = file, name: str = name) -> Iterator[LogLine]:
            if stopped is None:
                return iter(log_files.last_lines(logs / file, name, tail))
            return log_files.follow(logs / file, name, tail, stopped)

        found.append(Source(name, kind, "", opened, file))
    return found


async def _merged(sources: list[Source], tail: int) -> AsyncIterator[str]:
    """The last lines of every source, by time. Those of one keep their order."""
    parts = await asyncio.gather(*(asyncio.to_thread(_read, source, tail) for source in sources))
    lines = [(line, source) for source, part in zip(sources, parts, strict=True) for line in part]
    for line, source in sorted(lines, key=lambda pair: pair[0].at):
        yield _entry(line, source)


def _read(source: Source, tail: int) -> list[LogLine]:
    try:
        return list(source.open(tail, None))
    except NotFoundError:
        return []


async def _followed(control: ControlPlane, find: Callable[[], list[Source]], tail: int) -> AsyncIterator[str]:
    """Lines as they come, by time, also of replicas that come later. Ends with the control plane, or when the caller
    left: the threads that read end soon after."""
    queue: Queue = asyncio.Queue(maxsize=1000)
    loop, left = asyncio.get_running_loop(), threading.Event()
    sources = find()
    read = {source.key for source in sources}
    has_access_log = any(source.kind == "gateway" for source in sources)
    waiting: Reordered[tuple[LogLine, Source]] = Reordered(WINDOW_WITH_ACCESS_S if has_access_log else WINDOW_S)
    look_at = time.monotonic() + LOOK_S
    for source in sources:
        threading.Thread(target=_pump, args=(source, tail, queue, loop, left), daemon=True).start()
    try:
        while not control.stopped.is_set():
            for found in await _some(queue):
                waiting.push(found[0].at, found, time.monotonic())
            now = time.monotonic()
            for line, source in waiting.ripe(now):
                yield _entry(line, source)
            if now < look_at:
                continue
            look_at = now + LOOK_S
            for source in [source for source in find() if source.key not in read]:
                read.add(source.key)
                threading.Thread(target=_pump, args=(source, MOST_LINES, queue, loop, left), daemon=True).start()
        for line, source in waiting.rest():
            yield _entry(line, source)
    finally:
        left.set()


async def _some(queue: Queue) -> list[tuple[LogLine, Source]]:
    """What has come, after a moment at most."""
    try:
        found = [await asyncio.wait_for(queue.get(), CHECK_S)]
    except TimeoutError:
        return []
    while not queue.empty():
        found.append(queue.get_nowait())
    return found


def _pump(source: Source, tail: int, queue: Queue, loop: asyncio.AbstractEventLoop, left: threading.Event) -> None:
    try:
        for line in source.open(tail, left):
            if left.is_set():
                return
            asyncio.run_coroutine_threadsafe(queue.put((line, source)), loop).result(timeout=30)
    except (FleetError, TimeoutError):
        return


def _entry(line: LogLine, source: Source) -> str:
    said = read(line.text)
    entry = schemas.LogEntry(
        at=line.at, replica=line.replica_id, version=source.version, stream=line.stream, text=line.text,
        source=source.kind, level=said.level, event=said.event, fields=said.fields,
    )  # fmt: skip
    return entry.model_dump_json() + "\n"
