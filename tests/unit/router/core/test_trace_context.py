"""W3C Trace Context, by the cases of its own test suite and some more."""

from __future__ import annotations

import pytest

from router.core.trace_context import ids_of, is_sampled, traceparent_of, valid_traceparent

TRACE, SPAN = b"4bf92f3577b34da6a3ce929d0e0e4736", b"00f067aa0ba902b7"


class TestTraceparent:
    @pytest.mark.parametrize(
        "good", [b"00-%b-%b-01", b"00-%b-%b-00", b"00-%b-%b-ff", b"01-%b-%b-01", b"cc-%b-%b-01-what-the-future-adds"]
    )
    def test_is_taken_as_it_was_sent(self, good: bytes) -> None:
        value = good % (TRACE, SPAN)

        assert valid_traceparent(value) == value
        assert ids_of(value) == (int(TRACE, 16), int(SPAN, 16))

    @pytest.mark.parametrize(
        "bad",
        [
            b"",
            b"00",
            b"ff-%b-%b-01" % (TRACE, SPAN),
            b"00-%b-%b-01-more" % (TRACE, SPAN),
            b"00-%b-%b-1" % (TRACE, SPAN),
            b"00-%b-%b-01" % (TRACE.upper(), SPAN),
            b"00-%b-%b-01" % (b"0" * 32, SPAN),
            b"00-%b-%b-01" % (TRACE, b"0" * 16),
            b"0-%b-%b-01" % (TRACE, SPAN),
            b"00-%b-%b-0x" % (TRACE, SPAN),
            b"01-%b-%b-01." % (TRACE, SPAN),
            b" 00-%b-%b-01" % (TRACE, SPAN),
        ],
    )
    def test_counts_as_not_sent_when_it_is_wrong(self, bad: bytes) -> None:
        assert valid_traceparent(bad) == b""

    @pytest.mark.parametrize(
        ("flags", "expected"),
        [(b"00", False), (b"01", True), (b"02", False), (b"03", True), (b"0a", False), (b"fb", True)],
    )
    def test_is_sampled_by_the_last_bit_of_its_flags(self, flags: bytes, expected: bool) -> None:
        assert is_sampled(b"00-%b-%b-%b" % (TRACE, SPAN, flags)) is expected

    def test_of_ours_can_be_read(self) -> None:
        made = traceparent_of(5, 7, sampled=True)

        assert valid_traceparent(made) == made
        assert (ids_of(made), is_sampled(made)) == ((5, 7), True)
