"""Request-smuggling payloads, made of classes: framing context x mutation x position, and the single shapes of research.

Owns the bytes alone; `test_gateway_smuggling.py` plays them and says what must hold. The classes are those of public
collections: the exhaustive list of smuggler.py and the gadgets of HTTP Request Smuggler (every byte before, inside and
behind a framing field), the findings of the HTTP Garden (sizes read as longest prefix, `0x`, `_`, signs, empty values),
the chunk families TERM.EXT, EXT.TERM, TERM.SPILL, ONE.TWO, the CL.0 and 0.CL families, T-Reqs' request lines, and the
reproducers of proxies' advisories. A class is written once, and every byte and place of it is played.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from .mutations import BYTES, chunk, chunk_bodies, codings, mutated, wrong_lengths

HIDDEN: Final = b"GET /models/m/hidden HTTP/1.1\r\nHost: h\r\nX: y\r\n\r\n"


class Payload(NamedTuple):
    name: str
    raw: bytes


def payloads() -> list[Payload]:
    """All of them, once each. The first request of each means /models/m/outer; what must stay unseen, /models/m/hidden."""
    made = [
        *_framing_fields(), *_lengths(), *_chunks(), *_request_lines(), *_hosts(), *_line_ends(), *_connections(),
        *_pipelines(), *_lookalikes(),
    ]  # fmt: skip
    return list({payload.raw: payload for payload in reversed(made)}.values())


def request(*lines: bytes, body: bytes = b"", line: bytes = b"POST /models/m/outer HTTP/1.1") -> bytes:
    return b"\r\n".join((line, *lines, b"", b"")) + body


# One framing field, mutated, beside another that is right: who reads the one ends the request elsewhere.


def _framing_fields() -> Iterator[Payload]:
    for name, lines in (*mutated(b"Transfer-Encoding", b"chunked"), *codings()):
        for context, made in _coding_contexts(lines):
            yield Payload(f"te/{context}/{name}", made)
    for name, lines in mutated(b"Content-Length", b"%d" % len(HIDDEN)):
        for context, made in _length_contexts(lines):
            yield Payload(f"cl/{context}/{name}", made)


def _coding_contexts(lines: bytes) -> Iterator[tuple[str, bytes]]:
    chunked = b"0\r\n\r\n" + HIDDEN
    yield "cl.te", request(b"Host: h", b"Content-Length: %d" % len(chunked), lines, body=chunked)
    inside = chunk(HIDDEN) + b"0\r\n\r\n"
    size_line = inside.index(b"\r\n") + 2
    yield "te.cl", request(lines, b"Content-Length: %d" % size_line, b"Host: h", body=inside)
    yield "te.0", request(b"Host: h", lines, body=inside)


def _length_contexts(lines: bytes) -> Iterator[tuple[str, bytes]]:
    yield "cl.0", request(b"Host: h", lines, body=HIDDEN)
    yield "cl.cl", request(b"Content-Length: 0", lines, b"Host: h", body=HIDDEN)
    yield "0.cl", request(lines, b"Host: h", body=HIDDEN, line=b"GET /models/m/outer HTTP/1.1")


def _lengths() -> Iterator[Payload]:
    size = len(HIDDEN)
    text = b"%d" % size
    for value in wrong_lengths(size):
        mark = value.hex()
        yield Payload(f"length/{mark}", request(b"Host: h", b"Content-Length: " + value, body=HIDDEN))
        both = request(b"Host: h", b"Content-Length: " + value, b"Content-Length: 0", body=HIDDEN)
        yield Payload(f"length-before-0/{mark}", both)
        both = request(b"Host: h", b"Content-Length: 0", b"X: x", b"content-length: " + value, body=HIDDEN)
        yield Payload(f"length-after-0/{mark}", both)
        with_coding = request(
            b"Host: h", b"Content-Length: " + value, b"Transfer-Encoding: chunked", body=chunk(HIDDEN)
        )
        yield Payload(f"length-and-chunked/{mark}", with_coding + b"0\r\n\r\n")
    for method in (b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"PUT", b"PATCH", b"TRACE", b"CONNECT", b"FOO", b"get"):
        for first, second in ((0, size), (size, 0), (size, size), (5, size)):
            lines = (b"Host: h", b"Content-Length: %d" % first, b"Content-Length: %d" % second)
            made = request(*lines, body=HIDDEN, line=method + b" /models/m/outer HTTP/1.1")
            yield Payload(f"two-lengths/{method.decode()}/{first}-{second}", made)
        line = method + b" /models/m/outer HTTP/1.1"
        yield Payload(
            f"body-of/{method.decode()}", request(b"Host: h", b"Content-Length: " + text, body=HIDDEN, line=line)
        )
        yield Payload(f"no-length-of/{method.decode()}", request(b"Host: h", body=HIDDEN, line=line))


def _chunks() -> Iterator[Payload]:
    head = request(b"Host: h", b"Transfer-Encoding: chunked")
    for name, body in chunk_bodies(HIDDEN):
        yield Payload(f"chunk/{name}", head + body)


# Where the request line ends, what it names, and which version it speaks.


def _request_lines() -> Iterator[Payload]:
    for byte in BYTES:
        mark = byte.hex()
        for place, line in (
            ("before-method", byte + b"POST /models/m/outer HTTP/1.1"),
            ("in-method", b"PO" + byte + b"ST /models/m/outer HTTP/1.1"),
            ("after-method", b"POST" + byte + b"/models/m/outer HTTP/1.1"),
            ("in-target", b"POST /models/m/out" + byte + b"er HTTP/1.1"),
            ("after-target", b"POST /models/m/outer" + byte + b"HTTP/1.1"),
            ("in-version", b"POST /models/m/outer HTTP" + byte + b"/1.1"),
            ("after-version", b"POST /models/m/outer HTTP/1.1" + byte),
        ):
            yield Payload(f"line/{place}-{mark}", request(b"Host: h", b"Content-Length: 5", body=b"hello", line=line))
    for version in (b"", b" HTTP/0.9", b" HTTP/1.2", b" HTTP/1.10", b" HTTP/1.", b" HTTP/1", b" HTTP/2.0", b" HTTP/01.1",
                    b" HTTP/1.01", b" http/1.1", b" HTTP/1,1", b" HTTPS/1.1", b" HTTP/1.1 HTTP/1.1", b" HTTP/1.1x", b" 1.1",
                    b" HTTP/-1.1", b" HTTP/9.9", b" ICY/1.0", b" HTTP/1.32", b" HTTP/ 1.1", b" HTTP /1.1"):  # fmt: skip
        for body in (b"", HIDDEN):
            line = b"POST /models/m/outer" + version
            lines = (b"Host: h", b"Content-Length: %d" % len(body))
            yield Payload(f"version/{version.decode()}-{len(body)}", request(*lines, body=body, line=line))
    for target in (
        b"*", b"", b"models/m/outer", b"//models/m/outer", b"/models/m/../../hidden", b"/models/m/outer#x", b"/models/m/%2e%2e/x",
        b"/models/m/x y", b"/models/m/%0d%0aX:%20y", b"/models/m/%00", b"http://h/models/m/outer", b"http://h", b"http:///models/m/x",
        b"https://h/models/m/outer", b"http://h@other/models/m/x", b"http://h:80:80/models/m/x", b"HTTP://H/models/m/outer",
        b"http://other/models/m/outer", b"ftp://h/models/m/outer", b"h:80", b"/models/m/outer?a=b?c", b"/models/m/outer?\"<>",
        b"/models/m/\\..\\x", b"/models/m/..;/x", b"/models/m/.", b"/models/m/\xff", b"/models/m/%ff", b"/models/m/%zz",
        b"/models/m/%2f..%2fx", b"/models/m/outer HTTP/1.1\r\nX: y", b"http://h\\other/models/m/x", b"/models/m/\xc0\xae",
        b"?/models/m/outer", b"http://h?/models/m/x", b"/models/m/outer?" + b"a" * 9000, b"/models/m/" + b"a" * 9000,
    ):  # fmt: skip
        mark = target.hex()[:60]
        for minor in (0, 1):
            made = request(b"Host: h", line=b"GET " + target + b" HTTP/1.%d" % minor)
            yield Payload(f"target/{mark}-{len(target)}/1.{minor}", made)


def _hosts() -> Iterator[Payload]:
    line = b"GET /models/m/outer HTTP/1.1"
    for byte in BYTES:
        mark = byte.hex()
        yield Payload(f"host/before-{mark}", request(b"Host:" + byte + b"h", line=line))
        yield Payload(f"host/in-{mark}", request(b"Host: h" + byte + b"other", line=line))
        yield Payload(f"host/after-{mark}", request(b"Host: h" + byte, line=line))
        yield Payload(f"host/name-{mark}", request(b"Host" + byte + b": other", b"Host: h", line=line))
    for lines in (
        (), (b"Host:",), (b"Host: h", b"Host: h"), (b"Host: h", b"host: other"), (b"Host: h, other",), (b"Host: h/x",),
        (b"Host: h@other",), (b"Host: h:x",), (b"Host: h:99999",), (b"Host: h:-1",), (b"Host: [::1",), (b"Host: [::1]:80",),
        (b"Host: h?x",), (b"Host: h#x",), (b"Host: http://h",), (b"Host : h",), (b" Host: other", b"Host: h"), (b"Host: h:",),
        (b"X: x", b" Host: other", b"Host: h"), (b"Host: h..other",), (b"Host: .h",), (b"Host: %68",), (b"Host: h\xff",),
    ):  # fmt: skip
        mark = b"|".join(lines).decode("latin-1")
        yield Payload(f"hosts/{mark}", request(*lines, line=line))
        absolute = request(*lines, line=b"GET http://h/models/m/outer HTTP/1.1")
        yield Payload(f"hosts-absolute/{mark}", absolute)


def _line_ends() -> Iterator[Payload]:
    lines = (b"POST /models/m/outer HTTP/1.1", b"Host: h", b"Content-Length: %d" % len(HIDDEN), b"X: y", b"")
    for end in (
        b"\n",
        b"\r",
        b"\r\r\n",
        b"\n\r",
        b"\r\n\r",
        b"\r\n\n",
        b"\x0b",
        b"\x0c",
        b"\x85",
        b"\xe2\x80\xa8",
        b" \r\n",
        b"\t\r\n",
        b"\x00\r\n",
    ):
        for wrong in range(len(lines)):
            ends = [b"\r\n"] * len(lines)
            ends[wrong] = end
            head = b"".join(line + stop for line, stop in zip(lines, ends, strict=True))
            yield Payload(f"line-end/{end.hex()}-{wrong}", head + HIDDEN)
        yield Payload(f"line-end/{end.hex()}-all", end.join(lines) + end + HIDDEN)
    for lead in (
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
        b"\r",
        b" ",
        b"\t",
        b"\r\n ",
        b"\x00",
        b"\xef\xbb\xbf",
        b"\r\n\n",
        b"\n\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
    ):
        body = request(b"Host: h", b"Content-Length: 5", body=b"hello")
        yield Payload(f"lead/{lead.hex()}", lead + body)
        yield Payload(f"lead-between/{lead.hex()}", body + lead + body)


# Fields that move the end of a message by what they ask of the connection.


def _connections() -> Iterator[Payload]:
    hidden_body = (b"Host: h", b"Content-Length: %d" % len(HIDDEN))
    chunked = (b"Host: h", b"Transfer-Encoding: chunked")
    chunks = chunk(HIDDEN) + b"0\r\n\r\n"
    for value in (
        b"content-length", b"transfer-encoding", b"host", b"close, content-length", b"keep-alive, transfer-encoding", b"x",
        b"x-request-id", b"x-forwarded-for", b"upgrade", b"close", b"keep-alive", b"close, close", b"", b",", b"clo se", b"close;x",
        b"Content-Length\t", b"connection", b"expect", b"te", b"traceparent",
    ):  # fmt: skip
        mark = value.decode()
        yield Payload(f"connection-cl/{mark}", request(*hidden_body, b"Connection: " + value, body=HIDDEN))
        yield Payload(f"connection-te/{mark}", request(*chunked, b"Connection: " + value, body=chunks))
        old = request(*hidden_body, b"Connection: " + value, body=HIDDEN, line=b"POST /models/m/outer HTTP/1.0")
        yield Payload(f"connection-1.0/{mark}", old)
    for value in (b"100-continue", b"100-Continue", b" 100-continue", b"100-continue ", b"y 100-continue", b"100-continue, x", b"x",
                  b"", b"100-continue\x00", b"100\x0bcontinue", b"100-continue, 100-continue", b"200-ok"):  # fmt: skip
        mark = value.hex()
        for method in (b"POST", b"GET", b"HEAD", b"OPTIONS"):
            line = method + b" /models/m/outer HTTP/1.1"
            expect = b"Expect: " + value
            made = request(*hidden_body, expect, body=HIDDEN, line=line)
            yield Payload(f"expect-cl/{method.decode()}/{mark}", made)
            made = request(*chunked, expect, body=chunks, line=line)
            yield Payload(f"expect-te/{method.decode()}/{mark}", made)
            yield Payload(f"expect-0/{method.decode()}/{mark}", request(b"Host: h", expect, body=HIDDEN, line=line))
    for value in (b"h2c", b"websocket", b"TLS/1.0", b"HTTP/2.0", b"h2c, websocket", b""):
        fields = (b"Upgrade: " + value, b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: AAMAAABkAAQAAP__")
        yield Payload(f"upgrade-cl/{value.decode()}", request(*hidden_body, *fields, body=HIDDEN))
        yield Payload(f"upgrade-te/{value.decode()}", request(*chunked, *fields, body=chunks))
    for minor in (b"1.0", b"1.1"):
        for lines in (chunked, (*hidden_body, b"Transfer-Encoding: chunked"), (*chunked, b"Connection: keep-alive")):
            made = request(*lines, body=chunks, line=b"POST /models/m/outer HTTP/" + minor)
            yield Payload(f"old/{minor.decode()}/{len(lines)}-{lines[-1].decode()}", made)
    yield Payload("preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")


def _pipelines() -> Iterator[Payload]:
    """Right requests in a row, with what is wrong behind them: each answer must belong to its own."""
    plain = request(b"Host: h", line=b"GET /models/m/outer HTTP/1.1")
    post = request(b"Host: h", b"Content-Length: 5", body=b"hello")
    chunks = request(b"Host: h", b"Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n")
    head = request(b"Host: h", line=b"HEAD /models/m/outer HTTP/1.1")
    unknown = request(
        b"Host: h", b"Content-Length: %d" % len(HIDDEN), body=HIDDEN, line=b"POST /models/none/x HTTP/1.1"
    )
    nowhere = request(b"Host: h", b"Content-Length: %d" % len(HIDDEN), body=HIDDEN, line=b"POST /nowhere HTTP/1.1")
    good = {"get": plain, "post": post, "chunks": chunks, "head": head, "unknown": unknown, "nowhere": nowhere}
    for first, a in good.items():
        for second, b in good.items():
            for third, c in good.items():
                yield Payload(f"pipeline/{first}-{second}-{third}", a + b + c)
            for junk in (
                b"GARBAGE\r\n\r\n",
                b"\x00",
                b"GET /models/m/x",
                b"0\r\n\r\n",
                HIDDEN[3:],
                b"\r\n\r\n" + HIDDEN,
            ):
                yield Payload(f"pipeline-junk/{first}-{second}-{junk[:8].hex()}", a + b + junk)


def _lookalikes() -> Iterator[Payload]:
    """Names that a CGI-like replica reads as another field: `_` for `-`, and the like."""
    for name in (
        b"Content-Length",
        b"Transfer-Encoding",
        b"X-Forwarded-For",
        b"X-Request-Id",
        b"Host",
        b"Proxy",
        b"Connection",
    ):
        for made in (
            name.replace(b"-", b"_"),
            name.replace(b"-", b"."),
            name + b"_",
            b"_" + name,
            b"HTTP_" + name,
            name + b"~",
        ):
            lines = (b"Host: h", made + b": 5", b"Content-Length: 5")
            yield Payload(f"lookalike/{name.decode()}/{made.decode()}", request(*lines, body=b"hello"))
