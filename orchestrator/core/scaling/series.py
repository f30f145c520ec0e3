"""From a gateway's metrics, by name, to a `Reading` for each version: the one place that knows what means what.

Both sources (`adapters/scrape.py`, `adapters/prometheus.py`) bring the same series, a name with labels and a value. A
gateway that answered and shows nothing of a version has carried nothing for it: that is zero, and known. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from orchestrator.core.entities import VersionKey
from orchestrator.core.scaling.signals import Buckets, Reading

ARRIVALS = "modelfleet_arrivals_total"
ANSWERED = "modelfleet_requests_total"
SHED = "modelfleet_shed_total"
QUEUED = "modelfleet_queued"
IN_FLIGHT = "modelfleet_inflight"
QUEUE = "modelfleet_queue_seconds"
REQUEST = "modelfleet_request_seconds"
MODEL = "modelfleet_model_seconds"
BEGAN_AT = "modelfleet_gateway_started_at_seconds"
INFO = "modelfleet_gateway_info"

_PARTS = tuple(f"{name}{part}" for name in (REQUEST, MODEL) for part in ("_bucket", "_sum"))
# For people who look at a model; a third of all lines, so that they are read of those models alone.
DETAILS = frozenset((f"{QUEUE}_bucket", f"{QUEUE}_sum"))
NAMES = frozenset((ARRIVALS, ANSWERED, SHED, QUEUED, IN_FLIGHT, BEGAN_AT, INFO, *_PARTS))
# Answers that say that a replica broke (docs/BEHAVIOUR.md).
BROKEN_CODES = frozenset(("500", "502"))
# Waited in vain and was answered late, so it is among the slow ones already.
COUNTED_AS_SLOW = "queue_timeout"


@dataclass(frozen=True, slots=True)
class Series:
    """One of `NAMES` for one version; `detail` is its `le`, `code` or `reason`. `key` is None for the gateway's own."""

    name: str
    key: VersionKey | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class GatewayReadings:
    """All that one gateway said at `at`."""

    at: float
    versions: Mapping[VersionKey, Reading]
    nothing: Reading

    def of(self, key: VersionKey) -> Reading:
        return self.versions.get(key, self.nothing)


def series_of(name: str, labels: Mapping[str, str]) -> Series | None:
    """None for what is of no interest: other metrics, and requests that belong to no version."""
    if name not in NAMES and name not in DETAILS:
        return None
    if name in (BEGAN_AT, INFO):
        return Series(name, None, labels.get("cluster", ""))
    model, version = labels.get("model", ""), labels.get("version", "")
    if not model or not version:
        return None
    return Series(name, VersionKey(model, version), labels.get("le") or labels.get("code") or labels.get("reason", ""))


def readings(values: Iterable[tuple[Series, float]], at: float) -> GatewayReadings:
    """Raises `ValueError` for a bucket that has no bound."""
    numbers: dict[VersionKey, _Numbers] = {}
    began_at: float | None = None
    for series, value in values:
        if series.key is not None:
            found = numbers.get(series.key)
            if found is None:
                found = numbers[series.key] = _Numbers()
            found.add(series, value)
        elif series.name == BEGAN_AT:
            began_at = value
    versions = {key: found.reading(at, began_at) for key, found in numbers.items()}
    return GatewayReadings(at, versions, _nothing(versions.values(), at, began_at))


def _nothing(known: Iterable[Reading], at: float, began_at: float | None) -> Reading:
    """Zeros, with the bounds that the gateway's histograms have, so that they can be added to others."""
    bounds: tuple[float, ...] = next((r.request.bounds for r in known if r.request is not None), (math.inf,))
    none = Buckets(bounds, (0.0,) * len(bounds), 0.0)
    return Reading(
        at=at, arrivals=0.0, answered=0.0, failed=0.0, errors=0.0, shed=0.0, succeeded=0.0, queued=0.0, in_flight=0.0,
        request=none,
        model=none, began_at=began_at,
    )  # fmt: skip


@dataclass(slots=True)
class _Numbers:
    """One version at one gateway, while its series come in."""

    single: dict[str, float] = field(default_factory=dict)
    answered: float = 0.0
    failed: float = 0.0
    errors: float = 0.0
    shed: float = 0.0
    succeeded: float = 0.0
    buckets: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def add(self, series: Series, value: float) -> None:
        match series.name:
            case "modelfleet_requests_total":
                self.answered += value
                if series.detail.startswith("2"):
                    self.succeeded += value
                if series.detail in BROKEN_CODES:
                    self.failed += value
                if series.detail.startswith("5"):
                    self.errors += value
            case "modelfleet_shed_total":
                if series.detail != COUNTED_AS_SLOW:
                    self.shed += value
            case (
                "modelfleet_request_seconds_bucket"
                | "modelfleet_model_seconds_bucket"
                | "modelfleet_queue_seconds_bucket"
            ):
                self.buckets.setdefault(series.name, []).append((float(series.detail), value))
            case name:
                self.single[name] = value

    def reading(self, at: float, began_at: float | None) -> Reading:
        one = self.single.get
        return Reading(
            at=at,
            arrivals=one(ARRIVALS),
            answered=self.answered,
            failed=self.failed,
            errors=self.errors,
            shed=self.shed,
            succeeded=self.succeeded,
            queued=one(QUEUED),
            in_flight=one(IN_FLIGHT),
            request=self._histogram(REQUEST),
            model=self._histogram(MODEL),
            queue=self._histogram(QUEUE),
            began_at=began_at,
        )

    def _histogram(self, name: str) -> Buckets | None:
        buckets, total_s = sorted(self.buckets.get(f"{name}_bucket", ())), self.single.get(f"{name}_sum")
        if not buckets or total_s is None or buckets[-1][0] != math.inf:
            return None
        bounds, counts = zip(*buckets, strict=True)
        return Buckets(bounds, counts, total_s)
