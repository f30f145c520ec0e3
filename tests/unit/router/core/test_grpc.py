from __future__ import annotations

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core import grpc
from router.core.errors import ProtocolError
from router.core.grpc import Malformed, MessageReader, read_head

HEAD = [
    (b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/s/m"), (b":authority", b"x"),
    (b"content-type", b"application/grpc"), (b"te", b"trailers"),
]  # fmt: skip


class TestReadHead:
    def test_keeps_as_metadata_what_belongs_to_the_request(self) -> None:
        head = read_head(
            [*HEAD, (b"authorization", b"Bearer k"), (b"grpc-timeout", b"1500m"), (b"x-blob-bin", b"AA"),
             (b"content-length", b"7"), (b"x-priority", b"batch")]
        )  # fmt: skip

        assert (head.path, head.timeout_s, head.refusal) == (b"/s/m", 1.5, None)
        assert head.metadata == ((b"authorization", b"Bearer k"), (b"x-priority", b"batch"))

    @pytest.mark.parametrize(
        "fields",
        [
            HEAD[1:],
            [*HEAD, (b":path", b"/other")],
            [*HEAD, (b":status", b"200")],
            [HEAD[4], *HEAD[:4]],
            [*HEAD, (b"transfer-encoding", b"chunked")],
            [*HEAD, (b"connection", b"close")],
        ],
    )
    def test_refuses_what_http2_does_not_allow(self, fields: list[tuple[bytes, bytes]]) -> None:
        with pytest.raises(Malformed):
            read_head(fields)

    @pytest.mark.parametrize(
        ("fields", "status"),
        [
            ([(b":method", b"GET"), *HEAD[1:]], 415),
            ([*HEAD[:4], (b"content-type", b"application/json")], 415),
            ([*HEAD, (b"grpc-encoding", b"gzip")], 501),
            ([*HEAD, (b"grpc-timeout", b"soon")], 400),
        ],
    )
    def test_refuses_what_is_not_served(self, fields: list[tuple[bytes, bytes]], status: int) -> None:
        refusal = read_head(fields).refusal

        assert refusal is not None
        assert refusal.status == status


class TestReadTimeout:
    @pytest.mark.parametrize(
        ("value", "timeout_s"),
        [(b"2H", 7200), (b"3M", 180), (b"4S", 4), (b"5m", 0.005), (b"6u", 6e-6), (b"7n", 7e-9), (b"99999999H", 1e6),
         (b"", -1), (b"1", -1), (b"-1S", -1), (b"123456789S", -1), (b"1s", -1)],
    )  # fmt: skip
    def test_is_seconds_or_none(self, value: bytes, timeout_s: float) -> None:
        assert grpc.read_timeout(value) == pytest.approx(timeout_s)


class TestMessageReader:
    @given(st.lists(st.binary(max_size=40), max_size=8), st.lists(st.integers(1, 20), max_size=60))
    def test_cuts_messages_wherever_the_pieces_end(self, messages: list[bytes], cuts: list[int]) -> None:
        data = b"".join(grpc.prefix(len(message)) + message for message in messages)
        reader, found = MessageReader(1000), []

        for cut in [*cuts, len(data)]:
            reader.feed(data[:cut])
            data = data[cut:]
            while (message := reader.next()) is not None:
                found.append(message)

        assert found == messages
        assert reader.size == 0

    def test_refuses_a_long_message_before_it_is_here(self) -> None:
        with pytest.raises(ProtocolError, match="a message of 1001 bytes; the gateway takes at most 1000"):
            MessageReader(1000).feed(grpc.prefix(1001))

    def test_refuses_a_compressed_message(self) -> None:
        with pytest.raises(ProtocolError, match="the message is compressed"):
            MessageReader(1000).feed(b"\x01\x00\x00\x00\x00")


class TestTrailers:
    def test_say_the_status_and_why(self) -> None:
        block = grpc.trailers(5, "model “é” is 100% gone\n", [(b"x-request-id", b"1")])

        assert dict(hpack.Decoder().decode(block, raw=True)) == {
            b"grpc-status": b"5",
            b"grpc-message": b"model %E2%80%9C%C3%A9%E2%80%9D is 100%25 gone%0A",
            b"x-request-id": b"1",
        }
