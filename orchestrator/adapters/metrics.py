"""The control plane's own metrics in Prometheus' text format; the names are a contract (docs/BEHAVIOUR.md).

The gateway's are `router/metrics.py`'s. Whoever owns an event calls the method named after it; what is a level at the
moment of a scrape is given to `render`. Series of a version that is gone end `RETIRED_AFTER_S` later.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from orchestrator.adapters.engine import ReplicaUsage
from orchestrator.adapters.metrics_replicas import ReplicaMetrics
from orchestrator.core.entities import VersionKey
from orchestrator.core.states import ReplicaState
from router.contract import BUCKETS_S

_VERSION = ("model", "version")
# From a woken process to a model of many gigabytes.
_START_BUCKETS_S = (0.5, 1, 2, 3, 5, 10, 20, 30, 60, 120, 300, 600)

_WAKE_BUCKETS_S = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 3)
_TURN_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
# Long enough for every scraper to have seen the last counts.
RETIRED_AFTER_S = 300.0
_DIRECTIONS = ("up", "down")
_OUTCOMES = ("promoted", "rolled_back", "failed", "paused", "resumed")
STANDBY = str(ReplicaState.STANDBY)


@dataclass(frozen=True, slots=True)
class VersionLevels:
    """One version's replicas now: how many are in each state, and how many should be awake.

    `most` may be awake (None: its number is fixed); `cost_per_hour` is what these cost (None: there are no prices);
    `latency_s` is its objective, to be met by `share` of the requests.
    """

    key: VersionKey
    states: dict[str, int]
    desired: int
    most: int | None = None
    cost_per_hour: float | None = None
    latency_s: float | None = None
    share: float = 0.95


class Metrics:
    """Counters that live as long as the control plane."""

    def __init__(self, release: str = "") -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter and histogram, which nobody reads
        self._registry = CollectorRegistry()
        self._decisions = Counter(
            "modelfleet_scale_decisions_total",
            "Changes of a version's count.",
            (*_VERSION, "direction"),
            registry=self._registry,
        )
        self._cold_starts = Histogram(
            "modelfleet_cold_start_seconds", "From the decision to start a replica to its first readiness.", _VERSION,
            buckets=_START_BUCKETS_S, registry=self._registry,
        )  # fmt: skip
        self._wakes = Histogram(
            "modelfleet_wake_seconds", "From the decision to wake a replica in standby to its readiness.", _VERSION,
            buckets=_WAKE_BUCKETS_S, registry=self._registry,
        )  # fmt: skip
        self._replica_seconds = Counter(
            "modelfleet_replica_seconds_total",
            "Seconds of replicas that were awake or starting.",
            _VERSION,
            registry=self._registry,
        )
        self._replicas = Gauge(
            "modelfleet_replicas", "Replicas by their state.", (*_VERSION, "state"), registry=self._registry
        )
        self._desired = Gauge(
            "modelfleet_replicas_desired", "Replicas that should be awake.", _VERSION, registry=self._registry
        )
        self._most = Gauge(
            "modelfleet_replicas_max",
            "Replicas that a version may have at most, where the load decides.",
            _VERSION,
            registry=self._registry,
        )
        self._slo_latency = Gauge(
            "modelfleet_slo_latency_seconds", "The latency objective.", _VERSION, registry=self._registry
        )
        self._slo_share = Gauge(
            "modelfleet_slo_ratio", "The share of requests that shall meet it.", _VERSION, registry=self._registry
        )
        self._slo_bucket = Gauge(
            "modelfleet_slo_bucket",
            "The bucket of modelfleet_request_seconds that counts requests within the objective.",
            (*_VERSION, "le"),
            registry=self._registry,
        )
        self._failures = Counter(
            "modelfleet_replica_failures_total",
            "Replicas that ended, hung or did not become ready though they were wanted.",
            _VERSION,
            registry=self._registry,
        )
        self._cost = Counter(
            "modelfleet_cost_total",
            "What replicas cost, in the manifest's currency, by what they ask for.",
            _VERSION,
            registry=self._registry,
        )
        self._idle_cost = Counter(
            "modelfleet_idle_cost_total",
            "The part of modelfleet_cost_total of replicas that had no request inside.",
            _VERSION,
            registry=self._registry,
        )
        self._cost_per_hour = Gauge(
            "modelfleet_cost_per_hour", "What runs now costs an hour.", _VERSION, registry=self._registry
        )
        self._oom_kills = Counter(
            "modelfleet_oom_kills_total",
            "Replicas that ended because a process of theirs needed more memory than the limit.",
            _VERSION,
            registry=self._registry,
        )
        self._replica_usage = ReplicaMetrics()
        self._registry.register(self._replica_usage)
        self._rollouts = Counter(
            "modelfleet_rollouts_total",
            "What people did about rollouts of one model: promoted, rolled_back, failed, paused, resumed.",
            (*_VERSION, "outcome"),
            registry=self._registry,
        )
        self._turns = Histogram(
            "modelfleet_reconcile_seconds",
            "One turn of reconciliation: observe, decide, begin to act.",
            buckets=_TURN_BUCKETS_S,
            registry=self._registry,
        )
        self._engine_errors = Counter(
            "modelfleet_engine_errors_total",
            "Turns of reconciliation in which the engine did not answer, so that nothing was decided.",
            registry=self._registry,
        )
        self._revision = Gauge("modelfleet_revision", "The revision in force.", registry=None)
        self._shows_revision = False
        build = Gauge("modelfleet_build_info", "The release that runs.", ("release",), registry=self._registry)
        build.labels(release).set(1)
        self._rendering = threading.Lock()  # guards the gauges between being set and being written
        self._last_seen: dict[VersionKey, float] = {}
        self._counted: set[VersionKey] = set()  # since the last page
        self._signal_age = Gauge(
            "modelfleet_signals_age_seconds",
            "How old the newest numbers of a source are.",
            ("source",),
            registry=self._registry,
        )

    def decided(self, key: VersionKey, change: int) -> None:
        self._counted.add(key)
        direction = "up" if change > 0 else "down"
        self._decisions.labels(key.model, key.version, direction).inc()

    def started(self, key: VersionKey, seconds: float) -> None:
        self._counted.add(key)
        self._cold_starts.labels(key.model, key.version).observe(seconds)

    def woke(self, key: VersionKey, seconds: float) -> None:
        self._counted.add(key)
        self._wakes.labels(key.model, key.version).observe(seconds)

    def ran(self, key: VersionKey, replica_s: float) -> None:
        self._counted.add(key)
        self._replica_seconds.labels(key.model, key.version).inc(replica_s)

    def failed(self, key: VersionKey) -> None:
        self._counted.add(key)
        self._failures.labels(key.model, key.version).inc()

    def oom_killed(self, key: VersionKey) -> None:
        self._counted.add(key)
        self._oom_kills.labels(key.model, key.version).inc()

    def spent(self, key: VersionKey, cost: float, idle_cost: float) -> None:
        self._counted.add(key)
        self._cost.labels(key.model, key.version).inc(cost)
        self._idle_cost.labels(key.model, key.version).inc(idle_cost)

    def rolled_out(self, key: VersionKey, outcome: str) -> None:
        self._counted.add(key)
        self._rollouts.labels(key.model, key.version, outcome).inc()

    def turned(self, seconds: float, engine_answered: bool = True) -> None:
        self._turns.observe(seconds)
        if not engine_answered:
            self._engine_errors.inc()

    def render(
        self,
        versions: Iterable[VersionLevels],
        signal_ages: Iterable[tuple[str, float]],
        now: float,
        usages: Iterable[tuple[VersionKey, ReplicaUsage]] = (),
        revision: int | None = None,
    ) -> bytes:
        """The page; `revision` is the one in force, None before the first. For 200 versions it takes tens of
        milliseconds, so it is called on a thread."""
        with self._rendering:
            self._set(versions, signal_ages, now)
            self._set_revision(revision)
            self._replica_usage.shown = list(usages)
            return generate_latest(self._registry)

    def _set_revision(self, revision: int | None) -> None:
        """It is no series before there is one: 0 would be a revision that was taken back."""
        if revision is None:
            return
        self._revision.set(revision)
        if not self._shows_revision:
            self._registry.register(self._revision)
            self._shows_revision = True

    def _set(self, versions: Iterable[VersionLevels], signal_ages: Iterable[tuple[str, float]], now: float) -> None:
        counts = (self._replicas, self._desired, self._most, self._cost_per_hour)
        for gauge in (*counts, self._slo_latency, self._slo_share, self._slo_bucket, self._signal_age):
            gauge.clear()
        counted, self._counted = self._counted, set()
        self._last_seen.update(dict.fromkeys(counted, now))
        for version in versions:
            self._last_seen[version.key] = now
            self._begin(version.key)
            if STANDBY in version.states:
                self._wakes.labels(version.key.model, version.key.version)  # not of all: it has fifteen series
            self._set_levels(version)
        for source, age_s in signal_ages:
            self._signal_age.labels(source).set(age_s)
        self._retire(now)

    def _set_levels(self, version: VersionLevels) -> None:
        labels = version.key.model, version.key.version
        self._desired.labels(*labels).set(version.desired)
        for state, count in version.states.items():
            self._replicas.labels(*labels, state).set(count)
        if version.most is not None:
            self._most.labels(*labels).set(version.most)
        if version.cost_per_hour is not None:
            self._cost_per_hour.labels(*labels).set(version.cost_per_hour)
            self._cost.labels(*labels)  # from zero, as the others, but only once there are prices
            self._idle_cost.labels(*labels)
        if version.latency_s is not None:
            self._slo_latency.labels(*labels).set(version.latency_s)
            self._slo_share.labels(*labels).set(version.share)
            for le in _spellings(version.latency_s):
                self._slo_bucket.labels(*labels, le).set(1)

    def _begin(self, key: VersionKey) -> None:
        """Shows its counters from zero: the first event of a series that was not there is no increase to Prometheus."""
        labels = key.model, key.version
        for metric in (self._failures, self._cold_starts, self._replica_seconds, self._oom_kills):
            metric.labels(*labels)
        for direction in _DIRECTIONS:
            self._decisions.labels(*labels, direction)
        for outcome in _OUTCOMES:
            self._rollouts.labels(*labels, outcome)

    def _retire(self, now: float) -> None:
        for key, seen in list(self._last_seen.items()):
            if now - seen > RETIRED_AFTER_S:
                del self._last_seen[key]
                self._end(key)

    def _end(self, key: VersionKey) -> None:
        labels = key.model, key.version
        counters = (self._failures, self._replica_seconds, self._oom_kills, self._cost, self._idle_cost)
        for metric in (*counters, self._cold_starts, self._wakes):
            metric.remove(*labels)
        for direction in _DIRECTIONS:
            self._decisions.remove(*labels, direction)
        for outcome in _OUTCOMES:
            self._rollouts.remove(*labels, outcome)


def _spellings(latency_s: float) -> tuple[str, ...]:
    """The `le` of the first bound that is not below the objective, as Prometheus 2 and 3 keep it (`1` and `1.0`)."""
    at = bisect_left(BUCKETS_S, latency_s)
    if at == len(BUCKETS_S):
        return ("+Inf",)
    bound = BUCKETS_S[at]
    return tuple(dict.fromkeys((f"{bound:g}", str(float(bound)))))
