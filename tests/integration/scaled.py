"""What the tests of the autoscaler share: a model that is slow enough to be scaled, and its decisions as events."""

from __future__ import annotations

from typing import Any

from tests.integration.cluster import Cluster, until
from tests.integration.streams import Stream

# One request at a time for 50 ms: 50 requests/s keep 2.5 replicas busy.
SLOW = "time.sleep(0.05)"
SLO = {"latency_ms": 250}


def scaled_model(source: str, **section: Any) -> dict[str, Any]:
    scaling = {"max": 4, **section.pop("scaling", {})}
    return {"slo": SLO, "concurrency": 1, "versions": {"1": {"source": source}}, "scaling": scaling, **section}


def newest(cluster: Cluster) -> int:
    """The id of the newest event."""
    return max((int(e["id"]) for e in cluster.get("/events", limit=1)), default=0)


def decisions(cluster: Cluster, model: str, after: int = 0) -> list[dict[str, Any]]:
    return [e for e in cluster.events("scaled", after) if e["model"] == model]


def changes(found: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """The counts before and after each decision."""
    pairs = [event["message"].split(": ")[0].split(" -> ") for event in found]
    return [(int(before), int(after)) for before, after in pairs]


def ready(cluster: Cluster, model: str) -> int:
    return int(cluster.version(model)["ready"])


def used_to(stream: Stream, requests: int = 50) -> None:
    """Waits until the autoscaler knows the usual load."""
    until("the usual load is known", lambda: stream.answered >= requests, 40)
