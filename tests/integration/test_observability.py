"""What there is to scrape, as a Prometheus finds it: real control plane, gateway and model servers (processes)."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.integration.cluster import Cluster, fleet, pick_port, until

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for the module: a model that is awake, and one that sleeps with a replica in standby."""
    found = Cluster(tmp_path_factory.mktemp("observed"), f"test-{secrets.token_hex(4)}", pick_port).start()
    try:
        found.write_model("iris")
        found.write_model("sleepy")
        found.apply(manifest())
        until("one sleeps", lambda: found.version("sleepy")["state"] == "asleep", 40)
        yield found
    finally:
        found.close()


def manifest(**sections: Any) -> dict[str, Any]:
    scaling = {"min": 0, "max": 1, "standby": 1, "idle_after": "1s"}
    iris = {"versions": {"1": {"source": "iris"}}, "slo": {"latency_ms": 250, "percentile": 99}}
    sleepy = {"versions": {"1": {"source": "sleepy"}}, "scaling": scaling, "queue": {"timeout_ms": 30_000}}
    return {**fleet(iris=iris, sleepy=sleepy), **sections}


def targets(cluster: Cluster, role: str = "") -> list[dict[str, Any]]:
    """As Prometheus asks: without a token."""
    answer = httpx.get(f"{cluster.url}/prometheus/targets", params={"role": role} if role else {}, trust_env=False)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    found: list[dict[str, Any]] = answer.json()
    return found


class TestTargets:
    def test_are_the_control_plane_the_gateway_and_the_replicas_that_are_awake(self, shared: Cluster) -> None:
        (replica,) = shared.version("iris")["replicas"]
        labels = {"cluster": shared.name}

        found = targets(shared)

        assert [group["labels"] for group in found] == [
            {**labels, "role": "control_plane"},
            {**labels, "role": "gateway"},
            {**labels, "role": "replica", "model": "iris", "version": "1", "replica": replica["id"]},
        ]
        assert [r["state"] for r in shared.version("sleepy")["replicas"]] == ["standby"]

    def test_each_answer_with_metrics(self, shared: Cluster) -> None:
        says = {
            "control_plane": 'modelfleet_slo_bucket{le="0.25",model="iris",version="1"} 1.0',
            "gateway": "modelfleet_gateway_info",
            "replica": "modelfleet_server_inflight",
        }
        for role, line in says.items():
            (group,) = targets(shared, role)
            (address,) = group["targets"]

            page = httpx.get(f"http://{address}/metrics", trust_env=False).text

            assert line in page

    def test_of_a_role_that_there_is_not_are_refused_with_the_roles(self, shared: Cluster) -> None:
        answer = httpx.get(f"{shared.url}/prometheus/targets", params={"role": "worker"}, trust_env=False)

        assert answer.status_code == 422
        assert "'gateway', 'replica' or 'control_plane'" in answer.json()["error"]
