"""From what was told of replicas to when each was in which state: the timeline that people look at.

Events are all that outlives a replica. What they do not say is not made up: a replica whose end nobody saw is shown up
to the last that was heard of it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

# The state that begins with an event, "" where the replica ended with it.
BEGINS = {
    "replica_started": "starting",
    "replica_woken": "starting",
    "replica_ready": "ready",
    "replica_kept": "ready",
    "replica_draining": "draining",
    "replica_paused": "standby",
    "replica_found_paused": "standby",
    "replica_stopped": "",
    "replica_failed": "",
}


@dataclass(frozen=True, slots=True)
class Happening:
    """One event of a replica; `kind` is one of `BEGINS`."""

    at: float
    kind: str
    replica: str
    version: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Alive:
    """A replica that is there now."""

    version: str
    state: str
    created_at: float


@dataclass(frozen=True, slots=True)
class Span:
    """`replica` was in `state` from `since` to `until` (None: it still is). `reason`: why it ended, where it failed."""

    replica: str
    version: str
    state: str
    since: float
    until: float | None
    reason: str = ""


def spans(told: Iterable[Happening], alive: Mapping[str, Alive]) -> list[Span]:
    """`told` is oldest first. The spans are by replica, those first that were heard of first."""
    by_replica: dict[str, list[Happening]] = {}
    for each in told:
        if each.kind in BEGINS:
            by_replica.setdefault(each.replica, []).append(each)
    found = [span for id_, each in by_replica.items() for span in _of_replica(each, alive.get(id_))]
    untold = sorted((now.created_at, id_) for id_, now in alive.items() if id_ not in by_replica)
    return found + [Span(id_, alive[id_].version, alive[id_].state, since, None) for since, id_ in untold]


def _of_replica(told: list[Happening], alive: Alive | None) -> Iterable[Span]:
    first = told[0]
    if alive is not None and first.kind != "replica_started" and alive.created_at < first.at:
        # What was told of its beginning is forgotten; that it was there is known.
        yield Span(first.replica, first.version, "unknown", alive.created_at, first.at)
    for each, then in pairwise(told):
        if state := BEGINS[each.kind]:
            reason = then.message if then.kind == "replica_failed" else ""
            yield Span(each.replica, each.version, state, each.at, then.at, reason)
    last = told[-1]
    if state := BEGINS[last.kind]:
        yield Span(last.replica, last.version, state, last.at, None if alive else last.at)
