"""Reads the sources of signals all the time, chooses between them, and says so when one cannot be relied on.

Owns which source counts now and what was read of each last. It makes no rates of two sources' numbers: a sample is what
happened between two rounds of one of them. Decides nothing about replicas; `autoscale.py` asks for samples.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import structlog

from orchestrator.adapters.signals import Round, SignalsUnavailable, Source
from orchestrator.core.entities import VersionKey
from orchestrator.core.scaling.decide import STALE_AFTER_S, STALE_SPANS
from orchestrator.core.scaling.facts import Objective, Sample
from orchestrator.core.scaling.signals import Reading, between
from orchestrator.loops.journal import Journal, Signal

log = structlog.get_logger("modelfleet")

# A source is left for another that is so much fresher, or that is whole where it is not.
FRESHER_S = 2.0
# One failed reading is no news: the next second's may come. One that never succeeded may be of a gateway, or a server,
# that is about to start.
NEWS_AFTER, NEWS_AT_FIRST = 2, 10
# Rounds of one source that are kept: a source that takes over goes on from where the other ended.
KEPT_ROUNDS = 10
# How often a source says something new, until it was seen twice.
USUAL_S = 20.0
# Two sources read the same moment at most so far apart.
SAME_MOMENT_S = 0.25


@dataclass(slots=True)
class SourceState:
    """What was read of one source. `fault`: why its last `faults` readings failed, "" when the last succeeded."""

    source: Source
    rounds: deque[Round] = field(default_factory=lambda: deque(maxlen=KEPT_ROUNDS))
    fault: str = ""
    faults: int = 0
    said: str = ""  # what the journal was told last

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def latest(self) -> Round | None:
        return self.rounds[-1] if self.rounds else None

    def age_s(self, now: float) -> float | None:
        return None if self.latest is None else now - self.latest.at

    @property
    def stale_after_s(self) -> float:
        """When its newest numbers are old: a Prometheus that scrapes each 15 s is not stale between two scrapes."""
        times = [found.at for found in self.rounds]
        usual_s = min((b - a for a, b in pairwise(times)), default=USUAL_S)
        return max(STALE_AFTER_S, STALE_SPANS * usual_s)

    def take(self, found: Round) -> bool:
        """Takes in a reading. Returns whether it is newer than the one before."""
        self.fault, self.faults = "", 0
        if self.latest is not None and found.at <= self.latest.at:
            # The same scrape again; what it says of gateways that are missing may be new.
            self.rounds[-1] = Round(self.latest.gateways, found.missing, found.note)
            return False
        self.rounds.append(found)
        return True

    def fail(self, reason: str) -> None:
        self.fault, self.faults = reason, self.faults + 1

    def trouble(self, now: float) -> str:
        """Why it cannot be relied on, for people; "" while it can."""
        if self.latest is None:
            return self.fault or "was not read yet"
        age_s = now - self.latest.at
        if self.fault:
            return f"{self.fault} (its last word is {age_s:.0f} s old)"
        if not -1.0 <= age_s <= self.stale_after_s:
            return f"its newest numbers are {age_s:.0f} s old"
        if self.latest.missing:
            return f"has no word from {', '.join(self.latest.missing)}"
        return ""

    @property
    def is_news(self) -> bool:
        """Whether its trouble has lasted long enough to be told."""
        if self.latest is None:
            return self.faults >= NEWS_AT_FIRST
        return not self.fault or self.faults >= NEWS_AFTER

    def rank(self, now: float) -> tuple[bool, bool, float]:
        """The larger the better: fresh, whole, new."""
        if self.latest is None:
            return False, False, 0.0
        return now - self.latest.at <= self.stale_after_s, not self.latest.missing, self.latest.at


def choose(states: Sequence[SourceState], current: SourceState | None, now: float) -> SourceState | None:
    """The source that counts: `current` unless another is notably better. None while none ever said anything."""
    known = [state for state in states if state.latest is not None]
    if not known:
        return None
    best = max(known, key=lambda state: state.rank(now))
    if current is None or current not in known:
        return best
    (fresh, whole, at), (best_fresh, best_whole, best_at) = current.rank(now), best.rank(now)
    is_better = (best_fresh, best_whole) > (fresh, whole) or best_at - at > FRESHER_S
    return best if is_better else current


class Signals:
    """Samples of every version's traffic. `changed` is notified when there is something newer to make one of."""

    def __init__(self, journal: Journal, heard: Callable[[str, Round], None] = lambda _source, _round: None) -> None:
        """`heard` is told each new round, with the name of its source."""
        self._journal = journal
        self._heard = heard
        self._states: list[SourceState] = []
        self._active: SourceState | None = None
        self._pair: tuple[Round, Round] | None = None
        self._consumed_at = 0.0
        self.changed = Signal()

    @property
    def states(self) -> Sequence[SourceState]:
        return self._states

    @property
    def active(self) -> str:
        """The name of the source that counts, "" while none does."""
        return self._active.name if self._active else ""

    @property
    def latest(self) -> Round | None:
        """The newest round of the source that counts; None while none does."""
        return self._active.latest if self._active else None

    def use(self, sources: Iterable[Source]) -> None:
        """These sources from now on; nothing of them is known yet."""
        self._states = [SourceState(source) for source in sources]
        self._active = None

    async def run(self) -> None:
        """Reads the sources until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for state in self._states:
                tasks.create_task(self._follow(state), name=f"signals:{state.name}")

    async def refresh(self) -> None:
        """Reads all sources now, and waits for what they say."""
        await asyncio.gather(*(self.read(state) for state in self._states))

    async def read(self, state: SourceState) -> None:
        """Reads one source now, whenever it is due."""
        try:
            found = await state.source.read()
            is_new = state.take(found)
        except SignalsUnavailable as exc:
            state.fail(str(exc))
            return
        if is_new:
            self._heard(state.name, found)
            self.changed.notify()

    def advance(self, now: float) -> bool:
        """Takes up the newest round of the best source. Returns whether there are new samples in it."""
        chosen = choose(self._states, self._active, now)
        if chosen is not self._active:
            log.info("signals source chosen", source=chosen.name if chosen else "")
        self._active = chosen
        self._tell(now)
        if chosen is None or chosen.latest is None or chosen.latest.at <= self._consumed_at:
            return False
        earlier = self._earlier(chosen)
        self._consumed_at = chosen.latest.at
        self._pair = None if earlier is None else (earlier, chosen.latest)
        return self._pair is not None

    def sample(self, key: VersionKey, objective: Objective) -> Sample | None:
        """What happened to one version in the rounds that `advance` took up; None: nobody can say."""
        if self._pair is None:
            return None
        earlier, later = self._pair
        return between(
            _of(key, earlier),
            _of(key, later),
            latency_s=objective.latency_s,
            percentile=objective.percentile,
            expected=later.missing,
        )

    def troubles(self, now: float) -> list[str]:
        return [f"{state.name}: {trouble}" for state in self._states if (trouble := state.trouble(now))]

    def _earlier(self, chosen: SourceState) -> Round | None:
        """The round that the new sample begins with: the one nearest before what was consumed last."""
        before = list(chosen.rounds)[:-1]
        seen = [found for found in before if found.at <= self._consumed_at + SAME_MOMENT_S]
        return seen[-1] if seen else next(iter(before), None)

    async def _follow(self, state: SourceState) -> None:
        while True:
            began = time.monotonic()
            await self.read(state)
            await asyncio.sleep(max(0.05, state.source.every_s - (time.monotonic() - began)))

    def _tell(self, now: float) -> None:
        """Tells the journal what changed about the sources."""
        for state in self._states:
            trouble = state.trouble(now)
            if bool(trouble) == bool(state.said) or (trouble and not state.is_news):
                continue
            state.said = trouble
            if trouble:
                others = [o.name for o in self._states if o is not state and not o.trouble(now)]
                then = f"goes on with {others[0]}" if others else "counts go up on what is known, and none goes down"
                self._journal.record("signals_lost", f"{state.name}: {trouble}; {then}", level="warning")
            else:
                self._journal.record("signals_back", f"{state.name}: its numbers are fresh and whole again")


def _of(key: VersionKey, found: Round) -> dict[str, Reading]:
    return {name: gateway.of(key) for name, gateway in found.gateways.items()}
