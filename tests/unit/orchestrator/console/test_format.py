"""How the web console says numbers: with their unit, and never a zero for what is not known. Run by Node as the browser does."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.orchestrator.console.node import answers

pytestmark = pytest.mark.npm


def said(function: str, *values: Any) -> list[dict[str, str]]:
    """What a function of format.js answers to each value; a tuple is several arguments."""
    return answers("format.js", function, *(list(value) if isinstance(value, tuple) else [value] for value in values))


def texts(function: str, *values: Any) -> list[str]:
    return [each["text"] for each in said(function, *values)]


@pytest.mark.parametrize("function", ["count", "rate", "milliseconds", "percent", "bytes", "cost", "duration", "ago"])
def test_what_is_unknown_is_a_dash_with_the_reason(function: str) -> None:
    [found] = said(function, None)

    assert found["text"] == "–"
    assert len(found["title"]) > 5


def test_milliseconds_become_seconds_where_that_is_shorter() -> None:
    assert texts("milliseconds", 0, 0.04, 9.96, 12.4, 999, 1234, 61_500) == [
        "0 ms", "0.0 ms", "10.0 ms", "12 ms", "999 ms", "1.23 s", "61.5 s",
    ]  # fmt: skip


def test_a_share_that_is_tiny_is_not_said_to_be_nothing() -> None:
    assert texts("percent", 0, 0.0004, 0.012, 0.5, 1) == ["0 %", "<0.1 %", "1.2 %", "50 %", "100 %"]


def test_rates_counts_and_sizes_have_the_digits_that_matter() -> None:
    assert texts("rate", 0, 0.25, 12.6, 1234.5) == ["0/s", "0.3/s", "13/s", "1,235/s"]
    assert texts("count", 0, 12_345) == ["0", "12,345"]
    assert texts("bytes", 0, 1536, 50 * 2**20, 3 * 2**30) == ["0 B", "1.5 KiB", "50 MiB", "3.0 GiB"]


def test_a_cost_of_less_than_a_hundredth_keeps_its_digits() -> None:
    assert texts("cost", 0, 0.00123, 0.4, 1234) == ["0/h", "0.0012/h", "0.40/h", "1,234.00/h"]


def test_moments_are_said_by_their_age() -> None:
    now = 1_000_000
    ages = [(now - seconds, now) for seconds in (1, 30, 300, 7200, 500_000)]

    assert texts("ago", *ages) == ["just now", "30 s ago", "5 min ago", "2 h ago", "6 d ago"]


def test_the_title_has_the_exact_value() -> None:
    assert said("milliseconds", 12.346)[0]["title"] == "12.35 ms"
    assert said("bytes", 1536)[0]["title"] == "1,536 bytes"
