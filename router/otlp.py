"""The way of finished traces to an OpenTelemetry collector: OTLP over HTTP, from a thread of its own.

Owns the bounded queue between the two and the counts of what became of each span. Whatever the collector does, no
request waits for it and none fails: a full queue drops, and says so in a metric. The packages of OpenTelemetry are an
extra of the distribution and are imported by the thread alone; what a trace consists of is `core/spans.py`'s.
Why not the SDK's BatchSpanProcessor: docs/decisions/0038.
"""

from __future__ import annotations

import collections
import importlib
import importlib.util
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from router.config import ConfigError, Tracing, is_loopback
from router.core.spans import GATEWAY, REPLICA, Span, Trace
from router.log import EventLog

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

PACKAGES: Final = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter")
_PATH: Final = "/v1/traces"
# Traces gather for so long, or until there are so many spans; both as the SDK's own processor has them, but sooner.
EVERY_S: Final = 1.0
BATCH_SPANS: Final = 256
SWITCH_S: Final = 0.0005
# What is still to be sent when the gateway ends gets so much time.
LAST_S: Final = 1.0
# One that cannot be reached is named so often.
COMPLAIN_S: Final = 60.0
_KNOWN_RESOURCES: Final = 256

EXPORTED, FULL, FAILED = "exported", "queue_full", "not_exported"


def missing_packages() -> str:
    """What is to be said where the extra is not installed, "" where it is."""
    try:
        found = all(importlib.util.find_spec(name) is not None for name in PACKAGES)
    except ModuleNotFoundError:
        found = False
    if found:
        return ""
    return "the packages of OpenTelemetry are not installed; traces need them; run: pip install 'modelfleet[tracing]'"


def endpoint_of(otlp: str) -> str:
    """OTel's rule for a base address: the signal's path is added to it."""
    base = otlp.rstrip("/")
    return base if base.endswith(_PATH) else base + _PATH


def read_headers(settings: Tracing, environ: Mapping[str, str] = os.environ) -> dict[str, str] | None:
    """The fields that the collector is sent: the file's, else those of the variable. None: OTel's own variables count.

    Raises `ConfigError`, which never shows a value.
    """
    if settings.headers_file:
        path = Path(settings.headers_file)
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigError(
                f"tracing.headers_file: {path} cannot be read: {_why(exc)}; write one `name: value` a line into it"
            ) from exc
        pairs = [line.partition(":") for line in lines if line.strip() and not line.lstrip().startswith("#")]
        return _checked([(name.strip(), value.strip()) for name, _, value in pairs], f"tracing.headers_file: {path}")
    if settings.headers_env:
        value = environ.get(settings.headers_env, "")
        if not value:
            raise ConfigError(
                f"tracing.headers_env: {settings.headers_env!r} is not set where the gateway runs; "
                "export it before the gateway starts, or use headers_file"
            )
        pairs = [part.partition("=") for part in value.split(",") if part.strip()]
        fields = [(name.strip(), unquote(value.strip())) for name, _, value in pairs]
        return _checked(fields, f"tracing.headers_env: {settings.headers_env}")
    return None


def _checked(fields: list[tuple[str, str]], source: str) -> dict[str, str]:
    for number, (name, value) in enumerate(fields, 1):
        if not name or not value or not name.replace("-", "").replace("_", "").isalnum():
            raise ConfigError(
                f"{source}: entry {number} is no header field; write a name and a value, such as "
                "`authorization: Bearer …` in a file or `authorization=Bearer …` in a variable"
            )
    return {name.lower(): value for name, value in fields}


def _why(exc: Exception) -> str:
    return (exc.strerror or str(exc)).lower() if isinstance(exc, OSError) else "it is not UTF-8"


class Outbox:
    """Takes traces on the loop with `put`, and sends them in its thread. `cluster` is asked for with each batch."""

    def __init__(self, settings: Tracing, log: EventLog, cluster: Callable[[], str]) -> None:
        self._settings = settings
        self._log = log
        self._cluster = cluster
        self._queue: collections.deque[Trace] = collections.deque()
        self._queued = 0  # spans; added to by the loop alone
        self._sent = 0  # spans that left the queue; added to by the thread alone
        self._counts = {EXPORTED: 0, FULL: 0, FAILED: 0}  # FULL by the loop alone, the others by the thread alone
        self._wake = threading.Event()
        self._is_closing = False
        self._exporter: SpanExporter | None = None
        self._headers: dict[str, str] | None = None
        self._complained_at = float("-inf")
        self._resources: dict[tuple[str, ...], Resource] = {}
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)

    @property
    def counts(self) -> dict[str, int]:
        """Spans, by what became of them."""
        return dict(self._counts)

    def start(self) -> None:
        """To be called before the process serves: loading the packages takes half a second."""
        for name in PACKAGES:
            importlib.import_module(name)
        # Encoding a batch takes the thread some milliseconds of Python: the loop shall not wait five for its turn.
        sys.setswitchinterval(SWITCH_S)
        self._thread.start()

    def put(self, trace: Trace) -> None:
        """Takes a trace that is over, or drops it. Never waits."""
        spans = len(trace.spans)
        waiting = self._queued - self._sent
        if waiting + spans > self._settings.queue_spans or self._is_closing:
            self._counts[FULL] += spans
            return
        self._queued += spans
        self._queue.append(trace)
        if waiting + spans >= BATCH_SPANS:
            self._wake.set()

    def close(self) -> None:
        """Sends what is left, for `LAST_S` at most. Blocks for so long; to be called in a thread."""
        self._is_closing = True
        self._wake.set()
        self._thread.join(LAST_S)
        if self._thread.is_alive() and self._exporter is not None:
            self._exporter.shutdown()  # ends its waiting between attempts; an attempt under way dies with the process

    # in the thread

    def _run(self) -> None:
        logging.getLogger("opentelemetry.exporter").addHandler(_LastWords(self._complain))
        # What else it may say is of what a client sent, a tracestate say.
        logging.getLogger("opentelemetry").addHandler(logging.NullHandler())
        logging.getLogger("opentelemetry").propagate = False
        while True:
            self._wake.wait(EVERY_S)
            self._wake.clear()
            while batch := self._take():
                self._send(batch)
            if self._is_closing and not self._queue:
                if self._exporter is not None:
                    self._exporter.shutdown()
                return

    def _take(self) -> list[Trace]:
        batch: list[Trace] = []
        spans = 0
        while spans < BATCH_SPANS and self._queue:
            batch.append(self._queue.popleft())
            spans += len(batch[-1].spans)
        self._sent += spans
        return batch

    def _send(self, batch: list[Trace]) -> None:
        spans = sum(len(trace.spans) for trace in batch)
        outcome = FAILED
        try:
            from opentelemetry.sdk.trace.export import SpanExportResult

            readable = [each for trace in batch for each in self._readable(trace)]
            if self._current_exporter().export(readable) is SpanExportResult.SUCCESS:
                outcome = EXPORTED
        except Exception as exc:  # whatever it is, the thread must go on
            self._complain(f"{type(exc).__name__}: {exc}")
        self._counts[outcome] += spans

    def _complain(self, reason: str) -> None:
        now = time.monotonic()
        if now - self._complained_at >= COMPLAIN_S and not self._is_closing:
            self._complained_at = now
            self._log.warning("traces not exported", reason=reason, endpoint=endpoint_of(self._settings.otlp))

    def _current_exporter(self) -> SpanExporter:
        """With the headers as they are now: a token in a file may be a new one."""
        headers = read_headers(self._settings)
        if self._exporter is None or headers != self._headers:
            import requests
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            session = requests.Session()
            session.trust_env = not is_loopback(urlsplit(self._settings.otlp).hostname or "")  # no proxy for loopback
            self._headers = headers
            self._exporter = OTLPSpanExporter(
                endpoint=endpoint_of(self._settings.otlp),
                headers=headers,
                timeout=self._settings.timeout_s,
                session=session,
            )
        return self._exporter

    def _readable(self, trace: Trace) -> list[ReadableSpan]:
        from opentelemetry.sdk.trace import Event, ReadableSpan
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

        kinds = {"internal": SpanKind.INTERNAL, "server": SpanKind.SERVER, "client": SpanKind.CLIENT}
        shift_ns = time.time_ns() - time.monotonic_ns()
        state = TraceState.from_header([trace.tracestate]) if trace.tracestate else None

        def nanoseconds(at: float) -> int:
            return int(at * 1e9) + shift_ns

        def context(span_id: int, *, is_remote: bool) -> SpanContext:
            return SpanContext(trace.trace_id, span_id, is_remote, TraceFlags(TraceFlags.SAMPLED), state)

        def readable(span: Span) -> ReadableSpan:
            attributes = {**span.attributes, "error.type": span.error} if span.error else span.attributes
            return ReadableSpan(
                name=span.name,
                context=context(span.span_id, is_remote=False),
                parent=context(span.parent_id, is_remote=span.is_remote_child) if span.parent_id else None,
                resource=self._resource(trace, span.where),
                attributes=attributes,
                events=[Event(name, dict(told), nanoseconds(at)) for name, at, told in span.events],
                kind=kinds[span.kind],
                status=Status(StatusCode.ERROR, span.error) if span.error else Status(),
                start_time=nanoseconds(span.start),
                end_time=nanoseconds(span.end),
                instrumentation_scope=InstrumentationScope(f"modelfleet.{span.where}"),
            )

        return [readable(span) for span in trace.spans]

    def _resource(self, trace: Trace, where: str) -> Resource:
        from opentelemetry.sdk.resources import Resource

        root, cluster = trace.root.attributes, self._cluster()
        model, version = str(root.get("modelfleet.model", "")), str(root.get("modelfleet.version", ""))
        key = (GATEWAY, cluster) if where == GATEWAY else (REPLICA, cluster, model, version, trace.replica)
        known = self._resources.get(key)
        if known is not None:
            return known
        if len(self._resources) >= _KNOWN_RESOURCES:
            self._resources.clear()
        facts: dict[str, Any] = {"service.namespace": cluster} if cluster else {}
        if where == GATEWAY:
            facts |= {"service.name": self._settings.service_name, "service.instance.id": str(os.getpid())}
        else:
            facts |= {
                "service.name": f"{self._settings.service_name}-replica",
                "service.instance.id": trace.replica,
                "modelfleet.model": model,
                "modelfleet.version": version,
            }
        known = self._resources[key] = Resource.create(facts)
        return known


class _LastWords(logging.Handler):
    """What the exporter says of its failures becomes an event of ours."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say(record.getMessage())
