"""A collector of traces on a real socket: reads OTLP over HTTP by the messages of opentelemetry-proto, as any would.

It answers as the test says: 200, another status, late, or never.
"""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan

KINDS = {
    ProtoSpan.SPAN_KIND_INTERNAL: "internal",
    ProtoSpan.SPAN_KIND_SERVER: "server",
    ProtoSpan.SPAN_KIND_CLIENT: "client",
}


@dataclass
class Span:
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    tracestate: str
    start_s: float
    end_s: float
    attributes: dict[str, Any]
    events: list[str]
    is_error: bool
    resource: dict[str, Any]

    def contains(self, other: Span) -> bool:
        """In time, but for what a float loses."""
        return self.start_s - 1e-5 <= other.start_s <= other.end_s <= self.end_s + 1e-5


@dataclass
class Collector:
    url: str = ""
    status: int = 200
    wait: threading.Event = field(default_factory=threading.Event)  # cleared: it answers nothing
    spans: list[Span] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    def await_spans(self, trace_id: str, least: int = 1, within_s: float = 20) -> list[Span]:
        """Those of a trace, once there are so many."""
        ends = time.monotonic() + within_s
        while len(found := [span for span in self.spans if span.trace_id == trace_id]) < least:
            assert time.monotonic() < ends, f"{len(found)} spans of {trace_id}, of {len(self.spans)} in all"
            time.sleep(0.01)
        return found


@contextmanager
def running() -> Iterator[Collector]:
    collector = Collector()
    collector.wait.set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.headers.append({name.lower(): value for name, value in self.headers.items()})
            collector.paths.append(self.path)
            collector.wait.wait(30)
            if collector.status == 200:
                raw = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
                collector.spans.extend(read(raw))
            self.send_response(collector.status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *arguments: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        collector.url = f"http://127.0.0.1:{server.server_port}"
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        try:
            yield collector
        finally:
            collector.wait.set()
            server.shutdown()
            serving.join()


def read(raw: bytes) -> Iterator[Span]:
    message = ExportTraceServiceRequest.FromString(raw)
    for of_resource in message.resource_spans:
        resource = _values(of_resource.resource.attributes)
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                yield Span(
                    span.name, KINDS[span.kind], span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(),
                    span.trace_state, span.start_time_unix_nano / 1e9, span.end_time_unix_nano / 1e9,
                    _values(span.attributes), [event.name for event in span.events], span.status.code == 2, resource,
                )  # fmt: skip


def _values(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair) for pair in pairs}


def _value(pair: KeyValue) -> Any:
    value: AnyValue = pair.value
    return getattr(value, value.WhichOneof("value") or "string_value")
