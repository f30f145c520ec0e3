"""A paused rollout in a fleet in memory: what stays, what is made anew, what waits, and that resuming brings it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from orchestrator.core.entities import Desired, DesiredModel
from orchestrator.core.pausing import Pause, held, is_waiting
from tests.unit.orchestrator.core.builders import desired, version
from tests.unit.orchestrator.core.fleet import Fleet


def running(want: Desired) -> Fleet:
    fleet = Fleet()
    fleet.apply(want)
    fleet.converge()
    return fleet


def turns(fleet: Fleet, count: int = 20) -> None:
    for _ in range(count):
        fleet.step()
        fleet.gateway_applies()
        fleet.pass_time(1.0)


def specs(fleet: Fleet) -> Counter[str]:
    return Counter(replica.digest for replica in fleet.replicas.values())


def said(fleet: Fleet, name: str) -> tuple[str, str]:
    verdict = next(v for key, v in fleet.step().verdicts.items() if str(key) == name)
    return verdict.state, verdict.reason


class TestHeld:
    def test_a_paused_model_is_as_it_was_whatever_was_applied(self) -> None:
        before, after = desired(version("iris@1", 2)), desired(version("iris@1", 3, "b"), version("text@1"))
        pauses = {"iris": Pause(1.0, "", before.models["iris"])}

        found = held(after, pauses)

        assert found.models["iris"] == replace(before.models["iris"], paused=True)
        assert found.models["text"] == after.models["text"]
        assert held(Desired(2), pauses).models.keys() == {"iris"}
        assert held(after, {}) is after

    @pytest.mark.parametrize(("spec", "waits"), [("a", False), ("b", True)])
    def test_what_was_applied_since_waits_if_it_is_another(self, spec: str, waits: bool) -> None:
        pause = Pause(1.0, "", desired(version("iris@1", 2)).models["iris"])

        assert is_waiting(desired(version("iris@1", 2, spec)), pause) is waits
        assert is_waiting(Desired(), pause)


class TestPaused:
    def test_a_rollout_stops_half_way_and_goes_on_when_it_is_resumed(self) -> None:
        fleet = running(desired(version("iris@1", 4)))
        fleet.apply(desired(version("iris@1", 4, "b")))
        fleet.step()
        fleet.pass_time(3.0)
        fleet.pause_rollout("iris")
        live = specs(fleet)
        assert live["a"] == 4
        assert 0 < live["b"] < 4

        turns(fleet)

        assert specs(fleet) == live
        state, reason = said(fleet, "iris@1")
        assert (state, reason) == ("updating", "rollout paused; 4 replicas of an earlier spec stay")
        fleet.resume_rollout("iris")
        fleet.converge()
        assert specs(fleet) == {"b": 4}

    def test_what_dies_is_made_anew(self) -> None:
        fleet = running(desired(version("iris@1", 3)))
        fleet.pause_rollout("iris")
        fleet.apply(desired(version("iris@1", 3, "b")))
        first, second, _ = fleet.replicas
        fleet.crash(first)
        fleet.lose(second)

        turns(fleet)

        assert specs(fleet) == {"a": 3}

    def test_half_way_what_dies_comes_back_in_number(self) -> None:
        fleet = running(desired(version("iris@1", 3)))
        fleet.apply(desired(version("iris@1", 3, "b")))
        fleet.step()
        fleet.pass_time(3.0)
        fleet.pause_rollout("iris")
        for id_ in [r.id for r in fleet.replicas.values() if r.digest == "a"][:2]:
            fleet.crash(id_)

        turns(fleet)

        assert specs(fleet)["a"] == 1
        assert specs(fleet).total() == 3

    def test_a_version_that_is_being_removed_stays(self) -> None:
        fleet = running(desired(version("iris@1", 2), version("iris@2", 1), traffic={"1": 100}))
        one = fleet.applied.models["iris"].versions["1"]
        only_one = Desired(2, {"iris": DesiredModel("iris", {"1": one}, {"1": 100})})
        fleet.pause_rollout("iris")
        fleet.apply(only_one)

        turns(fleet)

        assert len(fleet.replicas) == 3
        assert fleet.step().is_converged

    def test_a_model_that_was_removed_stays_until_it_is_resumed(self) -> None:
        fleet = running(desired(version("iris@1", 2)))
        fleet.pause_rollout("iris")
        fleet.apply(Desired(2))
        turns(fleet)
        assert specs(fleet) == {"a": 2}

        fleet.resume_rollout("iris")
        fleet.converge()

        assert not fleet.replicas

    def test_shares_stay_where_they_are(self) -> None:
        both = version("iris@1", 1), version("iris@2", 1)
        fleet = running(desired(*both, traffic={"1": 90, "2": 10}))
        fleet.pause_rollout("iris")
        fleet.apply(desired(*both, traffic={"1": 0, "2": 100}))

        turns(fleet, 3)

        assert fleet.memory.routed["iris"].weights == {"1": 90, "2": 10}
        fleet.resume_rollout("iris")
        fleet.converge()
        assert fleet.memory.routed["iris"].weights == {"2": 100}

    def test_shares_that_wait_for_a_version_go_on_waiting(self) -> None:
        fleet = running(desired(version("iris@1", 1)))
        fleet.apply(desired(version("iris@1", 1), version("iris@2", 1), traffic={"2": 100}))
        fleet.step()
        fleet.pause_rollout("iris")

        turns(fleet)

        assert fleet.memory.routed["iris"].weights == {"1": 100}
        assert said(fleet, "iris@2") == ("ready", "rollout paused")

    def test_shares_move_on_where_nobody_is_left_to_carry_them(self) -> None:
        """A version that nobody desires any more cannot be made anew: better the new one than none."""
        fleet = running(desired(version("iris@1", 1)))
        fleet.apply(desired(version("iris@2", 1)))
        fleet.step()
        fleet.pause_rollout("iris")
        turns(fleet, 5)
        assert fleet.memory.routed["iris"].weights == {"1": 100}

        for id_ in [r.id for r in fleet.replicas.values() if r.key.version == "1"]:
            fleet.crash(id_)
        turns(fleet, 3)

        assert fleet.memory.routed["iris"].weights == {"2": 100}

    def test_a_lower_count_waits_and_a_higher_one_does_not(self) -> None:
        fleet = running(desired(version("iris@1", 2)))
        fleet.pause_rollout("iris")
        fewer = desired(version("iris@1", 1)).models["iris"]
        fleet.desired = held(fleet.applied, {"iris": Pause(1.0, "", fewer)})
        turns(fleet, 5)
        assert len(fleet.replicas) == 2
        assert said(fleet, "iris@1") == ("ready", "rollout paused; 1 more than wanted stay")

        more = desired(version("iris@1", 4)).models["iris"]
        fleet.desired = held(fleet.applied, {"iris": Pause(1.0, "", more)})
        turns(fleet)

        assert len(fleet.replicas) == 4

    def test_an_apply_of_others_does_not_wait_for_it(self) -> None:
        fleet = running(desired(version("iris@1", 2)))
        fleet.apply(desired(version("iris@1", 2, "b")))
        fleet.step()
        fleet.pass_time(3.0)
        fleet.pause_rollout("iris")

        fleet.apply(desired(version("iris@1", 2, "b"), version("text@1", 1)))

        assert fleet.converge().is_converged
        assert specs(fleet)["a"] > 1
