"""The autoscale loop: observe what happens to each version, decide how many replicas it should have, put that in force.

All rules are in `core/scaling/`; this only brings it facts and carries its word out: the counts into `targets.py`, from
where reconcile makes them so, and the reasons into the journal. It touches neither engine nor gateway. What it must
remember beyond the counts may be lost: after a restart the policy holds them until it has seen enough.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from orchestrator.adapters.metrics import Metrics
from orchestrator.adapters.signals import Source
from orchestrator.adapters.store_scaling import ScalingStore, StoredDecision
from orchestrator.core.entities import Desired, DesiredVersion, Observed, Replica, SignalSource, Target, VersionKey
from orchestrator.core.errors import FleetError
from orchestrator.core.plan import Plan
from orchestrator.core.scaling import census
from orchestrator.core.scaling.allocate import Claim, allocate
from orchestrator.core.scaling.decide import act, decide
from orchestrator.core.scaling.decision import Inputs, Memory, ScaleDecision
from orchestrator.core.scaling.facts import Observation, Override, Sample, Settings
from orchestrator.core.scaling.sleep import Rest
from orchestrator.core.states import LIVE, ReplicaState
from orchestrator.loops.cold_starts import ColdStarts
from orchestrator.loops.journal import Journal
from orchestrator.loops.signals import Signals
from orchestrator.loops.targets import Targets
from orchestrator.loops.tasks import TaskGroup, forever

# Without news of traffic: for schedules, overrides that end, sleep, and signals that grow old.
TICK_S = 1.0
# So many versions are decided between two turns of everything else; one takes some 0.2 ms.
VERSIONS_PER_STRETCH = 32
# Thousands of versions are decided less often, so that deciding takes a quarter of the time at most.
REST_PER_STEP = 3.0
# A runtime that was there is taken to be there for this long.
RUNTIME_SEEN_S = 60.0
RUNTIME_RETRY_S = 15.0
# A longer time between two turns was no turn: the machine slept, or the engine was away.
MOST_PASSED_S = 60.0
# A fixed count is its author's word: it comes before all that is chosen.
FIXED_PRIORITY = 1_000_000


class Reconciler(Protocol):
    """The part of `reconcile.py`'s loop that this one works with."""

    plan: Plan | None
    desired: Desired
    observed: Observed
    engine_error: str
    frozen: bool

    @property
    def asked(self) -> Desired: ...

    def retarget(self) -> None: ...


Ensure = Callable[[VersionKey], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _View:
    """What one turn rests on: the versions with the counts in force and as applied, and their replicas."""

    desired: Desired
    asked: Mapping[VersionKey, DesiredVersion]
    replicas: Mapping[VersionKey, list[Replica]]


@dataclass(slots=True)
class _Runtime:
    """Whether what a version's replicas run in was seen to be there, and when it is looked for again."""

    due: float = 0.0
    is_there: bool = False
    reason: str = ""


class Autoscaler:
    """Chooses the counts of all versions that have a choice. `last` are the newest decisions, for people.

    `sources` makes the sources of signals; `ensure` makes sure that a version's runtime is there, and raises
    `FleetError` when it cannot be.
    """

    def __init__(
        self,
        loop: Reconciler,
        targets: Targets,
        signals: Signals,
        store: ScalingStore,
        journal: Journal,
        metrics: Metrics,
        *,
        sources: Callable[[SignalSource], Iterable[Source]],
        ensure: Ensure,
    ) -> None:
        self._loop = loop
        self._targets = targets
        self._store = store
        self._journal = journal
        self._metrics = metrics
        self._sources = sources
        self._ensure = ensure
        self._wake = asyncio.Event()
        self._tasks = TaskGroup("autoscale")
        self._memories: dict[VersionKey, Memory] = {}
        self._settings: dict[VersionKey, tuple[tuple[object, ...], Settings]] = {}
        self._runtimes: dict[str, _Runtime] = {}
        self._was_ready: set[str] = set()
        self._counted_at = 0.0
        self._starts = ColdStarts(metrics)
        self.signals = signals
        self.last: dict[VersionKey, ScaleDecision] = {}
        self.decided_at = 0.0

    async def run(self) -> None:
        """Reads signals and decides until cancelled; begins anew when the manifest names another source."""
        signals = self._loop.desired.signals
        self.signals.use(self._sources(signals))
        reading = asyncio.create_task(forever("signals", self.signals.run), name="autoscale:signals")
        try:
            while self._loop.desired.signals == signals:
                seen = self.signals.changed.count
                self._wake.clear()
                began = time.monotonic()
                await self.step(time.time())
                await asyncio.sleep((time.monotonic() - began) * REST_PER_STEP)
                await self._pause(seen)
        finally:
            reading.cancel()
            await self._tasks.cancel()

    def decide_soon(self) -> None:
        """Not only when there is news of the traffic: somebody said something that counts."""
        self._wake.set()

    def set_by_hand(self, key: VersionKey, override: Override | None) -> None:
        """A person's word, or that it is taken back."""
        self._targets.override(key, override)
        version = self._loop.asked.versions().get(key)
        if override is None and version is not None and version.scaling.is_fixed:
            self._targets.set({key: None})
        self._loop.retarget()  # whether a request wakes it may be another now, though its count is the same
        self.decide_soon()

    def wake(self, version: DesiredVersion, queued: int) -> int:
        """How many replicas a version that is asleep gets for the requests that wait for it: at once, at least one."""
        if self._loop.plan is None:
            return 1
        now = time.time()
        decision = self._for_those_who_wait(version, queued, now)
        self._note(decision, now)
        return decision.target

    def _for_those_who_wait(self, version: DesiredVersion, queued: int, now: float) -> ScaleDecision:
        sample = Sample(at=now, span_s=1.0, arrivals=queued, queued=queued)
        memory = self._memories.get(version.key, Memory(target=0))
        seen = self._observation(version, (), sample)
        decision, _ = decide(seen, self._settings_of(version), memory, now)
        return decision if decision.target else act(version.key, 0, 1, decision.inputs)

    async def step(self, now: float) -> None:
        """One turn: a decision for each version that has a choice, within what the cluster has."""
        if self._loop.plan is None or self._loop.engine_error or self._loop.frozen:
            return  # what runs is unknown
        self.signals.advance(now)
        view = self._view()
        self._note_replicas(view, now)
        claims = []
        for done, version in enumerate(view.desired.versions().values(), 1):
            if not self._is_fixed(version):
                claims.append(self._claim(version, view, now))
            elif view.desired.limits.is_limited:
                claims.append(self._fixed_claim(version, view))
            if done % VERSIONS_PER_STRETCH == 0:
                await asyncio.sleep(0)
        if view.desired is self._loop.desired:  # another was applied meanwhile: the next turn is about that
            self._put_in_force(allocate(claims, view.desired.limits), view, now)

    async def _pause(self, seen: int) -> None:
        """Until there is news of the traffic, or `TICK_S` passed."""
        waiting = asyncio.create_task(self._wake.wait(), name="autoscale:woken")
        news = asyncio.create_task(self.signals.changed.wait(seen, TICK_S), name="autoscale:news")
        try:
            await asyncio.wait({waiting, news}, timeout=TICK_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            news.cancel()

    # -- observe ---------------------------------------------------------------------------------------------

    def _view(self) -> _View:
        desired = self._loop.desired
        return _View(desired, self._loop.asked.versions(), census.by_version(self._loop.observed.replicas))

    def _note_replicas(self, view: _View, now: float) -> None:
        versions = view.desired.versions()
        self._count_cost(view, now)
        self._starts.note(self._loop.observed.replicas, now)
        ready = {r.digest for replicas in view.replicas.values() for r in replicas if r.state is ReplicaState.READY}
        wanted = {version.digest for version in versions.values()}
        self._was_ready = (self._was_ready | ready) & wanted
        for known in (self._memories, self._settings, self.last):
            for key in known.keys() - versions.keys():
                del known[key]

    def _count_cost(self, view: _View, now: float) -> None:
        """Of the replicas that compute: one in standby costs memory alone."""
        passed_s, self._counted_at = now - self._counted_at, now
        if not 0 < passed_s < MOST_PASSED_S:
            return
        for key, replicas in view.replicas.items():
            running = sum(1 for r in replicas if r.state in LIVE)
            if running:
                self._metrics.ran(key, running * passed_s)

    def _observation(self, version: DesiredVersion, replicas: Iterable[Replica], sample: Sample | None) -> Observation:
        plan = self._loop.plan
        assert plan is not None
        present = list(replicas)
        return Observation(
            key=version.key,
            sample=sample,
            counts=census.counts(present, version, plan.memory),
            cold_start_s=self._starts.mean_s(version.key),
            was_ready=version.digest in self._was_ready,
            is_rolling_out=census.is_rolling_out(present, version),
        )

    # -- decide ----------------------------------------------------------------------------------------------

    def _claim(self, version: DesiredVersion, view: _View, now: float) -> Claim:
        key = version.key
        settings = self._settings_of(version, view.asked[key].replicas)
        sample = self.signals.sample(key, settings.objective)
        seen = self._observation(version, view.replicas.get(key, ()), sample)
        decision, self._memories[key] = decide(seen, settings, self._memory_of(version, now), now)
        return Claim(decision, version.spec.resources, version.scaling.priority, granted=version.replicas)

    def _fixed_claim(self, version: DesiredVersion, view: _View) -> Claim:
        """What the others have to leave for it."""
        seen = self._observation(version, view.replicas.get(version.key, ()), None)
        count = version.replicas
        inputs = Inputs(
            sample=None, counts=seen.counts, percentile=version.scaling.percentile, minimum=count, maximum=count,
            cold_start_s=seen.cold_start_s, rest=Rest(False, version.standby, 0.0),
        )  # fmt: skip
        decision = act(version.key, count, count, inputs)
        return Claim(decision, version.spec.resources, FIXED_PRIORITY, granted=count)

    def _is_fixed(self, version: DesiredVersion) -> bool:
        return version.scaling.is_fixed and version.key not in self._targets.overrides

    def _memory_of(self, version: DesiredVersion, now: float) -> Memory:
        """What was decided last. A version that a request woke meanwhile is awake, and was asked for just now, whatever
        the last sample says of the time before."""
        memory = self._memories.get(version.key, Memory(target=version.replicas))
        is_woken = memory.target == 0 and version.replicas > 0
        return replace(memory, target=version.replicas, quiet_since=now) if is_woken else memory

    def _settings_of(self, version: DesiredVersion, fixed: int = 0) -> Settings:
        """Made anew only when something in it changed: parsing schedules takes longer than deciding."""
        override = self._targets.overrides.get(version.key)
        made_of = (version.scaling, version.concurrency, override, fixed)
        known = self._settings.get(version.key)
        if known is None or known[0] != made_of:
            known = self._settings[version.key] = made_of, census.settings_of(version, override, fixed)
        return known[1]

    # -- act -------------------------------------------------------------------------------------------------

    def _put_in_force(self, decisions: Iterable[ScaleDecision], view: _View, now: float) -> None:
        self.decided_at = now
        versions = view.desired.versions()
        targets: dict[VersionKey, Target | None] = {}
        for decision in decisions:
            version = versions[decision.key]
            if self._is_fixed(version):
                continue
            if decision.target > decision.before and not self._has_runtime(version, now):
                continue
            self.last[decision.key] = decision
            targets[decision.key] = Target(decision.target, decision.standby)
            if decision.is_change:
                self._tell(decision, now)
        if self._targets.set(targets):
            self._loop.retarget()
        self._end_overrides(now)

    def _tell(self, decision: ScaleDecision, now: float) -> None:
        self._journal.record("scaled", decision.reason.removeprefix(f"{decision.key}: "), key=decision.key)
        self._note(decision, now)

    def _note(self, decision: ScaleDecision, now: float) -> None:
        key = decision.key
        self._metrics.decided(key, decision.target - decision.before)
        self._store.add_decision(
            StoredDecision(
                at=now, model=key.model, version=key.version, before=decision.before, target=decision.target,
                standby=decision.standby, reason=decision.reason,
            )
        )  # fmt: skip

    def _end_overrides(self, now: float) -> None:
        for key, override in list(self._targets.overrides.items()):
            if not override.is_in_force(now):
                self._journal.record("scale_override_ended", "what was set by hand is over", key=key)
                self.set_by_hand(key, None)

    def _has_runtime(self, version: DesiredVersion, now: float) -> bool:
        """Whether more replicas could start at all. Looks for a runtime (and makes it) when it was not seen lately."""
        runtime = self._runtimes.setdefault(version.spec.runtime, _Runtime())
        if now >= runtime.due:
            runtime.due = now + RUNTIME_SEEN_S
            self._tasks.spawn(self._look_for(runtime, version.key, now), name=f"runtime of {version.key}")
        return runtime.is_there

    async def _look_for(self, runtime: _Runtime, key: VersionKey, now: float) -> None:
        try:
            await self._ensure(key)
        except FleetError as exc:
            runtime.is_there, runtime.due = False, now + RUNTIME_RETRY_S
            if str(exc) != runtime.reason:
                runtime.reason = str(exc)
                self._journal.record("scale_up_waits", f"no more replicas until {exc}", level="error", key=key)
            return
        runtime.is_there, runtime.reason = True, ""
        self.decide_soon()
