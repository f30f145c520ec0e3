"""ModelStreamInfer: a stream of inferences, each answered by one message or by several, in the order of the requests.

Several are under way at a time, and what a later one answered waits for those before it. An inference that fails is
answered with an error message, and the stream goes on. Whether a model streams its answer is the replica's affair: all
are asked for a streamed one.
"""

from __future__ import annotations

import time
from collections import deque
from math import inf
from typing import Final

from router.core import errors, grpc, oip
from router.core.errors import ProtocolError, Refusal
from router.core.grpc import Head
from router.proto.call import AHEAD_BYTES, Call, StreamedCall
from router.proto.http2 import Http2Connection
from router.proto.stream import RpcStream

# So many requests of a stream are under way; the next ones wait in its window.
AHEAD: Final = 32


class StreamMethod(RpcStream):
    """One stream of inferences."""

    __slots__ = ("_calls", "_has_all", "_is_busy", "_is_draining")

    is_of_model = True

    def __init__(self, connection: Http2Connection, id_: int, head: Head) -> None:
        super().__init__(connection, id_, head)
        self.until = self.arrived + head.timeout_s if head.timeout_s else inf
        self._calls: deque[StreamedCall] = deque()
        self._has_all = False  # no more requests come
        self._is_busy = False  # what is called here may call us again
        self._is_draining = False

    def take_messages(self, is_end: bool) -> None:
        self._has_all = is_end
        self._go_on()

    def on_begin(self, is_end: bool) -> None:
        super().on_begin(is_end)
        self.deadline = self.until  # nobody has to say anything

    def on_sent(self) -> None:
        super().on_sent()
        self._go_on()

    def on_draining(self) -> None:
        self._is_draining = True
        self._go_on()

    def on_reset(self) -> None:
        super().on_reset()
        calls, self._calls = self._calls, deque()
        for call in calls:
            call.cancel()

    def on_deadline(self, now: float) -> None:
        if not self.out and now >= self.until:
            self.refuse_unrouted(errors.body_deadline())
            self.on_reset()
        else:
            super().on_deadline(now)

    # called by the calls

    def answered(self, call: Call) -> None:
        assert isinstance(call, StreamedCall)
        refusal = call.refusal or (None if call.is_streamed else call.said())
        if refusal is not None:
            call.add(oip.stream_error(refusal.text, call.asked))
        self._go_on()

    def goes_on(self, call: Call) -> None:  # noqa: ARG002
        self._go_on()

    # steps

    def _go_on(self) -> None:
        if self._is_busy or self.is_over or self.tail:
            return
        self._is_busy = True
        try:
            while self._begin_calls() or self._write_answers():
                pass
            self._end_if_done()
        except ProtocolError as error:
            self._stop(error.refusal)
        except Exception as exc:
            self._stop(errors.fault())
            self.gateway.fault(exc, "")
        finally:
            self._is_busy = False

    def _begin_calls(self) -> bool:
        """Sends requests on their way. True: there was one."""
        has_begun = False
        while len(self._calls) < AHEAD and not self._is_draining and (message := self.reader.next()) is not None:
            self._begin_call(message)
            has_begun = True
        if len(self._calls) < AHEAD and not self.is_ended:
            if self.reader.size:
                self.await_more(self.until)
            else:
                self.deadline = self.until
                self.connection.grant(self)
        return has_begun

    def _begin_call(self, message: bytearray) -> None:
        asked = oip.read_infer(message)
        request = self.gateway.heads.request(self, b"POST", asked, b"/infer_stream")
        call = StreamedCall(self.gateway, self, request, self.connection.peer, self.connection.client_name)
        call.asked = asked
        self._calls.append(call)
        now = time.monotonic()
        call.start(message, now, self.until - now if self.until < inf else 0.0)

    def _write_answers(self) -> bool:
        """Sends what is answered, as long as its turn has come. True: a request is answered to its end."""
        while self._calls and self.out_bytes < AHEAD_BYTES and not self.is_over:
            call = self._calls[0]
            message = call.take()
            if message is not None:
                self.write(message)
            elif call.is_over:
                self._calls.popleft().let_go()
                return True
            else:
                return False
        return False

    def _end_if_done(self) -> None:
        if self._calls:
            return
        if self._has_all and self.reader.size:
            raise grpc.cut_off()
        if self._has_all:
            self.end(oip.OK)
        elif self._is_draining:
            self.refuse(Refusal(503, "NOT_READY", "the gateway hands over to another; open the stream again"))

    def _stop(self, refusal: Refusal) -> None:
        """The stream cannot go on."""
        self.refuse_unrouted(refusal)
        self.on_reset()
