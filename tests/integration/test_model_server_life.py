"""From start to end of a model server: phases, every way a model can fail to load, draining. Real processes and signals."""

from __future__ import annotations

import json
import pickle
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import sklearn

from tests.fakes import models
from tests.fakes.replica import Replica, ready_replica, until_deadline
from worker_image.server.loading import BACKENDS

SLOW = """
import pathlib, time

class Model:
    inputs = [{"name": "x", "datatype": "FP64", "shape": [-1]}]

    def load(self, path):
        self.gate = pathlib.Path(path).parent / "go"

    def predict(self, inputs):
        if inputs["x"][0] == 0:
            return inputs["x"]
        print("predicting")
        while not self.gate.exists():
            time.sleep(0.01)
        return inputs["x"] * 2
"""
IRIS = {"name": "x", "datatype": "FP64", "shape": [1, 4], "data": models.ONE_ROW[0]}
ONE = {"name": "x", "datatype": "FP64", "shape": [1], "data": [1.0]}


def settings(**values: Any) -> str:
    return json.dumps(values)


def loading(directory: Path, body: str) -> Path:
    return models.python(
        directory,
        f"class Model:\n    def load(self, path):\n        {body}\n    def predict(self, inputs): return inputs",
    )


def failure(replica: Replica) -> tuple[int, str, str]:
    """Exit code, code and reason of the last line, which must be the event of the contract and nothing else."""
    code = replica.exit_code()
    event = json.loads(replica.log.splitlines()[-1])
    assert event.keys() == {"event", "reason", "code"}
    assert event["event"] == "model failed"
    return code, event["code"], event["reason"]


def wait_until_refused(replica: Replica) -> None:
    for _ in until_deadline():
        try:
            httpx.get(f"{replica.url}/v2/health/live")
        except httpx.ConnectError:
            return
    raise AssertionError("it still takes connections")


class TestPause:
    """A pause of hours, made short: the watchdog's timer is 5 s beyond `predict_timeout_s`."""

    def test_one_that_was_told_outlasts_its_watchdog(self, tmp_path: Path) -> None:
        tuned = {"MODELFLEET_SETTINGS": settings(predict_timeout_s=0.2)}
        with ready_replica(models.iris(tmp_path / "m"), **tuned) as replica:
            told = httpx.post(f"{replica.url}/v2/health/pause")

            replica.process.send_signal(signal.SIGSTOP)
            time.sleep(5.5)
            replica.process.send_signal(signal.SIGCONT)

            assert (told.status_code, told.json()) == (200, {"inside": 0})
            assert replica.infer(IRIS).status_code == 200
            with pytest.raises(subprocess.TimeoutExpired):
                replica.process.wait(0.5)

    def test_one_with_a_request_inside_refuses(self, tmp_path: Path) -> None:
        directory = models.python(tmp_path / "m", SLOW)
        with ready_replica(directory, backend="python") as replica, ThreadPoolExecutor() as pool:
            answer = pool.submit(replica.infer, ONE)
            replica.wait_for_line("predicting")

            told = httpx.post(f"{replica.url}/v2/health/pause")

            (tmp_path / "go").touch()
            assert (told.status_code, told.json()) == (409, {"inside": 1})
            assert answer.result().status_code == 200


class TestLoading:
    def test_listens_before_the_model_is_loaded_and_says_what_it_does(self, tmp_path: Path) -> None:
        directory = loading(tmp_path / "slow", "import time; time.sleep(60)")
        with Replica(directory, backend="python") as replica:
            replica.wait_until("/v2/health/live", 200)
            for _ in until_deadline():
                answer = httpx.get(f"{replica.url}/v2/health/ready")
                if answer.json()["phase"] == "loading":
                    break

            assert answer.status_code == 503
            assert answer.json().keys() == {"phase", "seconds", "error"}
            assert replica.infer(ONE).json()["code"] == "NOT_READY"
            assert httpx.get(f"{replica.url}/v2/models/iris").status_code == 503
            assert httpx.get(f"{replica.url}/v1/models/iris").json()["model_version_status"][0]["state"] == "LOADING"

    def test_reports_the_seconds_of_each_phase(self, tmp_path: Path) -> None:
        with ready_replica(models.iris(tmp_path / "iris")) as replica:
            loaded = next(event for event in replica.events() if event["event"] == "model loaded")

        assert loaded["phases"].keys() == {"importing_s", "loading_s", "warming_s"}
        ended = [event["phase"] for event in replica.events() if event["event"] == "phase ended"]
        assert ended == ["importing", "loading"]

    def test_warms_up_with_the_recorded_request(self, tmp_path: Path) -> None:
        directory = models.python(
            tmp_path / "picky",
            """
            class Model:
                inputs = [{"name": "x", "datatype": "FP64", "shape": [-1]}]
                def load(self, path): ...
                def predict(self, inputs):
                    assert inputs["x"][0] == 7
                    print("warmed with seven")
                    return inputs["x"]
            """,
        )
        (directory / "warmup.json").write_text(json.dumps({"inputs": [{**ONE, "data": [7.0]}]}))
        with ready_replica(directory, backend="python") as replica:
            assert "warmed with seven" in replica.log

    def test_warms_up_with_each_of_several_recorded_requests(self, tmp_path: Path) -> None:
        source = """
        class Model:
            inputs = [{"name": "x", "datatype": "FP64", "shape": [-1]}]
            def load(self, path): ...
            def predict(self, inputs):
                print("rows", len(inputs["x"]))
                return inputs["x"]
        """
        directory = models.python(tmp_path / "several", source)
        recorded = [{"inputs": [{**ONE, "shape": [rows], "data": [1.0] * rows}]} for rows in (1, 8, 64)]
        (directory / "warmup.json").write_text(json.dumps(recorded))
        with ready_replica(directory, backend="python") as replica:
            printed = [line for line in replica.log.splitlines() if line.startswith("rows")]

        assert printed == ["rows 1", "rows 8", "rows 64"]

    def test_sigterm_while_loading_ends_it_at_once(self, tmp_path: Path) -> None:
        directory = loading(tmp_path / "slow", "print('sleeping'); import time; time.sleep(60)")
        with Replica(directory, backend="python") as replica:
            replica.wait_for_line("sleeping")

            replica.terminate()

            assert replica.exit_code() == 0


class TestFailures:
    """Each ends in the exit code of docs/CONTRACTS.md and in one sentence."""

    def fails(self, directory: Path, *, backend: str = "python", **environ: str) -> tuple[int, str, str]:
        with Replica(directory, backend=backend, **environ) as replica:
            return failure(replica)

    def test_artifact_missing(self, tmp_path: Path) -> None:
        code, name, reason = self.fails(tmp_path / "none", backend="sklearn")

        assert (code, name) == (65, "ARTIFACT_MISSING")
        assert "no such directory" in reason

    def test_artifact_truncated(self, tmp_path: Path) -> None:
        file = models.iris(tmp_path / "iris") / "model.joblib"
        file.write_bytes(file.read_bytes()[:200])

        code, name, reason = self.fails(tmp_path / "iris", backend="sklearn")

        assert (code, name) == (65, "ARTIFACT_UNREADABLE")
        assert "may be truncated" in reason

    def test_artifact_of_another_scikit_learn(self, tmp_path: Path) -> None:
        (tmp_path / "old").mkdir()
        raw = pickle.dumps(models.iris_estimator(), protocol=4)
        here = sklearn.__version__.encode()
        other = b"0" + here[1:] if here[:1] != b"0" else b"9" + here[1:]
        (tmp_path / "old" / "model.pkl").write_bytes(raw.replace(here, other))

        code, name, reason = self.fails(tmp_path / "old", backend="sklearn")

        assert (code, name) == (65, "VERSION_SKEW")
        assert other.decode() in reason
        assert here.decode() in reason

    def test_model_raises_in_load(self, tmp_path: Path) -> None:
        code, name, reason = self.fails(loading(tmp_path / "m", "raise RuntimeError('no licence')"))

        assert (code, name) == (70, "MODEL_RAISED")
        assert "RuntimeError: no licence while it was loaded (model.py:3)" in reason

    def test_model_exits_in_load(self, tmp_path: Path) -> None:
        code, name, reason = self.fails(loading(tmp_path / "m", "raise SystemExit(3)"))

        assert (code, name) == (70, "MODEL_RAISED")
        assert "SystemExit: 3" in reason

    def test_model_hangs_in_load(self, tmp_path: Path) -> None:
        directory = loading(tmp_path / "m", "import time; time.sleep(60)")

        code, name, reason = self.fails(directory, MODELFLEET_SETTINGS=settings(load_timeout_s=1.0))

        assert (code, name) == (71, "LOAD_TIMEOUT")
        assert "still loading after 1 s" in reason

    def test_model_hangs_in_native_code_that_holds_the_interpreter(self, tmp_path: Path) -> None:
        directory = loading(tmp_path / "m", "import ctypes; ctypes.PyDLL(None).sleep(60)")
        with Replica(directory, backend="python", MODELFLEET_SETTINGS=settings(load_timeout_s=1.0)) as replica:
            assert replica.exit_code() == 1
            assert "model.py" in replica.log

    def test_model_needs_more_memory_than_there_is(self, tmp_path: Path) -> None:
        code, name, reason = self.fails(loading(tmp_path / "m", "raise MemoryError"))

        assert (code, name) == (70, "OUT_OF_MEMORY")
        assert "raise `resources.memory`" in reason

    def test_model_needs_more_memory_than_there_is_in_its_warm_up(self, tmp_path: Path) -> None:
        source = """
        class Model:
            inputs = [{"name": "x", "datatype": "FP64", "shape": [-1]}]
            def load(self, path): ...
            def predict(self, inputs): raise MemoryError
        """

        code, name, _ = self.fails(models.python(tmp_path / "m", source))

        assert (code, name) == (70, "OUT_OF_MEMORY")

    def test_model_raises_in_its_warm_up(self, tmp_path: Path) -> None:
        source = """
        class Model:
            inputs = [{"name": "x", "datatype": "FP64", "shape": [-1]}]
            def load(self, path): ...
            def predict(self, inputs): return 1 / 0
        """

        code, name, reason = self.fails(models.python(tmp_path / "m", source))

        assert (code, name) == (70, "MODEL_RAISED")
        assert "warm-up: the model raised ZeroDivisionError" in reason
        assert "warmup.json" in reason

    @pytest.mark.parametrize(
        ("content", "place", "problem"),
        [
            ("{", "warmup.json: body:", "JSON"),
            ("[{}", "warmup.json: no JSON", "one inference request or a list of them"),
            ('[{"inputs": []}, {"inputs": 1}]', "warmup.json: request 2: body:", "inputs"),
            (
                '{"inputs": [{"name": "y", "shape": [1], "datatype": "FP64", "data": [1]}]}',
                "warmup.json: input 'y'",
                "'x'",
            ),
        ],
    )
    def test_recorded_request_is_none(self, tmp_path: Path, content: str, place: str, problem: str) -> None:
        directory = models.python(tmp_path / "slow", SLOW)
        (directory / "warmup.json").write_text(content)

        code, name, reason = self.fails(directory)

        assert (code, name) == (65, "ARTIFACT_UNREADABLE")
        assert place in reason
        assert problem in reason

    def test_unknown_backend(self, tmp_path: Path) -> None:
        code, name, reason = self.fails(tmp_path, backend="tensorflow")

        assert (code, name) == (64, "UNKNOWN_BACKEND")
        assert f"it is one of {', '.join(BACKENDS)}" in reason

    def test_bad_settings(self, tmp_path: Path) -> None:
        code, name, reason = self.fails(tmp_path, MODELFLEET_SETTINGS="{")

        assert (code, name) == (64, "BAD_SETTINGS")
        assert "MODELFLEET_SETTINGS" in reason

    def test_outputs_that_the_model_has_not(self, tmp_path: Path) -> None:
        directory = models.iris(tmp_path / "iris")

        code, name, reason = self.fails(
            directory, backend="sklearn", MODELFLEET_SETTINGS=settings(outputs=["probabilities"])
        )

        assert (code, name) == (64, "BAD_SETTINGS")
        assert "outputs: 'probabilities'; the model gives 'predict', 'predict_proba'" in reason

    def test_port_in_use(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])

            code, name, reason = self.fails(tmp_path, MODELFLEET_PORT=port)

        assert (code, name) == (64, "BAD_SETTINGS")
        assert f"127.0.0.1:{port}: cannot listen there" in reason


class TestDraining:
    def test_finishes_what_it_accepted_takes_no_connection_and_exits_zero(self, tmp_path: Path) -> None:
        with (
            ready_replica(models.python(tmp_path / "slow", SLOW), backend="python") as replica,
            httpx.Client(base_url=replica.url) as kept,
            ThreadPoolExecutor(1) as pool,
        ):
            kept.get("/v2/health/live")
            inside = pool.submit(replica.infer, ONE)
            replica.wait_for_line("predicting")

            replica.terminate()
            wait_until_refused(replica)
            draining = kept.get("/v2/health/ready")
            (tmp_path / "go").touch()

            assert (draining.status_code, draining.json()["phase"]) == (503, "draining")
            assert inside.result().json()["outputs"][0]["data"] == [2.0]
            assert inside.result().headers["connection"] == "close"
            assert replica.exit_code() == 0

    def test_answers_what_comes_on_an_open_connection_and_closes_it(self, tmp_path: Path) -> None:
        """Its sender cannot know that the server is to end: a refusal would be a lost request."""
        with (
            ready_replica(models.python(tmp_path / "slow", SLOW), backend="python") as replica,
            httpx.Client(base_url=replica.url, timeout=20) as kept,
            ThreadPoolExecutor(2) as pool,
        ):
            kept.get("/v2/health/live")
            inside = pool.submit(replica.infer, ONE)
            replica.wait_for_line("predicting")
            replica.terminate()
            wait_until_refused(replica)

            late = pool.submit(kept.post, "/v2/models/iris/infer", json={"inputs": [ONE]})
            (tmp_path / "go").touch()

            assert (late.result().status_code, late.result().headers["connection"]) == (200, "close")
            assert inside.result().status_code == 200
            assert replica.exit_code() == 0

    def test_does_not_wait_longer_than_the_drain_timeout(self, tmp_path: Path) -> None:
        directory = models.python(tmp_path / "slow", SLOW)
        limit = settings(drain_timeout_s=0.3)
        with (
            ready_replica(directory, backend="python", MODELFLEET_SETTINGS=limit) as replica,
            ThreadPoolExecutor(1) as pool,
        ):
            inside = pool.submit(replica.infer, ONE)
            replica.wait_for_line("predicting")

            replica.terminate()

            assert replica.exit_code() == 0
            assert isinstance(inside.exception(), httpx.TransportError)
            drained = replica.events()[-1]
            assert (drained["event"], drained["level"], drained["in_flight"]) == ("drained", "warning", 1)

    def test_an_idle_server_ends_at_once(self, tmp_path: Path) -> None:
        with ready_replica(models.iris(tmp_path / "iris")) as replica, httpx.Client() as idle:
            idle.get(f"{replica.url}/v2/health/live")

            replica.terminate()

            assert replica.exit_code() == 0


class TestHangingPrediction:
    def test_ends_the_process_with_a_reason_after_the_callers_are_told(self, tmp_path: Path) -> None:
        limit = settings(predict_timeout_s=0.5)
        directory = models.python(tmp_path / "slow", SLOW)
        with ready_replica(directory, backend="python", MODELFLEET_SETTINGS=limit) as replica:
            answer = replica.infer(ONE)

            code, name, reason = failure(replica)
            assert (answer.status_code, answer.json()["code"]) == (500, "MODEL_FAILED")
            assert "the model did not answer within 0.5 s" in answer.json()["error"]
            assert (code, name) == (72, "PREDICT_TIMEOUT")
            assert "predict_timeout_s allows no more" in reason
            stack = next(event["stack"] for event in replica.events() if event["event"] == "model hangs")
            assert 'model.py", line' in stack
            assert "in predict" in stack

    def test_ends_the_process_even_when_it_holds_the_interpreter(self, tmp_path: Path) -> None:
        directory = models.python(
            tmp_path / "m",
            """
            import ctypes
            class Model:
                inputs = [{"name": "x", "datatype": "FP64", "shape": [-1]}]
                def load(self, path): ...
                def predict(self, inputs):
                    ctypes.PyDLL(None).sleep(60 * int(inputs["x"][0]))
                    return inputs["x"]
            """,
        )
        limit = settings(predict_timeout_s=0.5)
        with ready_replica(directory, backend="python", MODELFLEET_SETTINGS=limit) as replica:
            with pytest.raises(httpx.TransportError):
                replica.infer(ONE)

            assert replica.exit_code() == 1
            assert "model.py" in replica.log

    def test_ends_one_instance_and_leaves_the_others(self, tmp_path: Path) -> None:
        limit = settings(predict_timeout_s=0.5, instances=2)
        directory = models.python(tmp_path / "slow", SLOW)
        with ready_replica(directory, backend="python", MODELFLEET_SETTINGS=limit) as replica:
            answer = replica.infer(ONE)

            assert "the model did not answer within 0.5 s" in answer.json()["error"]
            assert replica.infer({**ONE, "data": [0.0]}).status_code == 200
            assert replica.process.poll() is None

    def test_leaves_liveness_and_metadata_answering(self, tmp_path: Path) -> None:
        with (
            ready_replica(models.python(tmp_path / "slow", SLOW), backend="python") as replica,
            ThreadPoolExecutor(1) as pool,
        ):
            inside = pool.submit(replica.infer, ONE)
            replica.wait_for_line("predicting")

            assert httpx.get(f"{replica.url}/v2/health/live").status_code == 200
            assert httpx.get(f"{replica.url}/v2/models/iris").status_code == 200

            (tmp_path / "go").touch()
            assert inside.result().status_code == 200
