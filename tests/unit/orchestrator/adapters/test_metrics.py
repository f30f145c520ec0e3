"""The control plane's metrics, read by the official parser."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from orchestrator.adapters.metrics import Metrics, VersionLevels
from orchestrator.core.entities import VersionKey

IRIS = VersionKey("iris", "1")
LABELS = (("model", "iris"), ("version", "1"))


def shown(metrics: Metrics, *levels: VersionLevels) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = metrics.render(levels, [("direct", 0.5)]).decode()
    families = text_string_to_metric_families(text)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def test_counts_decisions_starts_and_cost() -> None:
    metrics = Metrics()
    metrics.decided(IRIS, 3)
    metrics.decided(IRIS, -1)
    metrics.started(IRIS, 1.4)
    metrics.ran(IRIS, 2.5)

    found = shown(metrics)

    assert found["modelfleet_scale_decisions_total", (("direction", "up"), *LABELS)] == 1
    assert found["modelfleet_scale_decisions_total", (("direction", "down"), *LABELS)] == 1
    assert found["modelfleet_cold_start_seconds_sum", LABELS] == 1.4
    assert found["modelfleet_replica_seconds_total", LABELS] == 2.5


def test_shows_levels_as_they_are_now_and_none_of_before() -> None:
    metrics = Metrics()
    shown(metrics, VersionLevels(IRIS, {"ready": 2, "loading": 1}, 3))

    found = shown(metrics, VersionLevels(IRIS, {"ready": 3}, 3))

    assert found["modelfleet_replicas", (LABELS[0], ("state", "ready"), LABELS[1])] == 3
    assert ("modelfleet_replicas", (LABELS[0], ("state", "loading"), LABELS[1])) not in found
    assert found["modelfleet_replicas_desired", LABELS] == 3
    assert found["modelfleet_signals_age_seconds", (("source", "direct"),)] == 0.5
