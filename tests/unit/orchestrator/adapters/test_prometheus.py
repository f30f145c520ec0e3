"""What a Prometheus server may answer, and what becomes of it. A real server: tests/integration/test_autoscale_signals."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from orchestrator.adapters.prometheus import Prometheus, query
from orchestrator.adapters.signals import Round, SignalsUnavailable
from orchestrator.core.entities import VersionKey
from tests.unit.orchestrator.adapters.pages import Pages, serving

IRIS = VersionKey("iris", "1")


def asked(url: str) -> Round:
    async def ask() -> Round:
        with ThreadPoolExecutor(1) as threads:
            async with httpx.AsyncClient(trust_env=False) as client:
                return await Prometheus(client, url, "demo", threads).read()

    return asyncio.run(ask())


def vector(*samples: tuple[dict[str, str], float], at: float | None = None) -> str:
    moment = time.time() if at is None else at
    result = [{"metric": labels, "value": [moment, str(value)]} for labels, value in samples]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}})


def of_gateway(instance: str, scraped_at: float | None, arrivals: float) -> list[tuple[dict[str, str], float]]:
    """`scraped_at` None: it was there, and is not any more."""
    name = {"instance": instance, "job": "modelfleet"}
    samples = [({**name, "cluster": "demo", "modelfleet_says": "was there"}, 1.0)]
    if scraped_at is None:
        return samples
    return [
        *samples,
        ({**name, "cluster": "demo", "modelfleet_says": "scraped at"}, scraped_at),
        ({**name, "__name__": "modelfleet_arrivals_total", "model": "iris", "version": "1"}, arrivals),
    ]


@pytest.fixture
def server() -> Iterator[Pages]:
    with serving() as pages:
        yield pages


def test_asks_one_query_about_its_own_cluster(server: Pages) -> None:
    server.page = vector(*of_gateway("a:1", time.time(), 3))

    asked(server.url)

    assert server.asked == [{"query": [query("demo")], "timeout": ["2s"]}]


def test_reads_each_gateway_as_of_its_own_scrape(server: Pages) -> None:
    now = time.time()
    server.page = vector(*of_gateway("a:1", now - 1, 3), *of_gateway("b:1", now - 4, 5), at=now)

    found = asked(server.url)

    assert {name: g.of(IRIS).arrivals for name, g in found.gateways.items()} == {
        "modelfleet/a:1": 3,
        "modelfleet/b:1": 5,
    }
    assert found.at == pytest.approx(now - 4, abs=0.5)
    assert (found.missing, found.note) == ((), "")


def test_names_a_gateway_that_is_not_scraped_any_more(server: Pages) -> None:
    server.page = vector(*of_gateway("a:1", time.time(), 3), *of_gateway("b:1", None, 0))

    assert asked(server.url).missing == ("modelfleet/b:1",)


@pytest.mark.parametrize("ahead_s", [90.0, -90.0])
def test_allows_for_a_clock_that_goes_wrong(server: Pages, ahead_s: float) -> None:
    theirs = time.time() + ahead_s
    server.page = vector(*of_gateway("a:1", theirs - 1.5, 3), at=theirs)

    found = asked(server.url)

    assert time.time() - found.at == pytest.approx(1.5, abs=0.5)
    assert f"its clock is 90.0 s {'ahead' if ahead_s > 0 else 'behind'}" in found.note


def test_takes_a_gateway_that_two_jobs_scrape_for_one(server: Pages) -> None:
    now = time.time()
    samples: list[tuple[dict[str, str], float]] = []
    for job, scraped_at in (("one", now - 2), ("other", now - 1)):
        samples += [({**labels, "job": job}, value) for labels, value in of_gateway("a:1", scraped_at, 3)]
        samples.append(
            ({"__name__": "modelfleet_gateway_started_at_seconds", "instance": "a:1", "job": job}, now - 500.125)
        )
    server.page = vector(*samples, at=now)

    assert list(asked(server.url).gateways) == ["other/a:1"]


@pytest.mark.parametrize(
    ("page", "status", "says"),
    [
        (vector(), 200, "has no metrics of a gateway of cluster 'demo'; let it scrape the gateway's metrics port"),
        (vector(*of_gateway("a:1", None, 0)), 200, "scrapes modelfleet/a:1 no more"),
        ("<html>", 200, "answers what is no query's result"),
        ('{"status": "error", "error": "query timed out in expression evaluation"}', 503, "answers 503: query timed"),
        ("<html>", 404, "answers 404: not the answer of a Prometheus"),
        ('{"status": "success", "data": {"resultType": "matrix", "result": []}}', 200, "answers 'matrix'"),
    ],
)
def test_says_why_an_answer_is_no_use(server: Pages, page: str, status: int, says: str) -> None:
    server.page, server.status = page, status

    with pytest.raises(SignalsUnavailable) as caught:
        asked(server.url)

    assert says in str(caught.value)
    assert str(caught.value).startswith(f"Prometheus at {server.url}")


def test_does_not_wait_long_for_a_server_that_is_stuck(server: Pages) -> None:
    server.is_stuck = True

    with pytest.raises(SignalsUnavailable, match="does not answer within 2 s"):
        asked(server.url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://user:geheim@127.0.0.1:1"])
def test_says_that_nothing_listens_there_and_no_password(url: str) -> None:
    with pytest.raises(SignalsUnavailable, match="cannot be asked") as caught:
        asked(url)

    assert "geheim" not in str(caught.value)


def test_the_query_is_one_line_without_surprises() -> None:
    text: Any = query("demo")

    assert "\n" not in text
    assert text.count('cluster="demo"') == 2
