"""The life of one model server: starting, ready, draining, gone.

    importing -> loading -> warming -> ready -> draining
        `------------`----------`--- a failure, a time-out or SIGTERM ends the process

Owns the phase that readiness reports, the load time-out, the drain, and the exit codes of docs/CONTRACTS.md. The
process listens before the model is loaded (liveness) and is ready only after it has predicted once. It must never wait
for model code to end: the model's thread is a daemon, and a model that hangs is left behind by `os._exit`.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import uvicorn

from worker_image.server import log, watchdog
from worker_image.server.app import App
from worker_image.server.backends.base import Custom
from worker_image.server.batching.runner import Instance, Rules, Runner
from worker_image.server.batching.sizing import Sizing
from worker_image.server.batching.thread import ModelThread
from worker_image.server.connection import Connection
from worker_image.server.errors import ModelFailed, RequestError
from worker_image.server.instances.start import in_processes, load_all
from worker_image.server.loading import Loaded, print_cause
from worker_image.server.metrics import Metrics
from worker_image.server.phase import Phase
from worker_image.server.settings import Settings
from worker_image.server.site import Site, websocket_protocol
from worker_image.server.streaming import Streams

# The gateway keeps idle connections for reuse; were we to close one first, a request could be on its way on it.
KEEP_ALIVE_S = 3600
# A drain is over when nothing was inside and nothing was answered for so long.
_QUIET_S = 0.05
_THRESHOLD = (700, 10, 10)
# What an idle model thread and uvicorn's own shutdown may take before they are left behind.
_STOP_S = 1.0
# What a model's `unload()` and its app's shutdown may take together.
_UNLOAD_S = 5.0
_BACKLOG = 2048
# Code that hangs while it holds the interpreter's lock stops the event loop too, and our own time-out with it.
_STUCK_S = 5.0


class Serving(NamedTuple):
    """What serves a loaded model. `copies` are one for each thread, or one for all of them."""

    threads: list[ModelThread]
    copies: list[Loaded]
    runner: Runner
    streams: Streams | None
    site: Site | None

    @property
    def watched(self) -> list[watchdog.Watched]:
        return [self.runner] if self.streams is None else [self.runner, self.streams]


class Http(uvicorn.Server):
    """uvicorn without its signal handling, which ends a process by the signal instead of with an exit code."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def stop_listening(self) -> None:
        """What is connected stays so."""
        for server in self.servers:
            server.close()


class Face(NamedTuple):
    """What clients and the control plane see of the server."""

    http: Http
    app: App
    phase: Phase
    metrics: Metrics


async def serve(settings: Settings, started: float) -> int:
    """Runs the whole life and gives the exit code. `started` is `time.monotonic()` of the process's first line."""
    loop = asyncio.get_running_loop()
    face = _face(settings, started)
    listening = asyncio.create_task(face.http.serve([_listener(settings)]), name="http")
    await _listening(face.http, listening)
    threads = [ModelThread(loop, f"model-{number}") for number in range(settings.tuning.instances)]
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    stopping = asyncio.create_task(stop.wait(), name="stop")
    outcome = await _load(settings, face, threads, stopping)
    if isinstance(outcome, Serving):
        if outcome.site is not None:
            face.http.config.ws_protocol_class = websocket_protocol()
        code = await _until_end(settings, face, outcome, [stopping, listening])
    else:
        code = outcome
    face.http.should_exit = True
    are_stopped = _stop(threads)
    _, pending = await asyncio.wait([listening], timeout=_STOP_S)
    if pending or not are_stopped:
        _exit_now(code)
    _end_within(_STOP_S, code)
    return code


def _face(settings: Settings, started: float) -> Face:
    metrics = Metrics(settings.model, settings.version)
    phase = Phase(started)
    app = App(settings, phase, metrics)
    return Face(Http(_http_config(app)), app, phase, metrics)


def _listener(settings: Settings) -> socket.socket:
    try:
        return socket.create_server((settings.host, settings.port), backlog=_BACKLOG)
    except OSError as exc:
        at = f"{settings.host}:{settings.port}"
        reason = f"{at}: cannot listen there ({exc.strerror}); set MODELFLEET_HOST and MODELFLEET_PORT to a free one"
        raise ModelFailed("BAD_SETTINGS", reason) from exc


def _http_config(app: App) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="none",
        http=Connection,
        ws="none",
        lifespan="off",
        interface="asgi3",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
    )


async def _listening(http: Http, task: asyncio.Task[None]) -> None:
    while not http.started and not task.done():  # noqa: ASYNC110 - uvicorn sets a flag, no event
        await asyncio.sleep(0.001)
    if task.done():
        task.result()


async def _load(
    settings: Settings, face: Face, threads: list[ModelThread], stopping: asyncio.Task[bool]
) -> Serving | int:
    """What serves when the model is ready, else the exit code of what happened first."""
    phase = face.phase
    answer = asyncio.ensure_future(_serving(settings, face, threads))
    limit_s = settings.tuning.load_timeout_s
    either: list[asyncio.Future[Any]] = [answer, stopping]
    faulthandler.dump_traceback_later(limit_s + _STUCK_S, exit=True, file=log.fileno())
    await asyncio.wait(either, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
    faulthandler.cancel_dump_traceback_later()
    if not answer.done():
        return 0 if stopping.done() else _fail(phase, _too_slow(settings, phase))
    serving = answer.result()
    if isinstance(serving, ModelFailed):
        return _fail(phase, serving)
    model = serving.copies[0]
    _settle_memory(is_framework=model.model.is_steady)
    face.app.open(model.signature, serving.runner, serving.streams, serving.site)
    phase.begin("ready")
    face.metrics.phase_seconds = phase.lengths
    lengths = {f"{name}_s": round(seconds, 3) for name, seconds in phase.lengths.items()}
    log.event("model loaded", seconds=round(phase.total_s, 3), phases=lengths)
    return serving


async def _serving(settings: Settings, face: Face, threads: list[ModelThread]) -> Serving | ModelFailed:
    """Loads the model and starts what is the author's own; `threads` gets those that an async model waits in."""
    metrics = face.metrics
    outcomes = await load_all(settings, face.phase, threads)
    for outcome in outcomes:
        if isinstance(outcome, ModelFailed):
            return outcome
    copies = [outcome for outcome in outcomes if isinstance(outcome, Loaded)]
    model = copies[0]
    concurrency = settings.tuning.concurrency
    if getattr(model.model, "is_async", False):
        loop = asyncio.get_running_loop()
        threads += [ModelThread(loop, f"model-{number}") for number in range(len(threads), concurrency)]
    runner = _runner(settings, metrics, threads, copies)
    streams = site = None
    if "stream" in model.signature.verbs:
        most = cast(Custom, model.model).max_streams or concurrency
        streams = metrics.streams = Streams(model, most, metrics.observe_stream_answer)
    if "http" in model.signature.verbs:
        asgi, most_bytes = cast(Custom, model.model).app, settings.tuning.max_body_bytes
        site = Site(asgi, settings.model, settings.model_dir, most_bytes, face.app.predict_for_site)
        try:
            await site.lifespan.startup()
        except ModelFailed as exc:
            print_cause(exc)
            return exc
    return Serving(threads, copies, runner, streams, site)


def _runner(settings: Settings, metrics: Metrics, threads: list[ModelThread], copies: list[Loaded]) -> Runner:
    batching, slo_ms = settings.batching, settings.tuning.slo_ms
    sizing = Sizing(batching.fixed_size, None if slo_ms is None else slo_ms / 1000)
    metrics.sizing = sizing
    signature = copies[0].signature
    joins_nothing = "batch" in signature.verbs
    rules = Rules(
        settings.model,
        can_batch=(signature.can_batch or joins_nothing) and sizing.fixed != 1,
        is_steady=copies[0].model.is_steady,
        max_request_rows=batching.max_request_rows,
        joins_rows=not joins_nothing,
    )
    instances = [_instance(thread, copies[index % len(copies)]) for index, thread in enumerate(threads)]
    return Runner(instances, rules, sizing, batching.max_delay_ms / 1000, metrics.observe_batch)


def _instance(thread: ModelThread, model: Loaded) -> Instance:
    verbs = model.signature.verbs
    return Instance(
        thread,
        model.predict,
        model.explain if "explain" in verbs else None,
        model.predict_many if "batch" in verbs else None,
    )


def _settle_memory(*, is_framework: bool) -> None:
    """Takes what was imported and loaded out of the garbage collector's sight: it would walk all of it for 40 ms at
    a time. A framework's loader leaves no garbage (89 objects after scikit-learn), so that walk is spared too: 0.08 s.
    """
    if not is_framework:
        gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLD)


def _too_slow(settings: Settings, phase: Phase) -> ModelFailed:
    limit_s = settings.tuning.load_timeout_s
    said = f"{settings.model_dir}: still {phase.name} after {limit_s:g} s"
    reason = f"{said}; load_timeout_s allows no more; raise it or mend the model"
    return ModelFailed("LOAD_TIMEOUT", reason)


def _fail(phase: Phase, failed: ModelFailed) -> int:
    phase.error = failed.reason
    log.model_failed(failed.reason, failed.code)
    return failed.exit_code


async def _until_end(settings: Settings, face: Face, serving: Serving, ends: list[asyncio.Task[Any]]) -> int:
    timeout_s = settings.tuning.predict_timeout_s
    # A process that hangs is ended by the thread that waits for it, and the others go on.
    watch = watchdog.until_stuck(serving.watched, timeout_s, face.app.rest, may_restart=in_processes(settings))
    hung = asyncio.create_task(watch, name="watchdog")
    await asyncio.wait([*ends, hung], return_when=asyncio.FIRST_COMPLETED)
    if not hung.done():
        hung.cancel()
        await _drain(settings.tuning.drain_timeout_s, face, serving.streams)
        await _put_away(serving, is_idle=not face.metrics.in_flight)
        return 0
    failed = watchdog.give_up(serving.watched, timeout_s)
    face.phase.error = failed.reason  # from here on nothing is taken in
    await _drain(_STOP_S, face, None)
    return _fail(face.phase, failed)


async def _drain(timeout_s: float, face: Face, streams: Streams | None) -> None:
    """Waits until no request is inside or comes, at most `timeout_s`. A stream that is still open then is told so, and
    its generator closed.

    Nobody can connect any more, and each answer is the last on its connection. What is sent on an open one is answered
    still: its sender cannot know that the server is to end, and a refusal would be a lost request.
    """
    face.http.stop_listening()
    face.app.keeps_connections = False
    face.phase.begin("draining")
    metrics, began = face.metrics, time.monotonic()
    await _until_idle(metrics, timeout_s)
    if metrics.in_flight and streams is not None:
        streams.give_up(RequestError("NOT_READY", f"replica: it ends, after {timeout_s:g} s of waiting; ask again"))
        await _until_idle(metrics, _STOP_S)
    took_s = round(time.monotonic() - began, 3)
    log.event("drained", level="warning" if metrics.in_flight else "info", in_flight=metrics.in_flight, took_s=took_s)


async def _until_idle(metrics: Metrics, timeout_s: float) -> None:
    """Until nothing is inside and nothing was answered for `_QUIET_S`."""
    deadline, answered = time.monotonic() + timeout_s, -1
    while (metrics.in_flight or metrics.answered != answered) and time.monotonic() < deadline:
        answered = metrics.answered
        await asyncio.sleep(_QUIET_S)


async def _put_away(serving: Serving, *, is_idle: bool) -> None:
    """The last word of the author's code: its app's shutdown, then `unload()` of each copy in its own thread. A thread
    that still computes is not waited for.
    """
    try:
        async with asyncio.timeout(_UNLOAD_S):
            if serving.site is not None:
                await serving.site.lifespan.shutdown()
            if is_idle and "unload" in serving.copies[0].signature.verbs:
                await asyncio.gather(*map(_unload, serving.threads, serving.copies))
    except TimeoutError:
        log.event("unload left behind", level="warning", reason=f"it took longer than {_UNLOAD_S:g} s")


def _unload(thread: ModelThread, model: Loaded) -> asyncio.Future[Any]:
    done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    thread.call(model.unload, lambda answer: None if done.done() else done.set_result(answer))
    return done


def _stop(threads: list[ModelThread]) -> bool:
    """Whether all of them ended."""
    deadline = time.monotonic() + _STOP_S
    stopped = [thread.stop(max(0.0, deadline - time.monotonic())) for thread in threads]
    return all(stopped)


def _end_within(limit_s: float, code: int) -> None:
    """Python waits at its end for threads that the model left, for ever if need be."""

    def end() -> None:
        time.sleep(limit_s)
        left = [thread.name for thread in threading.enumerate() if not thread.daemon and thread.name != "MainThread"]
        log.event("threads left behind", level="warning", threads=left)
        _exit_now(code)

    threading.Thread(target=end, name="end", daemon=True).start()


def _exit_now(code: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        # A model may have closed or replaced it.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)
