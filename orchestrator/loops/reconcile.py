"""The reconcile loop: observe, decide, act, until told to stop. All rules are in `core/reconcile.py`.

It runs when something happened (an engine event, a probe that changed, an action that ended, a new revision), when the
last decision asked for it (a back-off or a drain that ends), and every `RESYNC_S` in case an event was lost.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import structlog

from orchestrator.adapters.engine import Engine, EngineUnavailable
from orchestrator.core.entities import Desired, Observed, Replica, VersionKey
from orchestrator.core.plan import Memory, Plan, Policy, WakeReplica
from orchestrator.core.reconcile import reconcile
from orchestrator.core.roster import lengths
from orchestrator.core.states import ReplicaState
from orchestrator.loops.executor import Executor
from orchestrator.loops.haste import LastLook, urgent
from orchestrator.loops.journal import Journal, Signal
from orchestrator.loops.keeper import GatewayKeeper
from orchestrator.loops.observe import Prober, snapshot
from orchestrator.loops.pauses import Pauses
from orchestrator.loops.routing import TableBoard
from orchestrator.loops.targets import Targets
from orchestrator.loops.tasks import wait_until_set

log = structlog.get_logger("modelfleet")

RESYNC_S = 15.0
RESYNC_BUSY_S = 0.25
# While something starts or loads, so that what it says of its progress is never older.
RESYNC_PENDING_S = 1.0
ENGINE_RETRY_S = 1.0
# Docker says that a container died before its list says so: after an event the world is looked at again until then.
SETTLE_S = 1.0
SETTLE_EVERY_S = 0.1


class ReconcileLoop:
    """Drives one cluster towards `desired`: what was applied, with `pauses` and the counts of `targets`.

    `plan` and `observed` are the last ones, for status.
    """

    def __init__(
        self,
        engine: Engine,
        board: TableBoard,
        prober: Prober,
        keeper: GatewayKeeper,
        executor: Executor,
        journal: Journal,
        threads: ThreadPoolExecutor,
        policy: Policy,
        targets: Targets,
        pauses: Pauses,
        woke: Callable[[VersionKey, float], None] = lambda _key, _seconds: None,
        turned: Callable[[float, bool], None] = lambda _seconds, _engine_answered: None,
    ) -> None:
        """`woke` is told how many seconds each waking took, `turned` how many each turn of the loop, and whether the
        engine answered in it."""
        self._engine = engine
        self._board = board
        self._prober = prober
        self._keeper = keeper
        self._executor = executor
        self._journal = journal
        self._threads = threads
        self._policy = policy
        self._targets = targets
        self.pauses = pauses
        self._woke = woke
        self._turned = turned
        self.applied = Desired()
        self._asked = Desired()
        self._wake = asyncio.Event()
        self._settling_until = 0.0
        self._waking: dict[str, float] = {}
        self._look = LastLook()
        self._memory = Memory(routed=board.routed)
        self.desired = Desired()
        self.observed = Observed()
        self.plan: Plan | None = None
        self.plan_revision: int | None = None
        self.engine_error = ""
        self.decided = Signal()
        self.frozen = False

    @property
    def asked(self) -> Desired:
        """What was applied, where nothing is paused, without the counts that were chosen since."""
        return self._asked

    def set_desired(self, desired: Desired) -> None:
        self.applied = desired
        self._asked, self.desired = self.pauses.held(desired), self.foresee(desired)
        self._targets.adopt(self.desired)
        self.wake()

    def reapply(self) -> None:
        """Takes up a change of the pauses."""
        self.set_desired(self.applied)

    def foresee(self, desired: Desired) -> Desired:
        """What would be desired if this was applied: what is paused stays, and the counts that the autoscaler chose."""
        return self._targets.applied(self.pauses.held(desired), running=self.desired)

    def retarget(self) -> None:
        """Takes up counts that were set in `targets`."""
        self.desired = self.foresee(self.applied)
        self.wake()

    def wake(self) -> None:
        self._wake.set()

    def hurry(self) -> None:
        """As `wake`, for requests that wait for a replica in standby."""
        self._look.hurry(time.monotonic())
        self._wake.set()

    def note_unpaused(self, replica_id: str) -> None:
        """The engine has woken it; whether it is ready is asked at once."""
        self._look.unpaused(replica_id)
        self._wake.set()

    def wake_for_event(self) -> None:
        """As `wake`, for an event of the engine."""
        self._settling_until = time.time() + SETTLE_S
        self._wake.set()

    async def run(self) -> None:
        while True:
            self._wake.clear()
            began = time.monotonic()
            pause = await self.step()
            self._turned(time.monotonic() - began, not self.engine_error)
            await wait_until_set(self._wake, pause)

    async def step(self) -> float:
        """One observation, decision and act. Returns the seconds until the next is due without a wake-up."""
        if self.frozen:
            return RESYNC_S
        is_hasty = self._look.left_s(time.monotonic()) > 0
        observed = await (self._observe_in_haste() if is_hasty else self._observe())
        if observed is None:
            return ENGINE_RETRY_S
        began = time.time()
        desired = self.desired
        policy = replace(self._policy, max_starting=desired.limits.max_starting)
        plan = reconcile(desired, observed, self._memory, began, policy)
        self._note_changes(observed, plan)
        self._memory, self.observed, self.plan = plan.memory, observed, plan
        self.plan_revision = desired.revision
        self._note_wakings(plan, observed, began)
        self._executor.execute(urgent(plan.actions) if is_hasty else plan.actions)
        await asyncio.sleep(0)  # the engine begins meanwhile: somebody may wait for it
        if self._board.publish(plan.routes, {r.id: r for r in observed.replicas}):
            log.debug("table published", tag=self._board.tag)
        self.decided.notify()
        if is_hasty and not self._waking:
            self._look.end()
        return self._look.left_s(time.monotonic()) if is_hasty else self._pause(plan, began)

    def watch_events(self, stopped: threading.Event, wake: Callable[[], None]) -> None:
        """Blocks on the engine's events and wakes the loop for each; run it on a thread of its own."""
        while not stopped.is_set():
            try:
                for _ in self._engine.events(stopped):
                    wake()
            except EngineUnavailable:
                stopped.wait(ENGINE_RETRY_S)
                wake()

    async def _observe(self) -> Observed | None:
        pending = tuple(self._executor.pending.values())
        try:
            listed = await asyncio.get_running_loop().run_in_executor(self._threads, self._engine.replicas)
        except EngineUnavailable as exc:
            self._engine_away(str(exc))
            return None
        self._engine_back()
        self._look.keep(listed)
        await self._prober.follow(listed)
        report = await self._keeper.report() if self._has_unwanted() else None
        refused = tuple(self._executor.refused.values())
        return snapshot(listed, self._prober.health, pending, refused, report, self._board.published)

    async def _observe_in_haste(self) -> Observed:
        """By the last look; what the gateway has in flight is unknown, so that no drain ends by it."""
        pending, refused = tuple(self._executor.pending.values()), tuple(self._executor.refused.values())
        await self._prober.follow(self._look.listed)
        return snapshot(self._look.listed, self._prober.health, pending, refused, None, None)

    def _has_unwanted(self) -> bool:
        """Whether anything drains: only then the gateway's counts matter."""
        return bool(self._memory.draining)

    def _pause(self, plan: Plan, now: float) -> float:
        busy = RESYNC_PENDING_S if plan.memory.pending_since else RESYNC_S
        if plan.memory.draining:
            busy = RESYNC_BUSY_S
        if now < self._settling_until:
            busy = SETTLE_EVERY_S
        if plan.wake_at is None:
            return busy
        return max(0.02, min(busy, plan.wake_at - now))

    def _note_changes(self, observed: Observed, plan: Plan) -> None:
        """Tells what became of replicas since the last observation. `_memory` is still the one of then."""
        if self.plan is None:
            self._note_adopted(observed)
            return
        before = {r.id: r.state for r in self.observed.replicas}
        for replica in observed.replicas:
            if replica.state is before.get(replica.id):
                if replica.id in self._memory.draining and replica.id not in plan.memory.draining:
                    message = "needed again before it was drained; it serves on"
                    self._journal.record("replica_kept", message, key=replica.key, replica=replica.id)
                continue
            if replica.state is ReplicaState.READY:
                self._note_ready(replica)
            elif replica.state is ReplicaState.STANDBY and replica.id not in self._memory.pausing:
                self._journal.record(
                    "replica_found_paused", "somebody paused it; it is woken if it is needed, and stays or ends if not",
                    level="warning", key=replica.key, replica=replica.id,
                )  # fmt: skip

    def _note_ready(self, replica: Replica) -> None:
        woken_at, now = self._waking.pop(replica.id, None), time.time()
        if woken_at is None:
            message = _how_it_became_ready(replica, now)
        else:
            message = f"awake again after {(now - woken_at) * 1000:.0f} ms, and passed its probe"
            self._woke(replica.key, now - woken_at)
        self._journal.record(
            "replica_ready", message, key=replica.key, replica=replica.id, revision=replica.revision
        )  # fmt: skip

    def _note_wakings(self, plan: Plan, observed: Observed, now: float) -> None:
        """Since when each replica is being woken, for as long as it is there."""
        asked = {action.replica_id: now for action in plan.actions if isinstance(action, WakeReplica)}
        listed = {replica.id for replica in observed.replicas}
        self._waking = {id_: at for id_, at in {**asked, **self._waking}.items() if id_ in listed}

    def _note_adopted(self, observed: Observed) -> None:
        live = [r for r in observed.replicas if r.exit is None]
        if live:
            self._journal.record("replicas_adopted", f"adopted {len(live)} replicas that were running")

    def _engine_away(self, reason: str) -> None:
        if not self.engine_error:
            self._journal.record("engine_unavailable", f"{reason}; what runs is left as it is", level="error")
        self.engine_error = reason
        self.decided.notify()

    def _engine_back(self) -> None:
        if self.engine_error:
            self._journal.record("engine_available", "the engine answers again")
        self.engine_error = ""


def _how_it_became_ready(replica: Replica, now: float) -> str:
    took = f"ready {now - replica.created_at:.1f} s after it was created"
    phases = replica.loading.phases if replica.loading else ()
    return f"{took}: {lengths(phases)}" if phases else took
