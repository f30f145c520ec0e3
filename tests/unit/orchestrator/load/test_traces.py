"""Every form of a trace that is understood, and the sentence for what is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.load import traces
from orchestrator.load.traces import TraceError

RECORDED = Path(__file__).parents[4] / "benchmarks/autoscale/traces"


class TestForms:
    @pytest.mark.parametrize(
        "text",
        [
            "t_seconds\n5\n6.5\n9\n",
            "5\n6.5\n9\n",
            "9\n5\n6.5\n",
            "# of Tuesday\n\n5,a,b\n6.5,a,b\n9,a,b\n",
            "size,timestamp\n12,5\n1,6.5\n7,9\n",
            "TIMESTAMP,ContextTokens\n2023-11-16 18:17:05.0000000,4808\n2023-11-16 18:17:06.5000000,1\n2023-11-16 18:17:09,2\n",
            "2023-11-16T18:17:05Z\n2023-11-16T18:17:06.5Z\n2023-11-16T20:17:09+02:00\n",
        ],
        ids=["header", "bare", "unsorted", "comment", "column", "azure", "iso"],
    )
    def test_give_seconds_from_the_first_arrival_on(self, text: str) -> None:
        trace = traces.parse(text.splitlines(keepends=True), "t.csv")

        assert list(trace.times) == pytest.approx([0, 1.5, 4])
        assert trace.grain_s == 0

    def test_counts_are_spread_within_their_second(self) -> None:
        trace = traces.parse(["second,requests\n", "10,2\n", "11,0\n", "13,1\n"], "t.csv")

        assert len(trace.times) == 3
        assert 0 <= trace.times[1] < 1
        assert 2 < trace.times[2] < 4
        assert trace.grain_s == 1

    def test_counts_are_spread_alike_for_the_same_seed(self) -> None:
        lines = ["second,requests\n", "0,9\n"]

        assert traces.parse(lines, "t", seed=3) == traces.parse(lines, "t", seed=3)
        assert traces.parse(lines, "t", seed=3) != traces.parse(lines, "t", seed=4)

    def test_an_access_log_gives_when_requests_of_the_model_came(self) -> None:
        lines = [
            '{"ts": "2026-01-01T00:00:02.000+00:00", "model": "iris", "total_ms": 1000.0}\n',
            '{"ts": "2026-01-01T00:00:03.000+00:00", "model": "other", "total_ms": 1.0}\n',
            '{"ts": "2026-01-01T00:00:04.000+00:00", "model": "iris", "total_ms": 500.0}\n',
        ]

        assert list(traces.parse(lines, "log", model="iris").times) == pytest.approx([0, 2.5])
        assert len(traces.parse(lines, "log").times) == 3

    @pytest.mark.parametrize("name", ["azure_llm_code_2023.csv", "worldcup98_semifinal_0707.csv"])
    def test_those_that_are_shipped_are_read(self, name: str) -> None:
        trace = traces.read(RECORDED / name)

        assert len(trace.times) > 5000
        assert trace.times[0] == 0
        assert list(trace.times) == sorted(trace.times)


class TestRefusal:
    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("", "there is no arrival in it"),
            ("t_seconds\n", "there is no arrival in it"),
            ("1\n2\nthree\n", "t.csv:3: 'three': neither seconds nor a date and time"),
            ("1\nnan\n", "t.csv:2: 'nan': neither seconds nor a date and time"),
            ("1\ninf\n", "t.csv:2: 'inf'"),
            ("second,requests\n0,1.5\n", "t.csv:2: '1.5': not a whole number of requests"),
            ("second,requests\n0,-1\n", "t.csv:2: '-1': not a whole number of requests"),
            ("second,requests\n0\n", "t.csv:2: '0': there is no column 2"),
            ("a,time\n1\n", "t.csv:2: '1': there is no column 2"),
            (
                '{"ts": "2026-01-01T00:00:02+00:00"}\n{"model"\n',
                "t.csv:2: '{\"model\"': no line of the gateway's access log",
            ),
            ('{"ts": 5}\n', "t.csv:1:"),
        ],
    )
    def test_names_the_line_and_what_is_understood(self, text: str, sentence: str) -> None:
        with pytest.raises(TraceError) as caught:
            traces.parse(text.splitlines(keepends=True), "t.csv")

        assert sentence in str(caught.value)

    def test_of_a_log_without_the_model(self) -> None:
        lines = ['{"ts": "2026-01-01T00:00:02+00:00", "model": "iris"}\n']

        with pytest.raises(TraceError, match="no request of this model"):
            traces.parse(lines, "log", model="text")

    def test_of_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(TraceError, match=r"none\.csv': No such file or directory; name a file"):
            traces.read(tmp_path / "none.csv")

    def test_of_a_file_that_is_no_text(self, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00")

        with pytest.raises(TraceError, match="not UTF-8"):
            traces.read(tmp_path / "t.csv")
