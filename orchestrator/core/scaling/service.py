"""What one replica can hold: its service time S, learned anew as batching, load and neighbours change it, and slots.

A replica is thought of as slots that each serve one request at a time. That is exact for a model that computes them
independently; for one that computes them one after the other, or in batches, S grows with k, the requests inside one
replica: S(k) = alpha + beta k. So S is kept by k (bins that double), a line is laid through the bins, and a replica
counts as so many slots c as its tail at S(c) leaves room below the objective. What matters is S with all c slots
busy, because only then anybody waits.

Answers that say that a replica broke may come fast: while there are such, S is not believed to fall.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from orchestrator.core.scaling.facts import Objective, Sample, ServiceTimes

BINS = 12
# Weight of the newest sample: at least this, and more while few requests stand behind what is known.
NEWEST_WEIGHT = 0.1
# A mean is of the last so many requests: its standard error is 3 % at cv 1, so that chance does not reach the count.
ENOUGH_REQUESTS = 800.0
# Bins of so many can tell a slope.
TELLING_REQUESTS = 200.0
# A line that rises by less between one request and a full replica is taken for noise.
NOTABLE_RISE = 1.25
# So must what was seen of it: chance makes bins differ too.
SEEN_RISE = 1.3
# What was measured longer ago no longer pulls at the line.
FORGOTTEN_AFTER_S = 1800.0
# Before the first answer: the mean service time, and a tail as of an exponential distribution.
FIRST_GUESS_S = 0.1
FIRST_TAIL = 3.0
# The share of the objective that the service time's tail may fill; the rest is for waiting.
TAIL_SHARE = 0.7
# Without an objective: answered within twice what 95 % take in an unhurried replica, so that waiting may double it.
DERIVED_FACTOR = 2.0
# Answers of broken replicas beyond this share make service times suspect.
SUSPECT_FAILED_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Bin:
    """Service times at about k requests inside a replica."""

    k: float
    mean_s: float
    weight: float
    at: float


@dataclass(frozen=True, slots=True)
class Learned:
    """What is known of a version's service times; `mean_s`, `scv` and `tail_ratio` (tail / mean) of all k together."""

    bins: tuple[Bin | None, ...] = (None,) * BINS
    mean_s: float = 0.0
    scv: float = 1.0
    tail_ratio: float = FIRST_TAIL
    weight: float = 0.0

    @property
    def is_guess(self) -> bool:
        return self.weight == 0


@dataclass(frozen=True, slots=True)
class Capacity:
    """One replica for planning: `slots` that take `service_s` each when all are busy. `objective_s` is what to keep to,
    `is_derived` whether the manifest names none. `spare_s` is how long a request may wait."""

    slots: int
    service_s: float
    tail_s: float
    scv: float
    percentile: float
    objective_s: float
    is_derived: bool
    is_guess: bool

    @property
    def spare_s(self) -> float:
        """At least a tenth of S, for an objective below the service time's own tail cannot be met by more replicas."""
        return max(0.1 * self.service_s, self.objective_s - self.tail_s)

    @property
    def late_alone(self) -> float:
        """The share of requests that are late by their own service time, with an exponential tail through its
        percentile."""
        return math.pow(1.0 - self.percentile / 100.0, self.objective_s / self.tail_s)

    @property
    def is_out_of_reach(self) -> bool:
        return self.tail_s > self.objective_s


def is_suspect(sample: Sample) -> bool:
    """Whether so many answers were a broken replica's that little can be concluded from any."""
    answered, failed = sample.answered or 0.0, sample.failed or 0.0
    return failed > SUSPECT_FAILED_SHARE * max(answered, failed)


def learn(known: Learned, sample: Sample, in_flight_before: float, ready: int, slots: int) -> Learned:
    """Takes in one sample's service times, of `ready` replicas that take up to `slots` requests at a time.

    `in_flight_before` is what was inside when the sample began.
    """
    times = sample.service
    if times is None or ready < 1 or sample.span_s <= 0:
        return known
    if is_suspect(sample):
        return known
    share = _share(known.weight, times.count)
    mean_s = known.mean_s + share * (times.mean_s - known.mean_s)
    # What was inside at both ends, not what Little's law makes of this sample's times: their chance would be in S and
    # in k, and look like a slope. One is the least that a request can see.
    k = max(1.0, min(slots, (in_flight_before + (sample.in_flight or 0.0)) / 2 / ready))
    number = min(BINS - 1, round(math.log2(k)))
    bins = list(known.bins)
    bins[number] = _blend(bins[number], k, times, sample.at)
    return Learned(
        bins=tuple(bins),
        mean_s=mean_s,
        scv=known.scv + share * (times.scv - known.scv),
        tail_ratio=known.tail_ratio + share * (max(1.0, times.tail_s / times.mean_s) - known.tail_ratio),
        weight=min(ENOUGH_REQUESTS, known.weight + times.count),
    )


def capacity(known: Learned, slots: int, objective: Objective, now: float) -> Capacity:
    """What to plan with for replicas that take up to `slots` requests at a time."""
    if known.is_guess:
        return _guess(slots, objective)
    alpha, beta = _line(known, slots, now)
    tail = known.tail_ratio
    objective_s = objective.latency_s or DERIVED_FACTOR * tail * (alpha + beta)
    held = slots
    if beta > 0:
        room = (TAIL_SHARE * objective_s / tail - alpha) / beta
        held = max(1, min(slots, math.floor(room + 1e-9)))
    service_s = alpha + beta * held
    is_derived = objective.latency_s is None
    return Capacity(
        held, service_s, tail * service_s, known.scv, objective.percentile, objective_s, is_derived, is_guess=False
    )


def _guess(slots: int, objective: Objective) -> Capacity:
    service_s = FIRST_GUESS_S if objective.latency_s is None else min(FIRST_GUESS_S, objective.latency_s / 4)
    tail_s = min(FIRST_TAIL * service_s, 0.75 * (objective.latency_s or math.inf))
    objective_s = objective.latency_s or DERIVED_FACTOR * tail_s
    is_derived = objective.latency_s is None
    return Capacity(slots, service_s, tail_s, 1.0, objective.percentile, objective_s, is_derived, is_guess=True)


def _share(weight: float, count: float) -> float:
    """The newest's share: all of it at first, then by requests, and never so little that a change goes unnoticed."""
    return max(NEWEST_WEIGHT * min(1.0, count / ENOUGH_REQUESTS), count / (weight + count))


def _blend(known: Bin | None, k: float, times: ServiceTimes, at: float) -> Bin:
    if known is None or at - known.at > FORGOTTEN_AFTER_S:
        return Bin(k, times.mean_s, min(times.count, ENOUGH_REQUESTS), at)
    share = _share(known.weight, times.count)
    return replace(
        known,
        k=known.k + share * (k - known.k),
        mean_s=known.mean_s + share * (times.mean_s - known.mean_s),
        weight=min(ENOUGH_REQUESTS, known.weight + times.count),
        at=at,
    )


def _line(known: Learned, slots: int, now: float) -> tuple[float, float]:
    """alpha and beta of S(k); beta is 0 unless S rises notably from one request to a full replica."""
    bins = [b for b in known.bins if b is not None]
    fresh = [b for b in bins if now - b.at <= FORGOTTEN_AFTER_S] or [max(bins, key=lambda b: b.at)]
    total = sum(b.weight for b in fresh)
    mean_k = sum(b.weight * b.k for b in fresh) / total
    mean_s = sum(b.weight * b.mean_s for b in fresh) / total
    spread = sum(b.weight * (b.k - mean_k) ** 2 for b in fresh)
    # One bin says nothing of the slope, and neither do bins of a few requests.
    if spread < 1e-9 or sum(b.weight >= TELLING_REQUESTS for b in fresh) < 2:
        return _recent(fresh), 0.0
    beta = sum(b.weight * (b.k - mean_k) * (b.mean_s - mean_s) for b in fresh) / spread
    # No model gets faster below nothing, and none slower than one after the other.
    beta = max(0.0, min(beta, mean_s / mean_k))
    alpha = mean_s - beta * mean_k
    least, most = min(b.k for b in fresh), max(b.k for b in fresh)
    is_seen = alpha + beta * most >= SEEN_RISE * (alpha + beta * least)
    if beta == 0 or not is_seen or alpha + beta * slots < NOTABLE_RISE * (alpha + beta):
        return _recent(fresh), 0.0
    return alpha, beta


def _recent(bins: list[Bin]) -> float:
    """S when it does not depend on k: of the bin that was touched last, which follows changes soonest."""
    return max(bins, key=lambda b: b.at).mean_s
