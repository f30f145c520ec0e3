"""The life of a replica as an operator sees it: how it loads, why it ended, and what its callers were told.

Real control planes with real gateways and model servers, as processes of this machine.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cluster import Cluster, fleet, pick_port, until

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for the module; each test has models of its own."""
    found = Cluster(tmp_path_factory.mktemp("life"), f"test-{secrets.token_hex(4)}", pick_port).start()
    try:
        yield found
    finally:
        found.close()


def waiting(gate: Path) -> str:
    """Code that goes on when the file `gate` is there."""
    return f"while not os.path.exists({str(gate)!r}):\n    time.sleep(0.01)"


class TestLoading:
    def test_status_says_what_it_does_and_for_how_long_and_then_how_long_each_phase_took(self, shared: Cluster) -> None:
        gate = shared.root / "go"
        shared.write_model("slow", load=waiting(gate))
        operation = shared.begin(fleet(slow="slow"))
        first = until("it loads", lambda: loading(shared, "slow"))

        later = until("time passes", lambda: longer(shared, "slow", first))
        told = shared.get(f"/operations/{operation}")["versions"]
        reason = shared.version("slow")["reason"]
        gate.touch()
        shared.ended(operation)

        assert later > first + 0.5
        assert [(v["phase"], v["phase_s"] > first) for v in told if v["model"] == "slow"] == [("loading", True)]
        assert reason.startswith("0 of 1 replica ready; loading ")
        assert reason.endswith(" s")
        (replica,) = shared.version("slow")["replicas"]
        assert list(replica["phases"]) == ["importing", "loading", "warming"]
        assert replica["phases"]["loading"] >= later
        assert sum(replica["phases"].values()) < replica["ready_after_s"] < sum(replica["phases"].values()) + 5
        (ready,) = [e for e in shared.events("replica_ready") if e["model"] == "slow"]
        assert "after it was created: importing " in ready["message"]

    def test_another_control_plane_still_knows_how_it_became_ready(self, shared: Cluster) -> None:
        shared.write_model("kept")
        shared.apply(fleet(kept="kept"))
        (before,) = shared.version("kept")["replicas"]

        shared.kill()
        shared.start()
        until("it observed", lambda: shared.get("/status")["state"] == "converged")

        (after,) = shared.version("kept")["replicas"]
        assert (after["id"], after["phases"], after["ready_after_s"]) == (
            before["id"],
            before["phases"],
            before["ready_after_s"],
        )


class TestDraining:
    def test_a_replica_that_somebody_ends_under_load_costs_no_request(self, shared: Cluster) -> None:
        """SIGTERM from outside, as of a machine that shuts down: the gateway was not asked before."""
        shared.write_model("drained", 4.0, predict="time.sleep(0.01)")
        shared.apply(fleet(drained={"scaling": {"min": 2}, "versions": {"1": {"source": "drained"}}}))
        victim = shared.version("drained")["replicas"][0]["id"]

        with shared.load("drained") as load:
            shared.server(victim).terminate()
            until("it is gone", lambda: victim not in [r["id"] for r in shared.version("drained")["replicas"]])
            until("another is ready", lambda: shared.version("drained")["ready"] == 2)

        assert load.failures == []


def loading(cluster: Cluster, model: str) -> float | None:
    """Seconds that its one replica has been loading, None while it does something else."""
    models = {each["name"]: each for each in cluster.get("/status")["models"]}
    for replica in models[model]["versions"][0]["replicas"] if model in models else []:
        if replica["phase"] == "loading":
            return float(replica["phase_s"])
    return None


def longer(cluster: Cluster, model: str, first: float) -> float | None:
    now = loading(cluster, model)
    return now if now is not None and now > first + 0.5 else None
