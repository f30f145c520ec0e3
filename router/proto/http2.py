"""One HTTP/2 connection of a client (RFC 9113): frames in, frames out, and what a client may ask of it at most.

Owns the framing, the windows of both directions and the connection's end. It knows no gRPC: `open_stream` makes what a
request becomes (`rpc.py`). A server of gRPC needs no push, no priorities and no table for the fields that it writes,
and has none. What a client may cost without asking for anything (pings, settings, requests that it takes back at once)
is bounded by its `_patience`.

    PREFACE -> OPEN -> ENDING (GOAWAY sent: what is under way is finished) -> closed
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any, Final, cast

from router.core import hpack, http2
from router.core.hpack import Field
from router.core.http2 import Http2Error
from router.proto.flow import Flow
from router.proto.timers import Alarm
from router.tls import common_name

if TYPE_CHECKING:
    from router.server import Gateway

# Announced: one read of a socket holds so much, so that larger frames would only be put together again here.
FRAME_BYTES: Final = 65_536
# What may be on its way to us; what it is for is counted by the gateway's ledger when it comes.
STREAM_WINDOW: Final = 1 << 20
CONNECTION_WINDOW: Final = 8 << 20
STREAMS: Final = 1_000
# Of one answer at a time, while others wait.
TURN_BYTES: Final = 262_144
# A client that is away without a word is found by a ping after so long, while it has requests here.
KEEPALIVE_S: Final = 60.0
# The answer to a ping, and with it every request that was on its way to us when it was sent.
PING_S: Final = 5.0
# How long the rest is read and dropped when a connection ends by an error, so that no reset overtakes the reason.
LINGER_S: Final = 1.0
_PATIENCE: Final = 2_000.0
_PATIENCE_PER_S: Final = 200.0
# A request that is taken back costs more: a replica may have begun with it (CVE-2023-44487).
_RESET_COST: Final = 10.0
_ROUND_TRIP: Final = b"modelflt"
_ALIVE: Final = b"are you?"


class Stream:
    """One request of a connection, as HTTP/2 sees it. Its maker implements what begins with `on_`."""

    __slots__ = (
        "alarm", "alarm_due", "connection", "credit", "deadline", "id", "is_ended", "is_over", "out", "out_bytes",
        "tail", "window",
    )  # fmt: skip

    def __init__(self, connection: Http2Connection, id_: int) -> None:
        self.connection = connection
        self.id = id_
        self.window = connection.initial_window  # what we may send
        self.credit = STREAM_WINDOW  # what the client may send
        self.is_ended = False  # the client has sent all
        self.is_over = False  # all is answered, or nobody wants it
        self.out: deque[memoryview] = deque()  # of its answer, waiting for a window
        self.out_bytes = 0
        self.tail = b""  # the frame behind it that ends it
        self.deadline = inf
        self.alarm_due = inf
        self.alarm: Alarm | None = None

    def set_deadline(self, deadline: float) -> None:
        self.deadline = deadline
        if deadline < self.alarm_due:
            self.connection.timers.watch(self)

    def on_begin(self, is_end: bool) -> None:
        """Its head is here. `is_end`: and nothing else comes."""

    def on_data(self, data: bytes, is_end: bool) -> None:
        raise NotImplementedError

    def on_reset(self) -> None:
        """The client takes it back, or is gone."""

    def on_sent(self) -> None:
        """Some of what waited for a window was sent."""

    def on_draining(self) -> None:
        """The connection will end soon: who waits for nothing may end."""

    def on_deadline(self, now: float) -> None:
        raise NotImplementedError


OpenStream = Callable[["Http2Connection", int, list[Field]], Stream]


class Http2Connection(asyncio.Protocol):
    """A client's connection, from accept to close."""

    def __init__(self, gateway: Gateway, open_stream: OpenStream, *, is_secure: bool = False) -> None:
        # of the process
        self.gateway = gateway
        self.timers = gateway.timers
        self._limits = gateway.config.limits
        self._open_stream = open_stream
        self.scheme = b"https" if is_secure else b"http"
        # of the connection
        self._transport: asyncio.Transport = cast(Any, None)
        self.flow: Flow = cast(Any, None)
        self.peer = b"unknown"
        self.client_name = ""  # of its certificate
        self._ahead = b""
        self._decoder = hpack.Decoder(self._limits.head_bytes)
        self._streams: dict[int, Stream] = {}
        self._newest = 0  # stream
        self._last = http2.LARGEST_STREAM  # the last stream that is taken in
        self._is_begun = False
        self._has_settings = False
        self._is_ending = False
        self._told_until = inf  # then the client must have heard so
        self._is_closed = False
        self._is_stalled = False  # the client does not read its answers
        self._unread_bytes = sys.maxsize  # when that was looked at last
        self._requests_left = self._limits.requests_per_connection
        self._patience = _PATIENCE
        self._patience_at = self._heard_at = time.monotonic()
        self._is_asked = False  # whether it is alive, by a ping
        self.deadline = inf
        self.alarm_due = inf
        self.alarm: Alarm | None = None
        # of sending and receiving
        self.initial_window = http2.DEFAULT_WINDOW
        self._window = http2.DEFAULT_WINDOW
        self._frame_bytes = http2.DEFAULT_FRAME_BYTES
        self._credit = CONNECTION_WINDOW
        self._blocked: dict[Stream, None] = {}  # they have something to send, in their order
        # of a header block that is not complete
        self._block_stream = 0
        self._block_flags = 0
        self._block = b""

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.flow = Flow(self._transport)
        peer = transport.get_extra_info("peername")
        if peer:
            self.peer = str(peer[0]).encode()
        self.client_name = common_name(transport.get_extra_info("peercert"))
        refusal = self.gateway.admit(self, self.peer.decode())
        announced = {
            http2.MAX_CONCURRENT_STREAMS: STREAMS,
            http2.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            http2.MAX_FRAME_SIZE: FRAME_BYTES,
            http2.MAX_HEADER_LIST_SIZE: self._limits.head_bytes,
        }
        more = CONNECTION_WINDOW - http2.DEFAULT_WINDOW
        self._transport.write(http2.settings(announced) + http2.window_update(0, more))
        if refusal is not None:
            self.gateway.count_unrouted(refusal.status)
            self._end(http2.ENHANCE_YOUR_CALM, refusal.text)
            return
        self._set_deadline(time.monotonic() + self._limits.header_timeout_s)
        if self.gateway.is_draining:
            self.drain()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._is_closed = True
        self.timers.forget(self)
        self.gateway.forget(self)
        self.gateway.unread.remove(self)
        for stream in list(self._streams.values()):
            self._reset(stream)

    def data_received(self, data: bytes) -> None:
        if self._is_closed:
            return
        self._heard_at = time.monotonic()
        self._is_asked = False
        try:
            self._read(self._ahead + data if self._ahead else data)
        except Http2Error as error:
            self._end(error.code, error.reason)
        except Exception as exc:
            self.gateway.fault(exc, "")
            self._end(http2.INTERNAL_ERROR, "the gateway failed on this connection; its log has the details")

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._is_stalled = True
        self.flow.pause_reading()
        self._await_reader()

    def resume_writing(self) -> None:
        self._is_stalled = False
        self.gateway.unread.remove(self)
        self.flow.resume_reading()
        self._set_idle_deadline()
        self._flush()

    # called by the gateway

    def drain(self) -> None:
        """Finishes what is under way and ends. No request is lost: at first the client is told to begin no more, and
        only when it must have heard so is nothing taken in any more (RFC 9113 section 6.8)."""
        if self._is_ending:
            for stream in list(self._streams.values()):
                stream.on_draining()
            return
        self._is_ending = True
        if not self._is_closed:
            told = http2.goaway(http2.LARGEST_STREAM, http2.NO_ERROR, "the gateway hands over to another")
            self._transport.write(told + http2.frame(http2.PING, 0, 0, _ROUND_TRIP))
            self._told_until = time.monotonic() + PING_S
            self._set_idle_deadline()

    def abort(self) -> None:
        self._transport.abort()

    # called by the timers

    def on_deadline(self, now: float) -> None:
        if self._is_closed or not self._has_settings:
            self._transport.abort()
        elif self._is_stalled:
            if self._transport.get_write_buffer_size() < self._unread_bytes:
                self._await_reader()
            else:
                self._transport.abort()
        elif self._is_ending and self._last == http2.LARGEST_STREAM:
            self._take_no_more()
        elif not self._streams:
            self.drain()
        elif not self._is_asked:
            self._ask_whether_alive(now)
        else:
            self._transport.abort()

    # called by streams

    def send(self, stream: Stream, head: bytes, data: bytes, tail: bytes) -> None:
        """Sends a frame `head` that is never held back, `data` as the windows allow, and the frame `tail`, which ends
        the stream. Any of them may be empty."""
        size = len(data)
        if not stream.out and size <= self._frame_bytes and size <= stream.window and size <= self._window:
            stream.window -= size
            self._window -= size
            frame = http2.frame_header(size, http2.DATA, 0, stream.id) if size else b""
            self._transport.write(b"%b%b%b%b" % (head, frame, data, tail))
            if tail:
                self._finish(stream)
            return
        if head:
            self._transport.write(head)
        if size:
            stream.out.append(memoryview(data))
            stream.out_bytes += size
        stream.tail = tail
        self._blocked[stream] = None
        self._flush()

    def reset(self, stream: Stream, code: int) -> None:
        """Ends a stream that cannot be answered to its end."""
        if not stream.is_over:
            self._transport.write(http2.rst_stream(stream.id, code))
            self._forget(stream)

    def grant(self, stream: Stream) -> None:
        """Lets the client send as much as at the stream's beginning."""
        more = STREAM_WINDOW - stream.credit
        if more >= STREAM_WINDOW // 2 and not stream.is_ended and not stream.is_over:
            stream.credit += more
            self._transport.write(http2.window_update(stream.id, more))

    # reading frames

    def _read(self, data: bytes) -> None:
        at = 0
        if not self._is_begun:
            at = self._read_preface(data)
        while self._is_begun and not self._is_closed and len(data) - at >= http2.HEADER_BYTES:
            length, kind, flags, stream = http2.read_header(data, at)
            if length > FRAME_BYTES:
                raise Http2Error(http2.FRAME_SIZE_ERROR, f"a frame of {length} bytes; at most {FRAME_BYTES} are taken")
            end = at + http2.HEADER_BYTES + length
            if end > len(data):
                break
            self._take(kind, flags, stream, data[at + http2.HEADER_BYTES : end])
            at = end
        self._ahead = data[at:]

    def _read_preface(self, data: bytes) -> int:
        expected = http2.PREFACE[: len(data)]
        if not data.startswith(expected):
            raise Http2Error(http2.PROTOCOL_ERROR, "this port speaks gRPC over HTTP/2; the connection begins otherwise")
        self._is_begun = len(data) >= len(http2.PREFACE)
        return len(http2.PREFACE) if self._is_begun else 0

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if self._block_stream and (kind != http2.CONTINUATION or stream != self._block_stream):
            raise Http2Error(http2.PROTOCOL_ERROR, "a frame comes between the parts of a header block")
        if not self._has_settings and kind != http2.SETTINGS:
            raise Http2Error(http2.PROTOCOL_ERROR, "the first frame is no SETTINGS")
        if kind == http2.DATA:
            self._take_data(flags, stream, payload)
        elif kind == http2.HEADERS:
            self._check_stream(stream)
            self._block_flags = flags
            self._take_block(flags, stream, http2.header_block(flags, payload, stream))
        elif kind == http2.CONTINUATION:
            if not self._block_stream:
                raise Http2Error(http2.PROTOCOL_ERROR, "a CONTINUATION frame continues nothing")
            self._spend(1.0)
            self._take_block(flags, stream, payload)
        else:
            self._spend(1.0)
            control = _CONTROL.get(kind)
            if control is not None:
                control(self, flags, stream, payload)

    def _take_block(self, flags: int, stream: int, fragment: bytes) -> None:
        self._block += fragment
        if len(self._block) > self._limits.head_bytes:
            raise Http2Error(http2.ENHANCE_YOUR_CALM, f"a head of more than {self._limits.head_bytes} bytes")
        if not flags & http2.END_HEADERS:
            self._block_stream = stream
            return
        block, self._block, self._block_stream = self._block, b"", 0
        try:
            fields = self._decoder.decode(block)
        except hpack.HpackError as exc:
            raise Http2Error(http2.COMPRESSION_ERROR, str(exc)) from exc
        self._take_head(stream, fields, bool(self._block_flags & http2.END_STREAM))

    def _take_head(self, id_: int, fields: list[Field] | None, is_end: bool) -> None:
        known = self._streams.get(id_)
        if known is not None or id_ <= self._newest:
            self._take_trailers(id_, known, is_end)
            return
        self._newest = id_
        if id_ > self._last or len(self._streams) >= STREAMS:
            self._spend(1.0)
            self._transport.write(http2.rst_stream(id_, http2.REFUSED_STREAM))
            return
        if fields is None or len(fields) > self._limits.fields:
            self._transport.write(http2.rst_stream(id_, http2.ENHANCE_YOUR_CALM))
            return
        stream = self._streams[id_] = self._open_stream(self, id_, fields)
        stream.is_ended = is_end
        self._requests_left -= 1
        if not self._requests_left:
            self.drain()
        stream.on_begin(is_end)

    def _take_trailers(self, id_: int, stream: Stream | None, is_end: bool) -> None:
        """gRPC's clients send none; whatever is in them ends the request."""
        if stream is None:  # ended by us a moment ago, as long as the client cannot know
            self._spend(1.0)
            return
        if stream.is_ended or not is_end:
            raise Http2Error(http2.STREAM_CLOSED if stream.is_ended else http2.PROTOCOL_ERROR, f"stream {id_}: a head")
        stream.is_ended = True
        stream.on_data(b"", True)

    def _take_data(self, flags: int, id_: int, payload: bytes) -> None:
        self._check_stream(id_)
        size = len(payload)
        self._credit -= size
        if self._credit < 0:
            raise Http2Error(http2.FLOW_CONTROL_ERROR, "more was sent than the connection's window allows")
        if self._credit <= CONNECTION_WINDOW // 2:
            self._transport.write(http2.window_update(0, CONNECTION_WINDOW - self._credit))
            self._credit = CONNECTION_WINDOW
        stream = self._streams.get(id_)
        if stream is None:
            if id_ > self._newest:
                raise Http2Error(http2.PROTOCOL_ERROR, f"DATA on stream {id_}, which nobody opened")
            self._spend(1.0)  # ended by us a moment ago
            return
        if stream.is_ended:
            raise Http2Error(http2.STREAM_CLOSED, f"DATA on stream {id_} behind its end")
        stream.credit -= size
        if stream.credit < 0:
            raise Http2Error(http2.FLOW_CONTROL_ERROR, f"more was sent on stream {id_} than its window allows")
        stream.is_ended = bool(flags & http2.END_STREAM)
        if size < _SMALL_DATA_BYTES and not stream.is_ended:
            self._spend(1.0)
        stream.on_data(http2.unpadded(flags, payload), stream.is_ended)

    def _check_stream(self, id_: int) -> None:
        if not id_ & 1:  # 0 is the connection, even ones are a server's
            raise Http2Error(http2.PROTOCOL_ERROR, f"a client cannot open stream {id_}")

    # frames of the connection

    def _take_settings(self, flags: int, stream: int, payload: bytes) -> None:
        if stream:
            raise Http2Error(http2.PROTOCOL_ERROR, "SETTINGS on a stream")
        if flags & http2.ACK:
            if payload:
                raise Http2Error(http2.FRAME_SIZE_ERROR, "an acknowledgement of SETTINGS with a payload")
            return
        for name, value in http2.read_settings(payload):
            if name == http2.INITIAL_WINDOW_SIZE:
                self._resize_windows(value)
            elif name == http2.MAX_FRAME_SIZE:
                self._frame_bytes = min(value, FRAME_BYTES)
        self._transport.write(http2.frame(http2.SETTINGS, http2.ACK, 0))
        if not self._has_settings:
            self._has_settings = True
            self._set_idle_deadline()
        self._flush()

    def _resize_windows(self, size: int) -> None:
        more, self.initial_window = size - self.initial_window, size
        for stream in self._streams.values():
            stream.window += more
            if stream.window > http2.LARGEST_WINDOW:
                raise Http2Error(http2.FLOW_CONTROL_ERROR, "a window grows too large")

    def _take_ping(self, flags: int, stream: int, payload: bytes) -> None:
        if stream:
            raise Http2Error(http2.PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != len(_ALIVE):
            raise Http2Error(http2.FRAME_SIZE_ERROR, f"a PING frame has {len(payload)} bytes, not 8")
        if not flags & http2.ACK:
            self._transport.write(http2.frame(http2.PING, http2.ACK, 0, payload))
        elif payload == _ROUND_TRIP and self._is_ending:
            self._take_no_more()

    def _take_reset(self, flags: int, id_: int, payload: bytes) -> None:  # noqa: ARG002
        http2.read_long(payload, "RST_STREAM")
        self._check_stream(id_)
        if id_ > self._newest:
            raise Http2Error(http2.PROTOCOL_ERROR, f"RST_STREAM on stream {id_}, which nobody opened")
        stream = self._streams.get(id_)
        if stream is not None:
            self._spend(_RESET_COST)
            self._reset(stream)

    def _take_goaway(self, flags: int, stream: int, payload: bytes) -> None:  # noqa: ARG002
        if stream or len(payload) < 8:
            raise Http2Error(http2.PROTOCOL_ERROR if stream else http2.FRAME_SIZE_ERROR, "a GOAWAY that is none")
        self._is_ending = True
        self._take_no_more()

    def _take_window_update(self, flags: int, id_: int, payload: bytes) -> None:  # noqa: ARG002
        more = http2.read_long(payload, "WINDOW_UPDATE")
        if not more:
            raise Http2Error(http2.PROTOCOL_ERROR, "a window is to grow by nothing")
        if not id_:
            self._window += more
            if self._window > http2.LARGEST_WINDOW:
                raise Http2Error(http2.FLOW_CONTROL_ERROR, "the connection's window grows too large")
        else:
            self._grow_window(id_, more)
        self._flush()

    def _grow_window(self, id_: int, more: int) -> None:
        stream = self._streams.get(id_)
        if stream is None:
            self._check_stream(id_)
            if id_ > self._newest:
                raise Http2Error(http2.PROTOCOL_ERROR, f"WINDOW_UPDATE on stream {id_}, which nobody opened")
            return
        stream.window += more
        if stream.window > http2.LARGEST_WINDOW:
            self.reset(stream, http2.FLOW_CONTROL_ERROR)
            stream.on_reset()

    def _take_priority(self, flags: int, id_: int, payload: bytes) -> None:  # noqa: ARG002
        if not id_ or len(payload) != 5:
            raise Http2Error(http2.FRAME_SIZE_ERROR if id_ else http2.PROTOCOL_ERROR, "a PRIORITY that is none")

    def _take_push(self, flags: int, id_: int, payload: bytes) -> None:  # noqa: ARG002
        raise Http2Error(http2.PROTOCOL_ERROR, "a client cannot push")

    # sending

    def _flush(self) -> None:
        """Sends what waits, as far as the windows and the client's reading allow."""
        while self._blocked and not self._is_stalled and not self._is_closed:
            if self._window <= 0 and any(stream.out for stream in self._blocked):
                sendable = next((stream for stream in self._blocked if not stream.out), None)
            else:
                sendable = next((each for each in self._blocked if not each.out or each.window > 0), None)
            if sendable is None:
                return
            self._send_some(sendable)

    def _send_some(self, stream: Stream) -> None:
        """Sends some of an answer, which goes to the end of those who wait: a long one keeps no other waiting."""
        del self._blocked[stream]
        self._transport.writelines(self._frames(stream))
        if stream.out:
            self._blocked[stream] = None
            stream.set_deadline(time.monotonic() + self._limits.write_timeout_s)
        elif stream.tail:
            self._finish(stream)
        stream.on_sent()

    def _frames(self, stream: Stream) -> list[bytes | memoryview]:
        """What may be sent of an answer now, in frames; the frame that ends it too, if nothing is left before it."""
        frames: list[bytes | memoryview] = []
        out, left = stream.out, TURN_BYTES
        while out and (size := min(len(out[0]), self._frame_bytes, stream.window, self._window, left)) > 0:
            piece = out.popleft()
            if size < len(piece):
                out.appendleft(piece[size:])
            left -= size
            frames += (http2.frame_header(size, http2.DATA, 0, stream.id), piece[:size])
            stream.out_bytes -= size
            stream.window -= size
            self._window -= size
            self._patience = min(_PATIENCE, self._patience + 2.0)  # for the client's WINDOW_UPDATEs
        if not out and stream.tail:
            frames.append(stream.tail)
        return frames

    # ends

    def _finish(self, stream: Stream) -> None:
        """All of its answer is sent."""
        if not stream.is_ended:  # RFC 9113 section 8.1: the rest of the request is not wanted
            self._transport.write(http2.rst_stream(stream.id, http2.NO_ERROR))
        self._patience = min(_PATIENCE, self._patience + 5.0)
        self._forget(stream)

    def _reset(self, stream: Stream) -> None:
        self._forget(stream)
        try:
            stream.on_reset()
        except Exception as exc:
            self.gateway.fault(exc, "")

    def _forget(self, stream: Stream) -> None:
        stream.is_over = True
        stream.out.clear()
        self.timers.forget(stream)
        self._streams.pop(stream.id, None)
        self._blocked.pop(stream, None)
        if not self._streams:
            self._set_idle_deadline()
            if self._is_ending and self._last != http2.LARGEST_STREAM:
                self._transport.close()

    def _take_no_more(self) -> None:
        """The client must know by now that it shall begin nothing here."""
        self._told_until = inf
        if self._last == http2.LARGEST_STREAM:
            self._last = self._newest
            self._transport.write(http2.goaway(self._last, http2.NO_ERROR))
        self._set_idle_deadline()
        if not self._streams:
            self._transport.close()

    def _end(self, code: int, reason: str) -> None:
        """The connection cannot go on."""
        self._is_closed = True
        self._transport.write(http2.goaway(self._newest, code, reason))
        for stream in list(self._streams.values()):
            self._reset(stream)
        self.flow.resume_reading()
        self.flow.end_writing()
        self._set_deadline(time.monotonic() + LINGER_S)

    def _spend(self, cost: float) -> None:
        now = self._heard_at
        self._patience = min(_PATIENCE, self._patience + (now - self._patience_at) * _PATIENCE_PER_S) - cost
        self._patience_at = now
        if self._patience < 0:
            raise Http2Error(http2.ENHANCE_YOUR_CALM, "too many frames that ask for nothing, or requests taken back")

    def _ask_whether_alive(self, now: float) -> None:
        quiet_s = now - self._heard_at
        if quiet_s < KEEPALIVE_S:
            self._set_deadline(now + KEEPALIVE_S - quiet_s)
            return
        self._is_asked = True
        self._transport.write(http2.frame(http2.PING, 0, 0, _ALIVE))
        self._set_deadline(now + 4 * PING_S)

    def _await_reader(self) -> None:
        """The client must read some of what waits for it, however little, within the write timeout."""
        self._unread_bytes = self._transport.get_write_buffer_size()
        self.gateway.unread.add(self, self._unread_bytes)
        self._set_deadline(time.monotonic() + self._limits.write_timeout_s)

    def _set_idle_deadline(self) -> None:
        idle_s = KEEPALIVE_S if self._streams else self._limits.idle_timeout_s
        self._set_deadline(min(time.monotonic() + idle_s, self._told_until))

    def _set_deadline(self, deadline: float) -> None:
        self.deadline = deadline
        if deadline < self.alarm_due:
            self.timers.watch(self)


# Frames of DATA with less in them are no way to send a tensor.
_SMALL_DATA_BYTES: Final = 256
_Control = Callable[[Http2Connection, int, int, bytes], None]
_CONTROL: Final[dict[int, _Control]] = {
    http2.PRIORITY: Http2Connection._take_priority,
    http2.RST_STREAM: Http2Connection._take_reset,
    http2.SETTINGS: Http2Connection._take_settings,
    http2.PUSH_PROMISE: Http2Connection._take_push,
    http2.PING: Http2Connection._take_ping,
    http2.GOAWAY: Http2Connection._take_goaway,
    http2.WINDOW_UPDATE: Http2Connection._take_window_update,
}
