"""How many predictions each version made since the last look, from the gateways' counters that only grow. Pure.

A counter goes on over restarts of the control plane, so what was answered while it was away is counted when it is back.
It begins at zero with its gateway: that one is another when it says that it began later.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from orchestrator.core.entities import VersionKey
from orchestrator.core.scaling.series import GatewayReadings

# Two sources tell when one gateway began with this difference at most.
SAME_START_S = 1.0


@dataclass(frozen=True, slots=True)
class Counted:
    """The counters of one gateway, as they were seen last."""

    began_at: float
    counts: Mapping[VersionKey, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Counting:
    """`increase`: what was predicted since; `seen`: what to compare with the next time, by gateway."""

    increase: Mapping[VersionKey, float]
    seen: Mapping[str, Counted]


def count(
    seen: Mapping[str, Counted], found: Mapping[str, GatewayReadings], since: float, alive: Collection[VersionKey]
) -> Counting:
    """`since`: when looking began; what a gateway counted before that is not ours. A version that is not `alive` is
    forgotten, for the gateway forgets it too, and begins at zero if it comes back."""
    increase: dict[VersionKey, float] = {}
    now_seen = dict(seen)
    for name, gateway in found.items():
        began_at = gateway.nothing.began_at
        if began_at is None:
            continue
        known = seen.get(name)
        if known is not None and began_at > known.began_at + SAME_START_S:
            known = Counted(began_at)
        if known is None and began_at >= since:
            known = Counted(began_at)
        counts = dict(known.counts) if known is not None else {}
        for key, reading in gateway.versions.items():
            told = reading.succeeded
            if told is None:
                continue
            # A source that lags behind another says less than is known already.
            before = counts.get(key, 0.0) if known is not None else told
            if told > before:
                increase[key] = increase.get(key, 0.0) + told - before
            counts[key] = max(before, told)
        now_seen[name] = Counted(began_at, {key: n for key, n in counts.items() if key in alive})
    return Counting(increase, now_seen)
