"""Models that harm, in the containers that replicas get, asked through the gateway: what callers see, and what is told after.

test_model_server_hurt.py tries what a process of this machine can show; here it is what confinement and the rest of the
cluster make of it. Each model that ends has a name of its own, for one that ends again and again is started ever later.
"""

from __future__ import annotations

import re
import secrets
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.fakes import models
from tests.fakes.villain import SOURCE, ask
from tests.integration.cluster import Cluster, fleet, pick_port, until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

SMALL = {"cpus": 1, "memory": "128Mi", "pids": 48}
# What a request that killed its replica must not do to another one.
ONCE = {"idempotent": False}
ALONE = {"batching": {"max_size": 1}}
TOGETHER = {"batching": {"max_size": 16, "max_delay_ms": 200}}
FLEET: dict[str, dict[str, Any]] = {
    "villain": ALONE,
    "leaky": {**ALONE, **ONCE},
    "quitter": {**TOGETHER, **ONCE},
    "killed": {**TOGETHER, **ONCE},
    "sleeper": {**ALONE, "predict_timeout_s": 2},
    "locked": {**ALONE, **ONCE, "predict_timeout_s": 2},
    "stubborn": {**ALONE, "drain_timeout_s": 5},
    "left": TOGETHER,
    "roomy": {**ALONE, "resources": {**SMALL, "memory": "256Mi"}},
    "half": {"source": "threads", "resources": {**SMALL, "cpus": 0.5}},
    "two": {"source": "threads", "resources": {**SMALL, "cpus": 2}},
}
# How many threads the library below numpy has, as it says itself.
THREADS = """
import ctypes, re
import numpy as np

class Model:
    inputs = [{"name": "act", "datatype": "BYTES", "shape": [-1]}]
    warmup_example = {"act": ["well"]}

    def load(self, path):
        (library,) = set(re.findall(r"/\\S+openblas\\S+", open("/proc/self/maps").read()))
        self.threads = ctypes.CDLL(library).scipy_openblas_get_num_threads64_

    def predict(self, inputs):
        return [self.threads()] * len(inputs["act"])
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, python_image: str) -> Iterator[Cluster]:
    """All of them at once, in one cluster; the worker image is there before."""
    assert python_image
    found = Cluster(tmp_path_factory.mktemp("hurt"), f"test-{secrets.token_hex(4)}", pick_port, "docker")
    models.python(found.root / "villain", SOURCE)
    models.python(found.root / "threads", THREADS)
    found.start()
    try:
        found.apply(manifest())
        yield found
    finally:
        found.close()


def manifest(**changed: dict[str, Any]) -> dict[str, Any]:
    versions = {
        name: {"source": "villain", "resources": SMALL, **FLEET[name], **changed.get(name, {})} for name in FLEET
    }
    return fleet(**{name: {"1": version} for name, version in versions.items()})


def send(cluster: Cluster, model: str, *acts: str, **fields: str) -> httpx.Response:
    url = f"http://127.0.0.1:{cluster.gateway_port}/v2/models/{model}/infer"
    return httpx.post(url, json=ask(*acts), headers=fields, trust_env=False, timeout=90)


def told(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, "" if answer.status_code == 200 else str(answer.json()["code"])


def well(cluster: Cluster, model: str) -> None:
    """The next request is answered: at once, or by the replica that comes in place of one that ended."""
    until(f"{model} answers", lambda: send(cluster, model, "well").status_code == 200, 40)


def failures(cluster: Cluster, model: str) -> list[str]:
    return [each["message"] for each in cluster.events("replica_failed") if each["model"] == model]


def container(cluster: Cluster, model: str) -> str:
    (replica,) = [each["id"] for each in cluster.version(model)["replicas"]]
    return run("ps", "-q", "--filter", f"label=modelfleet.replica={replica}").strip()


def run(*command: str) -> str:
    return subprocess.run(["docker", *command], capture_output=True, text=True, check=True).stdout


class TestConfined:
    """The container holds it back, the model is told so by its own code, and goes on."""

    @pytest.mark.parametrize(
        ("act", "words"),
        [
            ("writes", "Permission denied|Read-only file system"),
            ("fills_tmp", "No space left on device"),
            ("connects", "unreachable|timed out"),
            ("forks", "Resource temporarily unavailable"),
        ],
    )
    def test_what_it_may_not_do_fails_its_own_request_alone(self, shared: Cluster, act: str, words: str) -> None:
        model = "left" if act == "forks" else "villain"  # its children stay, and take the places of later threads
        before = container(shared, model)

        answer = send(shared, model, act)

        assert told(answer) == (500, "MODEL_FAILED")
        assert re.search(words, answer.json()["error"])
        assert send(shared, model, "well").status_code == 200
        assert container(shared, model) == before

    def test_children_that_nobody_waits_for_are_reaped(self, shared: Cluster) -> None:
        assert [send(shared, "villain", "orphans").status_code for _ in range(20)] == [200] * 20

        until("no zombie is left", lambda: send(shared, "villain", "counts_zombies").status_code == 200)

    def test_a_model_that_prints_without_end_fills_no_disk(self, shared: Cluster) -> None:
        identity = container(shared, "villain")
        limits = run("inspect", "--format", "{{json .HostConfig.LogConfig}}", identity)

        assert send(shared, "villain", "prints").status_code == 200
        assert send(shared, "villain", "prints").status_code == 200

        assert '"max-size":"10m"' in limits
        assert '"max-file":"3"' in limits
        # What it printed is 80 MiB; what is kept of it comes back with a time for each line.
        assert len(run("logs", identity)) < 35_000_000
        assert send(shared, "villain", "well").status_code == 200


class TestLimits:
    def test_libraries_take_as_many_threads_as_the_container_has_cores(self, shared: Cluster) -> None:
        """The host has at least two."""
        threads = [send(shared, model, "well").json()["outputs"][0]["data"] for model in ("half", "two")]

        assert threads == [[1], [2]]

    def test_a_request_that_its_memory_would_not_hold_is_refused_and_others_are_answered(self, shared: Cluster) -> None:
        before = container(shared, "roomy")
        words = b'"well",' * 8_500_000
        body = b'{"inputs": [{"name": "act", "datatype": "BYTES", "shape": [8500001], "data": [' + words + b'"well"]}]}'
        url = f"http://127.0.0.1:{shared.gateway_port}/v2/models/roomy/infer"
        with ThreadPoolExecutor(1) as pool:
            huge = pool.submit(httpx.post, url, content=body, trust_env=False, timeout=90)
            others = [send(shared, "roomy", "well").status_code for _ in range(10)]

            assert told(huge.result()) == (413, "TOO_LARGE")
        assert (
            "are left beside the model; send fewer rows in a request, or raise `resources.memory`" in huge.result().text
        )
        assert others == [200] * 10
        assert send(shared, "roomy", "well").status_code == 200
        assert container(shared, "roomy") == before


class TestEnded:
    """The replica ends: whoever was inside is told, another one comes, and events say why."""

    def test_a_model_that_leaks_until_its_memory_is_gone(self, shared: Cluster) -> None:
        answers = [send(shared, "leaky", "leaks")]
        while answers[-1].status_code == 200 and len(answers) < 20:
            answers.append(send(shared, "leaky", "leaks"))

        assert told(answers[-1]) == (502, "REPLICA_FAILED")
        assert "the replica failed" in answers[-1].json()["error"]
        well(shared, "leaky")
        assert failures(shared, "leaky")[0].startswith("out of memory: it needs more than its limit of 128Mi")

    def test_a_model_that_ends_its_process_with_others_in_its_batch(self, shared: Cluster) -> None:
        with ThreadPoolExecutor(4) as pool:
            acts = ["well", "exits_at_once", "well", "well"]
            answers = [told(f.result()) for f in [pool.submit(send, shared, "quitter", act) for act in acts]]

        assert answers[1] == (502, "REPLICA_FAILED")
        assert {answer[0] for answer in answers} <= {200, 502}
        well(shared, "quitter")
        assert failures(shared, "quitter")[0].startswith("ended with exit code 3")

    def test_a_container_that_is_killed_in_mid_batch(self, shared: Cluster) -> None:
        identity = container(shared, "killed")
        with ThreadPoolExecutor(6) as pool:
            inside = [pool.submit(send, shared, "killed", "pause") for _ in range(6)]
            until("the model works on them", lambda: "pausing" in run("logs", identity))

            run("kill", "--signal", "KILL", identity)

            assert {told(future.result()) for future in inside} == {(502, "REPLICA_FAILED")}
        well(shared, "killed")
        assert failures(shared, "killed")[0].startswith("killed by SIGKILL (exit code 137)")

    def test_a_model_that_sleeps_for_ever(self, shared: Cluster) -> None:
        """Whoever waits behind it is told at its own deadline, and its own caller when the time for one call is over."""
        identity = container(shared, "sleeper")
        with ThreadPoolExecutor(3) as pool:
            patient = pool.submit(send, shared, "sleeper", "sleeps")
            until("it sleeps", lambda: "sleeping" in run("logs", identity))
            hurried = pool.submit(send, shared, "sleeper", "well", **{"x-request-timeout-ms": "500"})

            assert told(hurried.result()) == (504, "DEADLINE")
            assert told(patient.result()) == (500, "MODEL_FAILED")
        assert "did not answer within 2 s; predict_timeout_s allows no more" in patient.result().json()["error"]
        well(shared, "sleeper")
        assert "did not answer within 2 s" in failures(shared, "sleeper")[0]
        assert "in sleeps" in failures(shared, "sleeper")[0]

    def test_a_model_that_deadlocks_with_the_interpreters_lock(self, shared: Cluster) -> None:
        """Nothing of its server runs any more but the timer that needs no lock: 5 s after `predict_timeout_s`."""
        answer = send(shared, "locked", "deadlocks")

        assert told(answer) == (502, "REPLICA_FAILED")
        well(shared, "locked")
        assert failures(shared, "locked")[0].startswith("stuck in native code for longer than its time allows")
        assert "in deadlocks" in failures(shared, "locked")[0]


class TestLeaving:
    def test_callers_who_leave_in_mid_batch_strand_nobody(self, shared: Cluster) -> None:
        identity = container(shared, "killed")
        with ThreadPoolExecutor(8) as pool:
            staying = [pool.submit(send, shared, "killed", "pause") for _ in range(4)]
            leaving = [pool.submit(leave, shared, "killed") for _ in range(4)]
            until("the model works on them", lambda: "pausing" in run("logs", identity))

            assert all(isinstance(future.exception(), httpx.TimeoutException) for future in leaving)
            assert [told(future.result()) for future in staying] == [(200, "")] * 4
        well(shared, "killed")


class TestReplacing:
    def test_a_model_that_ignores_sigterm_loses_no_request_when_it_is_replaced(self, shared: Cluster) -> None:
        assert send(shared, "stubborn", "ignores_sigterm").status_code == 200
        began = time.monotonic()
        with ThreadPoolExecutor(1) as pool:
            inside: Future[httpx.Response] = pool.submit(send, shared, "stubborn", "pause")

            shared.apply(manifest(stubborn={"env": {"CHANGED": "1"}}))

            assert told(inside.result()) == (200, "")
        assert time.monotonic() - began < 40
        well(shared, "stubborn")


def leave(cluster: Cluster, model: str) -> httpx.Response:
    url = f"http://127.0.0.1:{cluster.gateway_port}/v2/models/{model}/infer"
    return httpx.post(url, json=ask("pause"), trust_env=False, timeout=0.4)
