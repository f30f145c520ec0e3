"""The control plane's metrics, read by the official parser."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.adapters.engine import ReplicaUsage
from orchestrator.adapters.metrics import RETIRED_AFTER_S, Metrics, VersionLevels
from orchestrator.core.entities import VersionKey

IRIS = VersionKey("iris", "1")
LABELS = (("model", "iris"), ("version", "1"))


def shown(
    metrics: Metrics, *levels: VersionLevels, now: float = 0.0
) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = metrics.render(levels, [("direct", 0.5)], now).decode()
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


def test_shows_counters_of_a_version_from_zero_before_anything_happens() -> None:
    """Prometheus sees no increase in a series whose first value is 1."""
    found = shown(Metrics(), VersionLevels(IRIS, {}, 1))

    assert found["modelfleet_replica_failures_total", LABELS] == 0
    assert found["modelfleet_cold_start_seconds_count", LABELS] == 0
    assert ("modelfleet_wake_seconds_count", LABELS) not in found


def test_shows_wakes_from_zero_where_a_replica_stands_by() -> None:
    found = shown(Metrics(), VersionLevels(IRIS, {"standby": 1}, 0))

    assert found["modelfleet_wake_seconds_count", LABELS] == 0


def test_has_no_series_of_when_others_began() -> None:
    metrics = Metrics()
    metrics.started(IRIS, 1.0)

    assert [name for name, _ in shown(metrics, VersionLevels(IRIS, {}, 1)) if name.endswith("_created")] == []


def test_counts_failures_and_turns() -> None:
    metrics = Metrics()
    metrics.failed(IRIS)
    metrics.turned(0.02)
    metrics.turned(0.03, engine_answered=False)

    found = shown(metrics, VersionLevels(IRIS, {}, 1))

    assert found["modelfleet_replica_failures_total", LABELS] == 1
    assert found["modelfleet_reconcile_seconds_count", ()] == 2
    assert found["modelfleet_engine_errors_total", ()] == 1


def test_shows_the_revision_in_force_once_there_is_one() -> None:
    metrics = Metrics("1.2.3")
    before = metrics.render([], [], now=0.0).decode()
    metrics.render([], [], now=1.0, revision=6)

    after = metrics.render([], [], now=2.0, revision=7).decode()

    assert "modelfleet_revision" not in before
    assert "modelfleet_revision 7.0" in after.splitlines()
    assert 'modelfleet_build_info{release="1.2.3"} 1.0' in after.splitlines()


@pytest.mark.parametrize(
    ("latency_s", "les"),
    [(0.1, ["0.1"]), (0.11, ["0.125"]), (1.0, ["1", "1.0"]), (120.0, ["120", "120.0"]), (500.0, ["+Inf"])],
)
def test_names_the_bucket_that_counts_what_met_the_objective(latency_s: float, les: list[str]) -> None:
    found = shown(Metrics(), VersionLevels(IRIS, {}, 1, latency_s=latency_s, share=0.99))

    assert [dict(labels)["le"] for name, labels in found if name == "modelfleet_slo_bucket"] == les
    assert found["modelfleet_slo_ratio", LABELS] == 0.99


def test_says_nothing_of_an_objective_or_a_maximum_that_a_version_has_not() -> None:
    names = {name for name, _ in shown(Metrics(), VersionLevels(IRIS, {"ready": 1}, 1))}

    assert not names & {"modelfleet_slo_bucket", "modelfleet_slo_ratio", "modelfleet_replicas_max"}


def test_ends_the_series_of_versions_that_are_gone() -> None:
    metrics, now = Metrics(), 1000.0
    for n in range(500):
        key = VersionKey("iris", str(n))
        metrics.started(key, 1.0)
        metrics.woke(key, 0.02)
        metrics.decided(key, 1)
        metrics.failed(key)
        metrics.ran(key, 5.0)
        shown(metrics, VersionLevels(key, {"ready": 1}, 1, most=3, latency_s=0.1), now=now)
        now += RETIRED_AFTER_S / 10

    versions = {dict(labels).get("version") for _, labels in shown(metrics, now=now)} - {None}
    later = {dict(labels).get("version") for _, labels in shown(metrics, now=now + RETIRED_AFTER_S + 1)} - {None}

    assert versions == {str(n) for n in range(490, 500)}
    assert later == set()


def used(replica: str, **facts: float | None) -> ReplicaUsage:
    base: dict[str, float | None] = {
        "cpu_s": 1.5, "throttled_s": 0.25, "memory_bytes": 1000, "cpu_limit_cores": 2.0, "memory_limit_bytes": 4000,
    }  # fmt: skip
    return ReplicaUsage(id=replica, at=0.0, **{**base, **facts})  # type: ignore[arg-type]


def usage_shown(metrics: Metrics, *usages: ReplicaUsage) -> dict[tuple[str, str], float]:
    text = metrics.render([], [], 0.0, [(IRIS, usage) for usage in usages]).decode()
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    return {(s.name, s.labels["replica"]): s.value for s in samples if "replica" in s.labels}


def test_shows_what_replicas_use() -> None:
    assert usage_shown(Metrics(), used("r1")) == {
        ("modelfleet_replica_cpu_seconds_total", "r1"): 1.5,
        ("modelfleet_replica_cpu_throttled_seconds_total", "r1"): 0.25,
        ("modelfleet_replica_cpu_limit_cores", "r1"): 2.0,
        ("modelfleet_replica_memory_bytes", "r1"): 1000,
        ("modelfleet_replica_memory_limit_bytes", "r1"): 4000,
    }


def test_what_an_engine_does_not_say_has_no_series() -> None:
    found = usage_shown(Metrics(), used("r1", throttled_s=None, cpu_limit_cores=None))

    assert ("modelfleet_replica_cpu_throttled_seconds_total", "r1") not in found
    assert ("modelfleet_replica_cpu_limit_cores", "r1") not in found
    assert len(found) == 3


def test_the_series_of_a_replica_end_with_it() -> None:
    metrics = Metrics()
    usage_shown(metrics, used("r1"), used("r2"))

    assert {replica for _, replica in usage_shown(metrics, used("r2"))} == {"r2"}


def test_counts_kills_for_memory_from_zero() -> None:
    metrics = Metrics()
    assert shown(metrics, VersionLevels(IRIS, {}, 1))["modelfleet_oom_kills_total", LABELS] == 0
    metrics.oom_killed(IRIS)

    assert shown(metrics, VersionLevels(IRIS, {}, 1))["modelfleet_oom_kills_total", LABELS] == 1
