"""Where more replicas bring nothing: on one host they share cores, and from some count on they only slow each other.

While every slot is busy, the answers per second are what that many replicas can do at most. When a count that is a
quarter higher was seen to do less than a tenth more, going on up would cost and help nobody: the smallest count that
does nearly the most is the ceiling, until the finding is old. Without it the growing service time would ask for more
replicas, which would make it grow.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.scaling.facts import Sample

# A count's throughput is well known after this many saturated samples.
ENOUGH_SAMPLES = 3
# A share of slots that is busy enough to call it saturated, when nothing is queued.
SATURATED_SHARE = 0.95
SOME_MORE, MUCH_MORE = 1.25, 2.0
NOTABLE_GAIN, MUCH_GAIN = 1.1, 1.2
NEARLY = 0.9
FORGOTTEN_AFTER_S = 900.0
# A sample of which a part was not saturated shows too little: what is more is believed sooner than what is less.
MORE_WEIGHT, LESS_WEIGHT = 0.4, 0.2
# Findings that are kept, the newest; the counts in between do not matter.
MOST_FINDINGS = 16


@dataclass(frozen=True, slots=True)
class Finding:
    """`count` saturated replicas answered `per_s` requests per second."""

    count: int
    per_s: float
    samples: int
    at: float


@dataclass(frozen=True, slots=True)
class Ceiling:
    """More than `count` replicas bring nothing: `low` and `high` are the findings that say so."""

    count: int
    low: Finding
    high: Finding


def is_saturated(sample: Sample, ready: int, slots: int) -> bool:
    """Whether every slot was busy at the end of the sample, and more could have been."""
    busy = (sample.in_flight or 0.0) >= SATURATED_SHARE * ready * slots
    return ready > 0 and busy and (sample.queued or 0.0) > 0


def find(findings: tuple[Finding, ...], sample: Sample, ready: int) -> tuple[Finding, ...]:
    """Takes in a sample that was saturated at both ends, with the same `ready` replicas."""
    if not sample.answered or sample.span_s <= 0:
        return findings
    per_s, samples = sample.answered / sample.span_s, 1
    fresh = [f for f in findings if sample.at - f.at <= FORGOTTEN_AFTER_S]
    known = next((f for f in fresh if f.count == ready), None)
    if known is not None:
        weight = MORE_WEIGHT if per_s > known.per_s else LESS_WEIGHT
        per_s, samples = known.per_s + weight * (per_s - known.per_s), known.samples + 1
    others = [f for f in fresh if f.count != ready]
    return (*others[-(MOST_FINDINGS - 1) :], Finding(ready, per_s, samples, sample.at))


def is_measured(findings: tuple[Finding, ...], ready: int, now: float) -> bool:
    """Whether it is known what so many can do."""
    return any(f.count == ready and f.samples > 1 and now - f.at <= FORGOTTEN_AFTER_S for f in findings)


def ceiling(findings: tuple[Finding, ...], now: float) -> Ceiling | None:
    known = sorted((f for f in findings if now - f.at <= FORGOTTEN_AFTER_S), key=lambda f: f.count)
    pairs = [(low, high) for low in known for high in known if _brings_nothing(low, high)]
    if not pairs:
        return None
    most = max(f.per_s for f in known)
    low, high = min(pairs, key=lambda pair: (pair[0].per_s < NEARLY * most, pair[0].count))
    return Ceiling(low.count, low, high)


def _brings_nothing(low: Finding, high: Finding) -> bool:
    """Twice the replicas tell it with few samples, a quarter more with some."""
    for grown, gain, samples in ((MUCH_MORE, MUCH_GAIN, 1), (SOME_MORE, NOTABLE_GAIN, ENOUGH_SAMPLES)):
        is_known = low.samples >= samples and high.samples > samples
        if is_known and high.count >= grown * low.count and high.per_s < gain * low.per_s:
            return True
    return False
