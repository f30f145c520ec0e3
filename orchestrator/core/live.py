"""What people look at: rates and percentiles of the last seconds, and how they were over the last minutes.

From the same cumulative readings that the autoscaler gets, but for eyes: over a window that is long enough to be calm.
Unknown is None, in a track NaN, and never zero. Pure: the times come with the readings. Read `loops/recorder.py` next.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.core.entities import VersionKey
from orchestrator.core.scaling.series import GatewayReadings
from orchestrator.core.scaling.signals import Buckets, Reading, grown, has_fallen, joined, quantile

# A reading that came late or was missed does not tear a curve; more than this is a gap that people should see.
MOST_CARRIED_S = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """What happened to a version, or a model, within `span_s`; `queued` and `in_flight` are levels at its end.

    `request`, `model` and `queue` are histograms of what was answered then; `queue` is None while nobody looks at it.
    """

    span_s: float
    answered: float
    errors: float
    queued: float | None
    in_flight: float | None
    request: Buckets | None = None
    model: Buckets | None = None
    queue: Buckets | None = None


@dataclass(frozen=True, slots=True)
class Rates:
    """What a `Growth` means, each None where it says nothing of it: no percentile of no answer."""

    rate_per_s: float | None = None
    error_ratio: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    queue_p95_ms: float | None = None
    model_p95_ms: float | None = None
    queued: int | None = None
    in_flight: int | None = None


UNKNOWN = Rates()


def growth(
    earlier: Mapping[str, GatewayReadings], later: Mapping[str, GatewayReadings], key: VersionKey
) -> Growth | None:
    """What happened to `key` between two rounds of readings, all gateways together. None: one of them cannot be read,
    or was not read before, so that every sum would be wrong."""
    if not later or not later.keys() <= earlier.keys():
        return None
    parts = [_step(earlier[name].of(key), now.of(key)) for name, now in later.items()]
    if len(parts) == 1:
        return parts[0]
    known = [part for part in parts if part is not None]
    return total(known) if len(known) == len(parts) else None


def total(parts: Sequence[Growth]) -> Growth:
    """All of them together: gateways of a version, or versions of a model."""
    if len(parts) == 1:
        return parts[0]
    return Growth(
        span_s=max(part.span_s for part in parts),
        answered=sum(part.answered for part in parts),
        errors=sum(part.errors for part in parts),
        queued=_sum(part.queued for part in parts),
        in_flight=_sum(part.in_flight for part in parts),
        request=_joined([part.request for part in parts]),
        model=_joined([part.model for part in parts]),
        queue=_joined([part.queue for part in parts]),
    )


def rates(found: Growth | None) -> Rates:
    """`found` in numbers for people, rounded to what they can read."""
    if found is None:
        return UNKNOWN
    request = found.request
    p50, p95, p99 = (_ms(request, 0.5), _ms(request, 0.95), _ms(request, 0.99)) if request else (None, None, None)
    return Rates(
        rate_per_s=round(found.answered / found.span_s, 2),
        error_ratio=round(found.errors / found.answered, 4) if found.answered else None,
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        queue_p95_ms=_ms(found.queue, 0.95),
        model_p95_ms=_ms(found.model, 0.95),
        queued=None if found.queued is None else round(found.queued),
        in_flight=None if found.in_flight is None else round(found.in_flight),
    )


def _step(before: Reading, now: Reading) -> Growth | None:
    """One gateway's. Where it began anew in between, all that it says is new."""
    span_s = now.at - before.at
    if now.answered is None or now.errors is None or not span_s > 0:
        return None
    if has_fallen(before, now):
        return Growth(
            span_s=span_s, answered=now.answered, errors=now.errors, queued=now.queued, in_flight=now.in_flight,
            request=now.request, model=now.model, queue=now.queue,
        )  # fmt: skip
    answered, errors = now.answered - (before.answered or 0.0), now.errors - (before.errors or 0.0)
    if not answered:
        # Most models of a large fleet, most of the time.
        return Growth(span_s=span_s, answered=0.0, errors=0.0, queued=now.queued, in_flight=now.in_flight)
    return Growth(
        span_s=span_s,
        answered=answered,
        errors=errors,
        queued=now.queued,
        in_flight=now.in_flight,
        request=grown(before.request, now.request),
        model=grown(before.model, now.model),
        queue=None if before.queue is None else grown(before.queue, now.queue),
    )


def _ms(buckets: Buckets | None, share: float) -> float | None:
    """At most `1 / (1 - share)` of the mean, as of anything that is never negative: most requests wait for nothing, and
    a first bucket that all are in would have them wait for almost all of it."""
    if buckets is None or not buckets.count > 0:
        return None
    most_s = max(0.0, buckets.total_s) / buckets.count / (1 - share)
    return round(min(quantile(buckets, share), most_s) * 1000, 2)


def _sum(values: Iterable[float | None]) -> float | None:
    known = list(values)
    return None if None in known else sum(value for value in known if value is not None)


def _joined(parts: Sequence[Buckets | None]) -> Buckets | None:
    """Of those that answered anything; None when none did."""
    return joined([part for part in parts if part is not None])


# -- tracks -----------------------------------------------------------------------------------------------------

CURVES = ("rate_per_s", "error_ratio", "p50_ms", "p95_ms", "p99_ms", "queued", "ready", "desired")


class Track:
    """The last `length` seconds of each of `CURVES`, a number a second: 4 bytes each. Slots are whole seconds."""

    def __init__(self, length: int) -> None:
        self.length = length
        self._last: int | None = None
        self._curves = [array("f", [math.nan]) * length for _ in CURVES]

    def copy(self) -> Track:
        copied = Track(self.length)
        copied._last, copied._curves = self._last, [curve[:] for curve in self._curves]
        return copied

    def put(self, slot: int, values: Sequence[float | None]) -> None:
        """Notes the values of `CURVES` at `slot`. Seconds that were left out get them too, if they are few."""
        if self._last is not None and slot < self._last:
            return  # the clock was set back: what was kept stays until it is reached again
        numbers = [math.nan if value is None else value for value in values]
        first = slot if self._last is None else min(slot, self._last + 1)
        if slot - first > MOST_CARRIED_S:
            self._fill(max(first, slot - self.length + 1), slot, [math.nan] * len(numbers))
            first = slot
        self._fill(first, slot + 1, numbers)
        self._last = slot

    def read(self, curve: str, slots: Iterable[int]) -> list[float | None]:
        """The values at `slots`, None for what was not noted or is no longer kept."""
        if self._last is None:
            return [None for _ in slots]
        kept, last, length = self._curves[CURVES.index(curve)], self._last, self.length
        values = (kept[slot % length] if last - length < slot <= last else math.nan for slot in slots)
        return [None if math.isnan(value) else round(value, 4) for value in values]

    def _fill(self, first: int, end: int, numbers: Sequence[float]) -> None:
        for curve, number in zip(self._curves, numbers, strict=True):
            for slot in range(first, end):
                curve[slot % self.length] = number
