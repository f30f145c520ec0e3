"""Decoders of bodies: any cut of the bytes gives the same body, and nothing that is not of the grammar passes."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.chunked import LINE_BYTES, TRAILER_BYTES, ChunkDecoder, LengthDecoder
from router.core.errors import ProtocolError

WIRE = b'5;a="b;c"\r\nhello\r\n06\r\n world\r\n0\r\nX-T: 1\r\nY: 2\r\n\r\n'


def feed(decoder: ChunkDecoder | LengthDecoder, pieces: list[bytes]) -> bytes:
    return b"".join(decoder.feed(piece) for piece in pieces)


class TestChunkDecoder:
    def test_reads_chunks_and_drops_extensions_and_trailers(self) -> None:
        decoder = ChunkDecoder()

        assert decoder.feed(WIRE + b"GET /") == b"hello world"
        assert (decoder.done, decoder.rest) == (True, b"GET /")

    @given(st.lists(st.integers(0, len(WIRE)), max_size=6))
    def test_reads_the_same_however_the_bytes_are_cut(self, cuts: list[int]) -> None:
        at = [0, *sorted(cuts), len(WIRE)]
        decoder = ChunkDecoder()

        body = feed(decoder, [WIRE[a:b] for a, b in pairwise(at)])

        assert (body, decoder.done, decoder.rest) == (b"hello world", True, b"")

    def test_reads_the_same_byte_by_byte(self) -> None:
        decoder = ChunkDecoder()

        assert feed(decoder, [bytes([byte]) for byte in WIRE]) == b"hello world"
        assert decoder.done

    @pytest.mark.parametrize("size", [b"zz", b"-3", b"+3", b"0x3", b"3_", b"", b" 3", b"3 ", b"3 3", b"3\x00", b"3,0"])
    def test_refuses_a_size_that_is_not_hexadecimal(self, size: bytes) -> None:
        with pytest.raises(ProtocolError):
            ChunkDecoder().feed(size + b"\r\nabc\r\n")

    @pytest.mark.parametrize("size", [b"FFFFFFFFFFFFFFFF", b"10000000000000003", b"8000000000000000"])
    def test_refuses_a_size_that_overflows(self, size: bytes) -> None:
        with pytest.raises(ProtocolError):
            ChunkDecoder().feed(size + b"\r\nabc")

    @pytest.mark.parametrize(
        "wire",
        [
            b"3\nabc\r\n",
            b"3;a\nabc\r\n",
            b'3;a="\n"\r\nabc\r\n',
            b"3\r\nabcXX",
            b"3\r\nabc\n0\r\n\r\n",
            b"3\r\nabc\r0",
            b"3;a\x00\r\nabc\r\n",
            b"0\r\nX : 1\r\n\r\n",
            b"0\r\nX\r\n\r\n",
            b"0\r\nX: 1\r\n fold\r\n\r\n",
            b"0\r\nX: 1\n\r\n",
            b"0\n\n",
        ],
    )
    def test_refuses_delimiters_that_readers_see_differently(self, wire: bytes) -> None:
        with pytest.raises(ProtocolError):
            ChunkDecoder().feed(wire)

    @pytest.mark.parametrize("extension", [b";a", b";a=b", b";a=b;c", b';a="b c;d"', b';a="\\"\xff"', b";*|~=!"])
    def test_drops_an_extension_of_the_grammar(self, extension: bytes) -> None:
        assert ChunkDecoder().feed(b"3" + extension + b"\r\nabc\r\n") == b"abc"

    @pytest.mark.parametrize(
        "extension", [b";", b";;a", b"; a", b" ;a", b";a =b", b";a=", b";\xff", b';a="', b';a="b"c']
    )
    def test_refuses_an_extension_that_llhttp_refuses(self, extension: bytes) -> None:
        """Readers that differ on an extension can differ on where its line ends."""
        with pytest.raises(ProtocolError):
            ChunkDecoder().feed(b"3" + extension + b"\r\nabc\r\n")

    def test_bounds_a_size_line_that_never_ends(self) -> None:
        decoder = ChunkDecoder()

        with pytest.raises(ProtocolError):
            feed(decoder, [b"3;"] + [b"a" * 100] * (LINE_BYTES // 100 + 1))

    def test_bounds_extensions_beside_little_data(self) -> None:
        """Otherwise a body of a megabyte could be four gigabytes on the wire."""
        decoder = ChunkDecoder()

        with pytest.raises(ProtocolError) as caught:
            decoder.feed((b"1;" + b"a" * 4000 + b"\r\nx\r\n") * 10)

        assert caught.value.refusal.status == 413

    def test_takes_an_extension_with_each_large_chunk(self) -> None:
        """Signed uploads have one of 86 bytes in every chunk."""
        decoder = ChunkDecoder()
        chunk = b"400;chunk-signature=" + b"0" * 64 + b"\r\n" + b"x" * 1024 + b"\r\n"

        assert sum(len(decoder.feed(chunk)) for _ in range(1000)) == 1_024_000

    def test_takes_any_number_of_small_chunks(self) -> None:
        decoder = ChunkDecoder()

        assert sum(len(decoder.feed(b"1\r\nx\r\n")) for _ in range(10_000)) == 10_000

    def test_bounds_the_trailers(self) -> None:
        decoder = ChunkDecoder()

        with pytest.raises(ProtocolError) as caught:
            feed(decoder, [b"0\r\n"] + [b"X: " + b"v" * 95 + b"\r\n"] * (TRAILER_BYTES // 100 + 1))
        assert caught.value.refusal.status == 431

    @given(st.lists(st.binary(max_size=30), max_size=8))
    def test_ends_in_a_body_or_a_refusal_whatever_comes(self, pieces: list[bytes]) -> None:
        with suppress(ProtocolError):
            feed(ChunkDecoder(), pieces)


class TestLengthDecoder:
    def test_stops_at_the_length_and_keeps_what_follows(self) -> None:
        decoder = LengthDecoder(5)

        assert feed(decoder, [b"he", b"lloGET"]) == b"hello"
        assert (decoder.done, decoder.rest) == (True, b"GET")

    def test_of_nothing_is_done_at_once(self) -> None:
        assert LengthDecoder(0).done
