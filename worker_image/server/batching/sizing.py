"""How many rows one batch may have: told, or learned from what each batch cost. Pure: it is given the seconds.

Costs are kept per level: level k is batches of about 2^k rows. The limit is the smallest level whose rows/s come within
`NEAR` of the best level's, because beyond it a batch costs its rows latency and brings nothing. As long as the largest
level that was tried still brings `GROWTH`, the next one is tried; a level that brought nothing, or took longer than the
budget, is tried again after a back-off that doubles. A model with a fixed cost per call so grows to where that cost no
longer shows, one whose time is proportional to its rows stays at 1, and one that slows down comes back.

`queue.py` asks for the limit, `runner.py` reports each batch with the time from its dispatch to its answers: what a
batch costs besides the model counts too.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median

MOST_ROWS = 1024
# Of the latency objective: a row waits for the batch that is running, then for its own, and something is left for the
# way there and back.
SHARE = 0.4
# A doubling must bring more than that the next batch can be read while this one is computed, which one large batch for
# all who wait gives up.
GROWTH = 1.15
NEAR = 0.9
SAMPLES = 12
LEAST_SAMPLES = 6
# The first calls of a model fill caches and pools, and say little of the later ones.
IGNORED = 3
# A trial costs six batches; what a busy second made look useless may be worth many times what single rows are.
RETRY_S = 1.0
MOST_RETRY_S = 600.0
# A batch counts for its level when it fills this much of it. Nine rows say nothing of sixteen.
FULL = 0.75


def level_of(rows: int) -> int:
    return (rows - 1).bit_length()


class Costs:
    """What batches took lately, by level."""

    def __init__(self) -> None:
        self._samples: dict[int, deque[tuple[int, float]]] = {}
        self._counts: dict[int, int] = {}
        self.seconds: dict[int, float] = {}
        self.rates: dict[int, float] = {}

    def add(self, rows: int, seconds: float) -> bool:
        """Whether `seconds` and `rates`, which hold what is known of each level, have changed."""
        level = level_of(rows)
        if rows < FULL * 2**level:
            return False
        samples = self._samples.get(level)
        if samples is None:
            samples = self._samples[level] = deque(maxlen=SAMPLES)
            self._counts[level] = 0
        samples.append((rows, max(seconds, 1e-9)))
        self._counts[level] += 1
        if self._counts[level] % LEAST_SAMPLES:
            return False
        self.seconds[level] = median(s for _, s in samples)
        # Other work on the machine only ever delays a batch: the second best says more of the model than the middle
        # one, and among several sizes the luckiest median would win.
        self.rates[level] = sorted(r / s for r, s in samples)[-2]
        return True

    def forget(self, level: int) -> None:
        self._samples.pop(level, None)
        self._counts.pop(level, None)
        self.seconds.pop(level, None)
        self.rates.pop(level, None)

    def seconds_of(self, rows: int) -> float:
        """What a batch of `rows` is expected to take, rather too much than too little; 0.0 while nothing is known."""
        level = level_of(rows)
        if level in self.seconds:
            return self.seconds[level]
        above = min((s for k, s in self.seconds.items() if k > level), default=None)
        if above is not None:
            return above
        known = max(self.seconds, default=None)
        return 0.0 if known is None else self.seconds[known] * rows / 2**known


class Sizing:
    """`fixed` is the limit that was set; None learns it, so that a batch takes at most `SHARE` of `slo_s`."""

    def __init__(self, fixed: int | None = None, slo_s: float | None = None) -> None:
        self.fixed = fixed
        self.limit = 1 if fixed is None else fixed
        self.costs = Costs()
        self._budget_s = math.inf if slo_s is None else slo_s * SHARE
        self._to_ignore = IGNORED
        self._closed: int | None = None
        self._closed_at_limit = 0
        self._retry_at = 0.0
        self._retry_s = RETRY_S

    @property
    def largest_part(self) -> int:
        """Most rows of one request that go as one batch: more than the limit while that is learned, for only trying
        shows what many rows cost.
        """
        if self.fixed is not None or self._closed is not None:
            return self.limit
        rows = MOST_ROWS
        while rows > self.limit and self.seconds_of(rows) > self._budget_s:
            rows //= 2
        return rows

    def seconds_of(self, rows: int) -> float:
        return self.costs.seconds_of(rows)

    def observe(self, rows: int, seconds: float, now: float) -> None:
        if self._to_ignore:
            self._to_ignore -= 1
        elif self.costs.add(rows, seconds) and self.fixed is None:
            self._decide(now)

    def _decide(self, now: float) -> None:
        rates = self.costs.rates
        if self._closed is not None and now >= self._retry_at and len(rates) > 1:
            self.costs.forget(self._closed)
            self._closed = None
        affordable = self._affordable()
        if self._may_try_above(affordable):
            self._closed = None
            self.limit = min(2 ** (affordable[-1] + 1), MOST_ROWS)
            return
        best = max(rates[level] for level in affordable)
        chosen = next(level for level in affordable if rates[level] >= NEAR * best)
        self.limit = min(2**chosen, MOST_ROWS)
        self._close(max(rates), now)

    def _affordable(self) -> list[int]:
        """The known levels within the budget, in order. The smallest is always among them: no batch is no answer."""
        levels = sorted(self.costs.rates)
        return levels[:1] + [level for level in levels[1:] if self.costs.seconds[level] <= self._budget_s]

    def _may_try_above(self, affordable: list[int]) -> bool:
        top = affordable[-1]
        if top != max(self.costs.rates) or 2**top >= MOST_ROWS:
            return False
        seconds, rates = self.costs.seconds, self.costs.rates
        if len(affordable) == 1:
            return seconds[top] <= self._budget_s
        below = affordable[-2]
        slope = (seconds[top] - seconds[below]) / (2**top - 2**below)
        return rates[top] >= GROWTH * rates[below] and seconds[top] + slope * 2**top <= self._budget_s

    def _close(self, level: int, now: float) -> None:
        """`level` is the last that is worth trying for now."""
        if self._closed == level:
            return
        was_tried_in_vain = self.limit == self._closed_at_limit
        self._retry_s = min(self._retry_s * 2, MOST_RETRY_S) if was_tried_in_vain else RETRY_S
        self._closed, self._closed_at_limit = level, self.limit
        self._retry_at = now + self._retry_s
