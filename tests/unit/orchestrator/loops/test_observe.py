"""The snapshot of the world: what could not be asked is unknown, and readiness is remembered."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import cast

import httpx
import pytest

from orchestrator.adapters.engine import EngineReplica
from orchestrator.adapters.probe import SILENT, Probe
from orchestrator.core.entities import Exit, Replica, VersionKey
from orchestrator.core.states import ReplicaState
from orchestrator.loops.observe import (
    EJECTION_OVER_S,
    PROBE_PENDING_LEAST_S,
    PROBE_PENDING_MOST_S,
    PROBE_TIMEOUT_S,
    UNHEALTHY_AFTER,
    Health,
    Prober,
    refused_start,
    snapshot,
)
from router.contract import GatewayReport
from tests.fakes.gateway import until
from tests.fakes.scripted_replica import Call, ScriptedReplica

KEY = VersionKey("m", "1")
READY = Probe(ready=True, answers=True)
LOADING = Probe(ready=False, answers=True, phase="loading", phase_since=1.0)


def _listed(*, running: bool = True, end: Exit | None = None) -> EngineReplica:
    return EngineReplica(
        id="r", key=KEY, digest="d", revision=1, created_at=0.0, running=running, host="127.0.0.1", port=1,
        exit=end, engine_id="e",
    )  # fmt: skip


def _one(listed: EngineReplica, health: Health | None = None, report: GatewayReport | None = None) -> Replica:
    known = {"r": health} if health else {}
    (found,) = snapshot([listed], known, [], [], report, {"tag": {"r"}}).replicas
    return found


class TestHealth:
    def test_one_passed_probe_makes_ready(self) -> None:
        health = Health()

        assert health.note(READY, 0.0)
        assert health.ready

    def test_a_ready_one_is_unready_after_some_failures_in_a_row_and_is_asked_sooner_meanwhile(self) -> None:
        health = Health()
        health.note(READY, 0.0)
        calm = health.due

        changed = [health.note(SILENT, 0.0) for _ in range(UNHEALTHY_AFTER)]

        assert changed == [*[False] * (UNHEALTHY_AFTER - 1), True]
        assert not health.ready
        assert health.due < calm

    def test_one_failure_between_passes_counts_for_nothing(self) -> None:
        health = Health()
        for answer in (READY, SILENT, READY, SILENT, READY, SILENT):
            health.note(answer, 0.0)

        assert health.ready

    def test_a_phase_that_only_grows_older_is_no_change(self) -> None:
        health = Health()
        health.note(LOADING, 0.0)

        assert not health.note(Probe(ready=False, answers=True, phase="loading", phase_since=1.01), 0.1)

    def test_one_that_loads_is_asked_ever_more_rarely(self) -> None:
        health = Health()
        pauses = []
        for now in (0.0, 1.0, 4.0, 600.0):
            health.note(LOADING, now)
            pauses.append(round(health.due - now, 3))

        assert pauses == [PROBE_PENDING_LEAST_S, 0.05, 0.2, PROBE_PENDING_MOST_S]


class TestProber:
    async def test_one_that_does_not_answer_makes_no_other_wait(self) -> None:
        async def hang(call: Call) -> None:
            await call.left.wait()

        changed = asyncio.Event()
        async with ScriptedReplica(hang) as hung, ScriptedReplica() as well, httpx.AsyncClient() as client:
            prober = Prober(client, changed.set)
            prober.health = {"hung": Health(due=1.0), "well": Health(due=1.0)}
            prober.targets = {"hung": ("127.0.0.1", hung.port), "well": ("127.0.0.1", well.port)}
            probing = asyncio.create_task(prober.run())

            async with asyncio.timeout(PROBE_TIMEOUT_S / 2):
                await changed.wait()

            assert prober.health["well"].ready
            assert len(hung.calls) == 1
            probing.cancel()
            await asyncio.gather(probing, return_exceptions=True)


class TestPaused:
    def test_a_paused_replica_is_in_standby_whatever_probes_said(self) -> None:
        health = Health()
        health.note(READY, 0.0)

        assert _one(replace(_listed(), paused=True), health).state is ReplicaState.STANDBY

    async def test_what_was_known_of_it_counts_for_nothing_once_it_was_woken(self) -> None:
        """It may wake dead: only a new probe says that it is ready."""
        async with ScriptedReplica() as replica, httpx.AsyncClient() as client:
            prober = Prober(client, changed=lambda: None)
            listed = replace(_listed(), port=replica.port)
            await prober.follow([listed])
            await until(lambda: prober.health["r"].ready)

            await prober.follow([replace(listed, paused=True)])
            assert prober.health == {}
            await replica.stop()
            await prober.follow([listed])

            assert not prober.health["r"].ready

    async def test_each_probe_has_a_connection_of_its_own(self) -> None:
        async with ScriptedReplica() as replica, httpx.AsyncClient() as client:
            prober = Prober(client, changed=lambda: None)
            listed = replace(_listed(), port=replica.port)
            for _ in range(2):
                await prober.follow([listed])
                await until(lambda: prober.health["r"].ready)
                await prober.follow([])

            assert replica.accepted == 2

    async def test_one_that_does_not_answer_holds_up_the_first_observation_alone(self) -> None:
        async def hang(call: Call) -> None:
            await asyncio.sleep(60)

        async with ScriptedReplica(hang) as hung, httpx.AsyncClient() as client:
            prober = Prober(client, changed=lambda: None)
            await prober.follow([])

            async with asyncio.timeout(PROBE_TIMEOUT_S / 2):
                await prober.follow([replace(_listed(), port=hung.port)])

            assert not prober.health["r"].ready


class TestEjected:
    def prober(self, *, ready: bool = True) -> Prober:
        found = Prober(cast(httpx.AsyncClient, None), changed=lambda: None)
        health = Health()
        if ready:
            health.note(READY, 100.0)
        found.health = {"r": health}
        return found

    def test_a_replica_that_the_gateway_leaves_alone_is_asked_at_once(self) -> None:
        prober = self.prober()

        found = prober.note_ejected({"r": "connect"}, 101.0)

        assert (found.began, found.ended) == (("r",), ())
        assert prober.health["r"].due == 101.0
        assert _one(_listed(), prober.health["r"]).ejected == "connect"

    def test_one_that_stays_ejected_is_told_once_and_asked_when_it_is_due(self) -> None:
        prober = self.prober()
        prober.note_ejected({"r": "connect"}, 101.0)
        prober.health["r"].note(READY, 101.5)

        again = prober.note_ejected({"r": "reset"}, 102.0)

        assert (again.began, again.ended) == ((), ())
        assert prober.health["r"].due > 110.0
        assert prober.health["r"].ejected == "reset"

    def test_it_is_over_when_the_gateway_has_used_it_for_a_while_and_its_probes_pass(self) -> None:
        prober = self.prober()
        prober.note_ejected({"r": "connect"}, 101.0)

        soon = prober.note_ejected({}, 101.0 + EJECTION_OVER_S)
        later = prober.note_ejected({}, 101.1 + EJECTION_OVER_S)

        assert (soon.ended, later.ended) == ((), ("r",))
        assert prober.health["r"].ejected == ""

    def test_it_is_not_over_while_probes_fail(self) -> None:
        prober = self.prober()
        prober.note_ejected({"r": "timeout"}, 101.0)
        prober.health["r"].note(SILENT, 101.0)

        assert prober.note_ejected({}, 500.0).ended == ()
        assert prober.health["r"].ejected == "timeout"

    def test_a_replica_that_nobody_knows_is_no_news(self) -> None:
        assert self.prober().note_ejected({"gone": "connect"}, 101.0).began == ()


class TestSnapshot:
    @pytest.mark.parametrize(
        ("answer", "state"),
        [(READY, ReplicaState.READY), (LOADING, ReplicaState.LOADING), (SILENT, ReplicaState.STARTING)],
    )
    def test_a_running_replica_is_what_its_probes_say(self, answer: Probe, state: ReplicaState) -> None:
        health = Health()
        health.note(answer, 0.0)

        assert _one(_listed(), health).state is state

    def test_one_that_ended_failed_whatever_its_last_probe_said(self) -> None:
        health = Health()
        health.note(READY, 0.0)

        assert _one(_listed(running=False, end=Exit(137, "killed")), health).state is ReplicaState.FAILED

    def test_without_a_report_of_the_newest_table_traffic_is_unknown_not_zero(self) -> None:
        of_another_table = GatewayReport(tag="older", in_flight={}, pid=1, started_at=0.0)

        assert _one(_listed()).in_flight is None
        assert _one(_listed(), report=of_another_table).in_flight is None
        assert _one(_listed(), report=of_another_table).routed is None

    def test_with_it_traffic_is_what_the_gateway_says(self) -> None:
        report = GatewayReport(tag="tag", in_flight={"r": 2}, pid=1, started_at=0.0)

        found = _one(_listed(), report=report)

        assert (found.in_flight, found.routed) == (2, True)

    def test_a_start_under_way_counts_until_the_engine_lists_it(self) -> None:
        pending = Replica(id="r", key=KEY, digest="d", state=ReplicaState.STARTING, created_at=0.0, phase="creating")

        alone = snapshot([], {}, [pending], [], None, None).replicas
        both = snapshot([_listed()], {}, [pending], [], None, None).replicas

        assert [r.phase for r in alone] == ["creating"]
        assert [r.phase for r in both] == [""]

    def test_a_refused_start_is_a_failed_replica_with_the_reason(self) -> None:
        pending = Replica(id="r", key=KEY, digest="d", state=ReplicaState.STARTING, created_at=0.0)

        found = refused_start(pending, "no room")

        assert found.state is ReplicaState.FAILED
        assert found.exit is not None
        assert found.exit.reason == "no room"
