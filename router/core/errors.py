"""The error table: every way in which the gateway itself answers a request with no.

Owns the codes, their status and their sentences. A `Refusal` is a value, built where the rule is and answered by
`proto/downstream.py`; `ProtocolError` carries one out of the parsers. A sentence says what was met, the rule, and
what to do; it never holds a body, a key or more than a few bytes of what was sent.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass

from router.contract import RateLimit

# Made once: `json.dumps` with an option makes an encoder for each call, which was half of a refusal's cost.
_encode = json.JSONEncoder(ensure_ascii=False).encode
# Names of models and versions are listed in a 404 only while a person can read them all.
FEW_NAMES = 20

STATUS_TEXT = {
    200: b"OK",
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    413: b"Content Too Large",
    414: b"URI Too Long",
    417: b"Expectation Failed",
    429: b"Too Many Requests",
    426: b"Upgrade Required",
    431: b"Request Header Fields Too Large",
    499: b"Client Closed Request",
    500: b"Internal Server Error",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
    505: b"HTTP Version Not Supported",
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """One answer of the error table. `retry_after_s` above zero becomes a `retry-after` field, and 401 brings
    `www-authenticate`."""

    status: int
    code: str
    text: str
    retry_after_s: int = 0

    def body(self, request_id: str) -> bytes:
        answer = {"error": self.text, "code": self.code, "request_id": request_id}
        return _encode(answer).encode()


class ProtocolError(Exception):
    """The peer sent what must not be passed on. A client gets `refusal`; of a replica it is the reason of a 502."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.text)
        self.refusal = refusal


def bad_request(text: str) -> Refusal:
    return Refusal(400, "BAD_REQUEST", text)


def malformed(text: str, status: int = 400, code: str = "BAD_REQUEST") -> ProtocolError:
    return ProtocolError(Refusal(status, code, text))


def too_large(status: int, what: str, limit: int) -> Refusal:
    """`status` is 413 (body), 414 (target) or 431 (head); `limit` is in the unit that `what` names."""
    return Refusal(status, "TOO_LARGE", f"{what}; the gateway takes at most {limit}; send less or raise the limit")


def unauthenticated(text: str) -> Refusal:
    return Refusal(401, "UNAUTHENTICATED", text)


def forbidden(key: str, model: str) -> Refusal:
    """The same whether there is such a model or not."""
    text = f"key {key!r} may not ask for model {model[:80]!r}; use a key that may, or ask for it to be allowed"
    return Refusal(403, "FORBIDDEN", text)


def rate_limited(whose: str, limit: RateLimit, wait_s: float) -> Refusal:
    wait_ms = max(1, math.ceil(wait_s * 1000))
    text = f"{whose}: more than {limit.requests_per_s:g} requests/s (with a burst of {limit.burst}) were sent; "
    return Refusal(429, "RATE_LIMITED", text + f"try again in {wait_ms} ms", max(1, math.ceil(wait_s)))


def too_many_at_a_time(key: str, limit: int) -> Refusal:
    text = f"key {key!r}: {limit} requests are in flight or queued, its most at a time; wait for one to end"
    return Refusal(429, "RATE_LIMITED", text, 1)


def path_not_found(path: str) -> Refusal:
    return Refusal(
        404,
        "NOT_FOUND",
        f"path {path[:80]!r} is not served; use /v2/models/MODEL/infer, /v1/models/MODEL:predict or /models/MODEL/…",
    )


def model_not_found(name: str, known: Iterable[str]) -> Refusal:
    return Refusal(404, "MODEL_NOT_FOUND", f"model {name[:80]!r} is not served here; {_names('models', known)}")


def version_not_found(model: str, version: str, known: Iterable[str]) -> Refusal:
    text = f"model {model!r} has no version {version[:80]!r}; {_names('versions', known)}"
    return Refusal(404, "VERSION_NOT_FOUND", text)


def label_not_found(model: str, label: str, known: Iterable[str]) -> Refusal:
    text = f"model {model!r} has no label {label[:80]!r}; {_names('labels', known)}"
    return Refusal(404, "VERSION_NOT_FOUND", text)


def takes_no_traffic(model: str, known: Iterable[str]) -> Refusal:
    text = f"model {model!r} has no version with traffic; name one in the path or in x-model-version; "
    return Refusal(404, "VERSION_NOT_FOUND", text + _names("versions", known))


def not_ready(model: str, version: str, reason: str) -> Refusal:
    text = f"model {model!r} version {version!r} has no ready replica: {reason or 'none is running'}; try again later"
    return Refusal(503, "NOT_READY", text, retry_after_s=2)


def is_asleep(model: str) -> Refusal:
    """The answer to who asks whether a sleeping version is ready, which must not wake it: a request would be answered.
    No refusal but a word of the gateway's own in place of a replica's."""
    return Refusal(200, "ASLEEP", model)


def no_table() -> Refusal:
    return Refusal(503, "NOT_READY", "the gateway has no routing table yet; try again in a moment", retry_after_s=1)


def overloaded(model: str, version: str, queue_max: int) -> Refusal:
    text = f"model {model!r} version {version!r}: all {queue_max} places in the queue are taken; try again later"
    return Refusal(503, "OVERLOADED", text, retry_after_s=1)


def gave_way(model: str, version: str, queue_max: int) -> Refusal:
    text = f"model {model!r} version {version!r}: all {queue_max} places in the queue are taken, most of them by "
    return Refusal(503, "OVERLOADED", text + "this caller: it gave way to another; send fewer at a time", 1)


def cannot_make_it(model: str, version: str, wait_s: float, left_s: float) -> Refusal:
    text = f"model {model!r} version {version!r}: the queue takes about {wait_s * 1000:.0f} ms and the request has "
    text += f"{max(0.0, left_s) * 1000:.0f} ms left; try again later or allow more time"
    return Refusal(503, "OVERLOADED", text, retry_after_s=max(1, math.ceil(wait_s)))


def connections_taken(limit: int) -> Refusal:
    return Refusal(503, "OVERLOADED", f"all {limit} connections of this gateway are taken; try again later", 1)


def connections_of_address_taken(origin: str, limit: int) -> Refusal:
    return Refusal(503, "OVERLOADED", f"{origin} has {limit} connections open; close some, or share them", 1)


def memory_taken(limit_bytes: int) -> Refusal:
    text = f"the bodies that wait in this gateway take all of its {limit_bytes} bytes for them; try again later"
    return Refusal(503, "OVERLOADED", text, 1)


def plain_http() -> Refusal:
    return Refusal(400, "BAD_REQUEST", "this port speaks TLS; ask it with https:// instead of http://")


def no_websocket(model: str, version: str) -> Refusal:
    text = f"upgrade to websocket: model {model!r} version {version!r} is not set to take it; "
    return Refusal(501, "NOT_SUPPORTED", text + "use a streamed answer, or set `websocket: true` for the version")


def no_websocket_path() -> Refusal:
    text = "upgrade to websocket: only /models/MODEL/… carries it; use a streamed answer here"
    return Refusal(501, "NOT_SUPPORTED", text)


def queue_timeout(model: str, version: str, waited_s: float, absence: str = "") -> Refusal:
    """`absence`: why there is no replica at all."""
    text = f"model {model!r} version {version!r}: no replica was free within {waited_s * 1000:.0f} ms in the queue"
    if absence:
        text += f" ({absence})"
    return Refusal(504, "DEADLINE", text + "; try again later or allow more time")


def too_late(model: str, version: str, left_s: float, service_s: float) -> Refusal:
    text = f"model {model!r} version {version!r}: {max(0.0, left_s) * 1000:.0f} ms were left after the queue and the "
    return Refusal(504, "DEADLINE", text + f"model takes {service_s * 1000:.0f} ms; try again later or allow more time")


def model_timeout(model: str, version: str, took_s: float) -> Refusal:
    text = f"model {model!r} version {version!r}: no whole answer within {took_s * 1000:.0f} ms in the model"
    return Refusal(504, "DEADLINE", text + "; allow more time with x-request-timeout-ms")


def connect_timeout(model: str, version: str, took_s: float) -> Refusal:
    text = f"model {model!r} version {version!r}: no replica could be reached within {took_s * 1000:.0f} ms"
    return Refusal(504, "DEADLINE", text + "; try again later or allow more time")


def head_timeout(limit_s: float) -> Refusal:
    text = f"the request's head was not complete within {limit_s:g} s; send it faster"
    return Refusal(408, "REQUEST_TIMEOUT", text)


def body_timeout(limit_s: float) -> Refusal:
    text = f"no byte of the request's body came for {limit_s:g} s before it was complete; send it faster"
    return Refusal(408, "REQUEST_TIMEOUT", text)


def body_deadline() -> Refusal:
    text = "the request's time ran out before its body was complete; send it faster or allow more time"
    return Refusal(408, "REQUEST_TIMEOUT", text)


def replica_failed(model: str, version: str, reason: str) -> Refusal:
    text = f"model {model!r} version {version!r}: the replica failed: {reason}; try again"
    return Refusal(502, "REPLICA_FAILED", text)


def fault() -> Refusal:
    text = "the gateway failed on this request; that is a fault in the gateway, and its log has the details; try again"
    return Refusal(500, "GATEWAY_FAILED", text)


def _names(kind: str, known: Iterable[str]) -> str:
    names = sorted(known)
    if not names:
        return f"there are no {kind}"
    if len(names) > FEW_NAMES:
        return f"it is not among the {len(names)} {kind}"
    return f"{kind}: {', '.join(names)}"
