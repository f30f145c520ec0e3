from __future__ import annotations

import contextlib

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.hpack import TABLE_BYTES, Decoder, HpackError, literal

NAMES = st.one_of(
    st.sampled_from([b":path", b":method", b"content-type", b"te", b"grpc-timeout", b"x-request-id"]),
    st.from_regex(rb"[a-z0-9\-_.]{1,20}", fullmatch=True),
)
VALUES = st.from_regex(rb"[\x20-\x7e\x80-\xff]{0,200}", fullmatch=True)
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=20)


class TestDecoder:
    @given(
        blocks=st.lists(st.tuples(FIELDS, st.booleans(), st.none() | st.integers(0, TABLE_BYTES)), max_size=8),
        is_sensitive=st.booleans(),
    )
    def test_reads_what_another_encoder_wrote_block_by_block(
        self, blocks: list[tuple[list[tuple[bytes, bytes]], bool, int | None]], is_sensitive: bool
    ) -> None:
        encoder, decoder = hpack.Encoder(), Decoder(1 << 20)

        for fields, huffman, capacity in blocks:
            if capacity is not None:
                encoder.header_table_size = capacity
            block = encoder.encode([(name, value, is_sensitive) for name, value in fields], huffman=huffman)
            assert decoder.decode(block) == fields

    def test_refers_to_fields_of_blocks_before(self) -> None:
        encoder, decoder = hpack.Encoder(), Decoder(1 << 16)
        fields = [(b"user-agent", b"test"), (b"x-request-id", b"1")]

        first, second = encoder.encode(fields), encoder.encode(fields)

        assert decoder.decode(first) == decoder.decode(second) == fields
        assert len(second) == 2

    @given(st.binary(max_size=60))
    def test_raises_nothing_but_its_own_error(self, block: bytes) -> None:
        decoder = Decoder(1 << 16)

        with contextlib.suppress(HpackError):
            decoder.decode(block)

    @given(FIELDS, st.data())
    def test_refuses_a_block_that_is_cut_off_or_reads_whole_fields(
        self, fields: list[tuple[bytes, bytes]], data: st.DataObject
    ) -> None:
        block = hpack.Encoder().encode(fields)
        end = data.draw(st.integers(0, len(block)))

        try:
            read = Decoder(1 << 20).decode(block[:end])
        except HpackError:
            return
        assert read == fields[: len(read or ())]

    @pytest.mark.parametrize(
        ("block", "what"),
        [
            (b"\x80", "field 0 is in no table"),
            (b"\xbe", "field 62 is in no table"),
            (b"\xff\xff\xff\xff\xff\x0f", "a number is too large"),
            (b"\xff\x80\x80\x80\x80\x80\x80\x80", "a number is too large"),
            (b"\x3f\xe2\x1f", "the table is to grow to 4097 bytes"),
            (b"\x82\x20", "the table's capacity changes in the middle of a block"),
            (literal(b"Upper", b"x"), "not in lower case"),
            (literal(b"a b", b"x"), "not in lower case"),
            (literal(b"", b"x"), "not in lower case"),
            (literal(b"x", b"a\r\nb: c"), "the value of 'x' holds a control byte"),
            (literal(b"x", b"\x00"), "the value of 'x' holds a control byte"),
            (b"\x00\x05ab", "a string is longer than its block"),
            (b"\x00\x81\xff\x00", "a string is not in the Huffman code"),
            (b"\x40", "the block ends inside a field"),
        ],
    )
    def test_says_what_is_wrong(self, block: bytes, what: str) -> None:
        with pytest.raises(HpackError, match=what):
            Decoder(1 << 16).decode(block)

    def test_keeps_its_table_although_a_block_is_too_long(self) -> None:
        encoder, decoder = hpack.Encoder(), Decoder(300)
        fields = [(b"a", b"1"), (b"b", b"2" * 300), (b"c", b"3")]

        assert decoder.decode(encoder.encode(fields)) is None
        assert decoder.decode(encoder.encode([fields[2], fields[0]])) == [fields[2], fields[0]]

    def test_bounds_a_block_that_repeats_a_large_field(self) -> None:
        """A few bytes must not become megabytes (an HPACK bomb)."""
        decoder = Decoder(8192)
        assert decoder.decode(b"\x40" + literal(b"x", b"y" * 3000)[1:]) is not None

        assert decoder.decode(b"\xbe" * 10_000) is None

    def test_an_entry_that_is_larger_than_the_table_empties_it(self) -> None:
        decoder = Decoder(1 << 20)
        decoder.decode(b"\x40" + literal(b"x", b"y")[1:])

        decoder.decode(b"\x40" + literal(b"x", b"y" * 5000)[1:])

        with pytest.raises(HpackError, match="field 62 is in no table"):
            decoder.decode(b"\xbe")


class TestLiteral:
    @given(NAMES, st.from_regex(rb"[\x20-\x7e]{0,400}", fullmatch=True))
    def test_is_read_by_another_decoder(self, name: bytes, value: bytes) -> None:
        assert hpack.Decoder().decode(literal(name, value), raw=True) == [(name, value)]
