"""The cases that are kept: one file a target, one Python bytes literal a line, so that a change can be read in review.

`make fuzz ARGS=--keep` adds the inputs that reached something new. `seeds` has besides what the smuggling tests play
anyway, which need not be kept twice.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import hyperframe.frame as hf
from hpack import Encoder

from tests.protocol import smuggling, splitting
from tests.protocol.mutations import chunk_bodies

from .targets import ACCEPT, HANDSHAKE

# With three marks behind it the answer is to a request for a WebSocket: see `replica` in targets.py.
AGREED: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: %b\r\n\r\n" % ACCEPT
)
HERE: Final = Path(__file__).parent / "corpus"


def kept(target: str) -> list[bytes]:
    path = HERE / f"{target}.txt"
    if not path.exists():
        return []
    return [ast.literal_eval(line) for line in path.read_text("ascii").splitlines()]


def keep(target: str, cases: Iterable[bytes]) -> None:
    HERE.mkdir(exist_ok=True)
    lines = sorted({repr(case) for case in cases if case}, key=lambda line: (len(line), line))
    (HERE / f"{target}.txt").write_text("".join(f"{line}\n" for line in lines), "ascii")


def seeds(target: str) -> list[bytes]:
    """Where fuzzing begins."""
    requests = [payload.raw for payload in smuggling.payloads()]
    answers = [answer.raw for answer in splitting.answers()]
    made: dict[str, list[bytes]] = {
        "client": [*requests, HANDSHAKE + b"\x81\x80\x00\x00\x00\x00", HANDSHAKE + smuggling.HIDDEN],
        "replica": [
            *answers,
            *(one + b"\x1e" * 3 for one in (AGREED + b"\x81\x01a", AGREED, AGREED[:-2] + b"X: y\r\n\r\n")),
        ],
        "chunks": [body for _, body in chunk_bodies(b"")],
        "frames": _calls(),
        "fields": [block for call in _calls() if (block := call[9 : 9 + call[2]])],
        "messages": [_MESSAGE, _MESSAGE + _MESSAGE, b"\x0a\x01m\x12\x011\x1a\x017\x2a\x03\x0a\x01x\x3a\x02ab"],
        "heads": [raw.partition(b"\r\n\r\n")[0] + b"\r\n" for raw in (*requests, *answers)],
        "paths": [raw.split(b" ")[1] for raw in requests if raw.count(b" ") > 1],
        "tables": [b'{"epoch":"e","revision":1,"cluster":"c","models":{}}'],
        "tables_near": [b"%d %b" % (place, value) for place in range(40) for value in (b"-1", b'"x"', b"null", b"[]")],
    }
    return [*kept(target), *(case for case in made[target] if len(case) <= 2000)]


_MESSAGE: Final = b"\x0a\x01m\x1a\x017"


def _calls() -> list[bytes]:
    """One of each method, whole, and frames that belong to a connection."""
    calls = [hf.PingFrame(0, b"12345678").serialize(), hf.WindowUpdateFrame(0, 1000).serialize()]
    calls.append(hf.SettingsFrame(0, {hf.SettingsFrame.INITIAL_WINDOW_SIZE: 5}).serialize())
    for method in (
        "ModelInfer",
        "ModelStreamInfer",
        "ModelMetadata",
        "ModelReady",
        "ServerLive",
        "RepositoryIndex",
        "X",
    ):
        head = [
            (":method", "POST"), (":scheme", "http"), (":path", f"/inference.GRPCInferenceService/{method}"),
            ("content-type", "application/grpc"), ("te", "trailers"), ("grpc-timeout", "9S"), ("x-request-id", "a"),
        ]  # fmt: skip
        block = Encoder().encode(head)
        message = bytes(4) + bytes((len(_MESSAGE),)) + _MESSAGE
        frames = [
            hf.HeadersFrame(1, block, flags=["END_HEADERS"]), hf.DataFrame(1, message * 2, flags=["END_STREAM"]),
            hf.HeadersFrame(3, block[:9]), hf.ContinuationFrame(3, block[9:], flags=["END_HEADERS"]),
            hf.DataFrame(3, message, flags=["END_STREAM"]), hf.RstStreamFrame(1, 8), hf.WindowUpdateFrame(3, 9),
        ]  # fmt: skip
        calls += [b"".join(frame.serialize() for frame in frames[at:]) for at in (0, 2)]
    return calls


# What mutations put in, besides bytes: the words that these grammars know.
WORDS: Final = (
    b"\r\n", b"\n", b"\r", b"\x00", b" ", b"\t", b":", b"0\r\n\r\n", b"ffff", b"chunked", b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n", b"\r\n\r\n", b"HTTP/1.1", b"HTTP/1.0", b"\xff", b";", b",", b"\x1b", b"\x1c", b"\x1d",
    b"\x1e", b"GET ", b"HEAD ", b"POST ", b"/models/m/x", b"/v2/models/m/infer", b"Host: h\r\n", b"Connection: close\r\n",
    b"Expect: 100-continue\r\n", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 103 X\r\n", b"HTTP/1.1 204 X\r\n", b"%2e", b"%2f", b"..",
    b'"', b"{", b"}", b"[", b"]", b"-1", b"1e400", b"null",
)  # fmt: skip
