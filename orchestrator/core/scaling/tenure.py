"""How long each replica is kept once it is needed less: as long as the requests that it saved are worth.

Count the replicas of a version from 1 up: *level* n is used while the load needs n of them. A level that load comes
back to after a pause saves requests from waiting for a cold start, as many as it takes in the first tau + dt seconds
(tau: how long a replica takes to start, dt: between two decisions), and each is worth `worth_s` seconds of a replica:

    20 replicas of 4 slots with S = 0.25 s take 16 requests/s each. tau = 2 s, dt = 2 s, worth_s = 10: one full use
    after a pause pays for 10 × 16 × 4 = 640 s. Used again within that time the level stays; a level that one burst
    touched for a tenth of a tick is paid for 3 s, and LEAST_S holds.

So levels that bursts come back to stay, a lone peak's levels go soon, and what matters is not how high it was but
how often load returned. Nothing is paid for more than MOST_S ahead: traffic of a quarter of an hour ago says little.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from orchestrator.core.scaling.service import Capacity

# A replica stays this long after it was last wanted whatever it earned: the noise of rates must not reach the count.
LEAST_S = 40.0
LEAST_SERVICE_TIMES = 3.0
MOST_S = 900.0
# A level was not in use before when nothing used it for this long.
PAUSE_S = 10.0
# Wanted again within so many of its usual times since it last was: too soon.
SOON = 4.0
IMPATIENT = 4.0
NEVER = -math.inf


@dataclass(frozen=True, slots=True)
class Level:
    """One replica of a count. `used_since` begins the latest use, `used_at` is its last moment, `wanted_at` when
    the policy last wanted this many, `patience` by how much longer than usual it is then kept, `paid_until` how far
    its earnings reach."""

    used_since: float = NEVER
    used_at: float = NEVER
    wanted_at: float = NEVER
    patience: float = 1.0
    paid_until: float = NEVER

    def until(self, least_s: float) -> float:
        return max(self.wanted_at + min(MOST_S, self.patience * least_s), self.paid_until)


@dataclass(frozen=True, slots=True)
class Use:
    """One tick: `wanted` replicas, `kept` if what is there already is to be kept, and a load that fills `load` of them
    (fractions count). `least_s` is how long a level is usually kept. On a jump it is bursts that bring a level back,
    for which it earns."""

    now: float
    span_s: float
    wanted: int
    kept: int
    least_s: float
    is_jump: bool
    load: float
    slow_lead_s: float
    fast_lead_s: float
    fast_levels: int


@dataclass(frozen=True, slots=True)
class Held:
    """The highest level that is kept as of `now`, and until when: it was wanted lately, or earned more."""

    count: int
    now: float
    until: float
    is_paid: bool


def least_s(capacity: Capacity, lead_s: float) -> float:
    return max(LEAST_S, LEAST_SERVICE_TIMES * capacity.service_s, 2 * lead_s)


def note(levels: tuple[Level, ...], use: Use, capacity: Capacity, worth_s: float) -> tuple[Level, ...]:
    """The levels after one tick. `use.fast_levels` above the wanted count would wake in `fast_lead_s`."""
    top = max(use.wanted, use.kept, math.ceil(use.load))
    if top > len(levels):
        levels = (*levels, *(Level() for _ in range(top - len(levels))))
    earns_per_s = worth_s * capacity.slots / capacity.service_s
    touched = tuple(_used(_wanted(level, n, use), n, use, earns_per_s) for n, level in enumerate(levels[:top], 1))
    return touched + levels[top:]


def _wanted(level: Level, n: int, use: Use) -> Level:
    """A level that is wanted again soon after it went had better stayed: it is kept longer from now on. So a load
    between two counts ends with the higher one, after a few changes."""
    is_there = level.until(use.least_s) > use.now
    if n > use.wanted:
        return replace(level, wanted_at=use.now) if n <= use.kept and is_there else level
    usual_s = level.patience * use.least_s
    patience = level.patience
    if not is_there and not use.is_jump:
        was_soon = use.now - level.wanted_at <= SOON * usual_s
        patience = min(MOST_S / use.least_s, patience * IMPATIENT) if was_soon else max(1.0, patience / 2)
    return Level(level.used_since, level.used_at, use.now, patience, level.paid_until)


def _used(level: Level, n: int, use: Use, earns_per_s: float) -> Level:
    part = min(1.0, use.load - (n - 1))
    if part <= 0:
        return level
    lead_s = use.fast_lead_s if n <= use.fast_levels else use.slow_lead_s
    horizon_s = lead_s + use.span_s
    is_new = use.now - level.used_at > max(PAUSE_S, horizon_s)
    since = use.now if is_new else level.used_since
    paid = level.paid_until
    saves_s = min(use.span_s, horizon_s - (use.now - since))
    if saves_s > 0:
        paid = min(use.now + MOST_S, max(paid, use.now) + earns_per_s * part * saves_s)
    return Level(since, use.now, level.wanted_at, level.patience, paid)


def held(levels: tuple[Level, ...], now: float, least_s: float) -> Held:
    for n in range(len(levels), 0, -1):
        level = levels[n - 1]
        until = level.until(least_s)
        if until > now:
            return Held(n, now, until, until == level.paid_until)
    return Held(0, now, now, False)


def trimmed(levels: tuple[Level, ...], now: float) -> tuple[Level, ...]:
    """Without the highest levels that nothing remembers any more."""
    end = len(levels)
    while end and max(levels[end - 1].paid_until, levels[end - 1].wanted_at + MOST_S) < now:
        end -= 1
    return levels[:end]


def seeded(count: int, now: float) -> tuple[Level, ...]:
    """Levels of which nothing is known but that they are there: wanted now, like all that was found running."""
    return (Level(used_since=now, used_at=now, wanted_at=now),) * count
