"""Standby and sleep, one rule at a time: who drains, is paused, woken, taken back, replaced or ended."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.entities import Desired, Replica
from orchestrator.core.plan import Memory, PauseReplica, Plan, WakeReplica
from orchestrator.core.roster import WAKE_CHECK_S
from tests.unit.orchestrator.core.builders import NOW, decide, desired, ended, endpoints, key, replica, settled, version

IRIS = key("iris@1")
DRAINED = {"routed": False, "in_flight": 0}


def wanted(replicas: int, standby: int, spec: str = "a", **settings: object) -> Desired:
    return desired(version("iris@1", replicas, spec, standby=standby, **settings))


def asleep(id_: str = "r1", spec: str = "a", **facts: object) -> Replica:
    return replica(id_, "iris@1", "standby", spec, **facts)


def awake(id_: str, spec: str = "a", **facts: object) -> Replica:
    return replica(id_, "iris@1", "ready", spec, **facts)


def state(plan: Plan) -> str:
    return plan.routes["iris"].versions["1"].state


class TestFalling:
    def test_a_surplus_replica_is_drained_for_standby_and_leaves_the_routes_first(self) -> None:
        plan = decide(wanted(1, 1), awake("r1"), awake("r2", created_at=1))

        assert plan.render() == "~ drain iris@1 r2: goes to standby: 1 wanted, 2 run"
        assert endpoints(plan) == {"1": ("r1",)}

    def test_beyond_the_standby_the_others_end(self) -> None:
        plan = decide(wanted(0, 1), *(awake(f"r{n}", created_at=n) for n in (1, 2)))

        assert plan.render() == (
            "~ drain iris@1 r1: goes to standby: 0 wanted, 2 run\n~ drain iris@1 r2: 0 wanted, 2 run"
        )
        assert state(plan) == "asleep: a request wakes it"

    def test_a_drained_replica_is_paused_while_there_is_room_and_stopped_beyond(self) -> None:
        replicas = [awake(f"r{n}", created_at=n, **DRAINED) for n in (1, 2)]
        memory = decide(wanted(0, 1), *replicas).memory

        plan = decide(wanted(0, 1), *replicas, memory=memory)

        assert plan.render() == ("_ pause iris@1 r1: drained; it stays in standby\n- stop iris@1 r2: drained")

    @pytest.mark.parametrize("facts", [{}, {"routed": True, "in_flight": 0}, {"routed": False, "in_flight": 1}])
    def test_nothing_is_paused_while_something_is_or_may_be_in_flight(self, facts: dict[str, object]) -> None:
        memory = decide(wanted(0, 1), awake("r1")).memory

        plan = decide(wanted(0, 1), awake("r1", **facts), memory=memory)

        assert plan.is_empty

    def test_what_is_in_flight_when_the_time_to_drain_is_up_ends_with_the_replica(self) -> None:
        memory = decide(wanted(0, 1), awake("r1")).memory

        plan = decide(wanted(0, 1), awake("r1", routed=False, in_flight=2), memory=memory, now=NOW + 31)

        assert "- stop iris@1 r1: its time to drain is up; 2 still in flight" in plan.render()

    def test_a_gateway_that_is_silent_for_long_ends_nobody_who_is_to_stand_by(self) -> None:
        memory = decide(wanted(0, 1), awake("r1")).memory

        plan = decide(wanted(0, 1), awake("r1"), memory=memory, now=NOW + 1000)

        assert plan.is_empty

    def test_a_new_replica_for_standby_is_never_routed(self) -> None:
        memory = settled(wanted(1, 0), awake("r1"))

        started = decide(wanted(1, 1), awake("r1"), memory=memory)
        ready = decide(wanted(1, 1), awake("r1"), awake("r2", created_at=1), memory=started.memory)

        assert started.render() == "+ start iris@1 spec=a: 1 wanted in standby, 0 are"
        assert endpoints(ready) == {"1": ("r1",)}


class TestWaking:
    def test_paused_replicas_are_woken_first_and_new_ones_start_behind(self) -> None:
        plan = decide(wanted(3, 1), asleep("r1"))

        assert [line.split(":")[0] for line in plan.render().splitlines()] == [
            "^ wake iris@1 r1",
            "+ start iris@1 spec=a",
            "+ start iris@1 spec=a",
        ]
        assert state(plan) == "waking: from standby"

    def test_the_standby_is_filled_up_once_those_who_were_woken_are_ready(self) -> None:
        """A start takes the time of a machine on which a request waits."""
        woken = decide(wanted(1, 1), asleep("r1"))
        checked = decide(wanted(1, 1), replica("r1", "iris@1", "starting"), memory=woken.memory)
        ready = decide(wanted(1, 1), awake("r1"), memory=checked.memory)

        assert woken.render() == "^ wake iris@1 r1: 1 wanted, 0 awake"
        assert checked.is_empty
        assert ready.render() == "+ start iris@1 spec=a: 1 wanted in standby, 0 are"

    def test_a_replica_that_starts_keeps_none_asleep(self) -> None:
        """A request waits: it must not wait for a start while there is one to wake."""
        starting = replica("new", "iris@1", "loading", created_at=1)

        woken = decide(wanted(1, 1), asleep("r1"), starting)
        checked = decide(wanted(1, 1), replica("r1", "iris@1", "starting"), starting, memory=woken.memory)
        ready = decide(wanted(1, 1), awake("r1"), starting, memory=checked.memory)

        assert woken.render() == "^ wake iris@1 r1: 1 wanted, 0 awake"
        assert checked.is_empty
        assert ready.is_empty
        assert endpoints(ready) == {"1": ("r1",)}

    def test_a_replica_that_starts_ends_when_a_woken_one_made_it_superfluous(self) -> None:
        starting = replica("new", "iris@1", "loading", created_at=-1)
        woken = decide(wanted(1, 0), asleep("r1"), starting)

        plan = decide(wanted(1, 0), replica("r1", "iris@1", "starting"), starting, memory=woken.memory)

        assert plan.render() == "- stop iris@1 new: 1 wanted, 2 run"

    def test_a_woken_replica_is_routed_only_once_it_is_ready(self) -> None:
        woken = decide(wanted(1, 0), asleep())

        waiting = decide(wanted(1, 0), replica("r1", "iris@1", "starting"), memory=woken.memory)
        ready = decide(wanted(1, 0), awake("r1"), memory=waiting.memory)

        assert endpoints(waiting) == {"1": ()}
        assert endpoints(ready) == {"1": ("r1",)}
        assert ready.memory.woken == {}

    def test_one_that_does_not_pass_its_check_after_waking_is_replaced_at_once(self) -> None:
        was_ready = settled(wanted(1, 0), awake("r1"))
        woken = decide(wanted(1, 0), asleep(), memory=was_ready)
        dead = replica("r1", "iris@1", "starting")
        waiting = decide(wanted(1, 0), dead, memory=woken.memory)
        assert waiting.wake_at == NOW + WAKE_CHECK_S

        plan = decide(wanted(1, 0), dead, memory=waiting.memory, now=NOW + WAKE_CHECK_S)

        assert plan.render().splitlines() == [
            "- remove iris@1 r1: was woken, and not ready within 3 s; last phase: starting",
            "+ start iris@1 spec=a: in place of one that failed: was woken, and not ready within 3 s; last phase: "
            "starting",
        ]

    def test_one_that_was_paused_while_it_loaded_goes_on_loading(self) -> None:
        woken = decide(wanted(1, 0), asleep())
        loading = replica("r1", "iris@1", "loading")

        plan = decide(wanted(1, 0), loading, memory=woken.memory, now=NOW + 2 * WAKE_CHECK_S)

        assert plan.is_empty

    def test_the_engine_may_take_its_time_to_wake_it(self) -> None:
        woken = decide(wanted(1, 0), asleep())
        again = decide(wanted(1, 0), asleep(), memory=woken.memory, now=NOW + 60)

        plan = decide(wanted(1, 0), replica("r1", "iris@1", "starting"), memory=again.memory, now=NOW + 61)

        assert plan.is_empty

    def test_what_drains_and_is_needed_again_serves_on(self) -> None:
        draining = decide(wanted(0, 1), awake("r1", **DRAINED))

        plan = decide(wanted(1, 1), awake("r1", **DRAINED), memory=draining.memory)

        assert endpoints(plan) == {"1": ("r1",)}
        assert not any(isinstance(action, PauseReplica) for action in plan.actions)

    def test_what_is_being_paused_is_not_taken_back(self) -> None:
        """The engine may be about to do it: a request in it would hang."""
        draining = decide(wanted(0, 1), awake("r1", **DRAINED))
        pausing = decide(wanted(0, 1), awake("r1", **DRAINED), memory=draining.memory)
        assert any(isinstance(action, PauseReplica) for action in pausing.actions)

        plan = decide(wanted(1, 1), awake("r1", **DRAINED), memory=pausing.memory)

        assert endpoints(plan) == {"1": ()}
        assert not any(isinstance(action, PauseReplica) and action.replica_id != "r1" for action in plan.actions)

    def test_one_that_was_told_to_stop_is_woken_last(self) -> None:
        stopping = decide(wanted(0, 1), asleep("r1"), asleep("r2", created_at=1))
        assert stopping.render() == "- stop iris@1 r2: 1 wanted in standby, 2 are"

        plan = decide(wanted(1, 0), asleep("r2"), asleep("r1", created_at=1), memory=stopping.memory)

        assert [a.replica_id for a in plan.actions if isinstance(a, WakeReplica)] == ["r1"]


class TestPausedByHand:
    def test_all_that_are_needed_are_woken(self) -> None:
        memory = settled(wanted(2, 0), awake("r1"), awake("r2"))

        plan = decide(wanted(2, 0), asleep("r1"), asleep("r2"), memory=memory)

        assert [line.split(":")[0] for line in plan.render().splitlines()] == ["^ wake iris@1 r1", "^ wake iris@1 r2"]
        assert endpoints(plan) == {"1": ()}
        assert state(plan) == "waking: from standby"

    def test_one_of_an_old_spec_serves_until_the_new_one_is_ready(self) -> None:
        plan = decide(wanted(1, 0, "b"), asleep("old", "a"))

        assert plan.render().splitlines() == [
            "^ wake iris@1 old: serves until spec b is ready",
            "+ start iris@1 spec=b: 1 wanted, 0 run",
        ]


class TestUpgradeWhileAsleep:
    def test_requests_wait_for_an_old_standby_to_wake_though_the_new_spec_fails(self) -> None:
        broken = ended("new", "iris@1", "model.py is broken", "b")
        failed = decide(wanted(0, 1, "b"), asleep("old", "a"), broken)

        woken = decide(wanted(1, 1, "b"), asleep("old", "a"), memory=failed.memory, now=NOW + 1)
        checked = decide(wanted(1, 1, "b"), replica("old", "iris@1", "starting"), memory=woken.memory, now=NOW + 1)
        ready = decide(wanted(1, 1, "b"), awake("old", "a"), memory=checked.memory, now=NOW + 1)

        assert "^ wake iris@1 old: serves until spec b is ready" in woken.render()
        assert state(woken) == state(checked) == "waking: from standby"
        assert endpoints(ready) == {"1": ("old",)}

    def test_an_old_standby_stays_until_a_new_one_is_paused(self) -> None:
        old = asleep("old", "a")

        started = decide(wanted(0, 1, "b"), old)
        ready = decide(wanted(0, 1, "b"), old, awake("new", "b", **DRAINED), memory=started.memory)
        paused = decide(wanted(0, 1, "b"), old, asleep("new", "b"), memory=ready.memory)

        assert started.render() == "+ start iris@1 spec=b: 1 wanted in standby, 0 are"
        assert ready.render() == "~ drain iris@1 new: goes to standby: 0 wanted, 1 run"
        assert paused.render() == "- stop iris@1 old: replaced by spec b"
        assert started.verdicts[IRIS].state == "updating"

    def test_without_standby_there_is_nothing_to_do_until_it_is_woken(self) -> None:
        plan = decide(wanted(0, 0, "b"))

        assert plan.is_converged
        assert plan.verdicts[IRIS].state == "asleep"

    def test_a_broken_one_is_said_so(self) -> None:
        broken = ended("new", "iris@1", "model.py is broken", "b")

        plan = decide(wanted(0, 1, "b"), asleep("old", "a"), broken)

        assert plan.verdicts[IRIS].state == "failed"
        assert "model.py is broken" in plan.verdicts[IRIS].reason


class TestEnding:
    def test_a_removed_version_ends_its_standby(self) -> None:
        plan = decide(desired(version("other@1")), asleep("r1"), replica("r2", "other@1"))

        assert plan.render() == "- stop iris@1 r1: model removed"

    def test_standby_beyond_the_wanted_ends(self) -> None:
        plan = decide(wanted(0, 0), asleep("r1"))

        assert plan.render() == "- stop iris@1 r1: 0 wanted in standby, 1 are"

    def test_a_standby_that_died_is_replaced(self) -> None:
        memory = settled(wanted(0, 1), asleep("r1"))

        plan = decide(wanted(0, 1), ended("r1", "iris@1"), memory=memory, now=NOW + 1)
        later = decide(wanted(0, 1), memory=plan.memory, now=NOW + 3)

        assert "- remove iris@1 r1: killed" in plan.render()
        assert "+ start iris@1 spec=a" in later.render()


class TestWords:
    def test_says_how_deep_it_sleeps(self) -> None:
        light = decide(wanted(0, 1), asleep("r1")).verdicts[IRIS]
        deep = decide(wanted(0, 0)).verdicts[IRIS]

        assert (light.state, light.ready, light.desired, light.standby) == ("asleep", 0, 0, 1)
        assert light.reason == "a request wakes it; 1 replica in standby"
        assert deep.reason == "a request wakes it; no replica is kept"

    def test_a_count_of_zero_set_by_hand_is_no_sleep(self) -> None:
        want = replace(version("iris@1", 0), held="scaled to 0 by hand")

        plan = decide(desired(want))

        assert state(plan) == "stopped: scaled to 0 by hand"
        assert (plan.verdicts[IRIS].state, plan.verdicts[IRIS].reason) == ("asleep", "scaled to 0 by hand")
        assert plan.is_converged

    def test_a_sleeping_version_takes_over_traffic_at_once(self) -> None:
        """It carries what comes by waking."""
        before = desired(version("iris@1"), version("iris@2", 0), traffic={"1": 100})
        memory = settled(before, replica("r1", "iris@1"))
        after = desired(version("iris@1"), version("iris@2", 0), traffic={"2": 100})

        plan = decide(after, replica("r1", "iris@1"), memory=memory)

        assert plan.routes["iris"].weights == {"2": 100}


class TestAfterARestart:
    def test_standby_is_recognised(self) -> None:
        plan = decide(wanted(1, 1), awake("r1"), asleep("r2"), memory=Memory())

        assert plan.is_converged
        assert plan.verdicts[IRIS].standby == 1
