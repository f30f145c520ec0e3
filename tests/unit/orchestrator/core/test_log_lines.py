"""What a line says, whether somebody wants it, and its place among lines that come late."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.log_lines import Reordered, Said, Wanted, read


class TestRead:
    def test_of_an_event_are_its_parts(self) -> None:
        line = '{"ts": "2026-01-01T00:00:00.250Z", "level": "warning", "event": "model hangs", "replica": "r", "n": 1}'

        assert read(line) == Said("warning", "model hangs", {"replica": "r", "n": 1}, 1_767_225_600.25)

    def test_of_the_access_log_is_an_event_too(self) -> None:
        line = '{"ts": "2026-01-01T00:00:00Z", "request_id": "r", "status": 502, "method": "POST", "path": "/v2"}'

        assert read(line) == Said("error", "POST /v2 502", {"request_id": "r"}, 1_767_225_600.0)

    def test_of_a_last_word_without_a_level_is_an_error(self) -> None:
        assert read('{"event": "model failed", "reason": "x"}').level == "error"

    @pytest.mark.parametrize(
        "text", ["", "epoch 7", "{", "{}", "[]", '{"a": 1}', '{"event": 7}', '{"event": null}', "{" * 5000, "null"]
    )
    def test_whatever_is_no_event_is_a_plain_line(self, text: str) -> None:
        assert read(text) == Said()

    @given(
        st.text(max_size=200)
        | st.dictionaries(st.text(max_size=9), st.none() | st.text() | st.integers()).map(json.dumps)
    )
    def test_reads_anything(self, text: str) -> None:
        read(text)


class TestWanted:
    @pytest.mark.parametrize(
        ("wanted", "expected"),
        [
            (Wanted(), ["warning", "debug", "plain"]),
            (Wanted(level="warning"), ["warning"]),
            (Wanted(level="info"), ["warning", "plain"]),
            (Wanted(since=15.0), ["plain"]),
            (Wanted(pattern=re.compile("pl.in")), ["plain"]),
            (Wanted(request_id="r-1"), ["warning"]),
            (Wanted(request_id="t-1"), ["debug"]),
        ],
    )
    def test_takes_the_lines_that_were_asked_for(self, wanted: Wanted, expected: list[str]) -> None:
        lines = [
            (10.0, "warning", "warning", {"request_id": "r-1"}),
            (12.0, "debug", "debug", {"request_ids": ["r-7"], "trace_id": "t-1"}),
            (20.0, "plain", "", {}),
        ]

        assert [text for at, text, level, fields in lines if wanted.takes(at, text, level, fields)] == expected


class TestReordered:
    def test_puts_a_line_that_comes_late_before_the_younger_ones(self) -> None:
        waiting = Reordered[str](0.5)
        waiting.push(2.0, "second", now=100.0)
        waiting.push(1.0, "first", now=100.4)
        waiting.push(3.0, "third", now=100.45)

        assert list(waiting.ripe(100.45)) == []
        assert list(waiting.ripe(100.5)) == ["first", "second"]
        assert list(waiting.ripe(100.95)) == ["third"]

    def test_keeps_the_order_of_equal_times(self) -> None:
        waiting = Reordered[str](0.5)
        for line in ("a", "b", "c"):
            waiting.push(1.0, line, now=0.0)

        assert list(waiting.rest()) == ["a", "b", "c"]

    @given(st.lists(st.tuples(st.floats(0, 3), st.floats(0, 0.4)), max_size=40))
    def test_gives_each_line_once_and_in_order_if_none_is_later_than_the_window(
        self, lines: list[tuple[float, float]]
    ) -> None:
        waiting = Reordered[float](0.5)
        out: list[float] = []
        for at, late in sorted(lines, key=sum):
            out += waiting.ripe(at + late)
            waiting.push(at, at, now=at + late)
        out += waiting.rest()

        assert out == sorted(at for at, _ in lines)
