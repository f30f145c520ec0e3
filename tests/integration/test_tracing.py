"""Traces and exemplars as a cluster has them: the manifest turns them on in a gateway that runs, of two processes.

What the fast tests of the gateway cannot show: that the setting travels, that every process exports, that replicas in
containers without a way out have their spans, and that Prometheus keeps the exemplars.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes import otlp_collector
from tests.fakes.otlp_collector import Collector
from tests.integration.cluster import BODY, Cluster, fleet, pick_port, until
from tests.integration.prometheus_server import PrometheusServer

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with otlp_collector.running() as running:
        yield running


@pytest.fixture(params=["process", pytest.param("docker", marks=pytest.mark.docker)])
def traced(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    found = Cluster(tmp_path, f"test-{secrets.token_hex(4)}", pick_port, request.param)
    try:
        yield found.start()
    finally:
        found.close()


def manifest(**tracing: Any) -> dict[str, Any]:
    watching = {"observability": {"tracing": tracing}} if tracing else {}
    return {**fleet(m="m"), "gateway": {"processes": 2}, **watching}


def ask(cluster: Cluster, trace_id: str) -> httpx.Response:
    headers = {"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"}
    url = f"http://127.0.0.1:{cluster.gateway_port}/v2/models/m/infer"
    return httpx.post(url, json=BODY, headers=headers, trust_env=False, timeout=30)


class TestTracing:
    def test_reaches_a_running_gateway_and_all_its_processes(self, traced: Cluster, collector: Collector) -> None:
        traced.write_model("m")
        traced.apply(manifest())
        assert ask(traced, "f" * 32).status_code == 200
        token = traced.root / "collector-token"
        token.write_text("authorization: Bearer t0ken\n")

        traced.apply(manifest(otlp=collector.url, sample=0, headers={"file": "collector-token"}))

        traces = [f"{number:032x}" for number in range(1, 41)]
        for trace in traces:
            assert ask(traced, trace).status_code == 200
        for trace in traces:
            spans = collector.await_spans(trace, 7)
            kinds = sorted(span.resource["service.name"] for span in spans if span.kind == "server")
            assert kinds == ["modelfleet-gateway", "modelfleet-gateway-replica"]
            assert {span.resource["service.namespace"] for span in spans} == {traced.name}
        assert not [span for span in collector.spans if span.trace_id == "f" * 32]
        gateways = {span.resource["service.instance.id"] for span in collector.spans if span.kind == "client"}
        assert len(gateways) == 2
        assert {sent["authorization"] for sent in collector.headers} == {"Bearer t0ken"}
        assert "t0ken" not in (traced.state_dir / "gateway" / "config.json").read_text()
        causes = [event["message"] for event in traced.events("gateway_started")]
        assert "took over new settings without losing a request" in causes[-1]

    @pytest.mark.prometheus
    def test_links_the_latency_in_prometheus_to_traces(self, tmp_path: Path, collector: Collector) -> None:
        cluster = Cluster(tmp_path, f"test-{secrets.token_hex(4)}", pick_port)
        server = PrometheusServer(tmp_path / "p", pick_port(), cluster.metrics_port, every_s=1)
        try:
            cluster.start().write_model("m")
            cluster.apply(manifest(otlp=collector.url, sample=0))
            server.start("--enable-feature=exemplar-storage")

            def kept() -> set[str]:
                assert ask(cluster, secrets.token_hex(16)).status_code == 200
                query = {"query": "modelfleet_request_seconds_bucket", "start": "0", "end": "4000000000"}
                found = httpx.get(f"{server.url}/api/v1/query_exemplars", params=query, trust_env=False).json()["data"]
                return {each["labels"]["trace_id"] for series in found for each in series["exemplars"]}

            ids = until("Prometheus has an exemplar", kept, 40)
            for trace in ids:
                assert collector.await_spans(trace, 2)
            assert until("it has the counter too", lambda: server.ask('modelfleet_requests_total{code="200"}'), 20)
        finally:
            server.kill()
            cluster.close()
