"""How one request was answered, step by step, for whoever asked for it: the gateway, of a request whose trace it keeps.

A replica is on a network without a way out, so it sends no spans anywhere: it says in one field of its answer what it
measured, and the gateway makes spans of that (docs/CONTRACTS.md). A request that does not ask has nothing of this.
Times are of the monotonic clock, which `time.perf_counter` reads too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from worker_image.server.codecs.call import Field, Reply
from worker_image.server.tensors import Tensors

if TYPE_CHECKING:
    from worker_image.server.predictors import Ask

# Of a request: it asks. Of an answer: what is told.
FIELD: Final = b"x-modelfleet-trace"


class Trace:
    """One request. Each method is called when its step ends; steps that did not happen are not told."""

    __slots__ = ("_batches", "_began", "_cache", "_decoded", "_encoded", "_predicted", "_read", "_requests", "_rows",
                 "_rows_of_all", "_submitted")  # fmt: skip

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._read = self._began
        self._decoded = 0.0
        self._submitted = 0.0
        self._predicted = (0.0, 0.0)
        self._encoded = (0.0, 0.0)
        self._batches = self._requests = self._rows = self._rows_of_all = 0
        self._cache = ""

    def read(self) -> None:
        """Its body is here as a whole."""
        self._read = time.perf_counter()

    def decoded(self, rows: int | None) -> None:
        self._decoded = self._submitted = time.perf_counter()
        self._rows = rows or 0

    def computed(self, began: float, seconds: float, requests: int, rows: int) -> None:
        """In a batch of so many requests and rows; of a long request, one of its parts."""
        first = self._predicted[0] or began
        self._predicted = (first, max(self._predicted[1], began + seconds))
        self._batches += 1
        self._requests = max(self._requests, requests)
        self._rows_of_all = max(self._rows_of_all, rows)

    def from_cache(self, outcome: str) -> None:
        self._cache = outcome

    def following(self, ask: Ask) -> Ask:
        """The same, with the time that its answer takes to be encoded."""
        self.decoded(ask.part.rows)

        def encode(answer: Tensors) -> Reply:
            began = time.perf_counter()
            reply = ask.encode(answer)
            self._encoded = (began, time.perf_counter())
            return reply

        return ask._replace(encode=encode)

    def telling(self, answer: Callable[[Reply], None]) -> Callable[[Reply], None]:
        """`answer`, with the field in the reply."""
        return lambda reply: answer(self.tell(reply))

    def tell(self, reply: Reply) -> Reply:
        reply.fields = (*reply.fields, self.field())
        return reply

    def field(self, *, is_open: bool = False) -> Field:
        """`is_open`: the answer goes on behind its head."""
        now = time.perf_counter()
        words = [f"total={_us(now - self._began)}"]
        first, last = self._predicted
        if self._decoded:
            words.append(self._step("decode", self._read, self._decoded))
        if self._submitted and first:
            words.append(self._step("wait", self._submitted, first))
        if first:
            words.append(self._step("predict", first, last))
        if self._encoded[0]:
            words.append(self._step("encode", *self._encoded))
        if is_open:
            words += [self._step("first_answer", self._submitted or self._read, now), "open=1"]
        counts = ("rows", self._rows), ("batch_rows", self._rows_of_all), ("batch_requests", self._requests)
        words += [f"{name}={count}" for name, count in counts if count]
        if self._batches > 1:
            words.append(f"batches={self._batches}")
        if self._cache:
            words.append(f"cache={self._cache}")
        return FIELD, " ".join(words).encode()

    def _step(self, name: str, began: float, ended: float) -> str:
        return f"{name}={_us(began - self._began)}+{_us(ended - began)}"


def _us(seconds: float) -> int:
    return max(0, round(seconds * 1e6))


# The trace of the request that is worked on, for whoever works on it: None for nearly all.
current: ContextVar[Trace | None] = ContextVar("trace", default=None)


def asked(fields: Mapping[bytes, bytes]) -> Trace | None:
    return Trace() if FIELD in fields else None
