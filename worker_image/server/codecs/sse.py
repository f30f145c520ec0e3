"""A stream of answers as server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html

Owns the framing of events and how the end and an error in the middle are told. What is in an event is a codec's word
(`v2.py`, `generate.py`), where the answers come from the stream's.

    infer_stream:     data: <answer>         event: end, data: {}       event: error, data: <error>
    generate_stream:  data: <answer>         the body ends              data: <error>
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from worker_image.server.codecs.call import Answers, Field
from worker_image.server.tensors import Tensors

EVENT_STREAM = b"text/event-stream; charset=utf-8"
# Caches keep nothing of it, and proxies that know nginx's field pass each event on as it comes.
FIELDS: tuple[Field, ...] = ((b"cache-control", b"no-store"), (b"x-accel-buffering", b"no"))
_END = b"event: end\ndata: {}\n\n"


class EventStream:
    """`encode` gives what one event carries. `names_events` False is for clients that look at `data:` alone."""

    content_type = EVENT_STREAM
    fields: Sequence[Field] = FIELDS

    def __init__(self, answers: Answers, encode: Callable[[Tensors], bytes], *, names_events: bool) -> None:
        self._answers = answers
        self._encode = encode
        self._names_events = names_events
        self._first: bytes | None = None
        self._is_over = False

    async def begin(self) -> None:
        """Waits for the first answer."""
        self._first = await anext(self, None)

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> bytes:
        if self._first is not None:
            event, self._first = self._first, None
            return event
        if self._is_over:
            raise StopAsyncIteration
        try:
            answer = await anext(self._answers)
        except StopAsyncIteration:
            self._is_over = True
            if self._names_events:
                return _END
            raise
        return _event(self._encode(answer))

    def last_words(self, error: bytes) -> bytes:
        """What is sent when it fails in the middle; `error` is the JSON that would have been the answer."""
        return b"event: error\n" + _event(error) if self._names_events else _event(error)

    async def aclose(self) -> None:
        await self._answers.aclose()


def _event(data: bytes) -> bytes:
    # JSON has no line break of its own, so that one line holds it.
    return b"data: " + data + b"\n\n"
