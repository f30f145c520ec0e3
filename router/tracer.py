"""Traces of one gateway process: which requests have one, and where it goes at its end.

Made only where the settings ask for traces: without, no request meets anything of it. A client that records its own
trace is followed, whatever our share is; of requests without a `traceparent` a share begins one. What is finished goes
to `otlp.py`, which never holds up a request.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final

from router.core import trace_context
from router.core.admission import Lane
from router.core.oip import status_of
from router.core.spans import Trace, Value, route_of
from router.proto.request import Request

_VERBS: Final = {"/infer": "ModelInfer", "/infer_stream": "ModelStreamInfer", "/ready": "ModelReady"}
_SERVICE: Final = "inference.GRPCInferenceService"


class Tracer:
    """`sample`: the share of requests without a `traceparent`. `put` takes a trace that is over, at once."""

    def __init__(self, sample: float, make_unsampled: Callable[[], bytes], put: Callable[[Trace], None]) -> None:
        self._sample = sample
        self._make_unsampled = make_unsampled
        self._put = put

    def make_traceparent(self) -> bytes:
        """Of a request that came without. A trace that is recorded has ids of chance, as its readers expect."""
        if random.random() >= self._sample:
            return self._make_unsampled()
        return trace_context.traceparent_of(random.getrandbits(127) + 1, new_id(), sampled=True)

    def begin(
        self, request: Request, request_id: str, traceparent: bytes, arrived: float, peer: bytes, scheme: bytes
    ) -> Trace:
        """The trace of a request whose traceparent is sampled."""
        trace_id, sender = trace_context.ids_of(traceparent)
        method, path = request.method.decode(), request.path.decode("latin-1")
        route = route_of(path)
        # The id in a traceparent of ours names no span.
        parent = sender if request.traceparent else 0
        trace = Trace(trace_id, parent, request.tracestate, f"{method} {route}".rstrip(), arrived, new_id)
        attributes: dict[str, Value] = {
            "http.request.method": method,
            "url.path": path,
            "url.scheme": scheme.decode(),
            "client.address": peer.decode("latin-1"),
            "network.protocol.name": "http",
            "network.protocol.version": f"1.{request.minor}",
            "modelfleet.request_id": request_id,
        }
        if route:
            attributes["http.route"] = route
        trace.root.attributes = attributes
        return trace

    def begin_call(self, request: Request, request_id: str, traceparent: bytes, arrived: float, peer: bytes) -> Trace:
        """The same for a call of gRPC, which is no request of HTTP/1.1 to its client."""
        trace = self.begin(request, request_id, traceparent, arrived, peer, b"")
        path = request.path.decode("latin-1")
        verb = next((verb for tail, verb in _VERBS.items() if path.endswith(tail)), "ModelMetadata")
        trace.root.name = f"{_SERVICE}/{verb}"
        trace.root.attributes = {
            "rpc.system": "grpc",
            "rpc.service": _SERVICE,
            "rpc.method": verb,
            "client.address": peer.decode("latin-1"),
            "network.protocol.name": "http",
            "network.protocol.version": "2",
            "modelfleet.request_id": request_id,
        }
        return trace

    def end(self, trace: Trace, lane: Lane | None, status: int, seconds: float, now: float) -> None:
        """Its last byte was written, or it was given up. `lane` None: no version was chosen for it."""
        if trace.is_over:
            return
        if lane is not None:
            trace.root.attributes |= {"modelfleet.model": lane.model, "modelfleet.version": lane.version}
            if trace.replica:
                trace.root.attributes["modelfleet.replica"] = trace.replica
            lane.note_exemplar(trace.hex_id, seconds, time.time())
        if "rpc.system" in trace.root.attributes:
            trace.root.attributes["rpc.grpc.status_code"] = 0 if status == 200 else status_of(status)
        elif status:
            trace.root.attributes["http.response.status_code"] = status
        trace.end(status, now)
        self._put(trace)


def new_id() -> int:
    """64 bits by chance, never zero."""
    return random.getrandbits(63) + 1
