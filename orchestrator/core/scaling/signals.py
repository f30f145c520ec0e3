"""From what gateways count to what happened between two readings: cumulative counters to a `Sample`.

Counters only grow; one that fell belongs to a gateway that began anew, and all that it says is new. A gateway that was
not read before says nothing of this interval unless it is as young as that; one that was expected and not read is
named, for without it every sum is too low. Several gateways add up. Unknown stays unknown, it is never 0.
Pure: Prometheus and the direct scrape both make `Reading`s and come here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from orchestrator.core.scaling.facts import Sample, ServiceTimes

# A reading is as young as the interval when its gateway began this little before it.
BEGAN_SLACK_S = 1.0


@dataclass(frozen=True, slots=True)
class Buckets:
    """A cumulative histogram as Prometheus has it: `counts[i]` observations are at most `bounds[i]` seconds (the last
    bound is infinite), `total_s` is their sum."""

    bounds: tuple[float, ...]
    counts: tuple[float, ...]
    total_s: float

    @property
    def count(self) -> float:
        return self.counts[-1] if self.counts else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One gateway's numbers for one version at `at`. None: it did not say. `began_at` is when the gateway started.

    Counters: `arrivals` at admission (None where a gateway does not count them: then they follow from what was
    answered and what is inside), `answered` of every outcome, of these `succeeded` (2xx), `failed` (the replica broke)
    and `errors` (any 5xx), `shed`; histograms of the whole request, of its time in a replica, and, where it was asked
    for, of its time in the queue. Levels: `queued`, `in_flight`.
    """

    at: float
    arrivals: float | None = None
    answered: float | None = None
    failed: float | None = None
    errors: float | None = None
    shed: float | None = None
    succeeded: float | None = None
    queued: float | None = None
    in_flight: float | None = None
    request: Buckets | None = None
    model: Buckets | None = None
    queue: Buckets | None = None
    began_at: float | None = None


def between(
    earlier: Mapping[str, Reading],
    later: Mapping[str, Reading],
    *,
    latency_s: float | None,
    percentile: float = 95.0,
    expected: Iterable[str] = (),
) -> Sample | None:
    """What happened between two rounds of readings, by gateway. None: nothing can be said (none was read twice).

    `expected` are the gateways that should have answered. Without `latency_s` only what was shed is late.
    """
    pairs = [(earlier.get(name), reading) for name, reading in sorted(later.items())]
    read = [(before, now) for before, now in pairs if before is not None]
    if not read:
        return None
    span_s = max(now.at - before.at for before, now in read)
    if not math.isfinite(span_s) or span_s <= 0:
        return None
    new = [now for before, now in pairs if before is None]
    steps = [_Step.of(before, now) for before, now in read]
    steps += [_Step.since_start(now) for now in new if _is_as_young(now, span_s)]
    unread = {name for name, now in later.items() if name not in earlier and not _is_as_young(now, span_s)}
    missing = {name for name in (*expected, *earlier) if name not in later} | unread
    request = joined([s.request for s in steps])
    shed = _sum(s.shed for s in steps)
    slow = 0.0 if latency_s is None or request is None else count_above(request, latency_s)
    return Sample(
        at=max(now.at for now in later.values()),
        span_s=span_s,
        arrivals=_sum(s.arrivals for s in steps),
        answered=_sum(s.answered for s in steps),
        failed=_sum(s.failed for s in steps),
        late=None if shed is None or (latency_s is not None and request is None) else slow + shed,
        queued=_sum(now.queued for now in later.values()),
        in_flight=_sum(now.in_flight for now in later.values()),
        service=service_times(joined([s.model for s in steps]), percentile),
        missing=tuple(sorted(missing)),
    )


@dataclass(frozen=True, slots=True)
class _Step:
    """One gateway's increases."""

    arrivals: float | None
    answered: float | None
    failed: float | None
    shed: float | None
    request: Buckets | None
    model: Buckets | None

    @classmethod
    def of(cls, before: Reading, now: Reading) -> _Step:
        began_anew = has_fallen(before, now)
        then = Reading(at=before.at, queued=0.0, in_flight=0.0) if began_anew else before
        answered = _increase(then.answered, now.answered, began_anew)
        arrivals = _increase(then.arrivals, now.arrivals, began_anew)
        if now.arrivals is None:
            arrivals = _admitted(answered, then, now)
        return cls(
            arrivals=arrivals,
            answered=answered,
            failed=_increase(then.failed, now.failed, began_anew),
            shed=_increase(then.shed, now.shed, began_anew),
            request=grown(then.request, now.request),
            model=grown(then.model, now.model),
        )

    @classmethod
    def since_start(cls, now: Reading) -> _Step:
        zero = Reading(at=now.at, arrivals=0.0, answered=0.0, failed=0.0, shed=0.0, queued=0.0, in_flight=0.0)
        return cls.of(zero, now)


def _is_as_young(reading: Reading, span_s: float) -> bool:
    return reading.began_at is not None and reading.at - reading.began_at <= span_s + BEGAN_SLACK_S


def has_fallen(before: Reading, now: Reading) -> bool:
    """Whether the gateway began anew in between."""
    if before.began_at is not None and now.began_at is not None and now.began_at > before.began_at + BEGAN_SLACK_S:
        return True
    pairs = ((before.arrivals, now.arrivals), (before.answered, now.answered), (before.shed, now.shed))
    return any(a is not None and b is not None and b < a for a, b in pairs)


def _increase(before: float | None, now: float | None, began_anew: bool) -> float | None:
    if now is None:
        return None
    if began_anew:
        return now
    return None if before is None else now - before


def _admitted(answered: float | None, before: Reading, now: Reading) -> float | None:
    """What was answered or is inside now, and was not inside before, came in between."""
    inside_before, inside = _sum((before.queued, before.in_flight)), _sum((now.queued, now.in_flight))
    if answered is None or inside_before is None or inside is None:
        return None
    return max(0.0, answered + inside - inside_before)


def _sum(values: Iterable[float | None]) -> float | None:
    total = 0.0
    for value in values:
        if value is None:
            return None
        total += value
    return total


def grown(before: Buckets | None, now: Buckets | None) -> Buckets | None:
    """What came into a histogram; another set of bounds, or a count that fell, means that it began anew."""
    if now is None or before is None or before.bounds != now.bounds or before.count > now.count:
        return now
    counts = tuple(b - a for a, b in zip(before.counts, now.counts, strict=True))
    return Buckets(now.bounds, counts, now.total_s - before.total_s)


def joined(parts: Sequence[Buckets | None]) -> Buckets | None:
    """The sum of histograms that all have the same bounds; None if one is unknown."""
    known = [part for part in parts if part is not None]
    if not known or len(known) < len(parts) or any(part.bounds != known[0].bounds for part in known):
        return None
    counts = tuple(map(sum, zip(*(part.counts for part in known), strict=True)))
    return Buckets(known[0].bounds, counts, sum(part.total_s for part in known))


def count_above(buckets: Buckets, value_s: float) -> float:
    """How many were longer, with observations spread evenly within a bucket."""
    below = 0.0
    lower = 0.0
    for bound, count in zip(buckets.bounds, buckets.counts, strict=True):
        if bound >= value_s:
            if math.isfinite(bound) and bound > lower:
                below += (count - below) * (value_s - lower) / (bound - lower)
            break
        below, lower = count, bound
    return max(0.0, buckets.count - below)


def quantile(buckets: Buckets, share: float) -> float:
    """The value that `share` of the observations do not exceed; the last finite bound for what lies beyond it."""
    rank = share * buckets.count
    below, lower = 0.0, 0.0
    for bound, count in zip(buckets.bounds, buckets.counts, strict=True):
        if count >= rank and count > below:
            return lower + (bound - lower) * (rank - below) / (count - below) if math.isfinite(bound) else lower
        below, lower = count, bound if math.isfinite(bound) else lower
    return lower


def service_times(buckets: Buckets | None, percentile: float) -> ServiceTimes | None:
    """None when nothing was observed or the histogram makes no sense (its total fell, a count is negative)."""
    if (
        buckets is None
        or buckets.count <= 0
        or not buckets.total_s > 0
        or any(a > b for a, b in pairwise(buckets.counts))
    ):
        return None
    mean_s = buckets.total_s / buckets.count
    square, below, lower = 0.0, 0.0, 0.0
    for bound, count in zip(buckets.bounds, buckets.counts, strict=True):
        upper = bound if math.isfinite(bound) else max(2 * lower, mean_s)
        # The mean square of a value that lies anywhere between two bounds.
        square += (count - below) * (lower * lower + lower * upper + upper * upper) / 3
        below, lower = count, upper
    scv = max(0.0, square / buckets.count / (mean_s * mean_s) - 1.0)
    return ServiceTimes(buckets.count, mean_s, scv, max(mean_s, quantile(buckets, percentile / 100)))
