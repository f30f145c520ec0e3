"""Decisions on one version: bounds, sleep, a person's word, and everything that holds a count where it is."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC
from typing import Any

import pytest

from orchestrator.core.scaling.cron import Schedule, parse_cron
from orchestrator.core.scaling.decide import act
from orchestrator.core.scaling.decision import Inputs, ScaleDecision
from orchestrator.core.scaling.facts import Counts, Objective, Override, Sample, ServiceTimes
from orchestrator.core.scaling.sentence import explained
from orchestrator.core.scaling.sleep import Rest
from tests.unit.orchestrator.core.scaling.builders import KEY, TICK_S, Scaled, sample, settings

NAN = math.nan


def grown(to_per_s: float = 60.0, **known: Any) -> Scaled:
    """A version after ten minutes of steady traffic."""
    version = Scaled(settings(**known))
    version.ticks(600, to_per_s)
    return version


class TestLoad:
    def test_is_met_by_the_slots_that_it_needs(self) -> None:
        """60 requests/s × 0.25 s keep 15 slots busy: 17 are needed, five replicas of four."""
        decision = grown().decisions[-1]

        assert decision.inputs.load is not None
        assert (round(decision.inputs.load.busy), decision.inputs.load.slots, decision.target) == (15, 17, 5)

    def test_a_step_is_decided_at_the_next_tick(self) -> None:
        version = grown(5.0)

        decision = version.tick(50.0)

        assert decision.target >= 5

    def test_what_waits_counts(self) -> None:
        version = grown(10.0)

        assert version.tick(10.0, queued=200.0, in_flight=8.0).target > version.decisions[-1].before

    def test_goes_down_in_time(self) -> None:
        version = grown(60.0)

        version.ticks(1000, 4.0)

        assert version.decisions[-1].target == 1

    def test_more_is_asked_for_while_requests_are_late_though_the_rule_is_met(self) -> None:
        version = grown(60.0)
        before = version.decisions[-1].target

        version.ticks(60, 60.0, late=12.0)

        assert version.decisions[-1].target > before

    def test_nothing_is_added_for_requests_that_would_be_late_alone(self) -> None:
        """p95 of the service times is 0.55 s, the objective 0.55 s: one in twenty is late without any waiting."""
        version = grown(60.0, objective=Objective(0.55))
        before = version.decisions[-1].target

        version.ticks(60, 60.0, late=6.0)

        assert version.decisions[-1].target == before


class TestBounds:
    def test_max_limits_it_and_says_so(self) -> None:
        decision = grown(60.0, maximum=3).decisions[-1]

        assert decision.target == 3
        assert decision.reason.endswith("limited to 3 by max")

    def test_min_raises_it_and_says_so(self) -> None:
        decision = grown(1.0, minimum=2).decisions[-1]

        assert decision.target == 2
        assert decision.reason.endswith("raised to 2 by min")

    def test_a_schedule_is_kept_from_a_cold_start_before_it_begins(self) -> None:
        """1970-01-01 00:20 is 1200 s; a replica takes 30 s to start."""
        night, morning = Schedule(parse_cron("0 0 * * *"), 1, UTC), Schedule(parse_cron("20 0 * * *"), 4, UTC)
        version = Scaled(settings(schedules=(night, morning)))
        targets = {}
        while version.now < 1300:
            targets[version.now + TICK_S] = version.tick(1.0, facts={"cold_start_s": 30.0}).target

        assert (targets[1168], targets[1172], targets[1250]) == (1, 4, 4)
        assert "raised to 4 by min of schedule '20 0 * * *'" in version.decisions[-1].reason

    def test_a_lower_max_takes_force_at_once_whatever_holds(self) -> None:
        version = grown(60.0)
        version.settings = replace(version.settings, maximum=2)

        assert version.see(None).target == 2

    def test_a_flood_asks_for_no_more_than_max(self) -> None:
        assert grown(10.0).tick(1e9, queued=1e9).target == 50


class TestOverride:
    def test_is_obeyed_and_ends_by_itself(self) -> None:
        version = grown(10.0)
        version.settings = replace(version.settings, override=Override(7, until=version.now + 20))

        set_by_hand = version.tick(10.0)
        version.ticks(120, 10.0)

        assert set_by_hand.target == 7
        assert set_by_hand.reason.endswith("set by hand to 7 for 18 s more")
        assert version.decisions[-1].target == 1

    def test_may_go_below_min_and_not_above_max(self) -> None:
        version = grown(10.0, minimum=2)
        version.settings = replace(version.settings, override=Override(0))
        assert version.tick(10.0).target == 0

        version.settings = replace(version.settings, override=Override(99))
        assert version.tick(10.0).target == 50

    def test_is_obeyed_though_nothing_is_known(self) -> None:
        version = grown(60.0)
        version.settings = replace(version.settings, override=Override(1))

        assert version.see(None).target == 1


class TestHolds:
    """Never down on what is unknown, suspect, unsettled or just begun."""

    @pytest.mark.parametrize(
        ("known", "reason"),
        [
            ({"arrivals": None}, "arrivals unknown"),
            ({"arrivals": NAN}, "arrivals is nan"),
            ({"arrivals": -5.0}, "arrivals is -5"),
            ({"queued": None}, "queued unknown"),
            ({"in_flight": math.inf}, "in_flight is inf"),
            ({"late": None}, "late unknown"),
            ({"failed": -1.0}, "failed is -1"),
            ({"missing": ("gateway-2",)}, "no word from gateway-2"),
            ({"service": ServiceTimes(10, NAN, 1.0, 0.1)}, "the service time is no length"),
        ],
        ids=lambda value: value if isinstance(value, str) else None,
    )
    def test_on_a_sample_that_cannot_be_trusted(self, known: dict[str, Any], reason: str) -> None:
        version = grown(60.0)
        before = version.decisions[-1].target

        version.ticks(1200, 0.0, **known)

        assert version.decisions[-1].target == before
        assert version.decisions[-1].reason.endswith(f"held at {before}: {reason}")

    def test_without_signals(self) -> None:
        version = grown(60.0)
        version.now += 3600

        assert version.see(None).reason == "iris@2: stays at 5: held at 5: no signals"

    def test_on_stale_signals(self) -> None:
        version = grown(60.0)
        old = sample(version.now, 0.0)
        version.now += 40

        assert version.see(old).reason.endswith("held at 5: the newest signals are 40 s old")

    def test_on_signals_of_the_future(self) -> None:
        version = grown(60.0)

        decision = version.see(sample(version.now + 60, 0.0))

        assert decision.reason.endswith("held at 5: the signals' time is not one of the past")

    def test_after_the_control_plane_began_anew(self) -> None:
        version = Scaled(counts=Counts(ready=8))

        version.ticks(58, 1.0)
        held = version.decisions[-1]
        version.ticks(4, 1.0)

        assert held.target == 8
        assert held.reason.endswith("held at 8: signals are read since 56 s, not yet 60 s")
        assert version.decisions[-1].target == 1

    @pytest.mark.parametrize(
        ("facts", "reason"),
        [
            ({"was_ready": False}, "it never was ready"),
            ({"is_rolling_out": True}, "a rollout is under way"),
        ],
    )
    def test_of_an_unsettled_version(self, facts: dict[str, bool], reason: str) -> None:
        version = grown(60.0)

        version.ticks(1200, 1.0, facts=facts)

        assert version.decisions[-1].target == 5
        assert version.decisions[-1].reason.endswith(f"held at 5: {reason}")

    def test_while_a_replica_starts(self) -> None:
        version = grown(60.0)

        version.ticks(1200, 1.0, counts=Counts(ready=4, starting=1))

        assert version.decisions[-1].reason.endswith("held at 5: a replica is starting")

    def test_while_replicas_answer_errors_fast(self) -> None:
        """Broken replicas answer at once: nothing is in flight and the service time is a millisecond."""
        version = grown(60.0)

        version.ticks(1200, 60.0, mean_s=0.001, in_flight=0.0, failed=110.0)

        assert version.decisions[-1].target == 5
        assert version.decisions[-1].inputs.load is not None
        assert version.decisions[-1].inputs.load.capacity.service_s == pytest.approx(0.25, rel=0.01)

    def test_does_not_keep_it_from_going_up(self) -> None:
        version = grown(10.0)

        assert version.tick(90.0, late=None, counts=Counts(ready=1, starting=1)).target > 5


class TestSleep:
    def asleep(self, **known: Any) -> Scaled:
        version = Scaled(settings(minimum=0, idle_after_s=120.0, **known))
        version.ticks(300, 10.0)
        version.ticks(1200, 0.0)
        return version

    def test_comes_after_the_time_without_a_request(self) -> None:
        version = Scaled(settings(minimum=0, idle_after_s=120.0))
        version.ticks(100, 10.0)
        version.ticks(118, 0.0)
        awake = version.decisions[-1].target
        version.ticks(4, 0.0)

        assert (awake, version.decisions[-1].target) == (1, 0)
        assert version.decisions[-2].reason.endswith("no request for 120 s")

    def test_does_not_come_with_a_minimum(self) -> None:
        version = Scaled(settings(minimum=1, idle_after_s=120.0))
        version.ticks(1200, 0.0)

        assert version.decisions[-1].target == 1

    def test_does_not_come_while_anything_is_unknown(self) -> None:
        version = Scaled(settings(minimum=0, idle_after_s=120.0))
        version.ticks(300, 10.0)

        version.ticks(1200, 0.0, in_flight=None)

        assert version.decisions[-1].target >= 1

    def test_goes_on_over_a_restart_of_the_control_plane(self) -> None:
        version = Scaled(settings(minimum=0), counts=Counts())

        version.ticks(300, 0.0)

        assert {d.target for d in version.decisions} == {0}

    def test_ends_with_the_first_request(self) -> None:
        assert self.asleep().tick(0.5).target == 1

    def test_of_a_burst_wakes_as_many_as_it_needs(self) -> None:
        """500 requests that wait, of 0.25 s, on a model that sleeps: decided from the burst, not one by one."""
        version = self.asleep()
        version.now += 0.05
        burst = Sample(at=version.now, span_s=0.05, arrivals=500, queued=500.0)

        decision = version.see(burst)

        assert 10 <= decision.target <= 50
        assert decision.inputs.rest.quiet_s == 0

    def test_of_a_version_that_never_answered_wakes_on_a_guess(self) -> None:
        version = Scaled(settings(minimum=0), counts=Counts())

        decision = version.tick(5.0, service=None, answered=0.0, queued=10.0)

        assert decision.target >= 1
        assert "(a guess, none was answered yet)" in decision.reason

    def test_keeps_standby_until_it_is_gone(self) -> None:
        version = self.asleep(standby=2, gone_after_s=600.0)
        paused = [d.standby for d in version.decisions]

        version.ticks(60, 0.0)

        assert paused[:500] == [2] * 500
        assert version.decisions[-1].standby == 0


class TestAct:
    @pytest.mark.parametrize(
        ("counts", "target", "standby", "expected"),
        [
            (Counts(ready=2), 2, 0, {}),
            (Counts(ready=2), 5, 0, {"start": 3}),
            (Counts(ready=2, standby=2), 5, 2, {"wake": 2, "start": 3}),
            (Counts(ready=2, standby=2), 3, 2, {"wake": 1, "start": 1}),
            (Counts(ready=5), 2, 1, {"pause": 1, "end": 2}),
            (Counts(ready=5), 2, 0, {"end": 3}),
            (Counts(ready=1, starting=2), 1, 2, {"pause": 1}),
            (Counts(ready=1), 0, 1, {"pause": 1}),
            (Counts(standby=1), 0, 0, {"end_standby": 1}),
            (Counts(standby=2), 1, 2, {"wake": 1, "start": 1}),
            (Counts(ready=1, failing=3), 4, 0, {"start": 3}),
        ],
    )
    def test_unpauses_before_it_starts_and_pauses_before_it_ends(
        self, counts: Counts, target: int, standby: int, expected: dict[str, int]
    ) -> None:
        decision = act(KEY, 0, target, inputs(counts, standby))

        steps = {name: getattr(decision, name) for name in ("wake", "start", "pause", "end", "end_standby")}
        assert {name: count for name, count in steps.items() if count} == expected


def inputs(counts: Counts, standby: int) -> Inputs:
    return Inputs(
        sample=None,
        counts=counts,
        percentile=95,
        minimum=0,
        maximum=9,
        cold_start_s=2.0,
        rest=Rest(False, standby, 0.0),
    )


class TestReason:
    def test_says_the_arithmetic_the_jump_and_the_limit(self) -> None:
        version = grown(10.0, maximum=5)

        decision = version.tick(60.0)

        assert decision.reason == (
            "iris@2: 1 -> 5: 110.0 req/s × 0.25 s = 27.5 busy slots, 30 needed for p95 ≤ 1 s at 4 per replica; "
            "jump seen (2 s rate 6.0 × the rate before it); limited to 5 by max"
        )

    def test_says_what_keeps_a_replica(self) -> None:
        version = grown(60.0)

        version.ticks(20, 30.0)

        assert "replica 5 is kept for" in version.decisions[-1].reason

    def test_says_when_no_count_meets_the_objective(self) -> None:
        decision = grown(10.0, objective=Objective(0.1)).decisions[-1]

        assert decision.reason.endswith(
            "no count meets the objective, for 95 % of the service times alone reach to 0.55 s"
        )

    def test_says_that_failing_replicas_do_not_count(self) -> None:
        decision = grown(10.0).tick(10.0, counts=Counts(ready=1, failing=1))

        assert decision.reason.endswith("1 failing to start, not counted")

    def test_of_a_derived_objective_says_so(self) -> None:
        assert "(derived, no slo is set)" in grown(10.0, objective=Objective()).decisions[-1].reason

    def test_is_of_change_only_when_the_count_changes(self) -> None:
        version = grown(10.0)

        assert not version.decisions[-1].is_change
        assert version.tick(60.0).is_change

    def test_can_be_explained_with_every_input(self) -> None:
        rows = dict(explained(grown(60.0).tick(60.0, queued=3.0)))

        assert rows["arrived"] == "120"
        assert rows["queued"] == "3"
        assert rows["service time"] == "0.25 s with all slots busy, cv² 0.36"
        assert rows["may go down"] == "yes"
        assert rows["decided"] == "5 -> 5 awake, 0 standby"
        assert rows["to do"] == "nothing"

    def test_can_be_explained_when_nothing_is_known(self) -> None:
        decision: ScaleDecision = Scaled().see(None)

        rows = dict(explained(decision))

        assert rows["may go down"] == "no: no signals"
        assert "rate" not in rows
