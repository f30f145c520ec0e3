from __future__ import annotations

import pytest

from benchmarks.gateway.wrk import Load, LoadError, parse

PRINTED = """Running 5s test @ http://127.0.0.1:8080/v2/models/iris/infer
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   784.33us    1.01ms  21.88ms   95.43%
    Req/Sec    48.61k     4.03k   54.40k    76.00%
  Latency Distribution
     50%  596.00us
     75%    0.85ms
     90%    1.23ms
     99%    4.50ms
  241803 requests in 5.00s, 88.55MB read
Requests/sec:  48344.12
Transfer/sec:     17.70MB
"""


class TestParse:
    def test_reads_rate_and_percentiles_in_their_units(self) -> None:
        assert parse(PRINTED) == Load(requests=241803, rate_per_s=48344.12, p50_ms=0.596, p99_ms=4.5)

    def test_reads_seconds_and_minutes(self) -> None:
        slow = PRINTED.replace("596.00us", "1.50s").replace("4.50ms", "1.02m")

        assert (parse(slow).p50_ms, parse(slow).p99_ms) == (1500.0, 61_200.0)

    @pytest.mark.parametrize(
        "line", ["  Non-2xx or 3xx responses: 12\n", "  Socket errors: connect 0, read 3, write 0, timeout 0\n"]
    )
    def test_refuses_a_run_with_failed_requests(self, line: str) -> None:
        with pytest.raises(LoadError, match=line.strip()):
            parse(PRINTED + line)

    def test_refuses_output_without_a_figure(self) -> None:
        with pytest.raises(LoadError, match="99%"):
            parse(PRINTED.replace("99%", "98%"))
