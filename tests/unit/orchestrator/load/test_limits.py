"""What `--assert` understands, where it says that it does not, and what keeps a limit."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.load import limits
from orchestrator.load.limits import LimitError
from orchestrator.load.tally import Tally

MS = 1_000_000


def tally(*latencies_ms: float, failed: int = 0, slo_ms: int | None = None) -> Tally:
    """Requests that were due at once, and answered within the last of these latencies."""
    made = Tally(0, None if slo_ms is None else slo_ms * MS)
    for latency in latencies_ms:
        made.note_sent(0, MS)
        made.note_answer(0, int(latency * MS), 200, b"")
    for _ in range(failed):
        made.note_sent(0, MS)
        made.note_failure(0, 5 * MS, "timeout")
    return made


class TestVerdicts:
    @pytest.mark.parametrize(
        ("text", "ok", "seen"),
        [
            ("p50<20ms", True, "10.002 ms"),
            ("p50<10ms", False, "10.002 ms"),
            ("p50<=10.01ms", True, "10.002 ms"),
            ("p99.9 < 0.2 s", True, "100.000 ms"),
            ("max<99ms", False, "100.000 ms"),
            ("mean>10ms", True, "40.000 ms"),
            ("min>=10000us", True, "10.000 ms"),
            ("errors<26%", True, "25.0000 %"),
            ("errors<1", False, "1"),
            ("late<=2", True, "2"),
            ("late<50%", False, "50.0000 %"),
            ("rate>29/s", True, "30.0/s"),
            ("lag<2ms", True, "1.000 ms"),
        ],
    )
    def test_compare_what_was_seen(self, text: str, ok: bool, seen: str) -> None:
        (limit,) = limits.parse(text)

        verdict = limit.verdict(tally(10, 10, 100, failed=1, slo_ms=50))

        assert (verdict.text, verdict.ok) == (text, ok)
        assert verdict.seen == seen

    def test_of_what_is_unknown_are_broken(self) -> None:
        verdicts = [limit.verdict(tally()) for limit in limits.parse("p99<1s,p99>0s,late<1,errors<1%")]

        assert [verdict.ok for verdict in verdicts] == [False, False, False, False]
        assert "no objective was named (--slo)" in verdicts[2].seen


class TestGrammar:
    def test_takes_several_with_spaces_between(self) -> None:
        assert [limit.text for limit in limits.parse(" p99<100ms , errors<0.1% ")] == ["p99<100ms", "errors<0.1%"]

    @pytest.mark.parametrize(
        ("text", "column", "wanted"),
        [
            ("", 1, "the end; here stands a percentile"),
            ("p99", 4, "the end; here stands <, <=, > or >="),
            ("p99=1ms", 4, "'='; here stands <, <=, > or >="),
            ("p99<", 5, "the end; here stands a number"),
            ("p99<100", 8, "the end; here stands the unit of p99: us or ms or s"),
            ("p99<100%", 8, "'%'; here stands the unit of p99"),
            ("errors<5ms", 9, "'ms'; here stands the unit of errors: nothing or %"),
            ("p99<100ms,eror<1%", 11, "'eror'; here stands a percentile"),
            ("p101<1s", 1, "'p101'; here stands a percentile"),
            ("p99<100ms errors<1%", 11, "'errors'; here stands a comma"),
            ("p99<100ms,", 11, "the end; here stands a percentile"),
            ("rate>5/m", 7, "'/m'; here stands the unit of rate"),
        ],
    )
    def test_says_where_it_cannot_be_read(self, text: str, column: int, wanted: str) -> None:
        with pytest.raises(LimitError) as caught:
            limits.parse(text)

        assert f"column {column}: {wanted}" in str(caught.value)
        assert "for example 'p99<100ms,errors<0.1%'" in str(caught.value)

    @given(st.text(max_size=30))
    def test_reads_or_refuses_any_text(self, text: str) -> None:
        with contextlib.suppress(LimitError):
            assert limits.parse(text)
