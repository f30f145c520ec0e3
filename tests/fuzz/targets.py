"""What is fuzzed, and what must hold for every input. A target is a function of bytes that raises when it does not.

`client` and `replica` play a case through a whole gateway in memory, once in pieces and once at once; the others compare
one pure reader with llhttp or with itself. Which bytes of a case are steps and not data stands at `CUT`, `LEAVE`,
`EXPIRE` and `NEXT`: control bytes that any stream refuses alike, so that nothing is lost by it.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Final

import hpack
import httptools
import msgspec
from google.protobuf.message import DecodeError
from hyperframe.frame import DataFrame, Frame, HeadersFrame
from tritonclient.grpc.service_pb2 import ModelInferRequest

from router.contract import TableError, decode, encode
from router.core import oip
from router.core.chunked import ChunkDecoder
from router.core.errors import ProtocolError
from router.core.framing import parse_request, parse_response
from router.core.hpack import Decoder, HpackError
from router.core.target import Own, read_target
from tests.fakes.http_readers import (
    Seen,
    disputes,
    first_answer_by_llhttp,
    has_framing_in_trailers,
    read_by_h11,
    read_by_llhttp,
)

from .world import MemoryLoop, MemoryTransport, World, make_world

CUT: Final = b"\x1d"  # here the bytes come apart
NEXT: Final = b"\x1e"  # here the answer to the next request begins
LEAVE: Final = b"\x1c"  # here the sender closes
EXPIRE: Final = b"\x1b"  # here the client's deadline passes

HANDSHAKE: Final = (
    b"GET /models/m/a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
ACCEPT: Final = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 section 1.3

# A world is made anew now and then, so that a case that leaves something behind is near the one that shows it.
_CASES_PER_WORLD: Final = 100

Target = Callable[[bytes], None]


def client(data: bytes) -> None:
    """Nothing that the client sends reaches the replica unless other readers read the same request in it."""
    _run(_client, data)


def replica(data: bytes) -> None:
    """Nothing that the replica sends reaches the client but one whole answer, or a visible end; and only its own."""
    _run(_replica, data)


async def _client(world: World, data: bytes) -> None:
    at_once = await _talk(world, [data.replace(CUT, b"")])
    in_pieces = await _talk(world, _pieces(data))
    # One that expects 100-continue is refused before its body came, and then closed on; with its body here it is not.
    shorter, longer = sorted((at_once, in_pieces), key=len)
    is_same = shorter == longer[: len(shorter)] and (len(shorter) == len(longer) or shorter[-1:] == [None])
    assert is_same, f"at once {at_once}, in pieces {in_pieces}"


async def _talk(world: World, pieces: list[bytes]) -> list[Seen | None]:
    """What was carried and refused, in order."""
    transport = world.client()
    stream = b""
    for piece in pieces:
        for data, step in _steps(piece):
            if transport.is_open and step is None:
                stream += data
                transport.deliver(data)
            elif step == LEAVE:
                transport.drop()
            elif step == EXPIRE and transport.is_open:
                transport.protocol.on_deadline(time.monotonic() + 1e6)
            await world.settle()
    carried = [None if number is None else world.seen[number] for number in _numbers(bytes(transport.written))]
    is_lost = len(world.seen) > sum(request is not None for request in carried)
    assert not is_lost or LEAVE in b"".join(pieces) or EXPIRE in b"".join(pieces), "a request was carried, not answered"
    found = disputes(stream, carried)
    assert not found, "\n".join(found)
    await world.finish()
    return carried


def _numbers(written: bytes) -> Iterator[int | None]:
    """For each final answer the replica's number, None for one of the gateway's own."""
    while written:
        head, mark, written = written.partition(b"\r\n\r\n")
        assert mark, head
        fields = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:])
        if b" 100 " in head.split(b"\r\n")[0]:
            continue
        number = fields.get(b"x-number")
        length = int(fields[b"content-length"])
        written = written[length if written[:1] == b"{" else 0 :]
        yield None if number is None else int(number)


async def _replica(world: World, data: bytes) -> None:
    parts = data.replace(EXPIRE, b"").split(NEXT)
    method = (b"GET", b"HEAD", b"POST", HANDSHAKE)[(len(parts) - 1) % 4]
    whole = parts[0].replace(CUT, b"")
    at_once = await _answered(world, method, [whole])
    in_pieces = await _answered(world, method, _pieces(parts[0]))
    if (
        at_once is not None
        and in_pieces is not None
        and at_once[0] not in (502, 504)
        and in_pieces[0] not in (502, 504)
    ):
        assert at_once == in_pieces
    if at_once is not None and at_once[0] == 101:
        assert ACCEPT in whole, "a tunnel that the replica did not agree to"
    elif at_once is not None and at_once[0] not in (502, 504) and method != b"HEAD" and LEAVE not in whole:
        read = first_answer_by_llhttp(whole)
        assert read == at_once or has_framing_in_trailers(whole), f"passed on {at_once}, llhttp reads {read}"


async def _answered(world: World, method: bytes, pieces: list[bytes]) -> tuple[int, bytes] | None:
    """Status and body of the first answer, None when it was torn or did not come."""
    steps = [step for piece in pieces for step in _steps(piece)]

    def answer(number: int) -> Iterator[bytes | None]:
        if number == 0:
            yield from (data if step is None else None for data, step in steps if step in (None, LEAVE))
        else:
            yield b"HTTP/1.1 200 OK\r\nX-Name: good\r\nContent-Length: 2\r\n\r\n{}"

    world.answer = answer
    transport = world.client()
    if method == HANDSHAKE:
        transport.deliver(HANDSHAKE)
    else:
        transport.deliver(method + b" /models/m/a HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
    await world.settle()
    first, rest = _take(bytes(transport.written), method == b"HEAD")
    if first is not None and first[0] != 101:
        assert not rest, f"behind the answer came {rest[:100]!r}"
        _ask_again(transport)
        await world.settle()
        again = bytes(transport.written)[len(transport.written) :] or bytes(transport.written)
        second = again[again.rindex(b"HTTP/1.1 ") :] if transport.is_open else b"x-name: good"
        assert b"x-name: good" in second.lower(), f"the next request was answered with {second[:200]!r}"
    await world.finish()
    return first


def _ask_again(transport: MemoryTransport) -> None:
    if transport.is_open:
        transport.deliver(b"GET /models/m/good HTTP/1.1\r\nHost: h\r\n\r\n")


def _take(written: bytes, is_head: bool) -> tuple[tuple[int, bytes] | None, bytes]:
    """The first final answer as httptools reads it, if it is whole, and what is behind it."""
    end = 0
    while True:
        start, end = end, written.find(b"\r\n\r\n", end) + 4
        if end < 4:
            return None, b""
        status = int(written[start + 9 : start + 12])
        if status >= 200 or status == 101:
            break
    fields = dict(line.split(b": ", 1) for line in written[start : end - 4].lower().split(b"\r\n")[1:])
    if status == 101:
        return (status, written[end:]), b""
    if is_head or status in (204, 304):
        return (status, b""), written[end:]
    if b"content-length" in fields:
        length = int(fields[b"content-length"])
        body = written[end : end + length]
        return ((status, body), written[end + length :]) if len(body) == length else (None, b"")
    decoder = ChunkDecoder()
    body = decoder.feed(written[end:])
    return ((status, body), decoder.rest) if decoder.done else (None, b"")


def _pieces(data: bytes) -> list[bytes]:
    """`data` cut where it says so, or in eight places that follow from its bytes."""
    if CUT in data:
        return data.split(CUT)
    chance = random.Random(data)
    ends = sorted(chance.randrange(len(data) + 1) for _ in range(8))
    return [data[a:b] for a, b in itertools.pairwise((0, *ends, len(data)))]


def _steps(piece: bytes) -> Iterator[tuple[bytes, bytes | None]]:
    """Data with None, or a step without data."""
    begin = 0
    for at, byte in enumerate(piece):
        if byte in LEAVE + EXPIRE:
            yield piece[begin:at], None
            yield b"", piece[at : at + 1]
            begin = at + 1
    yield piece[begin:], None


def frames(data: bytes) -> None:
    """Whatever a client of gRPC sends, it gets frames that others read, each stream ends once, and no slot is lost."""
    _run(_frames, data)


async def _frames(world: World, data: bytes) -> None:
    for pieces in ([data.replace(CUT, b"")], _pieces(data)):
        transport = world.rpc_client()
        transport.deliver(PREFACE)
        for piece in pieces:
            for part, step in _steps(piece):
                if transport.is_open and step is None:
                    transport.deliver(part)
                elif step == LEAVE:
                    transport.drop()
                elif step == EXPIRE and transport.is_open:
                    transport.protocol.on_deadline(time.monotonic() + 1e6)
                await world.settle()
        _check_frames(bytes(transport.written))
        await world.finish()


def _check_frames(written: bytes) -> None:
    decoder, ended = hpack.Decoder(), set()
    while written:
        frame, length = Frame.parse_frame_header(memoryview(written[:9]), strict=True)
        frame.parse_body(memoryview(written[9 : 9 + length]))
        written = written[9 + length :]
        if isinstance(frame, HeadersFrame | DataFrame):
            assert frame.stream_id not in ended, "something came behind the end of a stream"
            if isinstance(frame, HeadersFrame):
                assert decoder.decode(frame.data)
            if "END_STREAM" in frame.flags:
                ended.add(frame.stream_id)


def fields(data: bytes) -> None:
    """A block of HPACK is refused, or read as another reader does."""
    ours, theirs = Decoder(1 << 16), hpack.Decoder()
    for block in data.split(CUT):
        try:
            read = ours.decode(block)
        except HpackError:
            return
        others = theirs.decode(block, raw=True)
        assert read is None or read == [(bytes(name), bytes(value)) for name, value in others]


def messages(data: bytes) -> None:
    """Of a message is read what a real reader reads, or it is refused by one of them."""
    with suppress(ProtocolError, DecodeError):
        asked = oip.read_infer(data)
        read = ModelInferRequest.FromString(data)
        assert asked == (read.model_name, read.model_version, read.id)


def chunks(data: bytes) -> None:
    """The decoder reads at once what it reads byte by byte, and what llhttp and h11 read."""
    at_once, by_byte = _decode([data]), _decode([data[i : i + 1] for i in range(len(data))])
    assert at_once == by_byte, f"at once {at_once}, byte by byte {by_byte}"
    if at_once is None or not at_once[1]:
        return
    body, _, rest = at_once
    head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    wire = head + data[: len(data) - len(rest)]
    if not has_framing_in_trailers(wire):
        for reading in (read_by_h11(wire), read_by_llhttp(wire)):
            assert [seen.body for seen in reading.messages] == [body], reading


def _decode(pieces: list[bytes]) -> tuple[bytes, bool, bytes] | None:
    """Body, whether it is whole, and what is behind it; None when it was refused."""
    decoder = ChunkDecoder()
    body = rest = b""
    try:
        for piece in pieces:
            if decoder.done:
                rest += piece
            else:
                body += decoder.feed(piece)
                rest = decoder.rest
    except ProtocolError:
        return None
    return body, decoder.done, rest


def heads(data: bytes) -> None:
    """A head is read or refused; one that is read, llhttp reads too, with as many bytes of body behind it."""
    with suppress(ProtocolError):
        head = parse_request(data, 100)
        reader = _Counting()
        parser = httptools.HttpRequestParser(reader)
        with suppress(httptools.HttpParserUpgrade):
            parser.feed_data(data + b"\r\n")
        assert reader.is_head_complete
        assert parser.get_method() == head.method
        assert all(b"\r" not in field and b"\n" not in field and b"\0" not in field for field in head.fields)
    for is_head in (False, True):
        with suppress(ProtocolError):
            answer = parse_response(data, is_head)
            assert all(b"\r" not in field and b"\n" not in field for field in answer.fields)


class _Counting:
    is_head_complete = False

    def on_headers_complete(self) -> None:
        self.is_head_complete = True


def paths(data: bytes) -> None:
    """A path is refused, or leads into the one model it names and nowhere above it."""
    with suppress(ProtocolError):
        found = read_target(data)
        if isinstance(found, Own):
            return
        assert found.path.startswith((b"/v1/models/", b"/v2/models/", b"/models/"))
        assert found.path[found.path.index(b"/models/") + 8 :].startswith(found.model.encode("latin-1"))
        assert found.model
        assert not {".", ".."} & set(found.path.decode("latin-1").split("/"))


def tables(data: bytes) -> None:
    """A table is refused with `TableError`, or reads back as itself."""
    with suppress(TableError):
        table = decode(data)
        assert decode(encode(table)) == table


def tables_near(data: bytes) -> None:
    """The same for tables that are right but for one value somewhere: what random bytes hardly ever reach."""
    table = msgspec.json.decode(_A_TABLE)
    places = list(_places(table))
    at, _, raw = data.partition(b" ")
    parent, key = places[int(at or b"0", 36) % len(places)] if at.isalnum() else places[0]
    with suppress(msgspec.DecodeError, UnicodeDecodeError):
        parent[key] = msgspec.json.decode(raw)
        tables(msgspec.json.encode(table))


def _places(value: object) -> Iterator[tuple[object, object]]:
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield value, key
            yield from _places(inner)


_A_TABLE: Final = (
    b'{"epoch":"e","revision":1,"cluster":"c","models":{"m":{"versions":{"1":{"endpoints":[{"id":"r","host":"h","port":1'
    b'}],"concurrency":1,"queue_max":1,"queue_timeout_ms":1,"request_timeout_ms":1,"retry_max":1,"retry_budget":0.1,'
    b'"retry_on":["connect"],"eject":true,"balance":"least","websocket":false,"state":""}},"weights":{"1":1},"labels":'
    b'{"a":"1"},"sticky":"key","shadow":{"version":"1","percent":1.0},"rate_limit":{"requests_per_s":1.0,"burst":1}}},'
    b'"keys":{"k":{"digest":"' + b"0" * 64 + b'","models":["m"],"rate_limit":{"requests_per_s":1.0},"expires_at":0.0}}}'
)

TARGETS: Final[dict[str, Target]] = {
    target.__name__: target
    for target in (client, replica, chunks, frames, fields, messages, heads, paths, tables, tables_near)
}


class _Running:
    """The loop and the world of the cases that need one."""

    loop: MemoryLoop | None = None
    world: World | None = None
    cases = 0


def _run(case: Callable[[World, bytes], Coroutine[None, None, None]], data: bytes) -> None:
    if _Running.loop is None:
        _Running.loop = MemoryLoop()
    _Running.cases += 1
    if _Running.world is None or _Running.cases % _CASES_PER_WORLD == 0:
        _Running.world = _Running.loop.run_until_complete(make_world(_Running.loop))
    try:
        _Running.loop.run_until_complete(case(_Running.world, data))
    except BaseException:
        _Running.world = None  # what it left behind is not the next case's
        raise
