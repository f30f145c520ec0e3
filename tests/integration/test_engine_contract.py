"""What every engine promises (orchestrator/adapters/engine.py), asked of the fake, of processes and of Docker alike."""

from __future__ import annotations

import threading
import time

import pytest

from orchestrator.adapters.engine import EngineEvent, RuntimeBuildFailed, RuntimeRequest
from orchestrator.core.entities import VersionKey
from orchestrator.core.errors import NotFoundError
from tests.fakes.engine_lab import EngineLab, until

pytestmark = pytest.mark.timeout(300)


class TestStart:
    def test_lists_a_started_replica_with_what_it_was_started_from(self, lab: EngineLab) -> None:
        launch = lab.launch()
        before = time.time()

        lab.engine.start(launch)

        (replica,) = lab.engine.replicas()
        assert replica.id == launch.replica_id
        assert replica.key == VersionKey("act", "1")
        assert (replica.digest, replica.revision) == (launch.digest, 7)
        assert replica.running
        assert replica.exit is None
        assert before - 2 < replica.created_at < time.time() + 2

    def test_gives_an_address_that_answers(self, lab: EngineLab) -> None:
        replica_id = lab.start()

        replica = lab.ready(replica_id)

        assert replica.host
        assert replica.port

    def test_started_twice_is_one_replica(self, lab: EngineLab) -> None:
        launch = lab.launch()
        lab.engine.start(launch)
        first = lab.find(launch.replica_id)

        lab.engine.start(launch)

        assert first is not None
        assert [r.engine_id for r in lab.engine.replicas()] == [first.engine_id]

    def test_several_of_one_version_have_addresses_of_their_own(self, lab: EngineLab) -> None:
        ids = [lab.start() for _ in range(3)]

        replicas = [lab.ready(replica_id) for replica_id in ids]

        assert len({(r.host, r.port) for r in replicas}) == 3


class TestStop:
    def test_removes_the_replica(self, lab: EngineLab) -> None:
        replica_id = lab.start()
        lab.ready(replica_id)

        lab.engine.stop(replica_id, grace_s=10)

        assert lab.engine.replicas() == []

    def test_of_an_absent_replica_is_success(self, lab: EngineLab) -> None:
        lab.engine.stop("never-there", grace_s=1)

    def test_of_an_ended_replica_removes_it(self, lab: EngineLab) -> None:
        replica_id = lab.start()
        lab.kill(replica_id)
        lab.ended(replica_id)

        lab.engine.stop(replica_id, grace_s=1)

        assert lab.engine.replicas() == []

    def test_leaves_the_others_alone(self, lab: EngineLab) -> None:
        stays, goes = lab.start(), lab.start()

        lab.engine.stop(goes, grace_s=1)

        assert [r.id for r in lab.engine.replicas() if r.running] == [stays]


class TestPause:
    def test_a_paused_replica_is_listed_so_and_answers_nothing(self, lab: EngineLab) -> None:
        replica_id = lab.start()
        replica = lab.ready(replica_id)

        lab.engine.pause(replica_id)

        paused = lab.find(replica_id)
        assert paused is not None
        assert (paused.running, paused.paused, paused.exit) == (True, True, None)
        assert (paused.host, paused.port) == (replica.host, replica.port)
        assert not lab.answers(replica)

    def test_an_unpaused_one_answers_at_the_same_address(self, lab: EngineLab) -> None:
        replica_id = lab.start()
        replica = lab.ready(replica_id)
        lab.engine.pause(replica_id)

        lab.engine.unpause(replica_id)

        awake = lab.find(replica_id)
        assert awake is not None
        assert not awake.paused
        assert until("it answers", lambda: lab.answers(replica))

    def test_both_twice_are_the_same_as_once(self, lab: EngineLab) -> None:
        replica_id = lab.start()
        lab.ready(replica_id)

        lab.engine.pause(replica_id)
        lab.engine.pause(replica_id)
        paused = lab.find(replica_id)
        lab.engine.unpause(replica_id)
        lab.engine.unpause(replica_id)

        awake = lab.find(replica_id)
        assert paused is not None
        assert awake is not None
        assert (paused.paused, awake.paused) == (True, False)

    def test_of_a_replica_that_is_not_there_is_an_error(self, lab: EngineLab) -> None:
        with pytest.raises(NotFoundError, match="does not run"):
            lab.engine.pause("never-there")
        with pytest.raises(NotFoundError, match="does not run"):
            lab.engine.unpause("never-there")

    def test_of_a_replica_that_ended_is_an_error(self, lab: EngineLab) -> None:
        replica_id = lab.start()
        lab.ready(replica_id)
        lab.kill(replica_id)
        lab.ended(replica_id)

        with pytest.raises(NotFoundError, match="does not run"):
            lab.engine.pause(replica_id)

    def test_somebody_elses_pause_is_listed_and_told(self, lab: EngineLab) -> None:
        replica_id = lab.start()
        lab.ready(replica_id)

        with lab.listening() as told:
            lab.pause(replica_id)
            until("the event", lambda: EngineEvent("pause", replica_id) in told)
            lab.engine.unpause(replica_id)
            until("the other event", lambda: EngineEvent("unpause", replica_id) in told)

    def test_another_control_plane_finds_it_paused_and_wakes_it(self, lab: EngineLab) -> None:
        replica_id = lab.start()
        replica = lab.ready(replica_id)
        lab.engine.pause(replica_id)

        other = lab.another_control_plane()

        assert [(r.id, r.paused) for r in other.replicas()] == [(replica_id, True)]
        other.unpause(replica_id)
        assert until("it answers", lambda: lab.answers(replica))

    def test_a_paused_replica_is_stopped_gently(self, lab: EngineLab) -> None:
        """Its SIGTERM must reach it: a paused process would sleep through its grace and be killed."""
        replica_id = lab.start()
        lab.ready(replica_id)
        lab.engine.pause(replica_id)
        began = time.monotonic()

        lab.engine.stop(replica_id, grace_s=30)

        assert time.monotonic() - began < 20
        assert lab.engine.replicas() == []

    def test_teardown_ends_paused_replicas_too(self, lab: EngineLab) -> None:
        replica_id = lab.start()
        lab.ready(replica_id)
        lab.engine.pause(replica_id)

        lab.engine.teardown()

        assert lab.engine.replicas() == []


class TestEnd:
    def test_a_killed_replica_is_listed_as_ended_with_its_last_lines(self, lab: EngineLab) -> None:
        replica_id = lab.start()
        lab.ready(replica_id)

        lab.kill(replica_id)

        end = lab.ended(replica_id).exit
        assert end is not None
        assert end.code == 137
        assert end.reason == "killed by SIGKILL (exit code 137)"
        assert "first words" in end.log_tail

    def test_the_reason_is_the_sentence_of_the_model_server(self, lab: EngineLab) -> None:
        replica_id = lab.start("raise")

        end = lab.ended(replica_id).exit

        assert end is not None
        assert end.code == 70
        assert "the weights are cursed" in end.reason
        assert "{" not in end.reason

    def test_too_little_memory_is_told_apart_from_a_kill(self, lab: EngineLab) -> None:
        replica_id = lab.start("hog")

        end = lab.ended(replica_id).exit

        assert end is not None
        assert end.oom_killed
        assert end.reason == (
            "out of memory: it needs more than its limit of 256Mi; raise resources.memory of this version"
        )


class TestUsage:
    def test_tells_what_a_replica_uses_and_may_use(self, lab: EngineLab) -> None:
        replica_id = lab.start()
        lab.ready(replica_id)

        (usage,) = lab.engine.usage()

        assert usage.id == replica_id
        assert usage.cpu_s is not None
        assert usage.cpu_s > 0
        assert usage.memory_bytes is not None
        assert usage.memory_limit_bytes == 256 * 1024**2
        assert 2**20 < usage.memory_bytes < usage.memory_limit_bytes

    def test_of_a_paused_one_stays_what_it_was(self, lab: EngineLab) -> None:
        """Its memory is held, and no CPU is used: neither an error nor zero."""
        replica_id = lab.start()
        lab.ready(replica_id)
        lab.engine.pause(replica_id)

        (first,), (second,) = lab.engine.usage(), lab.engine.usage()

        assert first.memory_bytes
        if lab.is_real:
            assert second.cpu_s == first.cpu_s

    def test_leaves_out_one_that_ended_since_it_was_listed(self, lab: EngineLab) -> None:
        ids = [lab.start(), lab.start()]
        for replica_id in ids:
            lab.ready(replica_id)
        assert {usage.id for usage in lab.engine.usage()} == set(ids)

        lab.kill(ids[0])
        gone = until("it is left out", lambda: ids[0] not in {usage.id for usage in lab.engine.usage()})

        assert gone
        assert [usage.id for usage in lab.engine.usage()] == [ids[1]]

    def test_counts_the_children_of_a_server(self, lab: EngineLab) -> None:
        """What a server does in processes of its own is the replica's too."""
        if not lab.is_real:
            return
        replica_id = lab.start("busy_child")
        lab.ready(replica_id)

        def used() -> float:
            (usage,) = lab.engine.usage()
            assert usage.cpu_s is not None
            return usage.cpu_s

        before = used()
        assert until("its child used half a second of CPU", lambda: used() - before > 0.5)


class TestEvents:
    def test_tell_a_kill_within_a_second(self, lab: EngineLab) -> None:
        replica_id = lab.start()
        with lab.listening() as told:
            killed_at = time.monotonic()
            lab.kill(replica_id)
            until("die was told", lambda: EngineEvent("die", replica_id) in told)
            took_s = time.monotonic() - killed_at

        assert took_s < 1.0

    def test_begin_with_resync_and_tell_a_start(self, lab: EngineLab) -> None:
        with lab.listening() as told:
            replica_id = lab.start()
            until("start was told", lambda: EngineEvent("start", replica_id) in told)

        assert told[0] == EngineEvent("resync")

    def test_tell_nothing_of_another_cluster(self, lab: EngineLab) -> None:
        other = lab.another_control_plane("test-other-cluster")
        other.prepare()
        theirs = lab.launch()
        try:
            with lab.listening() as told:
                other.start(theirs)
                ours = lab.start()
                until("ours was told", lambda: EngineEvent("start", ours) in told)
        finally:
            other.teardown()
            other.close()

        assert theirs.replica_id not in {event.replica_id for event in told}


class TestLogs:
    def test_give_lines_with_moment_and_stream(self, lab: EngineLab) -> None:
        replica_id = lab.start()
        lab.ready(replica_id)

        lines = list(lab.engine.logs(replica_id))

        by_text = {line.text: line for line in lines}
        assert by_text["first words"].stream == "stdout"
        assert by_text["on the error stream"].stream == "stderr"
        assert abs(by_text["first words"].at - time.time()) < 120
        assert {line.replica_id for line in lines} == {replica_id}

    def test_tail_bounds_the_lines(self, lab: EngineLab) -> None:
        replica_id = lab.start()
        lab.ready(replica_id)

        assert len(list(lab.engine.logs(replica_id, tail=1))) == 1

    def test_of_an_unknown_replica_are_not_found(self, lab: EngineLab) -> None:
        with pytest.raises(NotFoundError, match="replica 'nobody': not found"):
            lab.engine.logs("nobody")

    def test_followed_end_when_stopped(self, lab: EngineLab) -> None:
        replica_id = lab.start()
        lab.ready(replica_id)
        stopped, seen = threading.Event(), []
        thread = threading.Thread(
            target=lambda: seen.extend(lab.engine.logs(replica_id, follow=True, stopped=stopped)), daemon=True
        )
        thread.start()

        stopped.set()
        thread.join(5)

        assert not thread.is_alive()

    def test_followed_end_with_the_replica(self, lab: EngineLab) -> None:
        replica_id = lab.start()
        lab.ready(replica_id)
        lines = lab.engine.logs(replica_id, follow=True)
        first = next(lines)

        lab.kill(replica_id)

        assert first.replica_id == replica_id
        assert isinstance(list(lines), list)


class TestRuntime:
    def test_its_id_is_known_before_and_stays_the_same(self, lab: EngineLab) -> None:
        request = RuntimeRequest(backend="python")
        before = lab.engine.runtime_id(request)

        built = lab.engine.ensure_runtime(request)

        assert built == lab.engine.runtime_id(request)
        if not lab.is_real or lab.engine.name == "process":
            assert built == before

    def test_requirements_make_it_another_one(self, lab: EngineLab) -> None:
        plain = lab.engine.runtime_id(RuntimeRequest(backend="python"))

        with_requirements = lab.engine.runtime_id(RuntimeRequest(backend="python", requirements=b"httpx\n"))

        assert with_requirements != plain

    def test_an_unknown_backend_is_refused_with_those_that_exist(self, lab: EngineLab) -> None:
        if not lab.is_real:
            pytest.skip("the fake takes any backend")
        with pytest.raises(RuntimeBuildFailed, match=r"backend 'cobol': unknown; the backends are .*\bsklearn\b"):
            lab.engine.runtime_id(RuntimeRequest(backend="cobol"))


class TestTeardown:
    def test_leaves_nothing_and_may_be_repeated(self, lab: EngineLab) -> None:
        lab.start()
        lab.start()

        lab.engine.teardown()
        lab.engine.teardown()

        assert lab.engine.replicas() == []

    def test_leaves_another_cluster_alone(self, lab: EngineLab) -> None:
        other = lab.another_control_plane("test-other-cluster")
        other.prepare()
        theirs = lab.launch()
        other.start(theirs)

        try:
            lab.engine.teardown()

            assert [r.id for r in other.replicas() if r.running] == [theirs.replica_id]
        finally:
            other.teardown()
            other.close()


class TestAdoption:
    def test_a_new_control_plane_sees_and_ends_what_runs(self, lab: EngineLab) -> None:
        replica_id = lab.start()
        lab.ready(replica_id)

        successor = lab.another_control_plane()

        (replica,) = successor.replicas()
        assert (replica.id, replica.running) == (replica_id, True)
        assert lab.answers(replica)
        successor.stop(replica_id, grace_s=5)
        assert lab.engine.replicas() == []
        successor.close()

    def test_a_new_control_plane_sees_how_a_replica_ended_while_none_was_up(self, lab: EngineLab) -> None:
        replica_id = lab.start("raise")
        lab.ended(replica_id)

        successor = lab.another_control_plane()

        (replica,) = successor.replicas()
        assert replica.exit is not None
        assert "the weights are cursed" in replica.exit.reason
        successor.close()
