"""What the comparison of model servers makes of its figures."""

from __future__ import annotations

from benchmarks.server.compare import CONNECTIONS, OURS, Row, bars_of
from benchmarks.server.load import Figures
from benchmarks.server.peers import PEERS


def row(name: str, *rates: float, p50_ms: float = 1.0, p99_ms: float = 2.0) -> Row:
    made = Row(name)
    for rate in rates:
        for connections in CONNECTIONS:
            made.turns[connections].append(Figures(connections, rate, p50_ms, p99_ms))
    return made


class TestBars:
    def test_the_median_of_our_turns_is_what_counts(self) -> None:
        rows = {OURS: row(OURS, 100, 1000, 5000), "MLServer": row("MLServer", 100)}

        bar = next(bar for bar in bars_of(rows) if bar.what.startswith("16 connections, requests/s over MLServer"))

        assert (bar.value, bar.limit, bar.is_met) == (10.0, 10, True)

    def test_a_peer_that_was_left_out_has_no_bar(self) -> None:
        rows = {OURS: row(OURS, 100), "KServe": row("KServe", 100)}

        assert not [bar for bar in bars_of(rows) if "MLServer" in bar.what]

    def test_a_bare_app_may_be_faster_at_one_connection_by_a_tenth(self) -> None:
        rows = {OURS: row(OURS, 100, p50_ms=1.09), "FastAPI async": row("FastAPI async", 10)}

        bars = {bar.what: bar.is_met for bar in bars_of(rows)}

        assert bars["1 connection, median over FastAPI async's"]
        assert "1 connection, median over FastAPI's" not in bars

    def test_every_bar_names_a_peer_that_there_is(self) -> None:
        rows = {OURS: row(OURS, 1.0), **{name: row(name, 1.0) for name in PEERS}}

        named = [bar for bar in bars_of(rows) if "requests/s over" in bar.what]

        assert len(named) == 13

    def test_a_peer_that_answered_nothing_in_time_is_not_taken_for_a_missing_one(self) -> None:
        silent = row("Ray Serve", 100)
        silent.turns[16].clear()

        bar = next(bar for bar in bars_of({OURS: row(OURS, 1), "Ray Serve": silent}) if "16" in bar.what)

        assert bar.what == "16 connections, requests/s over Ray Serve's"
        assert bar.is_met
