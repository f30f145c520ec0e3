"""A request's head with all that follows from it alone: where it goes, what the replica is sent, which limits it names.

Made once for equal heads of one connection. It must hold nothing that another request of the same bytes may not share.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from router.config import Limits
from router.core import errors, framing, rewrite, websocket
from router.core.errors import ProtocolError, Refusal
from router.core.framing import RequestHead
from router.core.keys import Caller, Keyring
from router.core.target import Own, Target, read_target
from router.core.trace_context import TRACESTATE_BYTES, valid_traceparent

_SANE_ID: Final = re.compile(rb"[A-Za-z0-9._:/+=@\-]{1,128}")
# Up to 11 days: longer than any deadline that means something, and far from any overflow.
_TIMEOUT: Final = re.compile(rb"[0-9]{1,9}")
# What a stranger may send before it is told no: as much as is taken in of what a client sends ahead.
SHORT_BYTES: Final = 65_536


@dataclass(slots=True)
class Request:
    """Never changed once it is made: not frozen, since that makes it slower to make, and no named tuple, since those
    are slower to read, 25 times a request.

    `target` is a refusal when the path or a field is wrong: it is answered after the body was read."""

    raw: bytes
    method: bytes
    minor: int
    target: Target | Own | Refusal
    prefix: bytes
    content_length: int  # -1: chunked
    keep_alive: bool
    expects_continue: bool
    path: bytes  # as the client asked
    request_id: str  # "": the gateway makes one
    traceparent: bytes  # "": the gateway makes one
    tracestate: str  # that came with it
    timeout_s: float  # 0: the version's
    pin: str
    is_batch: bool
    is_readiness: bool
    is_status: bool  # of TensorFlow Serving's protocol, which a replica knows of its own version alone
    caller: Caller | Refusal | None  # None: no key was given, and none is needed
    keys_revision: int  # of the keyring that says so
    is_asked_first: bool  # whether its body is wanted is said before it is taken in
    handshake: bytes | Refusal | None  # None: no WebSocket is asked for; see `core/websocket.py`


def prepare(raw: bytes, limits: Limits, peer: bytes, scheme: bytes, keyring: Keyring) -> Request:
    """Raises `ProtocolError` when the framing is not beyond doubt."""
    head = framing.parse_request(raw, limits.fields)
    if len(head.path) + len(head.query) > limits.target_bytes:
        raise ProtocolError(errors.too_large(414, "the request target is too long", limits.target_bytes))
    read = head.read
    handshake = websocket.read_handshake(head) if websocket.is_asked(head) else None
    target = _read_target(head, handshake)
    caller = keyring.identify(read)
    path = target.path if isinstance(target, Target) else head.path
    request_id = read.get(b"x-request-id", b"")
    traceparent = valid_traceparent(read.get(b"traceparent", b""))
    tracestate = read.get(b"tracestate", b"")
    withheld = keyring.withheld(read)
    if tracestate and not traceparent:  # W3C Trace Context, section 4.3: it belongs to a trace that is not gone on with
        withheld = (*withheld, b"tracestate")
    return Request(
        raw=raw,
        method=head.method,
        minor=head.minor,
        target=target,
        prefix=rewrite.request_prefix(head, path, peer, scheme, withheld),
        content_length=-1 if head.chunked else head.content_length,
        keep_alive=head.keep_alive,
        expects_continue=head.expects_continue,
        request_id=request_id.decode() if _SANE_ID.fullmatch(request_id) else "",
        path=head.path,
        traceparent=traceparent,
        tracestate=tracestate.decode("latin-1") if traceparent and len(tracestate) <= TRACESTATE_BYTES else "",
        timeout_s=_timeout_s(read.get(b"x-request-timeout-ms")),
        pin=read.get(b"x-model-version", b"").decode("latin-1"),
        is_batch=read.get(b"x-priority", b"").lower() == b"batch",
        is_readiness=path.startswith(b"/v2/models/") and path.endswith(b"/ready"),
        is_status=isinstance(target, Target) and target.is_status and head.method in (b"GET", b"HEAD"),
        caller=caller,
        keys_revision=keyring.revision,
        is_asked_first=head.expects_continue or (caller is not None and not _is_short(head)),
        handshake=handshake,
    )


def _read_target(head: RequestHead, handshake: bytes | Refusal | None) -> Target | Own | Refusal:
    timeout = head.read.get(b"x-request-timeout-ms")
    if timeout is not None and _timeout_s(timeout) == 0:
        return errors.bad_request(
            f"x-request-timeout-ms {timeout[:20].decode('latin-1')!r}: it is not a whole number of milliseconds "
            "from 1 to 999999999; correct it or leave it out"
        )
    if handshake is not None and not head.path.startswith(b"/models/"):
        return errors.no_websocket_path()
    if isinstance(handshake, Refusal) and (head.chunked or head.content_length):
        return handshake
    try:
        return read_target(head.path)
    except ProtocolError as error:
        return error.refusal


def _is_short(head: RequestHead) -> bool:
    """Its body may be taken in although nobody knows yet whether it may come, and the connection goes on."""
    return not head.chunked and head.content_length <= SHORT_BYTES


def _timeout_s(value: bytes | None) -> float:
    if value is None or not _TIMEOUT.fullmatch(value):
        return 0.0
    return int(value) / 1000
