"""Answers of a replica that is broken or taken over: what may be wrong with one, made of the same mutations as requests.

Owns the bytes alone; `test_gateway_splitting.py` plays them. Behind most stands a second answer, `HIDDEN`: it was never
asked for, and no client may ever see it as an answer of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from .mutations import BYTES, chunk, chunk_bodies, codings, mutated, wrong_lengths

HIDDEN: Final = b"HTTP/1.1 200 OK\r\nX-Name: hidden\r\nContent-Length: 6\r\n\r\nhidden"


class Broken(NamedTuple):
    name: str
    raw: bytes


def answers() -> list[Broken]:
    """All of them, once each."""
    made = [*_framing_fields(), *_lengths(), *_chunks(), *_status_lines(), *_bodies(), *_interims(), *_fields()]
    return list({answer.raw: answer for answer in reversed(made)}.values())


def answer(*lines: bytes, body: bytes = b"", line: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join((line, *lines, b"", b"")) + body


def _framing_fields() -> Iterator[Broken]:
    inside = chunk(HIDDEN) + b"0\r\n\r\n"
    for name, lines in (*mutated(b"Transfer-Encoding", b"chunked"), *codings()):
        yield Broken(f"te/{name}", answer(lines, body=inside))
        yield Broken(f"te.cl/{name}", answer(lines, b"Content-Length: 4", body=inside))
        yield Broken(f"cl.te/{name}", answer(b"Content-Length: %d" % len(inside), lines, body=b"0\r\n\r\n" + HIDDEN))
    for name, lines in mutated(b"Content-Length", b"%d" % len(HIDDEN)):
        yield Broken(f"cl/{name}", answer(lines, body=HIDDEN))
        yield Broken(f"cl.cl/{name}", answer(b"Content-Length: 0", lines, body=HIDDEN))


def _lengths() -> Iterator[Broken]:
    for value in wrong_lengths(len(HIDDEN)):
        yield Broken(f"length/{value.hex()}", answer(b"Content-Length: " + value, body=HIDDEN))
        two = answer(b"Content-Length: " + value, b"Content-Length: 0", body=HIDDEN)
        yield Broken(f"two-lengths/{value.hex()}", two)


def _chunks() -> Iterator[Broken]:
    for name, body in chunk_bodies(HIDDEN):
        yield Broken(f"chunk/{name}", answer(b"Transfer-Encoding: chunked", body=body))


def _status_lines() -> Iterator[Broken]:
    for byte in BYTES:
        mark = byte.hex()
        for place, line in (
            ("before", byte + b"HTTP/1.1 200 OK"), ("in-version", b"HTTP/1" + byte + b".1 200 OK"),
            ("after-version", b"HTTP/1.1" + byte + b"200 OK"), ("in-status", b"HTTP/1.1 2" + byte + b"0 OK"),
            ("after-status", b"HTTP/1.1 200" + byte + b"OK"), ("in-reason", b"HTTP/1.1 200 O" + byte + b"K"),
            ("after-reason", b"HTTP/1.1 200 OK" + byte),
        ):  # fmt: skip
            yield Broken(f"status/{place}-{mark}", answer(b"Content-Length: 0", line=line) + HIDDEN)
    for line in (
        b"HTTP/1.1 200", b"HTTP/1.1 ", b"HTTP/1.1", b"HTTP/1.1 20 OK", b"HTTP/1.1 2000 OK", b"HTTP/1.1 -20 OK", b"HTTP/1.1 0 OK",
        b"HTTP/1.1 600 OK", b"HTTP/1.1 999 OK", b"HTTP/2.0 200 OK", b"HTTP/0.9 200 OK", b"HTTP/1.10 200 OK", b"ICY 200 OK",
        b"http/1.1 200 OK", b"SSH-2.0-x", b"\x16\x03\x01\x02\x00", b"200 OK", b"HTTP/1.1 200 OK HTTP/1.1", b"",
        b"POST / HTTP/1.1", b"HTTP/1.1 200 " + b"x" * 70_000,
    ):  # fmt: skip
        yield Broken(f"line/{line[:40].hex()}", answer(b"Content-Length: 0", line=line) + HIDDEN)


def _bodies() -> Iterator[Broken]:
    """Statuses without a body that have one, and bodies that do not end where they say."""
    for status in (b"101", b"204", b"205", b"304", b"100", b"102", b"199", b"200", b"500", b"503"):
        for lines, body in (
            ((b"Content-Length: %d" % len(HIDDEN),), HIDDEN), ((b"Transfer-Encoding: chunked",), chunk(HIDDEN) + b"0\r\n\r\n"),
            ((), HIDDEN), ((b"Content-Length: 0",), HIDDEN), ((b"Content-Length: 1000",), HIDDEN),
            ((b"Connection: close",), HIDDEN), ((b"Upgrade: h2c", b"Connection: Upgrade"), HIDDEN),
            ((b"Connection: keep-alive", b"Content-Length: 0"), b"\r\n" + HIDDEN),
        ):  # fmt: skip
            for minor in (b"0", b"1"):
                raw = answer(*lines, body=body, line=b"HTTP/1." + minor + b" " + status + b" X")
                yield Broken(f"body/{status.decode()}/1.{minor.decode()}/{lines}", raw)
    yield Broken("body/two", answer(b"Content-Length: 2", body=b"{}") + HIDDEN)
    yield Broken("body/three", answer(b"Content-Length: 2", body=b"{}") + HIDDEN + HIDDEN)
    yield Broken(
        "body/old-chunked", answer(b"Transfer-Encoding: chunked", body=b"0\r\n\r\n", line=b"HTTP/1.0 200 OK") + HIDDEN
    )


def _interims() -> Iterator[Broken]:
    final = answer(b"Content-Length: 2", body=b"{}")
    for count in (1, 15, 16, 17, 100):
        yield Broken(f"interim/{count}", answer(line=b"HTTP/1.1 100 Continue") * count + final + HIDDEN)
        yield Broken(f"hints/{count}", answer(b"Link: x", line=b"HTTP/1.1 103 Early Hints") * count + final + HIDDEN)
    for lines in ((b"Content-Length: 5",), (b"Transfer-Encoding: chunked",), (b"Content-Length: %d" % len(HIDDEN),)):
        interim = answer(*lines, line=b"HTTP/1.1 103 Early Hints")
        yield Broken(f"interim-body/{lines}", interim + HIDDEN + final)
        yield Broken(f"interim-junk/{lines}", interim + b"hello" + final)
    yield Broken("interim/alone", answer(line=b"HTTP/1.1 103 Early Hints"))


def _fields() -> Iterator[Broken]:
    for byte in (*BYTES, b"\r\n ", b"\r\n\t", b"\n\n", b"\r\r", b"\r\n\r"):
        mark = byte.hex()
        inject = b"X-Name: hidden\r\nContent-Length: 6\r\n\r\nhidden"
        yield Broken(f"field/split-{mark}", answer(b"Set-Cookie: a" + byte + inject, b"Content-Length: 0"))
        yield Broken(f"field/name-{mark}", answer(b"Set" + byte + b"Cookie: a", b"Content-Length: 0") + HIDDEN)
        yield Broken(f"field/end-{mark}", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: y" + byte + b"\r\n\r\n" + HIDDEN)
    for line in (
        b"no colon",
        b": empty",
        b" folded",
        b"X y: z",
        b"X : y",
        b"Connection: content-length",
        b"Trailer: X-Name",
    ):
        yield Broken(f"line-of-fields/{line.decode()}", answer(b"X: y", line, b"Content-Length: 0") + HIDDEN)
    yield Broken("fields/many", answer(*[b"X: y"] * 300, b"Content-Length: 0") + HIDDEN)
    yield Broken("fields/long", answer(b"X: " + b"y" * 70_000, b"Content-Length: 0") + HIDDEN)
