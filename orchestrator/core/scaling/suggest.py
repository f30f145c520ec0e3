"""Which settings would have done better: the frontier of cost and violations over recorded traffic.

Each candidate is simulated with the policy that runs live. What remains are the candidates of which none is both
cheaper and better; the rest need not be looked at. Fixed counts stand beside them, to say what scaling is worth.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from orchestrator.core.scaling.facts import Settings
from orchestrator.core.scaling.pool import Setup
from orchestrator.core.scaling.simulation import Result, by_policy, fixed, simulate

# Seconds of a replica that an answer in time is worth: from thrifty to eager.
WORTHS_S = (1.0, 3.0, 10.0, 30.0)
MINIMUMS = (1, 2, 3)
STANDBYS = (0, 1, 2)
# A paused replica holds memory and no CPU; for the frontier it counts as this share of an awake one.
STANDBY_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Candidate:
    """Settings (or a fixed count, when `settings` is None) and what they would have led to."""

    name: str
    settings: Settings | None
    result: Result

    @property
    def cost_s(self) -> float:
        return self.result.replica_s + STANDBY_SHARE * self.result.standby_s


def frontier(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Those that no other beats, from the cheapest on. Of equals the first."""
    best: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda c: (c.cost_s, c.result.violations)):
        if not best or candidate.result.violations < best[-1].result.violations:
            best.append(candidate)
    return best


def tried(arrivals: Sequence[float], setup: Setup, settings: Settings) -> Iterator[Candidate]:
    """Every candidate in turn, the present settings first, so that a caller can show progress."""
    seen: set[tuple[float, int, int]] = set()
    for varied in (settings, *_variations(settings)):
        key = (varied.worth_s, varied.minimum, varied.standby)
        if key not in seen:
            seen.add(key)
            yield Candidate(_named(varied, settings), varied, simulate(arrivals, setup, by_policy(varied)))


def counts(arrivals: Sequence[float], setup: Setup, most: int) -> Iterator[Candidate]:
    """Fixed counts from 1 on, until one has no violations that another replica would have spared."""
    before: int | None = None
    for count in range(1, most + 1):
        result = simulate(arrivals, replace(setup, first=count), fixed(count))
        yield Candidate(f"always {count}", None, result)
        if before is not None and result.violations >= before:
            return
        before = result.violations


def _variations(settings: Settings) -> Iterator[Settings]:
    minimums = [m for m in MINIMUMS if m <= settings.maximum] if settings.minimum else [0]
    for minimum in minimums:
        for standby in STANDBYS:
            for worth_s in WORTHS_S:
                yield replace(settings, minimum=minimum, standby=standby, worth_s=worth_s)


def _named(varied: Settings, present: Settings) -> str:
    if varied is present:
        return "as it is"
    names = (("min", "minimum"), ("standby", "standby"), ("worth", "worth_s"))
    changed = [
        f"{name} {getattr(varied, field):g}"
        for name, field in names
        if getattr(varied, field) != getattr(present, field)
    ]
    return ", ".join(changed)
