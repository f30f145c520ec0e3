"""Several instances of a model in one replica: threads or processes, and what happens when one of them breaks."""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.fakes import models
from tests.fakes.replica import Replica, ready_replica, until_deadline

TWO = json.dumps({"instances": 2})
# Each prediction waits for another one to be inside too.
MEETING = """
import os, pathlib, time

class Model:
    inputs = [{"name": "x", "datatype": "FP64", "shape": [-1]}]
    outputs = [{"name": "process", "datatype": "INT64", "shape": [-1]}]

    def load(self, path):
        self.place = pathlib.Path(path).parent

    def predict(self, inputs):
        x = inputs["x"][0]
        if (inputs["x"] < 0).any():
            os.kill(os.getpid(), 9)
        if x > 0:
            (self.place / f"inside-{int(x)}").touch()
            while len(list(self.place.glob("inside-*"))) < 2:
                time.sleep(0.01)
        return [os.getpid()] * len(inputs["x"])
"""


def x(value: float) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP64", "shape": [1], "data": [value]}


class TestProcesses:
    def test_compute_at_the_same_time(self, tmp_path: Path) -> None:
        directory = models.python(tmp_path / "m", MEETING)
        settings = json.dumps({"instances": 2, "batching": {"max_size": 1}})
        with (
            ready_replica(directory, backend="python", MODELFLEET_SETTINGS=settings) as replica,
            ThreadPoolExecutor(2) as pool,
        ):
            answers = list(pool.map(replica.infer, [x(1), x(2)]))

            processes = {answer.json()["outputs"][0]["data"][0] for answer in answers}
            assert len(processes) == 2
            assert replica.process.pid not in processes

    def test_answer_what_the_model_answers(self, tmp_path: Path) -> None:
        estimator = models.iris_estimator(named_classes=True)
        rows = np.random.default_rng(1).uniform(0, 8, (500, 4))
        directory = models.iris(tmp_path / "iris", named_classes=True)
        with ready_replica(directory, MODELFLEET_SETTINGS=TWO) as replica:
            tensor = {"name": "x", "datatype": "FP64", "shape": [500, 4], "data": rows.ravel().tolist()}
            outputs = [{"name": "predict"}, {"name": "predict_proba"}]

            answer = replica.infer(tensor, outputs=outputs).json()["outputs"]

        assert answer[0]["data"] == estimator.predict(rows).tolist()
        assert np.allclose(answer[1]["data"], estimator.predict_proba(rows).ravel(), rtol=1e-12)

    def test_one_that_is_killed_fails_its_batch_and_is_started_again(self, tmp_path: Path) -> None:
        directory = models.python(tmp_path / "m", MEETING)
        with ready_replica(directory, backend="python", MODELFLEET_SETTINGS=TWO) as replica:
            failed = replica.infer(x(-1))

            assert (failed.status_code, failed.json()["code"]) == (500, "MODEL_FAILED")
            assert "the model's process was killed" in failed.json()["error"]
            for _ in range(3):
                assert replica.infer(x(0)).status_code == 200
            assert replica.process.poll() is None
            assert "model process ended" in [event["event"] for event in replica.events()]

    def test_a_request_that_kills_its_process_fails_alone(self, tmp_path: Path) -> None:
        directory = models.python(tmp_path / "m", MEETING)
        settings = json.dumps({"instances": 2, "batching": {"max_size": 8, "max_delay_ms": 300}})
        with (
            ready_replica(directory, backend="python", MODELFLEET_SETTINGS=settings) as replica,
            ThreadPoolExecutor(4) as pool,
        ):
            answers = list(pool.map(replica.infer, [x(0), x(-1), x(0), x(0)]))

        assert [answer.status_code for answer in answers] == [200, 500, 200, 200]

    def test_end_with_the_server_even_when_it_is_killed(self, tmp_path: Path) -> None:
        directory = models.python(tmp_path / "m", MEETING)
        with ready_replica(directory, backend="python", MODELFLEET_SETTINGS=TWO) as replica:
            child = replica.infer(x(0)).json()["outputs"][0]["data"][0]

            replica.process.send_signal(signal.SIGKILL)
            replica.process.wait()

            for _ in until_deadline():
                if not is_running(child):
                    return
        raise AssertionError(f"process {child} still runs")

    def test_drain_before_they_end(self, tmp_path: Path) -> None:
        directory = models.python(tmp_path / "m", MEETING)
        with (
            ready_replica(directory, backend="python", MODELFLEET_SETTINGS=TWO) as replica,
            ThreadPoolExecutor(1) as pool,
        ):
            inside = pool.submit(replica.infer, x(1))
            for _ in until_deadline():
                if (tmp_path / "inside-1").exists():
                    break

            replica.terminate()
            (tmp_path / "inside-2").touch()

            assert inside.result().status_code == 200
            assert replica.exit_code() == 0

    def test_a_model_that_cannot_be_loaded_ends_the_server_as_without_them(self, tmp_path: Path) -> None:
        directory = models.python(
            tmp_path / "m",
            "class Model:\n    def load(self, path): raise OSError('no licence')\n    def predict(self, inputs): ...",
        )
        with Replica(directory, backend="python", MODELFLEET_SETTINGS=TWO) as replica:
            assert replica.exit_code() == 70
            assert "OSError: no licence while it was loaded (model.py:2)" in replica.events()[-1]["reason"]


class TestThreads:
    def test_share_one_model_where_the_framework_lets_them(self, tmp_path: Path) -> None:
        directory = models.digits_onnx(tmp_path / "digits")
        with (
            ready_replica(directory, backend="onnx", model="digits", MODELFLEET_SETTINGS=TWO) as replica,
            ThreadPoolExecutor(8) as pool,
        ):
            tensor = {"name": "X", "datatype": "FP32", "shape": [1, 64], "data": [0.0] * 64}
            answers = list(pool.map(lambda _: replica.infer(tensor).json()["outputs"], range(50)))

        assert all(answer == answers[0] for answer in answers)


class TestMemory:
    def test_a_request_that_would_not_fit_is_refused_before_it_is_decoded(self, tmp_path: Path) -> None:
        """320 MiB would not hold ten million Python numbers; the replica answers and lives on."""
        directory = models.iris(tmp_path / "iris")
        with ready_replica(directory, MODELFLEET_MEMORY_BYTES=str(320 << 20)) as replica:
            before = peak_bytes(replica)
            body = b'{"inputs": [{"name": "x", "datatype": "FP64", "shape": [2500000, 4], "data": ['
            body += b"1," * 9_999_999 + b"1]}]}"

            refused = httpx.post(f"{replica.url}/v2/models/iris/infer", content=body, timeout=40)

            assert (refused.status_code, refused.json()["code"]) == (413, "TOO_LARGE")
            assert "raise `resources.memory`" in refused.json()["error"]
            assert peak_bytes(replica) - before < 5 * len(body)

    def test_binary_tensors_cost_little_more_than_their_bytes_but_for_strings(self, tmp_path: Path) -> None:
        """40 MB of numbers fit into 320 MiB; as many bytes of empty strings would be ten million Python objects."""
        source = "class Model:\n  def load(self, path): ...\n  def predict(self, inputs): return inputs['x'][:, 0]"
        content = bytes(40_000_000)
        with ready_replica(
            models.python(tmp_path / "m", source), backend="python", MODELFLEET_MEMORY_BYTES=str(320 << 20)
        ) as replica:
            before = peak_bytes(replica)

            numbers = infer_binary(replica, "FP32", [2_500_000, 4], content)
            peak = peak_bytes(replica)
            strings = infer_binary(replica, "BYTES", [2_500_000, 4], content)

            assert numbers.status_code == 200
            assert peak - before < 4 * len(content)
            assert (strings.status_code, strings.json()["code"]) == (413, "TOO_LARGE")
            assert peak_bytes(replica) - before < 5 * len(content)


def infer_binary(replica: Replica, datatype: str, shape: list[int], content: bytes) -> httpx.Response:
    parameters = {"binary_data_size": len(content)}
    head = json.dumps({
        "inputs": [{"name": "x", "datatype": datatype, "shape": shape, "parameters": parameters}],
        "parameters": {"binary_data_output": True},
    }).encode()  # fmt: skip
    fields = {"inference-header-content-length": str(len(head))}
    url = f"{replica.url}/v2/models/iris/infer"
    return httpx.post(url, content=head + content, headers=fields, timeout=40)


def peak_bytes(replica: Replica) -> float:
    lines = httpx.get(f"{replica.url}/metrics").text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("modelfleet_server_peak_memory_bytes "))


@pytest.mark.parametrize("cpus", ["0.5", "64"])
def test_threads_of_libraries_follow_the_limit_and_never_exceed_the_cores(tmp_path: Path, cpus: str) -> None:
    directory = models.python(
        tmp_path / "m",
        """
        import os
        class Model:
            def load(self, path): print("threads", os.environ["OMP_NUM_THREADS"])
            def predict(self, inputs): return inputs
        """,
    )
    with ready_replica(directory, backend="python", MODELFLEET_CPUS=cpus) as replica:
        threads = int(replica.log.split("threads ")[1].split()[0])

    assert 1 <= threads <= max(1, min(len(os.sched_getaffinity(0)), int(float(cpus))))


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
