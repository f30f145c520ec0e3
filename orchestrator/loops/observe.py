"""Observe: one frozen snapshot of the world from the engine, the probes and the gateway's report.

What could not be asked is unknown (None), never absent and never zero; when the engine does not answer there is no
snapshot at all. Probing is remembered here: a replica is ready from its first passed probe until three in a row fail.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import httpx

from orchestrator.adapters.engine import EngineReplica
from orchestrator.adapters.probe import SILENT, Probe, probe
from orchestrator.core.entities import Exit, Loading, Observed, Replica
from orchestrator.core.states import ReplicaState
from orchestrator.loops.tasks import TaskGroup, wait_until_set
from router.contract import GatewayReport

# One that loads is asked again after this share of the time that it has taken so far: it is noticed soon after it is
# ready, and one that takes minutes is not asked all the time meanwhile.
PROBE_PENDING_SHARE = 0.05
PROBE_PENDING_LEAST_S = 0.03
PROBE_PENDING_MOST_S = 0.5
PROBE_READY_EVERY_S = 15.0
PROBE_FAILED_EVERY_S = 1.0
PROBE_TIMEOUT_S = 2.0
# So long an observation waits for the first word of a replica: one that was woken says it within milliseconds, and one
# whose imports keep it from answering must not make others wait.
FIRST_PROBE_S = 0.1
UNHEALTHY_AFTER = 3
EJECTION_OVER_S = 10.0


@dataclass(slots=True)
class Health:
    """What the probes of one replica said. `due` is when to ask again, `began` when it was first asked since it was
    ready (monotonic seconds), `loading` how it became so. `ejected`: why the gateway left it alone, and
    `ejected_at` when it last said so."""

    last: Probe = SILENT
    ready: bool = False
    failures: int = 0
    due: float = 0.0
    began: float | None = None
    loading: Loading | None = None
    ejected: str = ""
    ejected_at: float = 0.0

    def note(self, answer: Probe, now: float) -> bool:
        """Takes in one answer; returns whether readiness changed."""
        before = self.ready, self.last.phase
        self.last = answer
        if answer.ready:
            self.ready, self.failures, self.loading = True, 0, answer.loading
        elif self.ready:
            self.failures += 1
            self.ready = self.failures < UNHEALTHY_AFTER
        if self.ready or self.began is None:
            self.began = now
        self.due = now + self._pause(now - self.began)
        return before != (self.ready, answer.phase)

    def is_used_again(self, now: float) -> bool:
        """Whether its ejection is over. The gateway tries it again and again: only a while without one says so."""
        return bool(self.ejected) and self.ready and not self.failures and now - self.ejected_at > EJECTION_OVER_S

    def _pause(self, pending_s: float) -> float:
        if self.ready:
            return PROBE_FAILED_EVERY_S if self.failures else PROBE_READY_EVERY_S
        return min(PROBE_PENDING_MOST_S, max(PROBE_PENDING_LEAST_S, PROBE_PENDING_SHARE * pending_s))


@dataclass(frozen=True, slots=True)
class Ejections:
    """The replicas that the gateway began to leave alone, and those that it uses again and that pass their probes."""

    began: tuple[str, ...]
    ended: tuple[str, ...]


@dataclass(slots=True)
class Prober:
    """Probes replicas when they are due and tells `changed` when one's readiness or phase did."""

    client: httpx.AsyncClient
    changed: Callable[[], None]
    health: dict[str, Health] = field(default_factory=dict)
    targets: dict[str, tuple[str, int]] = field(default_factory=dict)
    _asked: set[str] = field(default_factory=set)
    _first: TaskGroup = field(default_factory=lambda: TaskGroup("probe"))
    _is_begun: bool = False
    _new: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Each replica is asked in a task of its own: one that does not answer must not make the others wait."""
        self._asked.clear()
        async with asyncio.TaskGroup() as tasks:
            while True:
                now = time.monotonic()
                for id_ in [id_ for id_ in self._unasked() if self.health[id_].due <= now]:
                    self._asked.add(id_)
                    tasks.create_task(self._ask(id_), name=f"probe:{id_}")
                soonest = min((self.health[id_].due for id_ in self._unasked()), default=now + 60)
                self._new.clear()
                await wait_until_set(self._new, max(0.01, soonest - time.monotonic()))

    async def follow(self, replicas: Iterable[EngineReplica]) -> None:
        """Probes exactly the running ones of `replicas` from now on; those never probed are asked at once.

        A paused one is not asked, and what it said before counts for nothing once it was woken.
        """
        self.targets = {r.id: (r.host, r.port) for r in replicas if r.running and not r.paused and r.host and r.port}
        self.health = {id_: self.health.get(id_, Health()) for id_ in self.targets}
        fresh = [id_ for id_ in self._unasked() if self.health[id_].due == 0.0]
        is_first, self._is_begun = not self._is_begun, True
        if fresh:
            self._asked.update(fresh)
            asked = [self._first.spawn(self._ask(id_), name=id_) for id_ in fresh]
            # The very first observation decides what becomes of all that runs: it must be a whole one.
            await asyncio.wait(asked, timeout=None if is_first else FIRST_PROBE_S)

    def note_ejected(self, ejected: Mapping[str, str], now: float) -> Ejections:
        """Takes in whom the gateway leaves alone now, with its reasons. Those that it did not name before are asked at
        once, whatever was due."""
        known = [(id_, self.health[id_], reason) for id_, reason in ejected.items() if id_ in self.health]
        began = tuple(id_ for id_, health, _ in known if not health.ejected)
        for id_, health, reason in known:
            health.ejected, health.ejected_at = reason, now
            health.due = now if id_ in began else health.due
        ended = tuple(id_ for id_, health in self.health.items() if health.is_used_again(now))
        for id_ in ended:
            self.health[id_].ejected = ""
        if began:
            self._new.set()
        return Ejections(began, ended)

    def _unasked(self) -> list[str]:
        return [id_ for id_ in self.targets if id_ not in self._asked]

    async def _ask(self, id_: str) -> None:
        try:
            if await self._probe(id_):
                self.changed()
        finally:
            self._asked.discard(id_)
            self._new.set()

    async def _probe(self, id_: str) -> bool:
        """Whether its readiness or its phase changed."""
        target = self.targets.get(id_)
        answer = SILENT if target is None else await probe(self.client, *target, PROBE_TIMEOUT_S)
        health = self.health.get(id_)
        return health is not None and health.note(answer, time.monotonic())


def snapshot(
    listed: Iterable[EngineReplica],
    health: Mapping[str, Health],
    pending: Iterable[Replica],
    failed: Iterable[Replica],
    report: GatewayReport | None,
    published: Mapping[str, set[str]] | None,
) -> Observed:
    """Joins what the sources said.

    `pending` are starts under way that the engine may not list yet, `failed` starts that it refused. `published` maps
    the tag of the newest table to the replicas in it; the gateway's word counts only for that table.
    """
    seen = {r.id: _replica(r, health.get(r.id)) for r in listed}
    for extra in (*pending, *failed):
        seen.setdefault(extra.id, extra)
    return Observed(tuple(_with_traffic(r, report, published) for r in seen.values()))


def _replica(listed: EngineReplica, health: Health | None) -> Replica:
    return Replica(
        id=listed.id,
        key=listed.key,
        digest=listed.digest,
        state=_state(listed, health),
        created_at=listed.created_at,
        revision=listed.revision,
        host=listed.host,
        port=listed.port,
        phase=health.last.phase if health else "",
        phase_since=health.last.phase_since if health else None,
        loading=health.loading if health else None,
        ejected=health.ejected if health else "",
        exit=listed.exit,
    )


def _state(listed: EngineReplica, health: Health | None) -> ReplicaState:
    if listed.exit is not None:
        return ReplicaState.FAILED
    if listed.paused:
        return ReplicaState.STANDBY
    if health is None or not listed.running:
        return ReplicaState.STARTING
    if health.ready:
        return ReplicaState.READY
    return ReplicaState.LOADING if health.last.answers else ReplicaState.STARTING


def _with_traffic(replica: Replica, report: GatewayReport | None, published: Mapping[str, set[str]] | None) -> Replica:
    if report is None or published is None or report.tag not in published:
        return replica
    routed = replica.id in published[report.tag]
    return replace(replica, in_flight=report.in_flight.get(replica.id, 0), routed=routed)


def refused_start(pending: Replica, reason: str) -> Replica:
    """A start that the engine refused, as a failed replica that reconcile can count."""
    return replace(pending, state=ReplicaState.FAILED, exit=Exit(code=None, reason=reason))
