"""The simplest policy that follows the same line of thought as the project's own: rates, Erlang's C, a hold.

What the project's policy must beat. Constants where that one learns: the hold is a break-even between an idle replica
and a burst that finds none, forecasts are always trusted, service times are taken as they are.
"""

from __future__ import annotations

import math
from collections import deque
from itertools import pairwise

from benchmarks.autoscale.simulator import Obs
from orchestrator.core.scaling.erlang import slots_needed

LATE, Z, MOST_PHI, WORTH = 0.01, 3.5, 8.0, 0.6
FAST_S, MID_S = 6.0, 20.0


class Reference:
    def __init__(self) -> None:
        self._arrivals: deque[int] = deque(maxlen=120)
        self._wanted: deque[tuple[float, int]] = deque()
        self._recent: deque[tuple[float, int, int]] = deque()
        self._factor, self._changed_at = 1.0, 0.0

    def decide(self, obs: Obs) -> int:
        self._arrivals.append(obs.arrivals)
        phi = self._phi()
        load = self._rate(obs, phi) * obs.mean_s + obs.queued * obs.mean_s
        spare_s = max(0.1 * obs.mean_s, obs.slo - obs.p95_s)
        slots = slots_needed(load, spare_s, obs.mean_s, variability=(phi + obs.scv_s) / 2, late=LATE) or 1
        self._trim(obs)
        want = math.ceil(slots * self._factor / obs.c)
        hold_s = min(180.0, max(30.0, WORTH * obs.c / obs.mean_s * (obs.cold + obs.dt)))
        self._wanted.append((obs.t, want))
        while self._wanted[0][0] < obs.t - hold_s:
            self._wanted.popleft()
        return max(1, *(count for _, count in self._wanted))

    def _over(self, window_s: float, dt: float) -> tuple[float, float]:
        """The rate over a window, and how much of it there is."""
        count = max(1, min(len(self._arrivals), round(window_s / dt)))
        return sum(list(self._arrivals)[-count:]) / (count * dt), count * dt

    def _phi(self) -> float:
        known = list(self._arrivals)
        before = known[:-3] if len(known) > 12 else known
        if len(before) <= 5:
            return 1.0
        mean = max(sum(before) / len(before), 1e-9)
        squares = [(b - a) ** 2 for a, b in pairwise(before)]
        return min(MOST_PHI, max(1.0, sum(squares) / len(squares) / (2 * mean)))

    def _rate(self, obs: Obs, phi: float) -> float:
        fast, fast_s = self._over(FAST_S, obs.dt)
        rate, mid_s = self._over(MID_S, obs.dt)
        newest, is_jump = obs.arrivals / obs.dt, False
        if fast > rate + Z * math.sqrt(phi * max(rate, 1 / mid_s) / fast_s):
            rate, is_jump = fast, True
        if newest > rate + Z * math.sqrt(phi * max(rate, 1 / fast_s) / obs.dt):
            rate, is_jump = newest, True
        if not is_jump or len(self._arrivals) < 4:
            return rate
        a, b, c, d = list(self._arrivals)[-4:]
        slope = max(0.0, (c + d - a - b) / (2 * obs.dt) / (2 * obs.dt))
        return max(rate, min(rate + slope * (obs.cold + obs.dt), 2 * max(newest, fast)))

    def _trim(self, obs: Obs) -> None:
        self._recent.append((obs.t, obs.viol, obs.arrivals))
        while self._recent[0][0] < obs.t - 30:
            self._recent.popleft()
        late, arrived = sum(r[1] for r in self._recent), sum(r[2] for r in self._recent)
        if obs.t - self._changed_at < max(10.0, obs.cold + obs.dt):
            return
        if arrived > 50 and late > 2 * LATE * arrived and obs.starting == 0:
            self._factor, self._changed_at = min(1.5, self._factor + 0.1), obs.t
        elif late <= LATE * arrived:
            self._factor, self._changed_at = max(1.0, self._factor - 0.01), obs.t
