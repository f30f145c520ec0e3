"""The trace of one sampled request, as plain records: the gateway's span, the tries below it, and what a replica told.

Pure: times are seconds of one monotonic clock and are passed in, ids come from a function that is. Only sampled
requests have one. `proto/traced.py` tells it what happens; `otlp.py` makes OpenTelemetry's spans of it in a thread.

    gateway (server) -> queue, whenever it waited -> one try a replica (client) -> model server (server) -> its steps
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from router.core.trace_context import traceparent_of

Value: TypeAlias = str | int | float | bool

INTERNAL, SERVER, CLIENT = "internal", "server", "client"
GATEWAY, REPLICA = "gateway", "replica"

# What a replica says of a request: docs/CONTRACTS.md, "Gateway and model server". It runs the author's code and may say
# anything: what does not fit is left out, and nothing that it says can be longer than this.
TOLD_BYTES: Final = 512
_TOKEN: Final = re.compile(rb"([a-z_]{1,20})=(?:([0-9]{1,12})(?:\+([0-9]{1,12}))?|([a-z]{1,12}))")
_STEPS: Final = ("decode", "wait", "predict", "encode", "first_answer")
_COUNTS: Final = {
    "rows": "modelfleet.request.rows",
    "batch_rows": "modelfleet.batch.rows",
    "batch_requests": "modelfleet.batch.requests",
    "batches": "modelfleet.request.batches",
}
_CACHE: Final = ("hit", "miss", "shared")


@dataclass(slots=True)
class Span:
    """`start`, `end` and the times of `events`: seconds of the monotonic clock. `error`: what failed, "" if nothing."""

    name: str
    kind: str
    span_id: int
    parent_id: int  # 0: it begins its trace
    start: float
    end: float = 0.0
    attributes: dict[str, Value] = field(default_factory=dict)
    events: list[tuple[str, float, Mapping[str, Value]]] = field(default_factory=list)
    error: str = ""
    where: str = GATEWAY
    is_remote_child: bool = False  # its parent is another process's

    def add(self, event: str, now: float, **attributes: Value) -> None:
        self.events.append((event, now, attributes))


class Trace:
    """One request from its head to its last byte. Call `end` once; `spans` are complete then, the first one is its own.

    `parent_id` 0: the request began the trace.
    """

    __slots__ = (
        "_new_id", "_try", "_try_ended", "_waits_since", "is_over", "replica", "root", "spans", "trace_id",
        "tracestate", "tries",
    )  # fmt: skip

    def __init__(
        self, trace_id: int, parent_id: int, tracestate: str, name: str, start: float, new_id: Callable[[], int]
    ) -> None:
        self.trace_id = trace_id
        self.tracestate = tracestate
        self._new_id = new_id
        self.root = Span(name, SERVER, new_id(), parent_id, start, is_remote_child=bool(parent_id))
        self.spans = [self.root]
        self.is_over = False
        self.replica = ""
        self.tries = 0
        self._waits_since = -1.0  # in a queue; -1: it does not
        self._try: Span | None = None
        self._try_ended = -1.0  # when it failed; -1: it goes on

    @property
    def hex_id(self) -> str:
        return f"{self.trace_id:032x}"

    def waits(self, now: float) -> None:
        """It has no slot."""
        self._waits_since = now

    def begins_try(self, replica: str, host: str, port: int, method: str, now: float) -> bytes:
        """It has a slot of `replica`. The traceparent that this one is to be sent."""
        self._end_wait(now)
        self._end_try(now)
        attributes: dict[str, Value] = {
            "http.request.method": method,
            "server.address": host,
            "server.port": port,
            "modelfleet.replica": replica,
        }
        if self.tries:
            attributes["http.request.resend_count"] = self.tries
        self.tries += 1
        self.replica = replica
        self._try = Span(method, CLIENT, self._new_id(), self.root.span_id, now, attributes=attributes)
        self.spans.append(self._try)
        return traceparent_of(self.trace_id, self._try.span_id, sampled=True)

    def try_event(self, event: str, now: float) -> None:
        if self._try is not None:
            self._try.add(event, now)

    def try_failed(self, kind: str, reason: str, now: float) -> None:
        """`kind` is one of a few words, `reason` a sentence. What follows is said by another call."""
        self._fail_try(kind, now)
        if self._try is not None and reason:
            self._try.add("failed", now, reason=reason)

    def retries(self, cause: str, now: float) -> None:
        """It goes back to where it waits for a replica."""
        self._fail_try(cause, now)
        self.root.add("retry", now, cause=cause, replica=self.replica)
        self._waits_since = now

    def answers(self, status: int, told: bytes, sent: float, now: float) -> None:
        """The head of an answer is here; `told` is what the replica says of how it was made, "" for nothing."""
        tried = self._try
        if tried is None:
            return
        tried.attributes["http.response.status_code"] = status
        if status >= 500:
            tried.error = str(status)
        if told and len(told) <= TOLD_BYTES:
            self._add_told(tried, told, sent, now)

    def end(self, status: int, now: float) -> None:
        self.is_over = True
        self._end_wait(now)
        self._end_try(now)
        root = self.root
        root.end = now
        root.attributes["modelfleet.tries"] = self.tries
        if status >= 500 or status == 0:
            root.error = root.error or str(status or "cut off")

    # steps

    def _end_wait(self, now: float) -> None:
        since, self._waits_since = self._waits_since, -1.0
        if since < 0 or now <= since:
            return
        self.spans.append(Span("queue", INTERNAL, self._new_id(), self.root.span_id, since, now))

    def _fail_try(self, kind: str, now: float) -> None:
        if self._try is not None and self._try_ended < 0:
            self._try.error = self._try.error or kind
            self._try_ended = now

    def _end_try(self, now: float) -> None:
        tried, self._try = self._try, None
        ended, self._try_ended = self._try_ended, -1.0
        if tried is None:
            return
        tried.end = now if ended < 0 else ended
        for span in self.spans:
            if span.end == 0.0 and span.parent_id == tried.span_id:
                span.end = tried.end  # of a streamed answer

    def _add_told(self, tried: Span, told: bytes, sent: float, now: float) -> None:
        numbers, words = _read(told)
        total = numbers.get("total", (-1, 0))[0] / 1e6
        if total < 0:
            return
        # Clocks of two machines differ; what is known is that it lies between the two readings of ours.
        room = max(0.0, now - sent)
        total = min(total, room)
        start = sent + (room - total) / 2
        ends = 0.0 if "open" in numbers else start + total
        server = Span(self.root.name, SERVER, self._new_id(), tried.span_id, start, ends, where=REPLICA)
        server.is_remote_child = True
        server.attributes = {attribute: numbers[name][0] for name, attribute in _COUNTS.items() if name in numbers}
        if words.get("cache") in _CACHE:
            server.attributes["modelfleet.cache"] = words["cache"]
        self.spans.append(server)
        for name in (name for name in _STEPS if name in numbers):
            begin, length = (microseconds / 1e6 for microseconds in numbers[name])
            begin = min(begin, total)
            ends = start + min(begin + length, total)
            step = Span(name, INTERNAL, self._new_id(), server.span_id, start + begin, ends, where=REPLICA)
            self.spans.append(step)


def _read(told: bytes) -> tuple[dict[str, tuple[int, int]], dict[str, str]]:
    """Numbers (with the second of `a+b`, else 0) and words by their names. What is not read is left out."""
    numbers: dict[str, tuple[int, int]] = {}
    words: dict[str, str] = {}
    for token in told.split():
        match = _TOKEN.fullmatch(token)
        if match is None:
            continue
        name, first, second, word = match.groups()
        if word is None:
            numbers[name.decode()] = int(first), int(second or 0)
        else:
            words[name.decode()] = word.decode()
    return numbers, words


_VERSIONED: Final = re.compile(r"(/v[12]/models/)[^/:]+(?:/(versions|labels)/[^/:]+)?")
_CUSTOM: Final = re.compile(r"/models/[^/]+/.*")


def route_of(path: str) -> str:
    """The path with its names as placeholders: `http.route`, which has few values."""
    if _CUSTOM.fullmatch(path):
        return "/models/{model}/{path}"
    match = _VERSIONED.match(path)
    if match is None:
        return path if path.startswith("/v2") and path.count("/") <= 3 else ""
    kind = match.group(2)
    named = f"/{kind}/{{{kind[:-1]}}}" if kind else ""
    tail = path[match.end() :]
    return f"{match.group(1)}{{model}}{named}{tail}" if _TAIL.fullmatch(tail) else f"{match.group(1)}{{model}}{named}"


_TAIL: Final = re.compile(
    r"|/(?:infer|infer_stream|generate|generate_stream|explain|ready|metadata)|:(?:predict|classify|regress|explain)"
)
