"""The Open Inference Protocol over gRPC: its methods, and the messages that the gateway reads or writes itself.

Owns the numbers of fields and of gRPC's statuses, and which answer of HTTP becomes which status. An inference request
is passed on as it came; only its first fields are read here. Pure.
https://github.com/kserve/open-inference-protocol, https://github.com/triton-inference-server/common
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from router.core import protobuf
from router.core.errors import Refusal, malformed

SERVICE: Final = "inference.GRPCInferenceService"
HEALTH: Final = "grpc.health.v1.Health"

# Statuses of gRPC: https://grpc.github.io/grpc/core/md_doc_statuscodes.html
OK: Final = 0
CANCELLED: Final = 1
UNKNOWN: Final = 2
INVALID_ARGUMENT: Final = 3
DEADLINE_EXCEEDED: Final = 4
NOT_FOUND: Final = 5
PERMISSION_DENIED: Final = 7
RESOURCE_EXHAUSTED: Final = 8
UNIMPLEMENTED: Final = 12
INTERNAL: Final = 13
UNAVAILABLE: Final = 14
UNAUTHENTICATED: Final = 16

# By the status that the same request would have had over HTTP, as Google's APIs do (google/rpc/code.proto).
_STATUS: Final = {
    400: INVALID_ARGUMENT, 401: UNAUTHENTICATED, 403: PERMISSION_DENIED, 404: NOT_FOUND, 405: UNIMPLEMENTED,
    408: DEADLINE_EXCEEDED, 413: RESOURCE_EXHAUSTED, 414: INVALID_ARGUMENT, 415: UNIMPLEMENTED,
    422: INVALID_ARGUMENT, 429: RESOURCE_EXHAUSTED, 431: RESOURCE_EXHAUSTED, 499: CANCELLED, 500: INTERNAL,
    501: UNIMPLEMENTED, 502: UNAVAILABLE, 503: UNAVAILABLE, 504: DEADLINE_EXCEEDED,
}  # fmt: skip

MESSAGE: Final = b"application/x-protobuf"
# Frames of a big-endian length of four bytes and a ModelStreamInferResponse each.
MESSAGES: Final = b"application/x-protobuf-stream"

_SERVING: Final = 1
_NOT_SERVING: Final = 2


class Asked(NamedTuple):
    """What a message asks for: the first three fields of ModelInferRequest, the first two of ModelReadyRequest and
    ModelMetadataRequest."""

    model: str
    version: str
    id: str = ""


def status_of(http_status: int) -> int:
    return _STATUS.get(http_status, INVALID_ARGUMENT if 400 <= http_status < 500 else UNKNOWN)


def read_infer(message: bytes | bytearray) -> Asked:
    """Raises `ProtocolError`."""
    return _named(Asked(*protobuf.texts(message, 3)))


def read_model(message: bytes | bytearray) -> Asked:
    """Raises `ProtocolError`."""
    return _named(Asked(*protobuf.texts(message, 2)))


def _named(asked: Asked) -> Asked:
    if not asked.model:
        raise malformed("model_name: it is empty; every request names its model; set it")
    return asked


def live(value: bool) -> bytes:
    """ServerLiveResponse; ServerReadyResponse and ModelReadyResponse are the same."""
    return protobuf.integer(1, value)


def server_metadata(name: str, version: str, extensions: Iterable[str]) -> bytes:
    return protobuf.text(1, name) + protobuf.text(2, version) + b"".join(protobuf.text(3, each) for each in extensions)


def model_metadata(body: bytes) -> bytes:
    """ModelMetadataResponse out of the metadata that the replica gives as JSON. Raises `ProtocolError`."""
    try:
        found = msgspec.json.decode(body, type=_Metadata)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise malformed(f"its metadata is not the Open Inference Protocol's: {exc}") from exc
    return b"".join(
        (
            protobuf.text(1, found.name),
            *(protobuf.text(2, version) for version in found.versions or ()),
            protobuf.text(3, found.platform),
            *(protobuf.message(4, _tensor(tensor)) for tensor in found.inputs),
            *(protobuf.message(5, _tensor(tensor)) for tensor in found.outputs),
        )
    )


class _Tensor(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]


class _Metadata(msgspec.Struct):
    name: str
    platform: str = ""
    versions: list[str] | None = None
    inputs: list[_Tensor] = []
    outputs: list[_Tensor] = []


def _tensor(tensor: _Tensor) -> bytes:
    return protobuf.text(1, tensor.name) + protobuf.text(2, tensor.datatype) + protobuf.integers(3, tensor.shape)


def read_index(message: bytes | bytearray) -> bool:
    """RepositoryIndexRequest: whether only what is ready is asked for. Raises `ProtocolError`."""
    ready = False
    for number, value in protobuf.fields(message):
        if number == 2 and isinstance(value, int):
            ready = bool(value)
    return ready


def index(body: bytes) -> bytes:
    """RepositoryIndexResponse out of the index as the gateway gives it as JSON (`index.py`)."""
    return b"".join(protobuf.message(1, _entry(each)) for each in msgspec.json.decode(body, type=list[_Entry]))


class _Entry(msgspec.Struct):
    name: str
    version: str
    state: str
    reason: str


def _entry(entry: _Entry) -> bytes:
    texts = entry.name, entry.version, entry.state, entry.reason
    return b"".join(protobuf.text(at, text) for at, text in enumerate(texts, 1))


def stream_error(sentence: str, asked: Asked | None) -> bytes:
    """ModelStreamInferResponse that answers one request of a stream with no; its id says which."""
    answer = protobuf.text(1, asked.model) + protobuf.text(3, asked.id) if asked is not None else b""
    return protobuf.text(1, sentence) + protobuf.message(2, answer)


def health(message: bytes | bytearray, is_ready: bool) -> bytes | None:
    """HealthCheckResponse; None when the service asked for is none of ours. Raises `ProtocolError`."""
    (service,) = protobuf.texts(message, 1)
    if service not in ("", SERVICE, HEALTH):
        return None
    return protobuf.integer(1, _SERVING if is_ready else _NOT_SERVING)


def refusal_in(status: int, content_type: bytes, body: bytes, model: str, version: str) -> Refusal:
    """What a replica answered instead of a message, as a refusal."""
    try:
        said = msgspec.json.decode(body, type=_Said)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _not_understood(status, content_type, model, version)
    return Refusal(status, said.code, said.error)


class _Said(msgspec.Struct):
    """Every error of a model server of ours (docs/BEHAVIOUR.md)."""

    error: str
    code: str


def _not_understood(status: int, content_type: bytes, model: str, version: str) -> Refusal:
    """An image of the user's own, most likely."""
    what = f"model {model!r} version {version!r}: its replica answered {status} ({content_type[:60].decode('latin-1')})"
    if status >= 500:
        return Refusal(status, "REPLICA_FAILED", f"{what}; try again")
    told = "it takes no protobuf, as an image of its own may; ask it over HTTP"
    return Refusal(415 if status in (200, 404, 405, 415) else 400, "NOT_SUPPORTED", f"{what} to a gRPC request: {told}")


class FrameReader:
    """Cuts the messages of a streamed answer out of its bytes."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._held = bytearray()

    @property
    def is_between(self) -> bool:
        return not self._held

    @property
    def size(self) -> int:
        return len(self._held)

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are whole now. Raises `ProtocolError`."""
        held = self._held
        held += data
        found: list[bytes] = []
        at = 0
        while len(held) - at >= 4:
            length = int.from_bytes(held[at : at + 4], "big")
            if length > self._most_bytes:
                raise malformed(f"a message of its answer has {length} bytes; at most {self._most_bytes} are taken")
            if len(held) - at - 4 < length:
                break
            found.append(bytes(held[at + 4 : at + 4 + length]))
            at += 4 + length
        del held[:at]
        return found
