"""What a cluster costs, with a real control plane that is killed and comes back (process engine)."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.cluster import Cluster, fleet, pick_port, until

pytestmark = pytest.mark.timeout(240)

PRICES = {"cpu_hour": 36.0, "memory_gib_hour": 18.0, "gpu_hour": 900.0, "currency": "EUR"}
# Of a replica with one core and half a GiB.
PER_S = (36.0 + 9.0) / 3600


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    found = Cluster(tmp_path_factory.mktemp("cost"), f"test-{secrets.token_hex(4)}", pick_port)
    try:
        found.start()
        found.write_model("iris")
        yield found
    finally:
        found.close()


def manifest(replicas: int = 1, **sections: Any) -> dict[str, Any]:
    return {**fleet(iris={"versions": {"1": {"source": "iris", "scaling": {"min": replicas}}}}), **sections}


def row(cluster: Cluster) -> dict[str, Any]:
    found: dict[str, Any] = cluster.get("/cost", by="version")["total"]
    return found


def seconds(cluster: Cluster) -> float:
    return float(row(cluster)["replica_hours"] * 3600)


def metric(cluster: Cluster, name: str) -> float | None:
    text = httpx.get(f"{cluster.url}/metrics", trust_env=False).text
    samples = (s for family in text_string_to_metric_families(text) for s in family.samples if s.name == name)
    return next((s.value for s in samples), None)


def test_prices_count_from_when_they_are_applied(cluster: Cluster) -> None:
    cluster.apply(manifest())
    until("three seconds were counted", lambda: seconds(cluster) > 3)
    assert row(cluster)["cost"] is None
    assert cluster.get("/cost")["prices"] is None
    assert metric(cluster, "modelfleet_cost_per_hour") is None

    plan = cluster.api("POST", "/plan", json=cluster.request(manifest(pricing=PRICES))).json()
    assert [(c["target"], c["sentence"]) for c in plan["changes"]] == [("pricing", "change settings, no restart")]
    assert "pricing.gpu_hour: no replica has a GPU" in plan["warnings"][0]
    cluster.apply(manifest(pricing=PRICES))

    def priced() -> dict[str, Any] | None:
        found = row(cluster)
        return found if found["cost"] and found["cost"] > 3 * PER_S else None

    found = until("three seconds have a cost", priced)
    priced_s = found["replica_hours"] * 3600 - found["unpriced_hours"] * 3600
    assert found["cost"] == pytest.approx(priced_s * PER_S, rel=1e-6)
    assert cluster.get("/cost")["cost_per_hour"] == pytest.approx(45.0)
    assert metric(cluster, "modelfleet_cost_per_hour") == pytest.approx(45.0)
    assert (metric(cluster, "modelfleet_cost_total") or 0) > 3 * PER_S


def test_goes_on_after_a_kill_and_counts_predictions_once(cluster: Cluster) -> None:
    cluster.apply(manifest(pricing=PRICES))
    for _ in range(5):
        cluster.predict("iris")
    until("they are counted", lambda: row(cluster)["predictions"] == 5)
    before, at = seconds(cluster), time.time()

    cluster.kill()
    for _ in range(3):
        cluster.predict("iris")
    cluster.start()

    until("those of meanwhile are counted too", lambda: row(cluster)["predictions"] == 8)
    found, passed_s = row(cluster), time.time() - at
    # One second of looking on either side.
    assert found["replica_hours"] * 3600 == pytest.approx(before + passed_s, abs=2.5)
    assert found["unknown_hours"] == 0
    assert found["cost_per_1000"] == pytest.approx(found["cost"] / 8 * 1000)


def test_tells_idle_time_from_busy_time(cluster: Cluster) -> None:
    cluster.write_model("iris", predict="time.sleep(0.3)")
    cluster.apply(manifest(pricing=PRICES))
    until("it idles", lambda: (row(cluster)["idle_share"] or 0) > 0.9 and seconds(cluster) > 4)
    idle = row(cluster)
    with cluster.load("iris", connections=2):
        until("and is busy", lambda: seconds(cluster) > idle["replica_hours"] * 3600 + 8)
    found = row(cluster)

    busy_s = (found["replica_hours"] - idle["replica_hours"]) * 3600
    idle_s = (found["idle_cost"] - idle["idle_cost"]) / PER_S
    assert idle_s < 0.4 * busy_s
    assert cluster.get("/cost", by="hour")["rows"][0]["predictions"] == found["predictions"]
