"""Counts what replicas take: looks at what runs each second, and puts the sums into the store once a minute.

The rules are in `core/cost/`. After a restart it goes on from the store's mark: what ran before and still runs is
counted for the time between, what ended meanwhile is unknown. A control plane that is killed loses at most the last
minute's knowledge of which replicas had a request inside, and of those that came and went within it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol, TypeAlias, TypeVar

import structlog

from orchestrator.adapters.metrics import Metrics
from orchestrator.adapters.signals import Round
from orchestrator.adapters.store_cost import CostStore, Mark, NotKept, NotTheWriter
from orchestrator.core.cost.account import Bucket, Held, account, buckets
from orchestrator.core.cost.amounts import Amounts, cost_per_hour
from orchestrator.core.cost.predictions import Counted, count
from orchestrator.core.entities import Desired, Observed, Pricing, Replica, Resources, VersionKey
from orchestrator.core.plan import Plan
from orchestrator.core.states import ReplicaState
from router.contract import GatewayReport

log = structlog.get_logger("modelfleet")

EVERY_S = 1.0
# Thousands of replicas are looked at less often: looking takes this share of the time at most.
MOST_SHARE = 0.005
SELDOM_S = 5.0
WRITE_EVERY_S = 60.0


T = TypeVar("T")
_Pending: TypeAlias = tuple[tuple[VersionKey, Bucket], Amounts]


class Runs(Protocol):
    """The part of the reconcile loop that says what there is."""

    plan: Plan | None
    desired: Desired
    observed: Observed
    engine_error: str
    frozen: bool


class CostKeeper:
    """`report` gives the gateway's newest report (None: it does not answer), `readings` its newest counters, `specs`
    what replicas of earlier revisions were started with, by their digest."""

    def __init__(
        self,
        runs: Runs,
        store: CostStore,
        metrics: Metrics,
        *,
        report: Callable[[], GatewayReport | None],
        readings: Callable[[], Round | None],
        specs: Callable[[], Mapping[str, Resources]],
    ) -> None:
        self._runs = runs
        self._store = store
        self._metrics = metrics
        self._report = report
        self._readings = readings
        self._specs = specs
        self._resources: dict[str, Resources | None] = {}
        self._held: dict[str, Held] = {}
        self._hourly: dict[tuple[str, str], float] | None = None  # made when somebody asks
        self._has_looked = False
        self._counted: Mapping[str, Counted] = {}
        self._seen_at = 0.0
        self._counted_at = 0.0
        self._written_at = 0.0
        self._since = 0.0
        self._has_pen = False
        self._writes = 0
        self.pending: dict[tuple[VersionKey, Bucket], Amounts] = {}

    async def run(self) -> None:
        """Looks until cancelled, or until another control plane counts."""
        if not self._has_pen:
            self.begin(time.time())
        while self._has_pen:
            began = time.monotonic()
            self.look(time.time())
            took_s = time.monotonic() - began
            await asyncio.sleep(min(SELDOM_S, max(EVERY_S, took_s / MOST_SHARE)))
        log.error("cost is not counted: another control plane writes to this state directory")
        await asyncio.Event().wait()

    def begin(self, now: float) -> None:
        """Goes on from where the last control plane was."""
        mark = self._store.begin()
        self._has_pen = True
        self._seen_at = self._counted_at = mark.at if mark else now
        self._since = mark.since if mark else now
        self._written_at = 0.0  # the first look is written at once: a kill in the first minute loses nothing either
        self.pending = {}
        if mark is not None:
            self._held, self._counted = mark.replicas(), mark.counters()

    def look(self, now: float) -> None:
        """Counts up to `now`. While nobody knows what runs it does nothing, and the next look covers that time too."""
        if self._runs.plan is None or self._runs.engine_error or self._runs.frozen:
            return
        if now < self._seen_at:  # the clock was set back
            self._seen_at = now
            return
        held = self._what_runs()
        taken = account(self._held, held, self._seen_at, now, self._runs.desired.pricing)
        self._note(taken, self._seen_at, now)
        self._held, self._seen_at = held, now
        self._hourly, self._has_looked = None, True
        self._count_predictions(now)
        if now - self._written_at >= WRITE_EVERY_S:
            self.write()

    def write(self) -> None:
        """Puts what was counted into the store."""
        if not self._has_pen:
            return
        self._written_at = self._seen_at
        try:
            self._store.add(self.pending, Mark.of(self._seen_at, self._since, self._held, self._counted))
        except NotKept as exc:  # a full disk: tried again in a minute, with what comes until then
            log.error("cost was not kept", reason=str(exc))
            return
        except NotTheWriter:
            self._has_pen = False
        self.pending = {}
        self._writes += 1

    def end(self, now: float) -> None:
        """Every replica was ended: until now they ran."""
        taken = account(self._held, self._held, self._seen_at, now, self._runs.desired.pricing)
        self._note(taken, self._seen_at, now)
        self._held, self._seen_at = {}, now
        self.write()

    # -- what is asked -----------------------------------------------------------------------------------------

    async def by_version(self, since: float, model: str = "") -> dict[VersionKey, Amounts]:
        """As the store's, with what is not in it yet."""
        found, unwritten = await self._whole(partial(self._store.by_version, since, model))
        for (key, bucket), taken in unwritten:
            if _is_asked(key, bucket, since, model):
                found[key] = found.get(key, Amounts()) + taken
        return found

    async def by_bucket(self, since: float, model: str = "") -> dict[Bucket, Amounts]:
        found, unwritten = await self._whole(partial(self._store.by_bucket, since, model))
        for (key, bucket), taken in unwritten:
            if _is_asked(key, bucket, since, model):
                found[bucket] = found.get(bucket, Amounts()) + taken
        return dict(sorted(found.items()))

    async def _whole(self, read: Callable[[], dict[T, Amounts]]) -> tuple[dict[T, Amounts], list[_Pending]]:
        """What the store has, read on a thread, and what it has not: of one moment, with no writing in between."""
        while True:
            writes, unwritten = self._writes, list(self.pending.items())
            found = await asyncio.to_thread(read)
            if writes == self._writes:
                return found, unwritten

    def hourly(self, model: str = "", version: str = "") -> float | None:
        """What runs now costs an hour: all, a model, or one version. None: no prices, or nobody looked yet."""
        pricing = self._runs.desired.pricing
        if not pricing.is_set or not self._has_looked:
            return None
        if self._hourly is None:
            self._hourly = _per_hour(self._held, pricing)
        return round(self._hourly.get((model, version), 0.0), 9)

    # -- below ---------------------------------------------------------------------------------------------------

    def _what_runs(self) -> dict[str, Held]:
        report = self._report()
        replicas = [r for r in self._runs.observed.replicas if r.state is not ReplicaState.FAILED and r.exit is None]
        self._learn({replica.digest for replica in replicas})
        return {replica.id: self._held_by(replica, report) for replica in replicas}

    def _held_by(self, replica: Replica, report: GatewayReport | None) -> Held:
        return Held(
            key=replica.key,
            created_at=replica.created_at,
            resources=self._resources.get(replica.digest) or self._known_before(replica.id),
            is_awake=replica.state is not ReplicaState.STANDBY,
            is_busy=None if report is None else report.in_flight.get(replica.id, 0) > 0,
        )

    def _known_before(self, replica_id: str) -> Resources | None:
        before = self._held.get(replica_id)
        return before.resources if before else None

    def _learn(self, digests: set[str]) -> None:
        """What replicas of these specs were started with; of old ones the revisions in the store know."""
        if not digests - self._resources.keys():
            return
        self._resources |= {v.digest: v.spec.resources for v in self._runs.desired.versions().values()}
        if unknown := digests - self._resources.keys():
            told = self._specs()
            self._resources |= {digest: told.get(digest) for digest in unknown}

    def _count_predictions(self, now: float) -> None:
        found = self._readings()
        if found is None or found.at <= self._counted_at:
            return
        counting = count(self._counted, found.gateways, self._since, self._runs.desired.versions())
        self._counted = counting.seen
        taken = {key: Amounts(predictions=n) for key, n in counting.increase.items()}
        self._note(taken, min(self._counted_at, found.at), min(found.at, now))
        self._counted_at = found.at

    def _note(self, taken: Mapping[VersionKey, Amounts], began: float, until: float) -> None:
        if not taken:
            return
        parts = list(buckets(began, until, until))
        for key, each in taken.items():
            if each.cost > 0:
                self._metrics.spent(key, each.cost, each.idle_cost)
            for bucket, share in parts:
                at = key, bucket
                self.pending[at] = self.pending.get(at, Amounts()) + each.share(share)


def _is_asked(key: VersionKey, bucket: Bucket, since: float, model: str) -> bool:
    return bucket.start + bucket.width_s > since and model in ("", key.model)


def _per_hour(held: Mapping[str, Held], pricing: Pricing) -> dict[tuple[str, str], float]:
    """Of each version, of each model under its name and "", and of all under two "": many ask each second."""
    found: dict[tuple[str, str], float] = {}
    for each in held.values():
        if each.resources is None:
            continue
        cost, key = cost_per_hour(each.resources, pricing, is_awake=each.is_awake), each.key
        for at in ((key.model, key.version), (key.model, ""), ("", "")):
            found[at] = found.get(at, 0.0) + cost
    return found
