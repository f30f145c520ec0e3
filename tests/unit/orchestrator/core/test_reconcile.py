"""What reconcile decides, one rule at a time: desired and observed as literals, the plan as text."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.entities import Desired
from orchestrator.core.plan import Memory, StopReplica
from tests.unit.orchestrator.core.builders import (
    NOW,
    decide,
    desired,
    ended,
    endpoints,
    key,
    replica,
    settled,
    version,
)


class TestFillingUp:
    def test_starts_what_is_missing(self):
        plan = decide(desired(version("iris@1", 2)), replica("r1", "iris@1"))

        assert plan.render() == "+ start iris@1 spec=a: 2 wanted, 1 run"

    def test_does_nothing_in_a_world_as_wanted(self):
        want = desired(version("iris@1", 2), version("text@1"))
        world = replica("r1", "iris@1"), replica("r2", "iris@1"), replica("r3", "text@1")

        plan = decide(want, *world)
        again = decide(want, *world, memory=plan.memory)

        assert plan.is_converged
        assert again.is_converged
        assert again.routes == plan.routes
        assert again.memory == plan.memory
        assert again.wake_at is None

    def test_counts_a_pending_replica_as_there(self):
        plan = decide(desired(version("iris@1")), replica("r1", "iris@1", "loading"))

        assert plan.is_empty
        assert not plan.is_converged

    def test_adopts_replicas_started_by_an_earlier_revision(self):
        plan = decide(desired(version("iris@1"), revision=7), replica("r1", "iris@1", revision=3))

        assert plan.is_converged

    def test_does_nothing_for_a_version_without_replicas(self):
        plan = decide(desired(version("iris@1", 0)))

        assert plan.is_converged
        assert plan.routes["iris"].versions["1"].state == "asleep: a request wakes it"

    def test_two_models_with_versions_of_the_same_name_are_apart(self):
        plan = decide(desired(version("iris@1"), version("text@1")), replica("r1", "iris@1"))

        assert plan.render() == "+ start text@1 spec=a: 1 wanted, 0 run"


class TestSurplus:
    def test_drains_the_youngest_ready_replicas(self):
        world = [replica(f"r{age}", "iris@1", created_at=float(age)) for age in (3, 1, 2)]

        plan = decide(desired(version("iris@1")), *world)

        assert plan.render() == ("~ drain iris@1 r2: 1 wanted, 3 run\n~ drain iris@1 r3: 1 wanted, 3 run")
        assert endpoints(plan) == {"1": ("r1",)}

    def test_stops_a_pending_replica_rather_than_a_ready_one(self):
        old_but_pending = replica("r1", "iris@1", "loading", created_at=1)

        plan = decide(desired(version("iris@1")), old_but_pending, replica("r2", "iris@1", created_at=2))

        assert plan.render() == "- stop iris@1 r1: 1 wanted, 2 run"

    def test_a_replica_that_was_stopped_does_not_count_as_failed_when_its_end_is_seen(self):
        want = desired(version("iris@1"))
        plan = decide(want, replica("r1", "iris@1"), replica("r2", "iris@1", "loading"))
        assert plan.render() == "- stop iris@1 r2: 1 wanted, 2 run"

        plan = decide(want, replica("r1", "iris@1"), ended("r2", "iris@1"), memory=plan.memory)

        assert plan.memory.failures == {}


class TestReplacing:
    def test_starts_the_new_before_it_drains_the_old(self):
        plan = decide(desired(version("iris@1", spec="b")), replica("old", "iris@1"))

        assert plan.render() == "+ start iris@1 spec=b: replaces spec a"
        assert endpoints(plan) == {"1": ("old",)}
        assert plan.verdicts[key("iris@1")].state == "updating"

    def test_keeps_the_old_while_the_new_loads(self):
        world = (
            replica("old", "iris@1"),
            replica("new", "iris@1", "loading", spec="b", phase="loading", phase_since=NOW - 3.2),
        )

        plan = decide(desired(version("iris@1", spec="b")), *world)

        assert plan.is_empty
        assert plan.verdicts[key("iris@1")].reason == "0 of 1 replica ready; loading 3.2 s"

    def test_says_for_how_long_one_starts_that_says_nothing_itself(self):
        want = desired(version("iris@1"))
        memory = decide(want, replica("r1", "iris@1", "starting")).memory

        plan = decide(want, replica("r1", "iris@1", "starting"), memory=memory, now=NOW + 5)

        assert plan.verdicts[key("iris@1")].reason == "0 of 1 replica ready; starting 5.0 s"

    def test_drains_the_old_when_the_new_is_ready(self):
        plan = decide(
            desired(version("iris@1", spec="b")), replica("old", "iris@1"), replica("new", "iris@1", spec="b")
        )

        assert plan.render() == "~ drain iris@1 old: replaced by spec b"
        assert endpoints(plan) == {"1": ("new",)}

    def test_releases_one_old_replica_for_each_new_one_that_is_ready(self):
        olds = [replica(f"old{n}", "iris@1", created_at=n) for n in range(3)]
        new = replica("new", "iris@1", spec="b", created_at=9)

        plan = decide(desired(version("iris@1", 3, spec="b")), *olds, new)

        assert plan.render() == "+ start iris@1 spec=b: replaces spec a\n~ drain iris@1 old0: replaced by spec b"

    @pytest.mark.parametrize(
        ("replicas", "ratio", "starts"), [(1, 0.25, 1), (4, 0.25, 1), (5, 0.25, 2), (8, 0.5, 4), (3, 1.0, 3)]
    )
    def test_surge_is_the_ratio_rounded_up_and_at_least_one(self, replicas, ratio, starts):
        olds = [replica(f"old{n}", "iris@1") for n in range(replicas)]

        plan = decide(desired(version("iris@1", replicas, spec="b")), *olds, max_surge_ratio=ratio, max_starting=99)

        assert len(plan.actions) == starts

    def test_draining_replicas_take_no_place_of_the_surge(self):
        memory = Memory(draining={"gone": NOW})
        world = replica("old", "iris@1"), replica("gone", "iris@1")

        plan = decide(desired(version("iris@1", spec="b")), *world, memory=memory)

        assert plan.render() == "+ start iris@1 spec=b: replaces spec a"

    def test_stops_an_outdated_replica_that_is_not_ready_at_once(self):
        plan = decide(desired(version("iris@1", spec="b")), replica("old", "iris@1", "loading"))

        assert "- stop iris@1 old: outdated before it was ready" in plan.render()

    def test_does_not_lower_capacity_below_what_is_left_after_a_crash(self):
        new = replica("new", "iris@1", spec="b")

        plan = decide(desired(version("iris@1", 2, spec="b")), replica("old", "iris@1"), new)

        assert plan.render() == "+ start iris@1 spec=b: replaces spec a"
        assert endpoints(plan) == {"1": ("new", "old")}

    def test_keeps_the_old_when_the_new_fails(self):
        plan = decide(desired(version("iris@1", spec="b")), replica("old", "iris@1"), ended("new", "iris@1", spec="b"))

        assert plan.render() == "- remove iris@1 new: killed"
        assert endpoints(plan) == {"1": ("old",)}
        assert plan.verdicts[key("iris@1")].reason == (
            "0 of 1 replica ready; 1 replica of the old spec still serving; next try in 1 s after 1 failure: killed"
        )

    def test_a_change_taken_back_drains_the_new_one_and_keeps_the_old(self):
        old, new = replica("old", "iris@1", created_at=1), replica("new", "iris@1", spec="b", created_at=2)

        plan = decide(desired(version("iris@1", spec="a")), old, new)

        assert plan.render() == "~ drain iris@1 new: replaced by spec a"


class TestStartingFew:
    def test_starts_at_most_max_starting_in_the_whole_cluster(self):
        want = desired(*(version(f"m{n}@1", 2) for n in range(5)))

        plan = decide(want, replica("r0", "m0@1", "loading"), replica("r1", "m1@1", "starting"), max_starting=4)

        assert len(plan.actions) == 2

    def test_serves_every_version_before_any_gets_its_second_replica(self):
        want = desired(version("a@1", 3), version("b@1", 3), version("c@1", 3))

        plan = decide(want, replica("r1", "a@1"), max_starting=3)

        assert plan.render() == (
            "+ start b@1 spec=a: 3 wanted, 0 run\n"
            "+ start b@1 spec=a: 3 wanted, 0 run\n"
            "+ start c@1 spec=a: 3 wanted, 0 run"
        )

    def test_a_version_that_fails_goes_behind_one_that_was_never_tried(self):
        want = desired(version("a@1", spec="bad"), version("b@1", spec="good"))
        memory = decide(want, ended("r1", "a@1", spec="bad"), max_starting=0).memory

        plan = decide(want, memory=memory, now=NOW + 60, max_starting=1)

        assert plan.render() == "+ start b@1 spec=good: 1 wanted, 0 run"
        assert plan.verdicts[key("a@1")].state == "failed"

    def test_says_that_a_version_waits_for_its_turn(self):
        plan = decide(desired(version("a@1"), version("b@1")), max_starting=1)

        assert plan.verdicts[key("b@1")].reason == (
            "0 of 1 replica ready; waiting for its turn: 1 replicas start at once in the cluster"
        )

    def test_a_replica_that_lost_its_readiness_does_not_keep_others_from_starting(self):
        want = desired(version("a@1"), version("b@1", 0))
        memory = settled(want, replica("r1", "a@1"))

        plan = decide(
            desired(version("a@1"), version("b@1")), replica("r1", "a@1", "loading"), memory=memory, max_starting=1
        )

        assert plan.render() == "+ start b@1 spec=a: 1 wanted, 0 run"


class TestFailures:
    want = desired(version("iris@1"))

    def test_a_healthy_replica_that_was_killed_is_replaced_at_once(self):
        memory = settled(self.want, replica("r1", "iris@1"), now=NOW - 5)

        plan = decide(self.want, ended("r1", "iris@1"), memory=memory)

        assert plan.render() == (
            "- remove iris@1 r1: killed\n+ start iris@1 spec=a: in place of one that failed: killed"
        )
        assert plan.verdicts[key("iris@1")].state == "starting"

    def test_removal_keeps_the_last_log_lines(self):
        plan = decide(self.want, ended("r1", "iris@1"))

        assert plan.actions[0].log_tail == ("last words of r1",)

    def test_a_spec_that_never_became_ready_waits_twice_as_long_each_time_up_to_the_cap(self):
        memory, waits = Memory(), []
        for attempt in range(9):
            plan = decide(self.want, ended(f"r{attempt}", "iris@1"), memory=memory)
            memory = plan.memory
            waits.append(plan.wake_at - NOW)
            assert plan.render() == f"- remove iris@1 r{attempt}: killed"

        assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]

    def test_back_off_applies_from_the_second_crash_in_a_row(self):
        memory, waits = Memory(), []
        for attempt in range(4):
            id_ = f"r{attempt}"
            memory = decide(self.want, replica(id_, "iris@1"), memory=memory).memory
            plan = decide(self.want, ended(id_, "iris@1"), memory=memory)
            memory = plan.memory
            waits.append(memory.failures["a"].retry_at - NOW)

        assert waits == [0, 1, 2, 4]

    def test_starts_again_when_the_wait_is_over(self):
        memory = decide(self.want, ended("r1", "iris@1", "exit 65")).memory

        before = decide(self.want, memory=memory, now=NOW + 0.9)
        after = decide(self.want, memory=memory, now=NOW + 1)

        assert before.is_empty
        assert before.wake_at == NOW + 1
        assert after.render() == "+ start iris@1 spec=a: try 2: exit 65"

    def test_counts_a_replica_once_though_it_could_not_be_removed(self):
        memory = decide(self.want, ended("r1", "iris@1")).memory

        plan = decide(self.want, ended("r1", "iris@1"), memory=memory)

        assert plan.render() == "- remove iris@1 r1: killed"
        assert plan.memory.failures["a"].count == 1

    def test_replicas_that_end_together_are_one_failure(self):
        """An engine that restarts ends all of them: eight failures in a row would mean a minute's wait."""
        want = desired(version("iris@1", 3))
        world = [replica(f"r{n}", "iris@1") for n in range(3)]
        memory = settled(want, *world, now=NOW - 5)

        plan = decide(want, *(ended(r.id, "iris@1") for r in world), memory=memory)

        assert plan.memory.failures["a"].count == 1
        assert plan.render().count("+ start") == 3

    def test_a_peer_that_ends_a_little_later_is_the_same_failure(self):
        want = desired(version("iris@1", 2))
        memory = settled(want, replica("r1", "iris@1"), replica("r2", "iris@1"), now=NOW - 5)
        memory = decide(want, ended("r1", "iris@1"), replica("r2", "iris@1"), memory=memory).memory

        plan = decide(want, ended("r2", "iris@1"), memory=memory, now=NOW + 1)

        assert plan.memory.failures["a"].count == 1

    def test_the_row_ends_when_a_replica_stays_ready(self):
        memory = decide(self.want, ended("r1", "iris@1")).memory
        memory = decide(self.want, replica("r2", "iris@1"), memory=memory, now=NOW + 5).memory

        early = decide(self.want, replica("r2", "iris@1"), memory=memory, now=NOW + 64)
        late = decide(self.want, replica("r2", "iris@1"), memory=memory, now=NOW + 65)

        assert early.memory.failures["a"].count == 1
        assert late.memory.failures == {}

    def test_another_replica_that_was_ready_before_does_not_end_the_row(self):
        """One healthy replica must not turn a crash loop of the other into restarts without a pause."""
        want = desired(version("iris@1", 2))
        healthy = replica("r1", "iris@1")
        memory = decide(want, healthy, ended("r2", "iris@1"), now=NOW).memory

        plan = decide(want, healthy, ended("r3", "iris@1"), memory=memory, now=NOW + 500)

        assert plan.memory.failures["a"].count == 2

    def test_the_end_of_a_replica_that_was_ready_for_long_starts_a_new_row(self):
        memory = Memory(
            ready_since={"r1": NOW - 3600}, failures=decide(self.want, ended("r0", "iris@1")).memory.failures
        )

        plan = decide(self.want, ended("r1", "iris@1"), memory=memory)

        assert plan.memory.failures["a"].count == 1
        assert "+ start" in plan.render()

    def test_a_new_spec_starts_without_the_failures_of_the_old(self):
        memory = decide(self.want, ended("r1", "iris@1")).memory

        plan = decide(desired(version("iris@1", spec="b")), memory=memory)

        assert plan.render() == "+ start iris@1 spec=b: 1 wanted, 0 run"
        assert plan.memory.failures == {}

    def test_months_of_failures_do_not_overflow(self):
        memory = decide(self.want, ended("r1", "iris@1")).memory
        memory = replace(memory, failures={"a": replace(memory.failures["a"], count=1_000_000)})

        plan = decide(self.want, ended("r2", "iris@1"), memory=memory)

        assert plan.wake_at == NOW + 60

    def test_an_outdated_or_unwanted_replica_that_ended_is_only_removed(self):
        plan = decide(
            desired(version("iris@1", spec="b")),
            replica("new", "iris@1", spec="b"),
            ended("old", "iris@1"),
            ended("other", "gone@1"),
        )

        assert plan.render() == "- remove iris@1 old: killed\n- remove gone@1 other: killed"
        assert plan.memory.failures == {}

    def test_says_how_many_are_ready_and_when_the_next_try_is(self):
        want = desired(version("iris@1", 2))
        reason = "exit 65: model.joblib was pickled by scikit-learn 1.2, this image has 1.9"
        memory = Memory()
        for n in range(4):
            plan = decide(want, replica("r1", "iris@1"), ended(f"x{n}", "iris@1", reason), memory=memory)
            memory = plan.memory

        verdict = plan.verdicts[key("iris@1")]

        assert (verdict.state, verdict.ready, verdict.desired) == ("failed", 1, 2)
        assert verdict.reason == f"1 of 2 replicas ready; next try in 8 s after 4 failures: {reason}"


class TestStartupTimeout:
    want = desired(version("iris@1", startup_timeout_s=300))

    def test_a_replica_that_is_not_ready_in_time_has_failed(self):
        slow = replica("r1", "iris@1", "loading", phase="loading")
        memory = decide(self.want, slow, now=NOW).memory

        plan = decide(self.want, slow, memory=memory, now=NOW + 300)

        assert plan.render() == "- remove iris@1 r1: did not become ready within 300 s; last phase: loading"
        assert plan.memory.failures["a"].count == 1
        assert plan.verdicts[key("iris@1")].state == "failed"

    def test_comes_back_when_the_time_is_up(self):
        plan = decide(self.want, replica("r1", "iris@1", "loading"))

        assert plan.wake_at == NOW + 300

    def test_a_ready_replica_that_loses_its_readiness_has_the_whole_time_to_regain_it(self):
        memory = settled(self.want, replica("r1", "iris@1"), now=0)

        plan = decide(self.want, replica("r1", "iris@1", "loading"), memory=memory, now=NOW)

        assert plan.is_empty
        assert plan.wake_at == NOW + 300

    def test_a_control_plane_that_forgot_all_gives_a_slow_loader_its_time_again(self):
        plan = decide(self.want, replica("r1", "iris@1", "loading", created_at=NOW - 10_000))

        assert plan.is_empty


class TestEjected:
    """A replica that was ready, does not answer requests, and does not answer probes, is dead though it runs."""

    want = desired(version("iris@1", 2))
    other = replica("r2", "iris@1")

    def settled(self):
        return settled(self.want, replica("r1", "iris@1"), self.other)

    def test_a_silent_replica_that_the_gateway_ejected_is_replaced_at_once(self):
        silent = replica("r1", "iris@1", "starting", ejected="timeout")

        plan = decide(self.want, silent, self.other, memory=self.settled())

        assert plan.render().splitlines() == [
            "- remove iris@1 r1: ejected by the gateway: timeout, and nothing answers at its port any more",
            "+ start iris@1 spec=a: in place of one that failed: ejected by the gateway: timeout, and nothing answers at "
            "its port any more",
        ]

    def test_an_ejected_replica_that_passes_its_probes_stays_and_is_told(self):
        plan = decide(self.want, replica("r1", "iris@1", ejected="5xx"), self.other, memory=self.settled())

        verdict = plan.verdicts[key("iris@1")]
        assert plan.is_empty
        assert (verdict.state, verdict.reason) == ("ready", "1 of 2 replicas ejected by the gateway: 5xx")
        assert plan.routes["iris"].versions["1"].replicas == ("r1", "r2")

    def test_one_that_answers_that_it_loads_again_gets_its_time(self):
        loading = replica("r1", "iris@1", "loading", ejected="connect")

        assert decide(self.want, loading, self.other, memory=self.settled()).is_empty

    def test_a_silent_replica_that_the_gateway_still_uses_gets_its_time(self):
        silent = replica("r1", "iris@1", "starting")

        assert decide(self.want, silent, self.other, memory=self.settled()).is_empty

    def test_one_that_was_never_ready_gets_its_time_to_start(self):
        new = replica("r1", "iris@1", "starting", ejected="connect")

        assert decide(self.want, new, self.other).is_empty


class TestDraining:
    want = desired(version("iris@1", drain_timeout_s=30))

    def _draining(self) -> Memory:
        plan = decide(self.want, replica("r1", "iris@1"), replica("r2", "iris@1", created_at=1))
        assert plan.render() == "~ drain iris@1 r2: 1 wanted, 2 run"
        return plan.memory

    def _next(self, now: float = NOW + 1, **facts):
        world = replica("r1", "iris@1"), replica("r2", "iris@1", created_at=1, **facts)
        return decide(self.want, *world, memory=self._draining(), now=now)

    def test_stops_when_the_gateway_says_that_nothing_is_in_flight(self):
        assert self._next(routed=False, in_flight=0).render() == "- stop iris@1 r2: drained"

    @pytest.mark.parametrize(
        "facts",
        [
            {"routed": False, "in_flight": 3},
            {"routed": True, "in_flight": 0},
            {"routed": None, "in_flight": 0},
            {"routed": False, "in_flight": None},
            {},
        ],
    )
    def test_waits_while_something_is_in_flight_or_unknown(self, facts):
        plan = self._next(**facts)

        assert plan.is_empty
        assert plan.wake_at == NOW + 30
        assert endpoints(plan) == {"1": ("r1",)}

    def test_stops_when_its_time_is_up(self):
        plan = self._next(now=NOW + 30, routed=False, in_flight=2)

        assert plan.render() == "- stop iris@1 r2: its time to drain is up; 2 still in flight"

    def test_stops_when_its_time_is_up_though_the_gateway_is_silent(self):
        plan = self._next(now=NOW + 30)

        assert plan.render() == (
            "- stop iris@1 r2: its time to drain is up; the gateway does not say what is in flight"
        )

    def test_a_draining_replica_that_is_needed_again_serves_on(self):
        memory = self._draining()

        plan = decide(desired(version("iris@1", 2)), replica("r1", "iris@1"), replica("r2", "iris@1"), memory=memory)

        assert plan.is_empty
        assert endpoints(plan) == {"1": ("r1", "r2")}
        assert plan.memory.draining == {}

    def test_a_draining_replica_that_was_told_to_stop_is_not_taken_back(self):
        memory = replace(self._draining(), counted=frozenset({"r2"}))

        plan = decide(desired(version("iris@1", 2)), replica("r1", "iris@1"), replica("r2", "iris@1"), memory=memory)

        assert plan.render() == "+ start iris@1 spec=a: 2 wanted, 1 run"
        assert endpoints(plan) == {"1": ("r1",)}

    def test_a_draining_replica_that_ends_is_removed_and_no_failure(self):
        plan = decide(self.want, replica("r1", "iris@1"), ended("r2", "iris@1"), memory=self._draining())

        assert plan.render() == "- remove iris@1 r2: killed"
        assert plan.memory.failures == {}
        assert plan.memory.draining == {}

    def test_a_drain_that_was_forgotten_begins_again(self):
        plan = decide(self.want, replica("r1", "iris@1"), replica("r2", "iris@1", "draining"))

        assert plan.is_empty
        assert plan.wake_at == NOW + 30
        assert plan.verdicts[key("iris@1")].state == "updating"

    def test_a_removed_version_drains_for_as_long_as_it_had_asked_for(self):
        want = desired(version("iris@1"), version("iris@2", drain_timeout_s=120), traffic={"1": 100})
        world = replica("r1", "iris@1"), replica("r2", "iris@2")
        plan = decide(self.want, *world, memory=settled(want, *world))
        assert plan.render() == "~ drain iris@2 r2: version removed"

        plan = decide(self.want, *world, memory=plan.memory, now=NOW + 60)

        assert plan.is_empty
        assert plan.wake_at == NOW + 120

    def test_an_unready_replica_of_a_removed_version_is_stopped_with_little_grace(self):
        plan = decide(self.want, replica("r1", "iris@1"), replica("r2", "iris@9", "loading"))

        assert plan.actions == (StopReplica("r2", key("iris@9"), 2.0, "version removed"),)


class TestRouting:
    one = desired(version("iris@1"), traffic={"1": 100}, labels={"stable": "1"})
    both = desired(version("iris@1"), version("iris@2"), traffic={"1": 50, "2": 50}, labels={"stable": "2"})
    two = desired(version("iris@2"), traffic={"2": 100}, labels={"stable": "2"})
    r1 = replica("r1", "iris@1")
    r2 = replica("r2", "iris@2")
    loading = replica("r2", "iris@2", "loading", phase="loading", phase_since=NOW - 3)

    def _memory(self) -> Memory:
        return settled(self.one, self.r1)

    def test_the_first_traffic_of_a_model_is_in_force_at_once(self):
        plan = decide(self.both, self.loading)

        assert plan.routes["iris"].weights == {"1": 50, "2": 50}
        assert plan.routes["iris"].versions["1"].state == "starting: waiting for a replica"
        assert plan.routes["iris"].versions["2"].state == "starting: loading"

    def test_new_weights_and_labels_wait_until_the_new_version_is_ready(self):
        memory = self._memory()

        waiting = decide(self.both, self.r1, self.loading, memory=memory)
        moved = decide(self.both, self.r1, self.r2, memory=waiting.memory)

        assert (waiting.routes["iris"].weights, waiting.routes["iris"].labels) == ({"1": 100}, {"stable": "1"})
        assert (moved.routes["iris"].weights, moved.routes["iris"].labels) == ({"1": 50, "2": 50}, {"stable": "2"})

    def test_new_weights_wait_for_all_replicas_that_shall_carry_them(self):
        want = desired(version("iris@1"), version("iris@2", 2), traffic={"2": 100})

        plan = decide(want, self.r1, self.r2, replica("r3", "iris@2", "loading"), memory=self._memory())

        assert plan.routes["iris"].weights == {"1": 100}

    def test_new_weights_do_not_wait_for_replicas_that_fail(self):
        want = desired(version("iris@1"), version("iris@2", 2), traffic={"2": 100})

        plan = decide(want, self.r1, self.r2, ended("r3", "iris@2"), memory=self._memory())

        assert plan.routes["iris"].weights == {"2": 100}

    def test_a_smaller_share_waits_for_nobody(self):
        both = desired(version("iris@1"), version("iris@2"), traffic={"1": 50, "2": 50})
        memory = settled(both, self.r1, self.r2)

        plan = decide(
            desired(version("iris@1"), version("iris@2"), traffic={"1": 100}),
            self.r1,
            ended("r2", "iris@2"),
            memory=memory,
        )

        assert plan.routes["iris"].weights == {"1": 100}

    def test_a_version_that_serves_keeps_its_share_until_the_one_that_stays_serves_too(self):
        """Version 1 is down when version 2, which carries everything meanwhile, is taken out of the traffic."""
        both = desired(version("iris@1"), version("iris@2"), traffic={"1": 50, "2": 50})
        memory = settled(both, self.r1, self.r2)

        plan = decide(desired(version("iris@1"), traffic={"1": 50}), self.r2, memory=memory)

        assert plan.routes["iris"].weights == {"1": 50, "2": 50}
        assert plan.render() == "+ start iris@1 spec=a: 1 wanted, 0 run"

    @pytest.mark.parametrize("spec", ["a", "b"])
    def test_a_version_scaled_to_zero_serves_until_the_one_that_stays_does(self, spec):
        before = desired(version("iris@1"), version("iris@2", 0), traffic={"1": 50, "2": 50})
        want = desired(version("iris@1", 0, spec=spec), version("iris@2"), traffic={"1": 50, "2": 50})

        waiting = decide(want, self.r1, memory=settled(before, self.r1))
        moved = decide(want, self.r1, self.r2, memory=waiting.memory)

        assert waiting.render() == "+ start iris@2 spec=a: 1 wanted, 0 run"
        assert endpoints(waiting) == {"1": ("r1",), "2": ()}
        assert "~ drain iris@1 r1" in moved.render()

    def test_a_changed_spec_keeps_the_weights_and_serves_from_the_old_until_the_new_is_ready(self):
        want = desired(version("iris@1", spec="b"), traffic={"1": 100}, labels={"stable": "1"})

        plan = decide(want, self.r1, memory=self._memory())

        assert plan.routes["iris"].weights == {"1": 100}
        assert endpoints(plan) == {"1": ("r1",)}

    def test_a_removed_version_serves_until_the_routing_has_moved_on(self):
        held = decide(self.two, self.r1, memory=self._memory())
        still = decide(self.two, self.r1, self.loading, memory=held.memory)
        moved = decide(self.two, self.r1, self.r2, memory=still.memory)

        assert held.render() == "+ start iris@2 spec=a: 1 wanted, 0 run"
        assert held.verdicts[key("iris@1")].state == "stopping"
        assert held.verdicts[key("iris@1")].reason == "serves until iris@2 can carry its share"
        assert endpoints(still) == {"2": (), "1": ("r1",)}
        assert moved.render() == "~ drain iris@1 r1: version removed"
        assert endpoints(moved) == {"2": ("r2",)}
        assert moved.routes["iris"].labels == {"stable": "2"}

    def test_a_removed_version_is_held_with_the_settings_it_had(self):
        want = desired(version("iris@1", concurrency=7, request_timeout_ms=123))
        memory = settled(want, self.r1)

        plan = decide(self.two, self.r1, memory=memory)

        assert plan.routes["iris"].versions["1"].settings.concurrency == 7
        assert plan.routes["iris"].versions["1"].settings.request_timeout_ms == 123

    def test_a_removed_version_that_only_a_label_names_is_held_for_it(self):
        before = desired(version("iris@1"), version("iris@2"), traffic={"1": 100}, labels={"latest": "2"})
        after = desired(version("iris@1"), version("iris@3"), traffic={"1": 100}, labels={"latest": "3"})

        plan = decide(after, self.r1, self.r2, memory=settled(before, self.r1, self.r2))

        assert plan.render() == "+ start iris@3 spec=a: 1 wanted, 0 run"
        assert plan.routes["iris"].labels == {"latest": "2"}

    def test_a_removed_label_goes_at_once(self):
        plan = decide(desired(version("iris@1"), traffic={"1": 100}), self.r1, memory=self._memory())

        assert plan.routes["iris"].labels == {}

    def test_the_routing_survives_a_control_plane_that_forgot_everything_else(self):
        memory = Memory(routed=self._memory().routed)

        plan = decide(self.two, self.r1, self.loading, memory=memory)

        assert plan.is_empty
        assert plan.routes["iris"].weights == {"1": 100}

    def test_nothing_is_kept_for_a_routing_that_serves_nobody(self):
        """All of version 1 crash: traffic that was to move to version 2 must not wait for its last replica."""
        want = desired(version("iris@1"), version("iris@2", 2), traffic={"2": 100})

        plan = decide(want, self.r2, ended("r1", "iris@1"), memory=self._memory())

        assert plan.routes["iris"].weights == {"2": 100}

    def test_a_crash_of_the_version_in_force_does_not_give_its_traffic_to_one_that_is_not_ready(self):
        want = desired(version("iris@1"), version("iris@2"), traffic={"2": 100})

        plan = decide(want, self.loading, ended("r1", "iris@1"), memory=self._memory())

        assert plan.routes["iris"].weights == {"1": 100}

    def test_a_version_that_still_carries_moving_traffic_keeps_its_replicas(self):
        before = desired(version("iris@1", 2), traffic={"1": 100})
        world = self.r1, replica("r1b", "iris@1")
        want = desired(version("iris@1", 1), version("iris@2"), traffic={"2": 100})

        waiting = decide(want, *world, self.loading, memory=settled(before, *world))
        moved = decide(want, *world, self.r2, memory=waiting.memory)

        assert waiting.is_empty
        assert moved.render() == "~ drain iris@1 r1b: 1 wanted, 2 run"

    def test_a_removed_model_leaves_the_routes_before_its_replicas_stop(self):
        plan = decide(Desired(2), self.r1, memory=self._memory())

        assert plan.routes == {}
        assert plan.render() == "~ drain iris@1 r1: model removed"
        assert plan.verdicts[key("iris@1")].state == "stopping"

        gone = decide(Desired(2), replace(self.r1, routed=False, in_flight=0), memory=plan.memory, now=NOW + 1)

        assert gone.render() == "- stop iris@1 r1: drained"

    def test_a_version_without_weight_is_routed_by_name(self):
        want = desired(version("iris@1"), version("iris@2"), traffic={"1": 100})

        plan = decide(want, self.r1, self.r2)

        assert endpoints(plan) == {"1": ("r1",), "2": ("r2",)}

    def test_a_failed_version_says_why_it_has_no_replica(self):
        plan = decide(self.one, ended("r1", "iris@1", "exit 65: truncated"))

        assert plan.routes["iris"].versions["1"].state == "failed: exit 65: truncated"

    def test_the_order_in_which_the_engine_lists_replicas_changes_nothing(self):
        want = desired(version("iris@1", 2))

        plans = [
            decide(want, *pair) for pair in ((self.r1, replica("r0", "iris@1")), (replica("r0", "iris@1"), self.r1))
        ]

        assert plans[0] == plans[1]

    def test_settings_change_without_a_restart(self):
        memory = self._memory()

        plan = decide(desired(version("iris@1", concurrency=64)), self.r1, memory=memory)

        assert plan.is_converged
        assert plan.routes["iris"].versions["1"].settings.concurrency == 64
