"""Two readers of HTTP/1.1 that are not ours, llhttp and h11: what a stream of bytes means to somebody else.

`Reading.messages` are the whole messages in order; `rest` says how the stream ends for that reader: "" at a message's
end, "inside" within one, or why the reader refused to go on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

import h11
import httptools

# llhttp believes trailers named like these and h11 checks their values; RFC 9110 section 6.5.1 has them ignored.
_TRAILERS = re.compile(
    rb"(?i)\n0+(?:;[^\r\n]*)?\r\n(?:[^\r\n]+\r\n)*?(?:connection|content-length|transfer-encoding|upgrade):"
)
_ORIGIN = re.compile(rb"(?i)http://[^/?#]*")


class Seen(NamedTuple):
    """A request as one reader understood it; of an absolute-form target the path alone."""

    method: bytes
    target: bytes
    body: bytes


@dataclass
class Reading:
    messages: list[Seen] = field(default_factory=list)
    rest: str = ""


def read_by_llhttp(raw: bytes) -> Reading:
    reader = _Llhttp()
    try:
        reader.parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        reader.reading.rest = "upgrade"
    except httptools.HttpParserError as exc:
        # llhttp reads the method of what comes behind a last request, and says that it will not
        reader.reading.rest = "closed" if "after `Connection: close`" in str(exc) else str(exc)
    return reader.reading


class _Llhttp:
    def __init__(self) -> None:
        self.reading = Reading()
        self.parser = httptools.HttpRequestParser(self)

    def on_message_begin(self) -> None:
        self.reading.rest = "inside"
        self._target = self._body = b""

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self.reading.rest = ""
        self.reading.messages.append(Seen(self.parser.get_method(), _ORIGIN.sub(b"", self._target), self._body))


def read_by_h11(raw: bytes) -> Reading:
    reading = Reading()
    while raw:
        # a connection for each message: h11 takes no empty line before a request (RFC 9112 section 2.2 does), and never
        # a second HTTP/1.0 request
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 17)
        connection.receive_data(raw.removeprefix(b"\r\n"))
        message = _h11_message(connection, reading)
        if message is None:
            break
        reading.messages.append(message)
        raw = connection.trailing_data[0]
    return reading


def _h11_message(connection: h11.Connection, reading: Reading) -> Seen | None:
    method = target = body = b""
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError as exc:
            reading.rest = str(exc)
            return None
        if isinstance(event, h11.Request):
            method, target = event.method, event.target
            reading.rest = "inside"
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            reading.rest = ""
            return Seen(method, _ORIGIN.sub(b"", target), body)
        else:
            return None


def has_framing_in_trailers(stream: bytes) -> bool:
    return _TRAILERS.search(stream) is not None


def disputes(stream: bytes, carried: list[Seen | None]) -> list[str]:
    """What is wrong with what a proxy made of a client's `stream`, by both readers, in words.

    `carried` has what it sent on for each of its answers in order, None where it said no. Only after its last answer may
    it have met what they read differently.
    """
    found: list[str] = []
    for name, reading in (("llhttp", read_by_llhttp(stream)), ("h11", read_by_h11(stream))):
        is_disputed = has_framing_in_trailers(stream)
        if is_disputed and (name == "llhttp" or "Encoding" in reading.rest or "Content-Length" in reading.rest):
            continue
        for index, request in enumerate(carried):
            if request is None and index == len(carried) - 1:
                continue  # refused, and closed: whatever it was, nothing followed
            if reading.rest == "upgrade" and index >= len(reading.messages) - 1:
                continue  # llhttp stops at an upgrade, which the gateway does not offer
            if index >= len(reading.messages):
                what = "refused without closing" if request is None else "carried"
                found.append(f"request {index} was {what}, but {name} reads none: {reading.rest}")
            elif request not in (None, reading.messages[index]):
                found.append(f"carried {request}, but {name} reads {reading.messages[index]}")
    return found


def first_answer_by_llhttp(raw: bytes) -> tuple[int, bytes] | None:
    """Status and body of the first final answer in `raw`; None when llhttp refuses it or it is not whole.

    An answer without a length ends with `raw`, as its connection would.
    """
    reader = _LlhttpAnswer()
    try:
        reader.parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        return None
    except httptools.HttpParserError:
        if reader.answer is None:
            return None  # what came behind a whole answer is not our question
    if reader.answer is None and reader.is_until_close:
        return reader.parser.get_status_code(), reader.body
    return reader.answer


class _LlhttpAnswer:
    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.answer: tuple[int, bytes] | None = None
        self.body = b""
        self.is_until_close = False

    def on_message_begin(self) -> None:
        self.body = b""
        self.is_until_close = False

    def on_headers_complete(self) -> None:
        self.is_until_close = True

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.is_until_close = False
        if self.answer is None and self.parser.get_status_code() >= 200:
            self.answer = (self.parser.get_status_code(), self.body)
