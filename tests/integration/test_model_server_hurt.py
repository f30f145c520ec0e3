"""Models that harm their own server: what the caller is told, and that the next request is answered.

Real processes on this machine; what only a container can hold back is tried in test_cluster_hurt_docker.py.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.fakes import models
from tests.fakes.replica import Replica, ready_replica
from tests.fakes.villain import SOURCE, ask

ALONE = {"batching": {"max_size": 1}}


@pytest.fixture(scope="module")
def villain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """One for all that is to survive everything here."""
    directory = models.python(tmp_path_factory.mktemp("hurt") / "villain", SOURCE)
    with ready_replica(directory, backend="python") as replica:
        yield replica


def send(replica: Replica, *acts: str, timeout_s: float = 30) -> httpx.Response:
    return httpx.post(f"{replica.url}/v2/models/iris/infer", json=ask(*acts), timeout=timeout_s)


def is_well(replica: Replica) -> bool:
    answer = send(replica, "well", "well")
    return answer.status_code == 200 and answer.json()["outputs"][0]["data"] == [1.0, 1.0]


class TestAnswers:
    """What a model gives back, or raises instead."""

    @pytest.mark.parametrize(
        ("act", "status", "code", "words"),
        [
            ("raises", 500, "MODEL_FAILED", "the model raised RuntimeError: the weights are cursed"),
            ("refuses", 400, "BAD_REQUEST", "too cold for this model"),
            ("exits", 500, "MODEL_FAILED", "SystemExit"),
            ("interrupts", 500, "MODEL_FAILED", "KeyboardInterrupt"),
            ("answers_none", 500, "MODEL_FAILED", "NoneType"),
            ("answers_too_few", 500, "MODEL_FAILED", "output 'output' has shape [1] for 2 input rows"),
            ("answers_too_many", 500, "MODEL_FAILED", "output 'output' has shape [3] for 2 input rows"),
            ("answers_one_number", 500, "MODEL_FAILED", "output 'output' has shape [] for 2 input rows"),
            ("answers_ragged", 500, "MODEL_FAILED", "predict() returned rows that differ in length"),
            ("answers_objects", 500, "MODEL_FAILED", "that is no array of numbers or strings"),
            ("answers_nan", 422, "NOT_FINITE", "nan"),
            ("answers_a_module", 500, "MODEL_FAILED", "that is no array of numbers or strings"),
            ("answers_sets", 500, "MODEL_FAILED", "that is no array of numbers or strings"),
        ],
    )
    def test_of_no_use_are_told_apart_and_the_next_request_is_answered(
        self, villain: Replica, act: str, status: int, code: str, words: str
    ) -> None:
        answer = send(villain, act, "well")

        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert words in answer.json()["error"]
        assert is_well(villain)

    def test_that_fail_each_third_time_fail_each_third_time(self, villain: Replica) -> None:
        statuses = [send(villain, "every_third").status_code for _ in range(9)]

        assert statuses == [200, 200, 500] * 3

    def test_of_a_bad_row_fail_alone_in_their_batch(self, villain: Replica) -> None:
        """Twenty at one time behind one that keeps the model busy; the bad ones share batches with good ones."""
        acts = ["raises" if number % 7 == 3 else "well" for number in range(20)]
        with ThreadPoolExecutor(21) as pool:
            busy = pool.submit(send, villain, "pause")
            answers = list(pool.map(lambda act: send(villain, act), acts))

        assert busy.result().status_code == 200
        assert [answer.status_code for answer in answers] == [500 if act == "raises" else 200 for act in acts]

    def test_of_a_batch_that_fails_in_every_part_are_no_hang(self, tmp_path: Path) -> None:
        """Eight that fail are fifteen calls of 0.3 s, each of them well within the time for one."""
        settings = json.dumps({"predict_timeout_s": 1.5, "batching": {"max_size": 8, "max_delay_ms": 300}})
        directory = models.python(tmp_path / "villain", SOURCE)
        with (
            ready_replica(directory, backend="python", MODELFLEET_SETTINGS=settings) as replica,
            ThreadPoolExecutor(8) as pool,
        ):
            answers = list(pool.map(lambda _: send(replica, "fails_slowly"), range(8)))

            assert [answer.status_code for answer in answers] == [500] * 8
            assert all("RuntimeError: cursed, after all" in answer.json()["error"] for answer in answers)
            assert is_well(replica)


class TestTricks:
    """What a model does to its own process, besides predicting."""

    @pytest.mark.parametrize("act", ["prints", "ignores_sigterm", "leaves_threads", "closes_stderr", "monkeypatches"])
    def test_leave_the_server_answering_and_draining(self, tmp_path: Path, act: str) -> None:
        directory = models.python(tmp_path / "villain", SOURCE)
        with ready_replica(directory, backend="python") as replica:
            answer = send(replica, act)

            assert answer.status_code == 200, answer.text
            assert is_well(replica)
            assert send(replica, "raises").json()["code"] == "MODEL_FAILED"
            assert "the weights are cursed" in replica.log
            if act == "ignores_sigterm":
                return
            replica.terminate()
            assert replica.exit_code() == 0
            assert "drained" in [event["event"] for event in replica.events()]

    def test_an_event_never_goes_astray_into_a_connection(self, tmp_path: Path) -> None:
        """A connection gets the number of a closed standard error: what is written there is its client's to read."""
        directory = models.python(tmp_path / "villain", SOURCE)
        with ready_replica(directory, backend="python") as replica:
            send(replica, "closes_stderr")

            answers = [send(replica, "raises") for _ in range(5)]

            assert {answer.status_code for answer in answers} == {500}
            assert all(answer.json()["code"] == "MODEL_FAILED" for answer in answers)

    def test_a_hung_call_is_ended_although_standard_error_is_closed(self, tmp_path: Path) -> None:
        directory = models.python(tmp_path / "villain", SOURCE)
        with ready_replica(
            directory, backend="python", MODELFLEET_SETTINGS=json.dumps({"predict_timeout_s": 0.5})
        ) as replica:
            send(replica, "closes_stderr")

            answer = send(replica, "sleeps")

            assert (answer.status_code, answer.json()["code"]) == (500, "MODEL_FAILED")
            assert replica.exit_code() == 72
            assert "in sleeps" in replica.log


class TestEnds:
    """What ends the process: nobody waits for an answer that cannot come."""

    @pytest.mark.parametrize(("act", "code"), [("exits_at_once", 3), ("crashes", -signal.SIGSEGV)])
    def test_break_the_connections_of_all_that_were_inside(self, tmp_path: Path, act: str, code: int) -> None:
        directory = models.python(tmp_path / "villain", SOURCE)
        with ready_replica(directory, backend="python") as replica, ThreadPoolExecutor(4) as pool:
            inside = [pool.submit(send, replica, "pause") for _ in range(3)]
            replica.wait_for_line("pausing")

            with pytest.raises(httpx.TransportError):
                send(replica, act)

            # Those of the batch before it were answered, those of its own batch were not.
            assert all(isinstance(f.exception(), httpx.TransportError | None) for f in inside)
            assert replica.exit_code() == code

    @pytest.mark.parametrize(
        ("act", "words"),
        [
            ("exits_at_once", "ended by itself with exit code 3; a model must not end its process"),
            ("crashes", "ended by SIGSEGV in native code"),
            ("sleeps", "did not answer within 1 s"),
            ("deadlocks", "did not answer within 1 s"),
        ],
    )
    def test_of_one_instance_fail_its_batch_alone(self, tmp_path: Path, act: str, words: str) -> None:
        directory = models.python(tmp_path / "villain", SOURCE)
        settings = json.dumps({"instances": 2, "predict_timeout_s": 1, **ALONE})
        with (
            ready_replica(directory, backend="python", MODELFLEET_SETTINGS=settings) as replica,
            ThreadPoolExecutor(2) as pool,
        ):
            ended = pool.submit(send, replica, act)
            others = [send(replica, "well").status_code for _ in range(5)]

            assert (ended.result().status_code, ended.result().json()["code"]) == (500, "MODEL_FAILED")
            assert words in ended.result().json()["error"]
            assert others == [200] * 5
            assert [send(replica, "well").status_code for _ in range(4)] == [200] * 4


class TestLeaving:
    """Callers who leave while the model works on the batch that they are in."""

    @pytest.mark.parametrize("instances", [1, 2])
    def test_strand_nobody_in_their_batch(self, tmp_path: Path, instances: int) -> None:
        directory = models.python(tmp_path / "villain", SOURCE)
        settings = json.dumps({"instances": instances, "batching": {"max_size": 16, "max_delay_ms": 100}})
        with (
            ready_replica(directory, backend="python", MODELFLEET_SETTINGS=settings) as replica,
            ThreadPoolExecutor(8) as pool,
        ):
            staying = [pool.submit(send, replica, "pause") for _ in range(4)]
            leaving = [pool.submit(send, replica, "pause", timeout_s=0.3) for _ in range(4)]

            assert all(isinstance(future.exception(), httpx.TimeoutException) for future in leaving)
            assert [future.result().status_code for future in staying] == [200] * 4
            assert is_well(replica)
