"""What each side is sent: heads rebuilt from parsed parts, never copied.

Owns the bytes of the upstream request and of the downstream response. The part that depends on the peer's head alone is
made once and kept beside the parsed head; what differs for each request is added in one format.
"""

from __future__ import annotations

from typing import Final

from router.core.errors import STATUS_TEXT, Refusal
from router.core.framing import RequestHead, ResponseHead

LAST_CHUNK: Final = b"0\r\n\r\n"
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


# HTTP/1.1 requires a Host where the HTTP/1.0 client sent none.
_NO_HOST: Final = b"modelfleet"


def request_prefix(
    head: RequestHead, path: bytes, peer: bytes, scheme: bytes, withheld: tuple[bytes, ...] = ()
) -> bytes:
    """The request line and all fields but those of `request` and the `withheld` ones (lower-case names)."""
    forwarded = head.read.get(b"x-forwarded-for")
    lines = [
        b"%b %b%b HTTP/1.1" % (head.method, path, head.query),
        b"host: " + (head.host or _NO_HOST),
        *(_without(head.fields, withheld) if withheld else head.fields),
        b"x-forwarded-for: " + (forwarded + b", " + peer if forwarded else peer),
        b"x-forwarded-proto: " + scheme,
        b"",
    ]
    return b"\r\n".join(lines)


def _without(fields: tuple[bytes, ...], names: tuple[bytes, ...]) -> list[bytes]:
    return [line for line in fields if line.partition(b":")[0].lower() not in names]


def request(
    prefix: bytes,
    request_id: bytes,
    traceparent: bytes,
    left_ms: int,
    length: int,
    method: bytes,
    body: bytes | bytearray,
) -> bytes:
    """A request in one piece: the fields of its head in `prefix`, its own, and what there is of its body. `length` -1
    announces chunks."""
    if length < 0:
        framing = b"transfer-encoding: chunked\r\n"
    elif length or method in (b"POST", b"PUT", b"PATCH"):
        framing = b"content-length: %d\r\n" % length
    else:
        framing = b""
    return b"%bx-request-id: %b\r\ntraceparent: %b\r\nx-request-timeout-ms: %d\r\n%b\r\n%b" % (  # type: ignore[str-format]  # a bytearray too
        prefix, request_id, traceparent, left_ms, framing, body,
    )  # fmt: skip


def upgrade_suffix(request_id: bytes, traceparent: bytes) -> bytes:
    """Of a request for a WebSocket; its deadline ends with the handshake, so the replica is told none."""
    return b"x-request-id: %b\r\ntraceparent: %b\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n" % (
        request_id, traceparent,
    )  # fmt: skip


def switched(head: ResponseHead, request_id: bytes, version: bytes) -> bytes:
    """A 101, rebuilt."""
    own = b"x-request-id: %b\r\nx-model-version: %b\r\n" % (request_id, version)
    return response_prefix(head) + b"connection: Upgrade\r\nupgrade: websocket\r\n" + own + b"\r\n"


def response_prefix(head: ResponseHead) -> bytes:
    """The status line and the replica's fields."""
    return b"\r\n".join((b"HTTP/1.1 %d %b" % (head.status, head.reason), *head.fields, b""))


def interim(head: ResponseHead) -> bytes:
    """A 1xx answer, rebuilt."""
    return response_prefix(head) + b"\r\n"


def response(
    prefix: bytes,
    request_id: bytes,
    version: bytes,
    queue_s: float,
    model_s: float,
    framing: bytes,
    connection: bytes,
    body: bytes,
) -> bytes:
    """The whole answer, or its beginning: the replica's fields in `prefix`, the gateway's own, and what there is of the
    body, in one piece. `framing` and `connection` are whole lines or empty."""
    return b"%bx-request-id: %b\r\nx-model-version: %b\r\nserver-timing: queue;dur=%b, model;dur=%b\r\n%b%b\r\n%b" % (
        prefix, request_id, version, _duration_ms(queue_s), _duration_ms(model_s), framing, connection, body,
    )  # fmt: skip


# Formatting a float takes longer than all the rest of the line: short times are looked up.
_SHORT_COUNT: Final = 2_000
_SHORT: Final = tuple(b"%.2f" % (hundredths / 100) for hundredths in range(_SHORT_COUNT))


def _duration_ms(seconds: float) -> bytes:
    hundredths = int(seconds * 100_000 + 0.5)
    return _SHORT[hundredths] if hundredths < _SHORT_COUNT else b"%.2f" % (seconds * 1000)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def refusal_response(refusal: Refusal, request_id: str, *, is_head: bool, connection: bytes) -> bytes:
    extra = b"retry-after: %d\r\n" % refusal.retry_after_s if refusal.retry_after_s else b""
    if refusal.status == 401:  # RFC 9110 section 15.5.2: it must say which scheme is wanted
        extra = b"www-authenticate: Bearer\r\n"
    if refusal.status == 426:  # RFC 6455 section 4.2.2, RFC 9110 section 15.5.22
        extra = b"sec-websocket-version: 13\r\nupgrade: websocket\r\n"
    body = refusal.body(request_id)
    return own_response(refusal.status, body, request_id, is_head=is_head, connection=connection, extra=extra)


def own_response(
    status: int, body: bytes, request_id: str, *, is_head: bool = False, connection: bytes = b"", extra: bytes = b""
) -> bytes:
    """An answer of the gateway itself: JSON, with its length."""
    return (
        b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\nx-request-id: %b\r\n%b%bcontent-length: %d\r\n\r\n%b"
        % (status, STATUS_TEXT[status], request_id.encode(), extra, connection, len(body), b"" if is_head else body)
    )
