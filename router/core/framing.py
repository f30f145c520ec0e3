"""Strict reading of HTTP/1.1 heads (RFC 9112), of clients and of replicas.

Owns the grammar: what a head may look like, how long its body is, which fields belong to one hop only. Whatever two
parsers could read in two ways is refused, never repaired; nothing in a returned head is unparsed. It is pure: bytes
in, a frozen head or `ProtocolError` out, so that a connection may remember the last head it parsed by its bytes.
Chunked bodies are in `chunked.py`, what is sent on to the other side in `rewrite.py`.
docs/decisions/0009-own-http-parser.md says why this is not llhttp; tests compare the two.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from router.core import errors
from router.core.errors import ProtocolError, malformed

# A response's head is bounded too: it is held whole. No model server comes near.
RESPONSE_HEAD_BYTES: Final = 65_536
RESPONSE_FIELDS: Final = 256
METHOD_BYTES: Final = 32
# Servers differ on what an unknown method means, some even on where it ends; nobody predicts with PROPFIND.
METHODS: Final = frozenset((b"DELETE", b"GET", b"HEAD", b"OPTIONS", b"PATCH", b"POST", b"PUT"))
# 18 digits stay below 2^63, so that no reader of ours or behind us can overflow.
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")

_TCHAR: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_VALUE: Final = rb"[\t\x20-\x7e\x80-\xff]"  # RFC 9110 section 5.5: no control byte but a tab
# Possessive quantifiers (++) never backtrack: time is linear in the head's length, whatever is sent. Never around a
# group: CPython before 3.11.5 keeps what a failed part of the group had taken (gh-106052): a broken end would pass.
_FIELDS: Final = rb"((?:" + _TCHAR + rb"++:" + _VALUE + rb"*+\r\n)*)"
_PATH: Final = rb"/[A-Za-z0-9\-._~!$&'()*+,;=:@%/]*+"
_QUERY: Final = rb"(?:\?[\x21\x22\x24-\x7e]*+)?"  # printable but '#': browsers send more here than RFC 3986 allows
_REQUEST: Final = re.compile(
    rb"(" + _TCHAR + rb"{1,32}+) (?:(?i:http)://([^/?#\x00-\x20\x7f-\xff]++)(?=[/?]))?"
    rb"(" + _PATH + _QUERY + rb") HTTP/1\.([01])\r\n" + _FIELDS
)
_RESPONSE: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: (" + _VALUE + rb"*+))?\r\n" + _FIELDS)
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9_\-]+(?:\.[A-Za-z0-9_\-]+)*\.?|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?")
_FIELD_LINE: Final = re.compile(rb"(" + _TCHAR + rb"+):" + _VALUE + rb"*")
_TOKEN: Final = re.compile(_TCHAR + rb"+")

# 4,096 remembered names of at most this take less than a megabyte; a sender could fill heads with long ones.
_REMEMBERED_NAME_BYTES: Final = 64

PASS: Final = 0  # goes on to the other side
DROP: Final = 1  # belongs to this hop
READ: Final = 2  # the gateway acts on it; `rewrite.py` writes its own where the other side needs one
REFUSE: Final = 3  # looks like a framing field to a lax reader
NOTE: Final = 4  # the gateway reads it, and it goes on to the other side
_KEPT: Final = (READ, NOTE)

# `Proxy` is of no hop: CGI-like replicas would take it for the environment's HTTP_PROXY (CVE-2016-5385).
_HOP_BY_HOP: Final = frozenset(
    b"keep-alive proxy-connection proxy-authorization proxy-authenticate te trailer http2-settings proxy".split()
)
_READ_IN_REQUESTS: Final = frozenset(
    b"host content-length transfer-encoding connection expect upgrade x-request-id x-request-timeout-ms "
    b"x-model-version x-modelfleet-shadow x-modelfleet-trace x-priority x-forwarded-for x-forwarded-proto "
    b"traceparent".split()
)
_NOTED: Final = frozenset(b"authorization x-api-key sec-websocket-key sec-websocket-version tracestate".split())
_READ_IN_RESPONSES: Final = frozenset(
    b"content-length transfer-encoding connection upgrade x-request-id x-model-version x-modelfleet-trace".split()
)


class RequestHead(NamedTuple):
    """A request's head, checked. `path` begins with `/`; `read` holds the fields the gateway acts on, by lower name."""

    method: bytes
    path: bytes
    query: bytes  # with its '?', or empty
    minor: int
    host: bytes  # empty only in HTTP/1.0
    fields: tuple[bytes, ...]  # `name: value` of what goes on to the replica
    read: dict[bytes, bytes]
    content_length: int  # 0 when there is no body
    chunked: bool
    keep_alive: bool
    expects_continue: bool


@dataclass(slots=True)
class ResponseHead:
    """A response's head, checked; never changed. `content_length` is -1 when the body has no announced length; one that
    was announced is among `fields`, so that the remembered bytes of a head hold it."""

    status: int
    reason: bytes
    fields: tuple[bytes, ...]
    content_length: int
    chunked: bool
    keep_alive: bool
    upgrade: bytes = b""  # of a 101: the protocol that it switches to
    told: bytes = b""  # of a request whose trace is recorded: how the replica made its answer


def parse_request(raw: bytes, max_fields: int) -> RequestHead:
    """Reads a head that ends with the CRLF of its last line (the empty line left out). Raises `ProtocolError`."""
    match = _REQUEST.fullmatch(raw)
    if match is None:
        raise _diagnose_request(raw)
    method, authority, target, minor, block = match.groups()
    if method not in METHODS:
        status = 405 if method in (b"CONNECT", b"TRACE") else 501
        known = b", ".join(sorted(METHODS)).decode()
        raise malformed(f"method {_show(method)}: it is not carried; use one of {known}", status, "NOT_SUPPORTED")
    fields, read = _read_fields(block, max_fields, _READ_IN_REQUESTS)
    path, mark, query = target.partition(b"?")
    is_chunked = _is_chunked(read, int(minor))
    options = read.get(b"connection", b"").lower()
    return RequestHead(
        method=method,
        path=path,
        query=mark + query,
        minor=int(minor),
        host=_host(read, authority, int(minor)),
        fields=fields,
        read=read,
        content_length=0 if is_chunked else _length(read, 0),
        chunked=is_chunked,
        keep_alive=_keeps_alive(options, int(minor)),
        expects_continue=_expects_continue(read, int(minor)),
    )


def parse_response(raw: bytes, is_head: bool) -> ResponseHead:
    """Reads a replica's head. `is_head`: the request was HEAD, so whatever length is announced, no body follows."""
    match = _RESPONSE.fullmatch(raw)
    if match is None:
        raise malformed(f"the replica's answer is not HTTP/1.1: it begins with {_show(raw)}")
    minor, status_text, reason, block = match.groups()
    fields, read = _read_fields(block, RESPONSE_FIELDS, _READ_IN_RESPONSES)
    status = int(status_text)
    if status < 200:
        _check_interim(status, minor, read)
        return ResponseHead(status, reason or b"", fields, 0, False, True, _upgrade(read))
    is_chunked = _is_chunked(read, int(minor))
    length = -1 if is_chunked else _length(read, -1)
    has_no_body = status in (204, 304)
    if length >= 0 and (is_head or not has_no_body):
        fields = (*fields, b"content-length: %d" % length)
    if is_head or has_no_body:
        length, is_chunked = 0, False
    alive = _keeps_alive(read.get(b"connection", b"").lower(), int(minor))
    told = read.get(b"x-modelfleet-trace", b"")
    return ResponseHead(
        status, reason or b"", fields, length, is_chunked, alive and (is_chunked or length >= 0), told=told
    )


def _upgrade(read: dict[bytes, bytes]) -> bytes:
    options = [token.strip(b" \t") for token in read.get(b"connection", b"").lower().split(b",")]
    return read.get(b"upgrade", b"") if b"upgrade" in options else b""


def _check_interim(status: int, minor: bytes, read: dict[bytes, bytes]) -> None:
    """RFC 9110 section 15.2: no body, and never the last of a connection. Readers differ on one that says otherwise."""
    has_body = b"transfer-encoding" in read or read.get(b"content-length", b"0") != b"0"
    if has_body or minor == b"0" or not _keeps_alive(read.get(b"connection", b"").lower(), 1):
        raise malformed(f"its interim answer {status} has a body, is of HTTP/1.0, or would end the connection")


def early_fault(partial: bytes, start: int, begin: int = 0) -> ProtocolError | None:
    """What is wrong with a head whose end has not come, as far as it can be told: garbage need not wait for a timeout.

    The head begins at `begin`; before `start` it was looked at already.
    """
    newline = partial.find(b"\n", start)
    while newline >= 0:
        if newline == 0 or partial[newline - 1] != 13:
            return malformed("a line of the head ends with a bare LF; lines end with CR LF; correct the client")
        newline = partial.find(b"\n", newline + 1)
    if start == begin and not _TOKEN.match(partial, begin):
        return malformed(f"not an HTTP request: it begins with {_show(partial[begin:])}; speak HTTP/1.1 here")
    return None


def check_trailers(block: bytes) -> None:
    """Trailers are checked like fields, then dropped: nothing behind a body may become a field."""
    for line in block.split(b"\r\n"):
        if line and not _FIELD_LINE.fullmatch(line):
            raise malformed(f"trailer line {_show(line)}: it is not `name: value`; correct the sender")


def _read_fields(
    block: bytes, max_fields: int, is_read: frozenset[bytes]
) -> tuple[tuple[bytes, ...], dict[bytes, bytes]]:
    lines = block.split(b"\r\n")
    lines.pop()
    if len(lines) > max_fields:
        raise ProtocolError(errors.too_large(431, f"{len(lines)} header fields", max_fields))
    passed: list[bytes] = []
    read: dict[bytes, bytes] = {}
    for line in lines:
        name, _, value = line.partition(b":")
        kind, lower = (_remembered if len(name) <= _REMEMBERED_NAME_BYTES else _classify)(name, is_read)
        if kind == PASS:
            passed.append(b"%b: %b" % (name, value.strip(b" \t")))
        elif kind in _KEPT:
            if kind == NOTE:
                passed.append(b"%b: %b" % (name, value.strip(b" \t")))
            # RFC 9110 section 5.3: repeated fields are one list. Where one value is wanted, the list is refused below;
            # so is a tab, though it is whitespace: even llhttp takes `chunked<TAB>` for another coding.
            value = value.strip(b" ")
            read[lower] = read[lower] + b", " + value if lower in read else value
        elif kind == REFUSE:
            raise malformed(f"field name {_show(name)} looks like {lower.decode()}; it is refused; correct the sender")
    if b"connection" in read:
        passed = _without_nominated(passed, read[b"connection"])
    return tuple(passed), read


def _without_nominated(passed: list[bytes], connection: bytes) -> list[bytes]:
    nominated = {token.strip(b" \t").lower() for token in connection.split(b",")} - {b"close", b"keep-alive", b""}
    if not nominated:
        return passed
    return [line for line in passed if line.partition(b":")[0].lower() not in nominated]


def _classify(name: bytes, read: frozenset[bytes]) -> tuple[int, bytes]:
    lower = name.lower()
    if lower in read:
        return READ, lower
    if lower in _NOTED:
        return NOTE, lower
    if lower in _HOP_BY_HOP:
        return DROP, lower
    letters = re.sub(rb"[^a-z]", b"", lower)
    for framing in (b"content-length", b"transfer-encoding"):
        # `Content_Length` reaches CGI-like servers under the same name as the real one.
        if letters == framing.replace(b"-", b""):
            return REFUSE, framing
    if b"_" in lower and lower.replace(b"_", b"-") in read:
        return (
            DROP,
            lower,
        )  # `X_Forwarded_For` is X-Forwarded-For to CGI-like replicas, and that one is the gateway's word
    return PASS, lower


# Names repeat in every request.
_remembered: Final = lru_cache(maxsize=4096)(_classify)


def _host(read: dict[bytes, bytes], authority: bytes | None, minor: int) -> bytes:
    """The one host of the request; in absolute-form the target's authority wins (RFC 9112 section 3.2.2)."""
    host = read.get(b"host")
    if host is None and minor == 1:
        raise malformed("the Host field is missing; HTTP/1.1 requires exactly one; send it")
    for value in (host, authority):
        match = _HOST.fullmatch(value) if value is not None else None
        if value is not None and (match is None or int(match.group(1) or 0) > 65535):
            raise malformed(f"host {_show(value)} is not a host name or address with an optional port; correct it")
    return authority or host or b""


def _length(read: dict[bytes, bytes], absent: int) -> int:
    value = read.get(b"content-length")
    if value is None:
        return absent
    if not _LENGTH.fullmatch(value):
        raise malformed(f"content-length {_show(value)} is not one decimal number; send exactly one")
    return int(value)


def _is_chunked(read: dict[bytes, bytes], minor: int) -> bool:
    coding = read.get(b"transfer-encoding")
    if coding is None:
        return False
    if b"content-length" in read:
        raise malformed("content-length and transfer-encoding are both present; a message has one of them; send one")
    if minor == 0:
        raise malformed("transfer-encoding in an HTTP/1.0 message; it exists since HTTP/1.1; send a content-length")
    if coding.lower() != b"chunked":
        raise malformed(f"transfer-encoding {_show(coding)}: only chunked is understood", 501, "NOT_SUPPORTED")
    return True


def _keeps_alive(options: bytes, minor: int) -> bool:
    if not options:
        return minor == 1
    tokens = [token.strip(b" \t") for token in options.split(b",")]
    if b"close" in tokens:
        return False
    return minor == 1 or b"keep-alive" in tokens


def _expects_continue(read: dict[bytes, bytes], minor: int) -> bool:
    value = read.get(b"expect")
    if value is None or minor == 0:  # RFC 9110 section 10.1.1: ignored in HTTP/1.0
        return False
    if value.lower() != b"100-continue":
        raise malformed(f"expect {_show(value)}: only 100-continue is understood", 417, "NOT_SUPPORTED")
    return True


def _diagnose_request(raw: bytes) -> ProtocolError:
    """Says which rule the head breaks. Always returns: the grammar above has refused already."""
    line, _, block = raw.partition(b"\r\n")
    parts = line.split(b" ")
    if len(parts) != 3 or not all(parts):
        return malformed(f"request line {_show(line)}: it is not `METHOD target HTTP/1.1`; correct the client")
    method, target, version = parts
    if not _TOKEN.fullmatch(method) or len(method) > METHOD_BYTES:
        return malformed(f"method {_show(method)} is not a token of at most {METHOD_BYTES} bytes; correct the client")
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        if re.fullmatch(rb"HTTP/[0-9]\.[0-9]", version):
            return malformed(f"protocol version {_show(version)}: use HTTP/1.1", 505, "NOT_SUPPORTED")
        return malformed(f"protocol version {_show(version)} is not HTTP; use HTTP/1.1")
    for field in block.split(b"\r\n"):
        if field and not _FIELD_LINE.fullmatch(field):
            return malformed(f"header line {_show(field)}: it is not `name: value` without control bytes; correct it")
    return malformed(f"request target {_show(target)}: it is not a path with an optional query; correct the client")


def _show(value: bytes) -> str:
    """A few bytes of what was sent, safe to print."""
    text = value[:40].decode("latin-1")
    return repr(text + "…" if len(value) > 40 else text)
