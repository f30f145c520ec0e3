"""A fleet in memory that executes plans: time moves by hand, and every fault is a method.

It checks after each decision what must never happen. `test_fleet.py` lets Hypothesis play with it.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace

from orchestrator.core.entities import Desired, Exit, Observed, Replica
from orchestrator.core.pausing import Pause, held
from orchestrator.core.plan import (
    DrainReplica,
    Memory,
    PauseReplica,
    Plan,
    Policy,
    RemoveReplica,
    StartReplica,
    StopReplica,
    WakeReplica,
)
from orchestrator.core.reconcile import reconcile
from orchestrator.core.states import PENDING, ReplicaState

POLICY = Policy(max_starting=3, max_surge_ratio=0.34, backoff_max_s=8.0, stable_after_s=10.0)
READY_AFTER_S = 2.0
WAKE_S = 0.05


@dataclass
class Fleet:
    """The world and a control plane's memory. `table` names the replicas in the table that the gateway applied."""

    now: float = 1000.0
    desired: Desired = field(default_factory=Desired)
    applied: Desired = field(default_factory=Desired)
    pauses: dict[str, Pause] = field(default_factory=dict)
    memory: Memory = field(default_factory=Memory)
    replicas: dict[str, Replica] = field(default_factory=dict)
    ready_at: dict[str, float] = field(default_factory=dict)
    in_flight: dict[str, int] = field(default_factory=dict)
    drained_since: dict[str, float] = field(default_factory=dict)
    table: set[str] = field(default_factory=set)
    gateway_answers: bool = True
    load_s: float = READY_AFTER_S
    engine_fails: bool = False
    wakes_dead: bool = False
    made: int = 0

    # -- what people want ------------------------------------------------------------------------------------

    def apply(self, want: Desired) -> None:
        self.applied = want
        self.desired = held(want, self.pauses)

    def pause_rollout(self, name: str) -> None:
        self.pauses[name] = Pause(self.now, "", replace(self.desired.models[name], paused=False))
        self.apply(self.applied)

    def resume_rollout(self, name: str) -> None:
        del self.pauses[name]
        self.apply(self.applied)

    # -- what happens in the world --------------------------------------------------------------------------

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for id_, moment in list(self.ready_at.items()):
            if id_ not in self.replicas or self.replicas[id_].state not in PENDING:
                del self.ready_at[id_]
            elif moment <= self.now:
                del self.ready_at[id_]
                self._finish_loading(id_)

    def _finish_loading(self, id_: str) -> None:
        if self.replicas[id_].digest.startswith("bad"):
            self.crash(id_, "exit 65: the model is broken")
        else:
            self.replicas[id_] = replace(self.replicas[id_], state=ReplicaState.READY)

    def crash(self, id_: str, reason: str = "killed") -> None:
        self.replicas[id_] = replace(self.replicas[id_], state=ReplicaState.FAILED, exit=Exit(137, reason))

    def lose(self, id_: str) -> None:
        del self.replicas[id_]

    def lose_readiness(self, id_: str) -> None:
        self.replicas[id_] = replace(self.replicas[id_], state=ReplicaState.LOADING)
        self.ready_at[id_] = self.now + self.load_s

    def pause_by_hand(self, id_: str) -> None:
        self.replicas[id_] = replace(self.replicas[id_], state=ReplicaState.STANDBY)

    def wake(self, id_: str) -> None:
        """By hand or by us; with `wakes_dead` it never answers again."""
        self.replicas[id_] = replace(self.replicas[id_], state=ReplicaState.STARTING)
        if not self.wakes_dead:
            self.ready_at[id_] = self.now + WAKE_S

    def restart_control_plane(self) -> None:
        """Everything is forgotten but what the store keeps."""
        self.memory = Memory(routed=self.memory.routed)
        self.drained_since.clear()

    # -- the control plane's turn ---------------------------------------------------------------------------

    def observe(self) -> Observed:
        return Observed(tuple(self._with_traffic(r) for r in self.replicas.values()))

    def _with_traffic(self, seen: Replica) -> Replica:
        if not self.gateway_answers:
            return seen
        return replace(seen, in_flight=self.in_flight.get(seen.id, 0), routed=seen.id in self.table)

    def step(self) -> Plan:
        """Observes, decides, checks and executes once."""
        observed = self.observe()
        before = self.memory
        plan = reconcile(self.desired, observed, before, self.now, POLICY)
        Checks(self, observed, before, plan).all()
        self.memory = plan.memory
        self._execute(plan)
        return plan

    def gateway_applies(self) -> None:
        routed = self.memory.routed.values()
        self.table = {id_ for model in routed for version in model.versions.values() for id_ in version.replicas}
        self.in_flight = {id_: n for id_, n in self.in_flight.items() if id_ in self.replicas}

    def _execute(self, plan: Plan) -> None:
        for action in plan.actions:
            match action:
                case StartReplica():
                    self._start(action)
                case DrainReplica():
                    self.drained_since[action.replica_id] = self.now
                case WakeReplica() if not self.engine_fails:
                    self.wake(action.replica_id)
                case PauseReplica() if not self.engine_fails:
                    self.pause_by_hand(action.replica_id)
                case StopReplica() | RemoveReplica() if not self.engine_fails:
                    self.replicas.pop(action.replica_id, None)

    def _start(self, action: StartReplica) -> None:
        self.made += 1
        id_ = f"r{self.made}"
        spec = action.version
        self.replicas[id_] = Replica(id_, spec.key, spec.digest, ReplicaState.STARTING, self.now)
        self.ready_at[id_] = self.now + self.load_s

    def converge(self, most_steps: int = 400) -> Plan:
        """Without further faults the world becomes as desired."""
        self.gateway_answers, self.engine_fails, self.load_s, self.in_flight = True, False, READY_AFTER_S, {}
        self.wakes_dead = False
        for id_, seen in self.replicas.items():
            if seen.state in PENDING:
                self.ready_at.setdefault(id_, self.now)
        for _ in range(most_steps):
            plan = self.step()
            if plan.is_converged and not self.ready_at:
                return plan
            self.gateway_applies()
            self.pass_time(1.0)
        raise AssertionError(f"not converged: {plan.verdicts}\n{plan.render()}")


@dataclass
class Checks:
    """What must hold after every decision, whatever happened before it."""

    fleet: Fleet
    observed: Observed
    before: Memory
    plan: Plan

    def all(self) -> None:
        self.acts_once_on_what_exists()
        self.routes_only_to_ready_replicas()
        self.keeps_the_capacity_there_is()
        self.starts_few_at_once()
        self.stays_below_the_surge()
        self.keeps_serving_models_served()
        self.stops_only_what_is_done()
        self.pauses_only_what_is_idle()
        self.wakes_what_is_needed()
        self.leaves_paused_models_as_they_are()
        self.decides_the_same_again()

    def _by_id(self) -> dict[str, Replica]:
        return {r.id: r for r in self.observed.replicas}

    def acts_once_on_what_exists(self) -> None:
        targets = [a.replica_id for a in self.plan.actions if not isinstance(a, StartReplica)]
        assert len(targets) == len(set(targets))
        assert set(targets) <= self._by_id().keys()

    def routes_only_to_ready_replicas(self) -> None:
        replicas = self._by_id()
        for name, model in self.plan.routes.items():
            assert {*model.weights, *model.labels.values()} <= model.versions.keys()
            for version, routed in model.versions.items():
                assert bool(routed.state) != bool(routed.replicas)
                for id_ in routed.replicas:
                    assert replicas[id_].state is ReplicaState.READY
                    assert (replicas[id_].key.model, replicas[id_].key.version) == (name, version)
                    assert id_ not in self.plan.memory.draining

    def keeps_the_capacity_there_is(self) -> None:
        """Never fewer routed replicas than there were and are wanted."""
        for key, wanted in self.fleet.desired.versions().items():
            there = [r for r in self.observed.of(key) if r.state is ReplicaState.READY and self._is_available(r)]
            routed = self.plan.routes[key.model].versions[key.version].replicas
            assert len(routed) >= min(len(there), wanted.replicas)

    def _is_available(self, replica: Replica) -> bool:
        return replica.id not in self.before.draining and replica.exit is None

    def starts_few_at_once(self) -> None:
        starts = sum(isinstance(a, StartReplica) for a in self.plan.actions)
        starting = sum(r.state in PENDING and r.id not in self.before.ready_since for r in self.observed.replicas)
        assert starts == 0 or starting + starts <= POLICY.max_starting

    def stays_below_the_surge(self) -> None:
        starts = Counter(a.version.key for a in self.plan.actions if isinstance(a, StartReplica))
        draining = self.plan.memory.draining
        for key, count in starts.items():
            wanted = self.fleet.desired.versions()[key]
            total = wanted.replicas + wanted.standby
            live = [r for r in self.observed.of(key) if r.state is not ReplicaState.FAILED and r.id not in draining]
            assert len(live) + count <= total + max(1, math.ceil(POLICY.max_surge_ratio * total))

    def keeps_serving_models_served(self) -> None:
        """A model whose routing could serve goes on serving: its weights name some replica that is ready."""
        available = {r.id for r in self.observed.replicas if r.state is ReplicaState.READY and self._is_available(r)}
        for name, before in self.before.routed.items():
            after = self.plan.routes.get(name)
            wanted = self.fleet.desired.models.get(name)
            if after is None or wanted is None or not any(wanted.versions[v].replicas for v in wanted.traffic):
                continue
            could = any(available.intersection(before.versions[v].replicas) for v in before.weights)
            scaled_to_zero = all(v in wanted.versions and not wanted.versions[v].replicas for v in before.weights)
            if could and not scaled_to_zero:
                assert any(after.versions[v].replicas for v in after.weights), (name, before, after)

    def stops_only_what_is_done(self) -> None:
        replicas = self._by_id()
        for action in self.plan.actions:
            if not isinstance(action, StopReplica):
                continue
            target = replicas[action.replica_id]
            if target.state is ReplicaState.STANDBY:
                continue  # nobody can be answered by it; what hangs in it was paused by hand
            if target.state is ReplicaState.READY or target.id in self.before.draining:
                since = self.fleet.drained_since.get(target.id, self.fleet.now)
                is_done = target.routed is False and target.in_flight == 0
                assert target.id in self.before.draining
                assert is_done or self.fleet.now >= since + 5.0

    def pauses_only_what_is_idle(self) -> None:
        """Nothing is in flight, and the table that the gateway holds does not name it."""
        replicas = self._by_id()
        for action in self.plan.actions:
            if isinstance(action, PauseReplica):
                target = replicas[action.replica_id]
                assert (target.state, target.routed, target.in_flight) == (ReplicaState.READY, False, 0)
                assert target.id in self.before.draining

    def wakes_what_is_needed(self) -> None:
        """A paused replica of the wanted spec is left so only while enough others are awake, or on their way."""
        woken = {a.replica_id for a in self.plan.actions if isinstance(a, WakeReplica)}
        for key, wanted in self.fleet.desired.versions().items():
            ours = [r for r in self.observed.of(key) if r.digest == wanted.digest and r.exit is None]
            asleep = [r for r in ours if r.state is ReplicaState.STANDBY and r.id not in woken]
            awake = [r for r in ours if r.state is not ReplicaState.STANDBY or r.id in woken]
            assert not asleep or len(awake) >= wanted.replicas

    def leaves_paused_models_as_they_are(self) -> None:
        """Nothing that lives begins to go, and no share moves; what drained before may end."""
        paused = {name: model for name, model in self.fleet.desired.models.items() if model.paused}
        for action in self.plan.actions:
            if isinstance(action, DrainReplica | StopReplica | PauseReplica) and action.key.model in paused:
                assert action.replica_id in self.before.draining
        for name, model in paused.items():
            before = self.before.routed.get(name)
            if before is not None and before.weights.keys() <= model.versions.keys():
                assert self.plan.routes[name].weights == before.weights

    def decides_the_same_again(self) -> None:
        """A decision is a function; and one on its own result, in an unchanged world, drains nothing twice."""
        again = reconcile(self.fleet.desired, self.observed, self.before, self.fleet.now, POLICY)
        assert again == self.plan
        after = reconcile(self.fleet.desired, self.observed, self.plan.memory, self.fleet.now, POLICY)
        assert not any(isinstance(a, DrainReplica) and a in self.plan.actions for a in after.actions)
