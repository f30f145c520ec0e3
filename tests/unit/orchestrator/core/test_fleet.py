"""Whole stories in a fleet in memory, and any interleaving of them: what must never happen, and that it ends well."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from orchestrator.core.entities import Desired, DesiredModel, DesiredVersion
from orchestrator.core.plan import StartReplica
from orchestrator.core.states import ReplicaState
from tests.unit.orchestrator.core.builders import desired, version
from tests.unit.orchestrator.core.fleet import Fleet

DRAIN_TIMEOUT_S = 5.0


@st.composite
def models(draw: st.DrawFn, name: str) -> DesiredModel:
    """One to three versions of a few specs, with traffic and perhaps a label."""
    names = draw(st.lists(st.sampled_from("123"), min_size=1, max_size=3, unique=True))
    versions = {number: draw(wanted_versions(f"{name}@{number}")) for number in names}
    first = draw(st.sampled_from(names))
    share = draw(st.sampled_from([100, 50]))
    traffic = {first: share, **{number: 100 - share for number in names if number != first and share < 100}}
    labels = draw(st.sampled_from([{}, {"stable": first}, {"stable": names[-1]}]))
    return DesiredModel(name, versions, traffic, labels)


@st.composite
def wanted_versions(draw: st.DrawFn, name: str) -> DesiredVersion:
    spec = draw(st.sampled_from(["a", "b", "c", "bad"]))
    replicas = draw(st.sampled_from([0, 1, 1, 2, 3, 5]))
    standby = draw(st.sampled_from([0, 0, 0, 1, 2]))
    return version(
        name, replicas, spec, standby=standby, startup_timeout_s=20.0, drain_timeout_s=DRAIN_TIMEOUT_S
    )  # fmt: skip


@st.composite
def worlds(draw: st.DrawFn) -> Desired:
    names = draw(st.lists(st.sampled_from(["x", "y"]), max_size=2, unique=True))
    return Desired(1, {name: draw(models(name)) for name in names})


def mended(want: Desired) -> Desired:
    """The same, with every broken spec replaced by one that works."""

    def mend(wanted: DesiredVersion) -> DesiredVersion:
        name = str(wanted.key)
        spec = wanted.digest.replace("bad", "c")
        return version(name, wanted.replicas, spec, standby=wanted.standby, drain_timeout_s=DRAIN_TIMEOUT_S)

    return Desired(
        want.revision,
        {
            name: DesiredModel(name, {v: mend(w) for v, w in model.versions.items()}, model.traffic, model.labels)
            for name, model in want.models.items()
        },
    )


class AnyInterleaving(RuleBasedStateMachine):
    """Faults of every part in any order, with a decision after each that `fleet.Checks` judges."""

    def __init__(self) -> None:
        super().__init__()
        self.fleet = Fleet()

    def _pick(self, data: st.DataObject, *states: ReplicaState) -> str | None:
        ids = [id_ for id_, seen in self.fleet.replicas.items() if seen.state in states]
        return data.draw(st.sampled_from(ids)) if ids else None

    @rule(want=worlds())
    def apply(self, want: Desired) -> None:
        self.fleet.apply(want)
        self.fleet.step()

    @rule(name=st.sampled_from(["x", "y"]))
    def somebody_pauses_or_resumes_a_rollout(self, name: str) -> None:
        if name in self.fleet.pauses:
            self.fleet.resume_rollout(name)
        elif name in self.fleet.desired.models:
            self.fleet.pause_rollout(name)
        self.fleet.step()

    @rule(seconds=st.sampled_from([0.1, 1.0, 2.5, 6.0, 30.0]))
    def time_passes(self, seconds: float) -> None:
        self.fleet.pass_time(seconds)
        self.fleet.step()

    @rule()
    def gateway_applies_the_table(self) -> None:
        self.fleet.gateway_applies()
        self.fleet.step()

    @rule(answers=st.booleans())
    def gateway_comes_or_goes(self, answers: bool) -> None:
        self.fleet.gateway_answers = answers

    @rule(data=st.data(), count=st.integers(0, 3))
    def requests_come_or_end(self, data: st.DataObject, count: int) -> None:
        id_ = self._pick(data, ReplicaState.READY)
        if id_ is not None:
            self.fleet.in_flight[id_] = count
        self.fleet.step()

    @rule(data=st.data(), is_lost=st.booleans())
    def replica_crashes(self, data: st.DataObject, is_lost: bool) -> None:
        id_ = self._pick(data, ReplicaState.READY, ReplicaState.STARTING, ReplicaState.LOADING)
        if id_ is not None:
            (self.fleet.lose if is_lost else self.fleet.crash)(id_)
        self.fleet.step()

    @rule(data=st.data())
    def replica_loses_its_readiness(self, data: st.DataObject) -> None:
        id_ = self._pick(data, ReplicaState.READY)
        if id_ is not None:
            self.fleet.lose_readiness(id_)
        self.fleet.step()

    @rule(data=st.data())
    def somebody_pauses_a_replica(self, data: st.DataObject) -> None:
        id_ = self._pick(data, ReplicaState.READY, ReplicaState.STARTING, ReplicaState.LOADING)
        if id_ is not None:
            self.fleet.pause_by_hand(id_)
        self.fleet.step()

    @rule(data=st.data())
    def somebody_wakes_a_replica(self, data: st.DataObject) -> None:
        id_ = self._pick(data, ReplicaState.STANDBY)
        if id_ is not None:
            self.fleet.wake(id_)
        self.fleet.step()

    @rule(dead=st.booleans())
    def replicas_wake_dead_or_well(self, dead: bool) -> None:
        self.fleet.wakes_dead = dead

    @rule(seconds=st.sampled_from([0.5, 2.0, 100.0]))
    def models_load_slower_or_faster(self, seconds: float) -> None:
        self.fleet.load_s = seconds

    @rule(fails=st.booleans())
    def engine_fails_to_stop_or_recovers(self, fails: bool) -> None:
        self.fleet.engine_fails = fails

    @precondition(lambda self: self.fleet.memory.routed)
    @rule()
    def control_plane_is_killed_and_started(self) -> None:
        self.fleet.restart_control_plane()
        self.fleet.step()

    def teardown(self) -> None:
        fleet = self.fleet
        fleet.applied = mended(fleet.applied)
        for name in list(fleet.pauses):
            fleet.resume_rollout(name)
        fleet.apply(fleet.applied)

        plan = fleet.converge()

        assert {name: dict(m.weights) for name, m in plan.routes.items()} == {
            name: {v: w for v, w in m.traffic.items() if w} for name, m in fleet.desired.models.items()
        }
        assert {name: m.labels for name, m in plan.routes.items()} == {
            name: m.labels for name, m in fleet.desired.models.items()
        }
        assert sorted((r.key, r.digest, r.state) for r in fleet.replicas.values()) == sorted(
            (key, wanted.digest, state)
            for key, wanted in fleet.desired.versions().items()
            for state, count in ((ReplicaState.READY, wanted.replicas), (ReplicaState.STANDBY, wanted.standby))
            for _ in range(count)
        )
        assert fleet.step().is_empty
        assert fleet.step().is_empty


AnyInterleaving.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestAnyInterleaving = AnyInterleaving.TestCase


class TestStories:
    def test_a_changed_source_reaches_every_replica_with_one_more_at_most(self):
        fleet = Fleet(desired=desired(version("iris@1", 3)))
        fleet.converge()
        fleet.desired = desired(version("iris@1", 3, spec="b"))
        most = 0

        for _ in range(30):
            fleet.step()
            fleet.gateway_applies()
            most = max(most, len(fleet.replicas) - len(fleet.memory.draining))
            fleet.pass_time(1.0)

        assert most == 5  # a surge of 0.34 × 3, rounded up
        assert {r.digest for r in fleet.replicas.values()} == {"b"}
        assert fleet.step().is_converged

    def test_a_broken_source_leaves_the_old_version_serving_and_is_tried_ever_less_often(self):
        fleet = Fleet(desired=desired(version("iris@1", 1)))
        fleet.converge()
        fleet.desired = desired(version("iris@1", 1, spec="bad"))
        tries = 0

        for _ in range(60):
            plan = fleet.step()
            fleet.gateway_applies()
            tries += sum(isinstance(a, StartReplica) for a in plan.actions)
            assert plan.routes["iris"].versions["1"].replicas == ("r1",)
            fleet.pass_time(1.0)

        assert 4 <= tries <= 8

    def test_a_killed_control_plane_adopts_what_runs_and_finishes_the_roll_over(self):
        fleet = Fleet(desired=desired(version("iris@1", 2)))
        fleet.converge()
        fleet.desired = desired(version("iris@2", 2))
        fleet.step()
        fleet.pass_time(1.0)

        fleet.restart_control_plane()
        plan = fleet.converge()

        assert plan.is_converged
        assert fleet.made == 4

    def test_every_replica_killed_at_once_is_replaced_at_once(self):
        fleet = Fleet(desired=desired(version("iris@1", 3)))
        fleet.converge()

        for id_ in list(fleet.replicas):
            fleet.crash(id_)
        plan = fleet.step()

        assert sum(isinstance(a, StartReplica) for a in plan.actions) == 3
