"""HTTP/2 as no client of gRPC speaks it: what breaks the protocol, and what only costs, ends the connection.

Frames are written and read by hyper's hyperframe and hpack, which the gateway does not use.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import hpack
import hyperframe.frame as hf
import pytest

from tests.fakes.gateway import DEADLINE_S, GatewayUnderTest, until
from tests.fakes.oip import request, serve
from tests.fakes.scripted_replica import Call, ScriptedReplica

StartGateway = Callable[..., Awaitable[GatewayUnderTest]]
Connect = Callable[..., Awaitable["Peer"]]
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD = [
    (":method", "POST"), (":scheme", "http"), (":path", "/inference.GRPCInferenceService/ModelInfer"),
    (":authority", "x"), ("content-type", "application/grpc"), ("te", "trailers"),
]  # fmt: skip
STREAM = [*HEAD[:2], (":path", "/inference.GRPCInferenceService/ModelStreamInfer"), *HEAD[3:]]


async def never(call: Call) -> None:
    """A replica that does not answer."""
    await asyncio.Event().wait()


class Peer:
    """One connection, frame by frame."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self.last_words = ""

    def send(self, *frames: hf.Frame) -> None:
        for frame in frames:
            self.writer.write(frame.serialize())

    def ask(self, stream: int, fields: Any = HEAD, body: bytes | None = None) -> None:
        """A whole request."""
        self.send(hf.HeadersFrame(stream, self.encoder.encode(fields), flags=["END_HEADERS"]))
        message = request().SerializeToString() if body is None else body
        data = b"\0" + len(message).to_bytes(4, "big") + message
        self.send(hf.DataFrame(stream, data, flags=["END_STREAM"]))

    async def read(self, kind: type[hf.Frame] = hf.Frame) -> Any:
        """The next frame of a kind; None at the connection's end."""
        while True:
            try:
                head = await asyncio.wait_for(self.reader.readexactly(9), DEADLINE_S)
                frame, length = hf.Frame.parse_frame_header(memoryview(head))
                frame.parse_body(memoryview(await asyncio.wait_for(self.reader.readexactly(length), DEADLINE_S)))
            except (asyncio.IncompleteReadError, ConnectionError):
                return None
            if isinstance(frame, hf.GoAwayFrame):
                self.last_words = frame.additional_data.decode()
            if isinstance(frame, kind):
                return frame

    async def trailers(self) -> dict[str, str]:
        """Those of the next answer."""
        while True:
            frame = await self.read(hf.HeadersFrame)
            assert frame is not None, f"the connection ended: {self.last_words}"
            fields = dict(self.decoder.decode(frame.data))
            if "END_STREAM" in frame.flags:
                return {str(name): str(value) for name, value in fields.items()}

    async def ending(self) -> tuple[int, str]:
        """The code and the words that the connection ends with."""
        goaway = await self.read(hf.GoAwayFrame)
        assert goaway is not None, "it ended without a word"
        assert await self.read() is None
        return goaway.error_code, goaway.additional_data.decode()


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    peers: list[Peer] = []

    async def connect(gateway: GatewayUnderTest, *, is_greeting: bool = True) -> Peer:
        peer = Peer(*await asyncio.open_connection("127.0.0.1", gateway.grpc_port))
        peers.append(peer)
        if is_greeting:
            peer.writer.write(PREFACE)
            peer.send(hf.SettingsFrame(0))
        return peer

    yield connect
    for peer in peers:
        peer.writer.transport.abort()
    await asyncio.sleep(0)


@pytest.fixture
async def peer(gateway: GatewayUnderTest, replica: ScriptedReplica, connect: Connect) -> Peer:
    replica.script = serve
    await gateway.route(replica)
    return await connect(gateway)


class TestProtocol:
    async def test_answers_a_request_whatever_the_pieces(self, peer: Peer) -> None:
        block = peer.encoder.encode(HEAD)
        message = request().SerializeToString()
        data = b"\0" + len(message).to_bytes(4, "big") + message
        frames = [
            hf.PriorityFrame(1, depends_on=0, stream_weight=5),
            hf.HeadersFrame(1, block[:5], pad_length=7, flags=["PADDED"]),
            *(hf.ContinuationFrame(1, block[at : at + 3]) for at in range(5, len(block), 3)),
            hf.ContinuationFrame(1, b"", flags=["END_HEADERS"]),
            *(hf.DataFrame(1, data[at : at + 4], pad_length=3, flags=["PADDED"]) for at in range(0, len(data), 4)),
            hf.ExtensionFrame(0x42, stream_id=1),
            hf.DataFrame(1, b"", flags=["END_STREAM"]),
        ]
        for byte in b"".join(frame.serialize() for frame in frames):
            peer.writer.write(bytes([byte]))
            await asyncio.sleep(0)

        assert (await peer.trailers())["grpc-status"] == "0"

    async def test_sends_no_more_than_the_windows_allow(self, peer: Peer) -> None:
        peer.send(hf.SettingsFrame(0, {hf.SettingsFrame.INITIAL_WINDOW_SIZE: 10}))
        peer.ask(1)
        first = await peer.read(hf.DataFrame)
        peer.ask(3)
        second = await peer.read(hf.DataFrame)
        peer.send(hf.SettingsFrame(0, {hf.SettingsFrame.INITIAL_WINDOW_SIZE: 15}))
        more = {(await peer.read(hf.DataFrame)).stream_id, (await peer.read(hf.DataFrame)).stream_id}
        peer.send(hf.WindowUpdateFrame(3, 1000))

        rest = await peer.read(hf.DataFrame)

        assert (len(first.data), len(second.data), more, rest.stream_id) == (10, 10, {1, 3}, 3)
        assert (await peer.trailers())["grpc-status"] == "0"

    async def test_answers_pings(self, peer: Peer) -> None:
        peer.send(hf.PingFrame(0, b"12345678"))

        answer = await peer.read(hf.PingFrame)

        assert (answer.opaque_data, set(answer.flags)) == (b"12345678", {"ACK"})

    async def test_ends_when_the_client_goes_away_and_nothing_is_under_way(
        self, gateway: GatewayUnderTest, peer: Peer, replica: ScriptedReplica
    ) -> None:
        peer.ask(1)
        await until(lambda: replica.calls)
        peer.send(hf.GoAwayFrame(0, last_stream_id=0))

        assert (await peer.trailers())["grpc-status"] == "0"
        assert (await peer.ending())[0] == 0

    async def test_resets_a_request_that_http2_does_not_allow(self, peer: Peer) -> None:
        peer.ask(1, [*HEAD, ("connection", "close")])
        peer.ask(3)

        reset = await peer.read(hf.RstStreamFrame)

        assert (reset.stream_id, reset.error_code) == (1, 1)
        assert (await peer.trailers())["grpc-status"] == "0"

    async def test_resets_a_head_that_is_too_long_and_goes_on(self, peer: Peer) -> None:
        peer.ask(1, [*HEAD, ("x", "y" * 1000), *([("x", "y" * 1000)] * 40)])
        peer.ask(3)

        reset = await peer.read(hf.RstStreamFrame)

        assert (reset.stream_id, reset.error_code) == (1, 11)
        assert (await peer.trailers())["grpc-status"] == "0"

    async def test_refuses_other_content(self, peer: Peer) -> None:
        peer.ask(1, [*HEAD[:4], ("content-type", "application/json")])

        assert (await peer.trailers())["grpc-status"] == "12"


HEADERS = hf.HeadersFrame(1, hpack.Encoder().encode(HEAD), flags=["END_HEADERS"])


class TestBrokenProtocol:
    @pytest.mark.parametrize(
        ("frames", "code"),
        [
            ([hf.DataFrame(1, b"x")], 1),
            ([hf.DataFrame(2, b"x")], 1),
            ([hf.HeadersFrame(2, b"", flags=["END_HEADERS"])], 1),
            ([hf.HeadersFrame(1, b"\xff\xff\xff\xff", flags=["END_HEADERS"])], 9),
            ([hf.HeadersFrame(1, b"\x00\x01A\x01b", flags=["END_HEADERS"])], 9),
            ([hf.HeadersFrame(1, b""), hf.PingFrame(0, b"12345678")], 1),
            ([hf.HeadersFrame(1, b""), hf.ContinuationFrame(3, b"")], 1),
            ([hf.ContinuationFrame(1, b"")], 1),
            ([HEADERS, hf.WindowUpdateFrame(0, 2**31 - 1)], 3),
            ([hf.RstStreamFrame(1, 8)], 1),
            ([HEADERS, hf.HeadersFrame(1, b"", flags=["END_HEADERS"])], 1),
            ([HEADERS, hf.DataFrame(1, b"", flags=["END_STREAM"]), hf.DataFrame(1, b"x")], None),
            ([hf.SettingsFrame(0, {hf.SettingsFrame.INITIAL_WINDOW_SIZE: 2**31})], 3),
            ([hf.PushPromiseFrame(1, 2, b"")], 1),
        ],
        ids=str,
    )  # fmt: skip
    async def test_ends_the_connection(
        self, gateway: GatewayUnderTest, peer: Peer, frames: list[hf.Frame], code: int | None
    ) -> None:
        peer.send(*frames)

        if code is not None:
            assert (await peer.ending())[0] == code
        await until(lambda: gateway.in_flight == 0)

    @pytest.mark.parametrize(
        ("data", "code"),
        [
            (b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00", 1),  # WINDOW_UPDATE by nothing
            (b"\x00\x00\x03\x08\x00\x00\x00\x00\x00\x00\x00\x00", 6),
            (b"\x00\x00\x07\x06\x00\x00\x00\x00\x00" + bytes(7), 6),  # a short PING
            (b"\x00\x00\x05\x04\x00\x00\x00\x00\x00" + bytes(5), 6),  # a SETTINGS cut off
            (b"\x00\x00\x01\x04\x01\x00\x00\x00\x00\x00", 6),  # an acknowledgement with a payload
            (b"\x01\x00\x01\x00\x00\x00\x00\x00\x01", 6),  # a frame of 65,537 bytes
            (b"\x00\x00\x01\x00\x08\x00\x00\x00\x01\x05", 1),  # padding without a frame
        ],
    )
    async def test_a_frame_that_is_none_ends_it(self, peer: Peer, data: bytes, code: int) -> None:
        peer.writer.write(data)

        assert (await peer.ending())[0] == code

    async def test_http1_is_told_where_it_is(self, gateway: GatewayUnderTest, connect: Connect) -> None:
        peer = await connect(gateway, is_greeting=False)
        peer.writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")

        assert await peer.ending() == (1, "this port speaks gRPC over HTTP/2; the connection begins otherwise")

    async def test_more_than_a_window_ends_it(self, peer: Peer, replica: ScriptedReplica) -> None:
        replica.script = never
        peer.send(hf.HeadersFrame(1, peer.encoder.encode(STREAM), flags=["END_HEADERS"]))
        message = request().SerializeToString()
        many = (b"\0" + len(message).to_bytes(4, "big") + message) * 200
        for _ in range((1 << 20) // len(many) + 1):
            peer.send(hf.DataFrame(1, many))

        assert await peer.ending() == (3, "more was sent on stream 1 than its window allows")


class TestAbuse:
    async def test_requests_that_are_taken_back_at_once_end_it(
        self, gateway: GatewayUnderTest, peer: Peer, replica: ScriptedReplica
    ) -> None:
        """CVE-2023-44487: each costs the client nothing, and a replica may have begun with it."""

        replica.script = never
        for stream in range(1, 2001, 2):
            peer.ask(stream)
            peer.send(hf.RstStreamFrame(stream, 8))

        code, reason = await peer.ending()

        assert (code, reason) == (11, "too many frames that ask for nothing, or requests taken back")
        await until(lambda: gateway.in_flight == 0, "no slot is kept")
        assert len(replica.calls) < 1000

    @pytest.mark.parametrize(
        "frame",
        [
            hf.PingFrame(0, b"12345678"), hf.SettingsFrame(0), hf.PriorityFrame(1), hf.DataFrame(1, b""),
            hf.WindowUpdateFrame(0, 1), hf.ExtensionFrame(0x42, stream_id=0),
        ],
        ids=lambda frame: type(frame).__name__,
    )  # fmt: skip
    async def test_frames_that_ask_for_nothing_end_it(self, peer: Peer, frame: hf.Frame) -> None:
        peer.send(HEADERS)
        peer.writer.write(frame.serialize() * 5_000)

        assert (await peer.ending())[0] == 11

    async def test_a_head_without_end_ends_it(self, peer: Peer) -> None:
        """CVE-2024-27316."""
        peer.send(hf.HeadersFrame(1, b"\x00\x01x\x01y"))
        for _ in range(200):
            peer.send(hf.ContinuationFrame(1, b"\x00\x01x\x01y" * 100))

        assert await peer.ending() == (11, "a head of more than 32768 bytes")

    async def test_more_streams_than_announced_are_refused(self, peer: Peer, replica: ScriptedReplica) -> None:
        for stream in range(1, 2 * 1_001 + 1, 2):
            peer.send(hf.HeadersFrame(stream, peer.encoder.encode(HEAD), flags=["END_HEADERS"]))

        reset = await peer.read(hf.RstStreamFrame)

        assert (reset.stream_id, reset.error_code) == (2_001, 7)

    async def test_a_message_that_does_not_come_is_not_waited_for(
        self, start_gateway: StartGateway, replica: ScriptedReplica, connect: Connect
    ) -> None:
        gateway = await start_gateway(body_timeout_s=0.1)
        await gateway.route(replica)
        peer = await connect(gateway)
        peer.send(HEADERS, hf.DataFrame(1, b"\0\0\1\0\0abc"))

        trailers = await peer.trailers()

        assert trailers["grpc-status"] == "4"
        assert trailers["grpc-message"].startswith("no byte of the request's body came for 0.1 s")
        assert gateway.gateway.memory.held_bytes == 0

    async def test_who_does_not_read_his_answer_is_let_go(
        self, start_gateway: StartGateway, replica: ScriptedReplica, connect: Connect
    ) -> None:
        """By his window, not by his socket: that is empty."""
        replica.script = serve
        gateway = await start_gateway(write_timeout_s=0.2)
        await gateway.route(replica)
        peer = await connect(gateway)
        peer.send(hf.SettingsFrame(0, {hf.SettingsFrame.INITIAL_WINDOW_SIZE: 10}))
        peer.ask(1)

        reset = await peer.read(hf.RstStreamFrame)

        assert (reset.stream_id, reset.error_code) == (1, 8)
        assert gateway.gateway.memory.held_bytes == 0

    async def test_who_does_not_read_his_socket_is_cut_off(
        self, start_gateway: StartGateway, replica: ScriptedReplica, connect: Connect
    ) -> None:
        async def flood(call: Call) -> None:
            await call.completed.wait()
            call.answer(bytes(3_000_000), b"200 OK", b"content-type: application/x-protobuf")

        replica.script = flood
        gateway = await start_gateway(write_timeout_s=0.2)
        await gateway.route(replica)
        peer = await connect(gateway)
        peer.writer.transport.pause_reading()
        peer.send(
            hf.SettingsFrame(0, {hf.SettingsFrame.INITIAL_WINDOW_SIZE: 2**31 - 1}), hf.WindowUpdateFrame(0, 2**30)
        )
        for stream in range(1, 21, 2):
            peer.ask(stream)

        await until(lambda: not gateway.gateway.connections, "the connection is gone")

        assert gateway.gateway.memory.held_bytes == gateway.gateway.unread.bytes == 0

    async def test_a_connection_without_a_beginning_is_not_kept(
        self, start_gateway: StartGateway, connect: Connect
    ) -> None:
        gateway = await start_gateway(header_timeout_s=0.1)
        peer = await connect(gateway, is_greeting=False)
        peer.writer.write(PREFACE[:5])

        assert await peer.read(hf.GoAwayFrame) is None

    async def test_an_idle_connection_is_told_to_end(self, start_gateway: StartGateway, connect: Connect) -> None:
        gateway = await start_gateway(idle_timeout_s=0.1)
        peer = await connect(gateway)

        first, ping = await peer.read(hf.GoAwayFrame), await peer.read(hf.PingFrame)
        peer.send(hf.PingFrame(0, ping.opaque_data, flags=["ACK"]))
        last = await peer.read(hf.GoAwayFrame)

        assert (first.last_stream_id, last.last_stream_id) == (2**31 - 1, 0)
        assert await peer.read() is None

    async def test_connections_over_the_limit_are_refused(self, start_gateway: StartGateway, connect: Connect) -> None:
        gateway = await start_gateway(connections=1)
        first = await connect(gateway)
        await first.read(hf.SettingsFrame)

        second = await connect(gateway)

        assert await second.ending() == (11, "all 1 connections of this gateway are taken; try again later")


class TestDrain:
    async def test_takes_in_what_was_sent_before_the_client_knew(
        self, gateway: GatewayUnderTest, peer: Peer, replica: ScriptedReplica
    ) -> None:
        go_on = asyncio.Event()

        async def wait(call: Call) -> None:
            await go_on.wait()
            await serve(call)

        replica.script = wait
        peer.ask(1)
        await until(lambda: replica.calls)
        draining = asyncio.create_task(gateway.gateway.drain())
        first, ping = await peer.read(hf.GoAwayFrame), await peer.read(hf.PingFrame)

        peer.ask(3)
        peer.send(hf.PingFrame(0, ping.opaque_data, flags=["ACK"]))
        last = await peer.read(hf.GoAwayFrame)
        peer.ask(5)
        refused = await peer.read(hf.RstStreamFrame)
        go_on.set()
        answers = [(await peer.trailers())["grpc-status"] for _ in range(2)]

        assert (first.last_stream_id, last.last_stream_id) == (2**31 - 1, 3)
        assert (refused.stream_id, refused.error_code) == (5, 7)
        assert answers == ["0", "0"]
        assert await peer.read() is None
        await draining

    async def test_ends_a_stream_of_inferences_that_waits_for_nothing(
        self, gateway: GatewayUnderTest, peer: Peer
    ) -> None:
        peer.send(hf.HeadersFrame(1, peer.encoder.encode(STREAM), flags=["END_HEADERS"]))
        await until(lambda: any(c._streams for c in gateway.gateway.connections))  # type: ignore[attr-defined]

        draining = asyncio.create_task(gateway.gateway.drain())
        trailers = await peer.trailers()

        assert trailers["grpc-status"] == "14"
        assert trailers["grpc-message"] == "the gateway hands over to another; open the stream again"
        await draining
