from __future__ import annotations

import pytest
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hypothesis import given
from hypothesis import strategies as st

from router.core import huffman


def encode(text: bytes) -> bytes:
    """By hyper's tables, which are not ours."""
    bits = "".join(f"{REQUEST_CODES[byte]:0{REQUEST_CODES_LENGTH[byte]}b}" for byte in text)
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big") if bits else b""


class TestHuffman:
    def test_has_the_lengths_of_the_rfc(self) -> None:
        assert list(huffman.LENGTHS) == list(REQUEST_CODES_LENGTH)

    @given(st.binary())
    def test_reads_what_another_encoder_wrote(self, text: bytes) -> None:
        assert huffman.decode(encode(text)) == text

    def test_reads_the_example_of_the_rfc(self) -> None:
        assert huffman.decode(bytes.fromhex("f1e3c2e5f23a6ba0ab90f4ff")) == b"www.example.com"

    @pytest.mark.parametrize(
        ("data", "why"),
        [
            (b"\xff", "eight ones are a padding that is too long"),
            (b"\x00\x00\x01", "the padding is not of ones"),
            (b"\xff\xff\xff\xff", "the end of the string is a symbol that must not be sent"),
            (b"\xff\xff\xff\xfc", "the same, with padding"),
        ],
    )
    def test_refuses_what_is_no_string(self, data: bytes, why: str) -> None:
        assert huffman.decode(data) is None, why

    @given(st.binary())
    def test_reads_nothing_in_two_ways(self, data: bytes) -> None:
        decoded = huffman.decode(data)

        assert decoded is None or encode(decoded) == data
