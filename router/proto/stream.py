"""A request of gRPC on its stream: its messages in, its answer's messages and status out.

Owns what all methods share: the bytes that are kept for a request and how long it may take to come, and the form of an
answer. What the methods do is `rpc.py`; frames and windows are `http2.py`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

from router.access import entry_of
from router.core import errors, grpc, http2, oip
from router.core.errors import ProtocolError, Refusal
from router.core.grpc import Head, MessageReader
from router.core.hpack import Field
from router.core.keys import CREDENTIALS, Caller
from router.proto.call import UNCOUNTED_BYTES
from router.proto.http2 import Http2Connection, Stream

# A message must be here within the request's time, or this when the request names none.
MESSAGE_S: Final = 120.0


class RpcStream(Stream):
    """A request's stream, from its head to its status."""

    __slots__ = ("_held_bytes", "_is_begun", "arrived", "gateway", "head", "reader", "until")

    is_of_model = False  # who may not ask is told so before the message is taken in

    def __init__(self, connection: Http2Connection, id_: int, head: Head) -> None:
        super().__init__(connection, id_)
        self.gateway = connection.gateway
        self.head = head
        self.arrived = time.monotonic()
        self.until = self.arrived + (head.timeout_s or MESSAGE_S)
        self.reader = MessageReader(self.gateway.config.limits.body_bytes)
        self._held_bytes = 0
        self._is_begun = False  # the answer

    # called by the connection

    def on_begin(self, is_end: bool) -> None:
        caller = self.caller() if self.is_of_model else None
        refusal = self.head.refusal or (caller if isinstance(caller, Refusal) else None)
        if refusal is not None:
            self.refuse_unrouted(refusal)
        elif is_end:
            self.on_data(b"", True)
        else:
            self.await_more(self.until)

    def on_data(self, data: bytes, is_end: bool) -> None:
        if self.tail:
            return  # answered already
        try:
            self.reader.feed(data)
            if not self._hold(max(self.reader.size, self.reader.wanted_bytes)):
                self.refuse_unrouted(errors.memory_taken(self.gateway.config.limits.held_bytes))
                return
            self.take_messages(is_end)
        except ProtocolError as error:
            self.refuse_unrouted(error.refusal)
        except Exception as exc:
            self.fault(exc)

    def on_reset(self) -> None:
        self._hold(0)

    def on_deadline(self, now: float) -> None:
        if self.out:
            self.connection.reset(self, http2.CANCEL)  # the client reads nothing of its answer
            self.on_reset()
        elif not self.is_ended:
            is_late = self.until <= now
            limit_s = self.gateway.config.limits.body_timeout_s
            self.refuse_unrouted(errors.body_deadline() if is_late else errors.body_timeout(limit_s))

    # called by the methods

    def caller(self) -> Caller | Refusal | None:
        """Whose request it is, where that matters: None where nobody has to say so."""
        keyring = self.gateway.keyring
        if not keyring.is_required:
            return None
        return keyring.identify({name: value for name, value in self.head.metadata if name in CREDENTIALS})

    def await_more(self, until: float) -> None:
        """The next piece must come soon, all of it by `until`."""
        soon = time.monotonic() + self.gateway.config.limits.body_timeout_s
        self.set_deadline(min(until, soon))
        self.connection.grant(self)

    def take_messages(self, is_end: bool) -> None:
        """Messages may be whole now. `is_end`: no more will come."""
        raise NotImplementedError

    def answer(self, message: bytes, fields: Iterable[Field] = ()) -> None:
        """The whole answer of a method that gives one message."""
        begin, end = self._begin(), grpc.trailers(oip.OK, "", fields)
        self.finish(begin, grpc.prefix(len(message)) + message, end)

    def write(self, message: bytes) -> None:
        """One message of several."""
        self.connection.send(self, self._begin(), grpc.prefix(len(message)) + message, b"")

    def refuse(self, refusal: Refusal, fields: Iterable[Field] = ()) -> None:
        """Ends with a status that is no OK."""
        if refusal.retry_after_s:
            fields = (*fields, (b"retry-after", b"%d" % refusal.retry_after_s))
        self.end(oip.status_of(refusal.status), refusal.text, fields)

    def refuse_unrouted(self, refusal: Refusal) -> None:
        """Refuses what belongs to no version, and counts it."""
        request_id = self.gateway.make_request_id()
        self.gateway.count_unrouted(refusal.status)
        log = self.gateway.access_log
        if log is not None and log.wants(refusal.status):
            connection = self.connection
            said: dict[str, object] = {"status": refusal.status, "code": refusal.code, "protocol": "grpc"}
            log.write(entry_of(None, request_id, connection.peer, connection.client_name, b"", said))
        self.refuse(refusal, ((b"x-request-id", request_id.encode()),))

    def end(self, status: int, sentence: str = "", fields: Iterable[Field] = ()) -> None:
        self.finish(b"", b"", self._begin_block() + grpc.trailers(status, sentence, fields))

    def finish(self, begin: bytes, data: bytes, trailers: bytes) -> None:
        """`begin`: a frame; `trailers`: a header block."""
        if self.is_over:
            return
        tail = http2.frame(http2.HEADERS, http2.END_HEADERS | http2.END_STREAM, self.id, trailers)
        self.connection.send(self, begin, data, tail)
        self.on_sent()

    def fault(self, exc: Exception) -> None:
        """An exception of ours in the work on this request."""
        self.gateway.fault(exc, "")
        self.refuse_unrouted(errors.fault())

    def on_sent(self) -> None:
        if self.is_over:
            self._hold(0)

    # steps

    def _begin(self) -> bytes:
        """The frame that begins an answer, once."""
        block = self._begin_block()
        return http2.frame(http2.HEADERS, http2.END_HEADERS, self.id, block) if block else b""

    def _begin_block(self) -> bytes:
        if self._is_begun:
            return b""
        self._is_begun = True
        return grpc.ANSWER

    def _hold(self, size: int) -> bool:
        """Counts the bytes that are kept of the request, now `size` in all."""
        size = size if size > UNCOUNTED_BYTES else 0
        more = size - self._held_bytes
        if more < 0:
            self.gateway.memory.give(-more)
        elif more and not self.gateway.memory.take(more):
            return False
        self._held_bytes = size
        return True
