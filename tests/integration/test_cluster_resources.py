"""What replicas use, as a user sees it: status, describe and the control plane's metrics (process engine)."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.cluster import Cluster, fleet, pick_port, until

pytestmark = pytest.mark.timeout(180)

HOARD = """
hoard = []
while True:
    hoard.append(bytearray(os.urandom(4096)) * 1024)
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A model that is awake, one in standby, and one that needs more memory than it may have."""
    found = Cluster(tmp_path_factory.mktemp("resources"), f"test-{secrets.token_hex(4)}", pick_port)
    try:
        found.start()
        found.write_model("iris")
        found.write_model("sleepy")
        found.write_model("hog", load=HOARD)
        limits = {"resources": {"cpus": 0.5, "memory": "96Mi"}}
        models = fleet(
            iris={"versions": {"1": {"source": "iris"}}},
            sleepy={"versions": {"1": {"source": "sleepy"}},
                    "scaling": {"min": 0, "max": 1, "standby": 1, "idle_after": "1s"}},
            hog={"versions": {"1": {"source": "hog", **limits}}},
        )  # fmt: skip
        operation = found.begin(models)
        until("it is in force", lambda: found.get(f"/operations/{operation}")["state"] == "converging", 60)
        yield found
    finally:
        found.close()


def series(cluster: Cluster, name: str) -> dict[tuple[str, str], float]:
    """Values by model and replica ("": the series has no such label)."""
    text = httpx.get(f"{cluster.url}/metrics", trust_env=False).text
    samples = (s for family in text_string_to_metric_families(text) for s in family.samples if s.name == name)
    return {(s.labels["model"], s.labels.get("replica", "")): s.value for s in samples}


def replica_of(cluster: Cluster, model: str, state: str) -> dict[str, Any]:
    def ask() -> dict[str, Any] | None:
        found = [r for r in cluster.version(model)["replicas"] if r["state"] == state and r["memory_bytes"]]
        return found[0] if found else None

    return until(f"{model} is {state} and its memory is known", ask, 60)


def test_status_tells_memory_and_cpu_of_a_replica(shared: Cluster) -> None:
    replica = replica_of(shared, "iris", "ready")

    assert 8 * 2**20 < replica["memory_bytes"] < 512 * 2**20
    assert replica["memory_limit_bytes"] == 512 * 2**20

    def ratio() -> float | None:
        found = replica_of(shared, "iris", "ready")["cpu_ratio"]
        return None if found is None else found + 1e-9

    assert 0 <= until("two readings make a rate", ratio, 30) < 4


def test_metrics_have_a_series_for_each_replica(shared: Cluster) -> None:
    replica = replica_of(shared, "iris", "ready")
    at = ("iris", replica["id"])

    assert series(shared, "modelfleet_replica_cpu_seconds_total")[at] > 0
    assert series(shared, "modelfleet_replica_memory_bytes")[at] > 2**20
    assert series(shared, "modelfleet_replica_memory_limit_bytes")[at] == 512 * 2**20
    # Nothing limits the CPU of a process: no series, rather than a zero.
    assert series(shared, "modelfleet_replica_cpu_limit_cores") == {}


def test_one_in_standby_holds_memory_and_has_no_rate_of_cpu(shared: Cluster) -> None:
    replica = replica_of(shared, "sleepy", "standby")

    assert replica["memory_bytes"] > 8 * 2**20
    assert replica["cpu_ratio"] is None
    assert series(shared, "modelfleet_replica_cpu_seconds_total")["sleepy", replica["id"]] > 0


def test_ends_for_memory_are_counted_once_each(shared: Cluster) -> None:
    def ask() -> bool:
        # Asked first: whatever ended until then is in the events that are asked for next.
        counted = series(shared, "modelfleet_oom_kills_total")["hog", ""]
        told = [e for e in shared.events("replica_failed") if e["model"] == "hog" and "out of memory" in e["message"]]
        return counted >= 2 and len(told) - 1 <= counted <= len(told) + 1

    assert until("two ends are counted", ask, 60)
    assert series(shared, "modelfleet_oom_kills_total")["iris", ""] == 0


def test_series_end_with_their_replica(shared: Cluster) -> None:
    before = replica_of(shared, "iris", "ready")["id"]
    shared.server(before).kill()

    def ask() -> bool:
        found = {replica for model, replica in series(shared, "modelfleet_replica_memory_bytes") if model == "iris"}
        return bool(found) and before not in found

    assert until("another replica has taken its place", ask, 60)
