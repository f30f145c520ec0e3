"""From which replicas were seen at two moments to what each version took in between, and in which buckets that goes.

Between two looks a second apart nothing is missed that matters. Between the last look of one control plane and the
first of the next may lie hours: a replica that both saw ran all the time; of one that only the first saw nobody knows
when it ended, and its time is `unknown_s`. Pure: told the times, and never asks for one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from orchestrator.core.cost.amounts import Amounts, of_replica
from orchestrator.core.entities import Pricing, Resources, VersionKey

# Two looks that are further apart say nothing of what was inside replicas in between, nor when one ended.
MOST_BETWEEN_LOOKS_S = 10.0

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86_400
MINUTES_KEPT_S = 2 * HOUR_S
HOURS_KEPT_S = 35 * DAY_S
DAYS_KEPT_S = 400 * DAY_S


@dataclass(frozen=True, slots=True)
class Held:
    """One replica as seen. `resources` None: nobody knows any more what it was started with. `is_busy`: whether a
    request was inside at that moment (None: the gateway did not say)."""

    key: VersionKey
    created_at: float
    resources: Resources | None
    is_awake: bool
    is_busy: bool | None = None


def account(
    before: Mapping[str, Held], now: Mapping[str, Held], began: float, until: float, pricing: Pricing
) -> dict[VersionKey, Amounts]:
    """What each version took from `began`, when `before` was seen, to `until`, when `now` is."""
    is_gap = until - began > MOST_BETWEEN_LOOKS_S
    taken: dict[VersionKey, Amounts] = {}
    for (key, resources, is_awake, is_busy), seconds in _alike(now, began, until).items():
        if resources is None:
            each = Amounts(unknown_s=seconds)
        else:
            each = of_replica(seconds, resources, pricing, is_awake=is_awake, is_busy=None if is_gap else is_busy)
        taken[key] = taken[key] + each if key in taken else each
    for id_, held in before.items() if is_gap else ():
        if id_ not in now:
            taken[held.key] = taken.get(held.key, Amounts()) + Amounts(unknown_s=until - began)
    return taken


_Kind: TypeAlias = tuple[VersionKey, Resources | None, bool, bool | None]


def _alike(now: Mapping[str, Held], began: float, until: float) -> dict[_Kind, float]:
    """The seconds of replicas that are alike, together: there are thousands of replicas, and few kinds of them."""
    seconds: dict[_Kind, float] = defaultdict(float)
    for held in now.values():
        since = max(began, held.created_at)
        if since < until:
            seconds[held.key, held.resources, held.is_awake, held.is_busy] += until - since
    return seconds


@dataclass(frozen=True, slots=True, order=True)
class Bucket:
    """A stretch of time in which amounts are summed up."""

    start: int
    width_s: int


def buckets(began: float, until: float, now: float) -> Iterator[tuple[Bucket, float]]:
    """The buckets that `began` to `until` lies in, with the share of that time in each; the shares sum to 1."""
    at = began
    while at < until:
        bucket = bucket_at(at, now)
        end = min(until, float(bucket.start + bucket.width_s))
        yield bucket, (end - at) / (until - began)
        at = end


def bucket_at(at: float, now: float) -> Bucket:
    """The one that a moment is counted in: the older, the wider."""
    width_s = MINUTE_S
    if at < older_than(now, MINUTES_KEPT_S, HOUR_S):
        width_s = HOUR_S
    if at < older_than(now, HOURS_KEPT_S, DAY_S):
        width_s = DAY_S
    return Bucket(int(at // width_s) * width_s, width_s)


def older_than(now: float, age_s: int, width_s: int) -> int:
    """Everything before this moment is older than `age_s`, and it is a bound of the wider buckets."""
    return int((now - age_s) // width_s) * width_s
