"""Both sources of signals on a real gateway: read directly, and through a real Prometheus that scrapes it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from orchestrator.adapters.prometheus import Prometheus
from orchestrator.adapters.scrape import Scrape
from orchestrator.adapters.signals import Round, SignalsUnavailable, Source
from orchestrator.core.entities import VersionKey
from tests.integration.cluster import Cluster, fleet, pick_port, until
from tests.integration.prometheus_server import PrometheusServer
from tests.unit.orchestrator.adapters.pages import serving

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.prometheus,
]
IRIS = VersionKey("iris", "1")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    found = Cluster(tmp_path_factory.mktemp("sources"), f"test-{secrets.token_hex(4)}", pick_port).start()
    try:
        found.write_model("iris", predict="time.sleep(0.02)")
        found.apply(fleet(iris="iris"))
        yield found
    finally:
        found.close()


@pytest.fixture
def prometheus(cluster: Cluster, tmp_path: Path) -> Iterator[PrometheusServer]:
    found = PrometheusServer(tmp_path / "prometheus", pick_port(), cluster.metrics_port, every_s=1).start()
    yield found
    found.kill()


def read(cluster: Cluster, server: PrometheusServer | None = None, name: str = "") -> Round:
    """One reading, of the gateway itself or through `server`."""

    async def ask() -> Round:
        with ThreadPoolExecutor(1) as threads:
            async with httpx.AsyncClient(trust_env=False) as client:
                source: Source
                if server is None:
                    url = f"http://127.0.0.1:{cluster.metrics_port}"
                    source = Scrape(client, lambda: {"gateway": url}, threads)
                else:
                    source = Prometheus(client, server.url, name or cluster.name, threads)
                return await source.read()

    return asyncio.run(ask())


def test_both_say_the_same_of_a_gateway(cluster: Cluster, prometheus: PrometheusServer) -> None:
    for _ in range(5):
        cluster.predict("iris")
    assert cluster.send("iris", "/versions/9").status_code == 404
    (direct,) = read(cluster).gateways.values()

    def same() -> Round | None:
        try:
            found = read(cluster, prometheus)
        except SignalsUnavailable:
            return None
        (gateway,) = found.gateways.values()
        return found if gateway.of(IRIS).arrivals == direct.of(IRIS).arrivals else None

    found = until("Prometheus scraped the gateway", same)

    (scraped,) = found.gateways.values()
    ours, theirs = direct.of(IRIS), scraped.of(IRIS)
    assert ours.arrivals is not None
    assert ours.arrivals >= 5
    assert (theirs.answered, theirs.failed, theirs.shed) == (ours.answered, ours.failed, ours.shed)
    assert (theirs.request, theirs.model) == (ours.request, ours.model)
    assert theirs.began_at == pytest.approx(ours.began_at)
    assert list(found.gateways) == [f"modelfleet/127.0.0.1:{cluster.metrics_port}"]
    assert 0 <= time.time() - found.at < 5
    assert found.missing == ()


def test_the_gateways_of_another_cluster_are_not_ours(cluster: Cluster, prometheus: PrometheusServer) -> None:
    until("Prometheus scraped the gateway", lambda: prometheus.ask("modelfleet_gateway_info"))

    with pytest.raises(SignalsUnavailable, match="no metrics of a gateway of cluster 'other'"):
        read(cluster, prometheus, "other")


def test_says_that_prometheus_scrapes_the_gateway_no_more(cluster: Cluster, tmp_path: Path) -> None:
    """The scrape fails, so that its series end at once, and what was there is known from minutes before."""
    with httpx.Client(trust_env=False) as client:
        page = client.get(f"http://127.0.0.1:{cluster.metrics_port}/metrics").text

    with serving() as gateway:
        gateway.page = page
        port = int(gateway.url.rpartition(":")[2])
        server = PrometheusServer(tmp_path / "prometheus", pick_port(), port, every_s=1).start()
        try:
            until("it is scraped", lambda: server.ask("modelfleet_gateway_info"))
            gateway.status = 500
            until("its series end", lambda: not server.ask("modelfleet_gateway_info"))

            with pytest.raises(SignalsUnavailable, match=r"scrapes .* no more"):
                read(cluster, server)
        finally:
            server.kill()
