"""The methods of gRPC that the gateway serves: the Open Inference Protocol's, and the health of the gateway itself.

What is asked of a model becomes a request of HTTP/1.1 to its replica, as if it had come so: the metadata are its header
fields (`rpc_head.py`), an inference's message is its body, unread but for its first fields. So there is one way through
the gateway for both, and one server in a replica. What the gateway knows itself it answers itself. Streams of
inferences are `rpc_stream.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from router.core import errors, grpc, http2, oip
from router.core.errors import ProtocolError, Refusal
from router.core.grpc import Head
from router.core.hpack import Field
from router.core.keys import Caller
from router.core.oip import Asked
from router.core.target import Own
from router.proto.call import Call
from router.proto.http2 import Http2Connection, Stream
from router.proto.rpc_stream import StreamMethod
from router.proto.stream import RpcStream

Answer = Callable[[RpcStream, bytearray], bytes]


def open_stream(connection: Http2Connection, id_: int, fields: list[Field]) -> Stream:
    """What a request becomes."""
    try:
        head = grpc.read_head(fields)
    except grpc.Malformed:
        return _Malformed(connection, id_)
    method = _OF_MODELS.get(head.path)
    if method is not None:
        return method(connection, id_, head)
    own = _OWN.get(head.path)
    if own is not None:
        return OwnMethod(connection, id_, head, own)
    return RpcStream(connection, id_, head._replace(refusal=head.refusal or _unknown(head.path)))


def _unknown(path: bytes) -> Refusal:
    text = f"method {path[:80].decode('latin-1')!r} is not served; this gateway serves {oip.SERVICE} and {oip.HEALTH}"
    return Refusal(501, "NOT_SUPPORTED", text)


class _Malformed(Stream):
    """No request that HTTP/2 allows."""

    __slots__ = ()

    def on_begin(self, is_end: bool) -> None:  # noqa: ARG002
        self.connection.reset(self, http2.PROTOCOL_ERROR)


class UnaryMethod(RpcStream):
    """One message for one."""

    __slots__ = ()

    def take_messages(self, is_end: bool) -> None:
        if not is_end:
            self.await_more(self.until)
            return
        message = self.reader.next()
        if message is None or self.reader.size:
            raise grpc.cut_off()
        self.ask(message)

    def ask(self, message: bytearray) -> None:
        raise NotImplementedError


class OwnMethod(UnaryMethod):
    """What the gateway answers itself, out of the request's message."""

    __slots__ = ("_answer",)

    def __init__(self, connection: Http2Connection, id_: int, head: Head, answer: Answer) -> None:
        super().__init__(connection, id_, head)
        self._answer = answer

    def ask(self, message: bytearray) -> None:
        self.answer(self._answer(self, message))


def _live(stream: RpcStream, _message: bytearray) -> bytes:
    return oip.live(stream.gateway.answer_own(Own.LIVE)[0] == 200)


def _ready(stream: RpcStream, _message: bytearray) -> bytes:
    return oip.live(stream.gateway.answer_own(Own.READY)[0] == 200)


def _about(stream: RpcStream, _message: bytearray) -> bytes:
    return oip.server_metadata(**stream.gateway.about())


def _health(stream: RpcStream, message: bytearray) -> bytes:
    answer = oip.health(message, stream.gateway.answer_own(Own.READY)[0] == 200)
    if answer is None:
        text = f"the health of {oip.SERVICE}, or of the gateway ('') can be asked for; name one of them"
        raise ProtocolError(Refusal(404, "NOT_FOUND", text))
    return answer


def _index(stream: RpcStream, message: bytearray) -> bytes:
    caller = stream.caller()
    answer = stream.gateway.index_for(caller, b'{"ready": true}' if oip.read_index(message) else b"")
    if isinstance(caller, Caller):
        caller.told(answer.status if isinstance(answer, Refusal) else 200)
    if isinstance(answer, Refusal):
        raise ProtocolError(answer)
    return oip.index(answer)


class ModelMethod(UnaryMethod):
    """What a model's replica answers."""

    __slots__ = ("_call",)

    is_of_model = True

    def __init__(self, connection: Http2Connection, id_: int, head: Head) -> None:
        super().__init__(connection, id_, head)
        self._call: Call | None = None

    def start(self, verb: bytes, asked: Asked, tail: bytes, body: bytes | bytearray = b"") -> None:
        request = self.gateway.heads.request(self, verb, asked, tail)
        call = self._call = Call(self.gateway, self, request, self.connection.peer, self.connection.client_name)
        call.start(body, self.arrived, self.head.timeout_s)

    def reply(self, call: Call) -> bytes | Refusal:
        """What a whole answer of a replica means."""
        raise NotImplementedError

    def on_reset(self) -> None:
        super().on_reset()
        if self._call is not None:
            self._call.cancel()

    def on_sent(self) -> None:
        super().on_sent()
        self._let_go()

    # called by the call

    def answered(self, call: Call) -> None:
        try:
            reply = call.refusal or self.reply(call)
            if isinstance(reply, Refusal):
                self.refuse(reply, call.fields)
            else:
                self.answer(reply, call.fields)
        except Exception as exc:
            self.fault(exc)
        self._let_go()

    def goes_on(self, call: Call) -> None: ...

    def _let_go(self) -> None:
        if self.is_over and self._call is not None:
            self._call.let_go()
            self._call = None


class ModelInfer(ModelMethod):
    __slots__ = ()

    def ask(self, message: bytearray) -> None:
        self.start(b"POST", oip.read_infer(message), b"/infer", message)

    def reply(self, call: Call) -> bytes | Refusal:
        if call.status == 200 and call.content_type == oip.MESSAGE:
            return call.body()
        return call.said()


class ModelMetadata(ModelMethod):
    __slots__ = ()

    def ask(self, message: bytearray) -> None:
        self.start(b"GET", oip.read_model(message), b"")

    def reply(self, call: Call) -> bytes | Refusal:
        if call.status != 200:
            return call.said()
        try:
            return oip.model_metadata(call.body())
        except ProtocolError as error:
            return errors.replica_failed(call.model, call.version, error.refusal.text)


class ModelReady(ModelMethod):
    """A model that is known and not ready is no error here."""

    __slots__ = ()

    def ask(self, message: bytearray) -> None:
        self.start(b"GET", oip.read_model(message), b"/ready")

    def answered(self, call: Call) -> None:
        refusal = call.refusal
        if refusal is not None and refusal.code in ("NOT_READY", "ASLEEP"):
            call.refusal, call.status = None, refusal.status
        super().answered(call)

    def reply(self, call: Call) -> bytes | Refusal:
        return oip.live(call.status == 200) if call.status in (200, 503) else call.said()


_OWN: Final[dict[bytes, Answer]] = {
    f"/{oip.SERVICE}/ServerLive".encode(): _live,
    f"/{oip.SERVICE}/ServerReady".encode(): _ready,
    f"/{oip.SERVICE}/ServerMetadata".encode(): _about,
    f"/{oip.SERVICE}/RepositoryIndex".encode(): _index,
    f"/{oip.HEALTH}/Check".encode(): _health,
}
_OF_MODELS: Final[dict[bytes, type[RpcStream]]] = {
    f"/{oip.SERVICE}/ModelReady".encode(): ModelReady,
    f"/{oip.SERVICE}/ModelMetadata".encode(): ModelMetadata,
    f"/{oip.SERVICE}/ModelInfer".encode(): ModelInfer,
    f"/{oip.SERVICE}/ModelStreamInfer".encode(): StreamMethod,
}
