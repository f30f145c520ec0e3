"""What a Prometheus remembers, from answers as it gives them; tests/integration has the real one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest

from orchestrator.adapters.prometheus_history import History, Past
from orchestrator.core.errors import UnavailableError, UserError
from tests.fakes.admin_api import FakeGateway

NOW = 10_000.0
Answers = Callable[[str, float], list[dict[str, Any]]]


def vector(value: float | str, **labels: str) -> dict[str, Any]:
    return {"metric": labels, "value": [NOW, str(value)]}


def matrix(values: list[tuple[float, float]], **labels: str) -> dict[str, Any]:
    return {"metric": labels, "values": [[at, str(value)] for at, value in values]}


class Server:
    """Answers each query by `answers(query, time)`, and remembers them."""

    def __init__(self) -> None:
        self.queries: list[str] = []
        self.answers: Answers = lambda query, at: []
        self.refusal: dict[str, str] | None = None
        self.gateways = [vector(1, instance="10.0.0.1:8082"), vector(1, instance="b")]

    def script(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        form = parse_qs(body.decode())
        query, at = form["query"][0], float(form["time"][0])
        self.queries.append(query)
        if self.refusal is not None:
            return 422, {}, json.dumps({"status": "error", **self.refusal}).encode()
        is_of_gateways = query.startswith('max_over_time(modelfleet_gateway_info{cluster="demo"}')
        result = self.gateways if is_of_gateways else self.answers(query, at)
        answer = {"status": "success", "data": {"resultType": "x", "result": result}}
        return 200, {}, json.dumps(answer).encode()


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def read(server: Server) -> Iterator[Callable[..., Past]]:
    with FakeGateway(server.script) as gateway, httpx.Client(trust_env=False) as client:

        def ask(span_s: float = 600, model: str = "iris") -> Past:
            return History(client, gateway.url, "demo", model, "1").read(span_s, NOW)

        yield ask


def of_arrivals(*series: dict[str, Any]) -> Answers:
    return lambda query, at: list(series) if query.startswith("modelfleet_arrivals_total") else []


class TestArrivals:
    def test_are_counted_between_scrapes(self, server: Server, read: Callable[..., Past]) -> None:
        server.answers = of_arrivals(matrix([(9000, 5), (9002, 5), (9004, 15), (9006, 16)], instance="a"))

        past = read()

        assert len(past.times) == 11
        assert (past.began_at, past.length_s, past.grain_s, past.gaps_s) == (9000, 6, 2, 0)
        assert sum(2 <= at < 4 for at in past.times) == 10
        assert list(past.times) == sorted(past.times)

    def test_of_several_gateways_add_up(self, server: Server, read: Callable[..., Past]) -> None:
        server.answers = of_arrivals(
            matrix([(9000, 0), (9002, 3)], instance="a"), matrix([(9001, 10), (9003, 14)], instance="b")
        )

        assert len(read().times) == 7

    def test_of_a_restarted_gateway_count_from_zero(self, server: Server, read: Callable[..., Past]) -> None:
        server.answers = of_arrivals(matrix([(9000, 100), (9002, 104), (9004, 3), (9006, 5)], instance="a"))

        assert len(read().times) == 4 + 3 + 2

    def test_are_not_counted_twice_where_pieces_meet(self, server: Server, read: Callable[..., Past]) -> None:
        """A range takes in both of its ends, so two neighbours have one sample in common."""

        def pieces(query: str, at: float) -> list[dict[str, Any]]:
            if not query.startswith("modelfleet_arrivals_total"):
                return []
            return [matrix([(at - 3600, (at - 3600) / 10), (at - 1800, (at - 1800) / 10), (at, at / 10)], instance="a")]

        server.answers = pieces

        past = read(span_s=7200)

        assert len(past.times) == 720
        assert len([q for q in server.queries if "[3600s]" in q and "arrivals" in q]) == 2

    def test_during_a_gap_are_spread_over_it_and_the_gap_is_told(
        self, server: Server, read: Callable[..., Past]
    ) -> None:
        values = [(9000.0, 0.0), (9002, 1), (9004, 2), (9006, 3), (9106, 53), (9108, 53), (9110, 53)]
        server.answers = of_arrivals(matrix(values, instance="a"))

        past = read()

        assert past.gaps_s == 100
        assert sum(6 <= at <= 106 for at in past.times) == 50

    def test_of_a_model_that_nobody_asked(self, server: Server, read: Callable[..., Past]) -> None:
        server.answers = of_arrivals(matrix([(9000, 7), (9002, 7)], instance="a"))

        with pytest.raises(UserError, match=r"knows no request of iris@1 in the last 0\.167 h"):
            read()

    def test_are_asked_for_by_an_escaped_name(self, server: Server, read: Callable[..., Past]) -> None:
        with pytest.raises(UserError):
            read(model='a"} or vector(1)')

        assert server.queries[1].startswith(r'modelfleet_arrivals_total{model="a\"} or vector(1)",version="1",')


class TestGateways:
    def test_of_the_cluster_alone_are_asked_about(self, server: Server, read: Callable[..., Past]) -> None:
        with pytest.raises(UserError):
            read()

        assert r'instance=~"10\\.0\\.0\\.1:8082|b"' in server.queries[1]

    def test_that_are_not_there_are_missed_by_name(self, server: Server, read: Callable[..., Past]) -> None:
        server.gateways = []

        with pytest.raises(UserError, match="knows no gateway of cluster 'demo'"):
            read()


class TestReplicas:
    @pytest.fixture(autouse=True)
    def _asked(self, server: Server) -> None:
        arrivals = of_arrivals(matrix([(9000, 0), (9002, 9)], instance="a"))

        def answers(query: str, at: float) -> list[dict[str, Any]]:
            if "model_seconds_bucket" in query:
                return [vector(100, le="+Inf"), vector(0, le="0.02"), vector(100, le="0.025")]
            if "model_seconds_sum" in query and "cold_start" not in query:
                return [vector(2.1)]
            if "cold_start" in query:
                return [vector("NaN")]
            return arrivals(query, at)

        server.answers = answers

    def test_take_as_long_as_the_exact_mean_says(self, read: Callable[..., Past]) -> None:
        service = read().service

        assert service is not None
        assert service.mean_s == pytest.approx(0.021)

    def test_that_never_started_in_that_time_start_in_nobody_knows_what(self, read: Callable[..., Past]) -> None:
        assert read().cold_start_s is None


class TestRefusal:
    def test_says_what_the_server_said(self, server: Server, read: Callable[..., Past]) -> None:
        server.refusal = {"error": "query processing would load too many samples"}

        with pytest.raises(UnavailableError, match="would load too many samples"):
            read()
