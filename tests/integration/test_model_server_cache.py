"""The cache of a model server as its clients notice it, through a real process: what is computed once, and what is not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.fakes import models
from tests.fakes.replica import Replica, ready_replica, until_deadline

COUNTING = """
import pathlib, time
import numpy as np

class Model:
    inputs = [{"name": "x", "datatype": "FP64", "shape": [-1]}]

    def load(self, path):
        self.calls, self.gate = 0, pathlib.Path(path).parent / "go"

    def predict(self, inputs):
        x = inputs["x"]
        if x[0] == 0:
            return x  # the warm-up
        self.calls += 1
        BEFORE
        return x * 0 + self.calls
"""


@contextmanager
def counting(directory: Path, source: str, ttl_s: float = 60) -> Iterator[Replica]:
    """A model that answers how often it was asked, behind a cache of 1 MiB."""
    settings = json.dumps({"cache": {"ttl_s": ttl_s, "max_bytes": 1 << 20}})
    written = models.python(directory / "m", source.replace("BEFORE", "pass"))
    with ready_replica(written, backend="python", MODELFLEET_SETTINGS=settings) as replica:
        yield replica


def x(number: float) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP64", "shape": [1], "data": [number]}


def value(answer: httpx.Response) -> float:
    assert answer.status_code == 200, answer.text
    return float(answer.json()["outputs"][0]["data"][0])


def metrics(replica: Replica) -> str:
    return httpx.get(f"{replica.url}/metrics").text


def number_in(text: str, name: str) -> float:
    return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name + "{"))


def cached(replica: Replica) -> dict[str, int]:
    lines = [line for line in metrics(replica).splitlines() if "cache_requests_total{" in line]
    return {line.split('outcome="')[1].split('"')[0]: int(line.split()[-1]) for line in lines}


class TestCache:
    def test_equal_requests_are_computed_once(self, tmp_path: Path) -> None:
        settings = json.dumps({"cache": {"ttl_s": 60, "max_bytes": 1 << 20}})
        source = """
        class Model:
            inputs = [{"name": "x", "datatype": "FP64", "shape": [-1]}]
            calls = 0
            def load(self, path): ...
            def predict(self, inputs):
                Model.calls += 1
                return inputs["x"] * 0 + Model.calls
        """
        one = {"name": "x", "datatype": "FP64", "shape": [1], "data": [1.0]}
        directory = models.python(tmp_path / "m", source)
        with ready_replica(directory, backend="python", MODELFLEET_SETTINGS=settings) as replica:
            answers = [replica.infer(one, id=str(index)).json() for index in range(3)]
            other = replica.infer({**one, "data": [2.0]}).json()
            text = httpx.get(f"{replica.url}/metrics").text

        assert len({answer["outputs"][0]["data"][0] for answer in answers}) == 1
        assert [answer["id"] for answer in answers] == ["0", "1", "2"]
        assert other["outputs"][0]["data"] != answers[0]["outputs"][0]["data"]
        assert 'cache_requests_total{model="iris",version="1",outcome="hit"} 2' in text

    def test_equal_requests_at_one_time_are_computed_once(self, tmp_path: Path) -> None:
        source = COUNTING.replace("BEFORE", "while not self.gate.exists(): time.sleep(0.01)")
        with counting(tmp_path, source) as replica, ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(replica.infer, x(7.0)) for _ in range(8)]
            for _ in until_deadline():
                if number_in(metrics(replica), "modelfleet_server_inflight") == 8:
                    break
            (tmp_path / "go").touch()

            assert {value(answer.result()) for answer in answers} == {1.0}
            assert cached(replica) == {"hit": 0, "miss": 1, "shared": 7}

    def test_an_answer_is_computed_anew_when_its_time_is_over(self, tmp_path: Path) -> None:
        with counting(tmp_path, COUNTING, ttl_s=0.3) as replica:
            first = value(replica.infer(x(7.0)))
            for _ in until_deadline():
                if value(replica.infer(x(7.0))) != first:
                    break

            assert cached(replica)["miss"] == 2

    def test_answers_take_no_more_memory_than_they_may(self, tmp_path: Path) -> None:
        """Each answer is 80 KB, so that twelve of them fit."""
        wide = COUNTING.replace("return x * 0 + self.calls", "return np.full((len(x), 10_000), float(self.calls))")
        with counting(tmp_path, wide) as replica:
            firsts = [value(replica.infer(x(float(number)))) for number in range(1, 31)]
            again = [value(replica.infer(x(float(number)))) for number in (30, 25, 1)]

            assert again[:2] == [firsts[-1], firsts[24]]
            assert again[2] != firsts[0]
            assert 900_000 < number_in(metrics(replica), "modelfleet_server_cache_bytes") <= 1 << 20

    def test_failures_are_not_kept(self, tmp_path: Path) -> None:
        failing = COUNTING.replace("BEFORE", "if self.calls == 1: raise RuntimeError('cold')")
        with counting(tmp_path, failing) as replica:
            statuses = [replica.infer(x(7.0)).status_code for _ in range(3)]

            assert statuses == [500, 200, 200]
            assert cached(replica) == {"hit": 1, "miss": 2, "shared": 0}

    def test_parameters_tell_requests_apart(self, tmp_path: Path) -> None:
        source = COUNTING.replace("predict(self, inputs)", "predict(self, inputs, parameters)")
        with counting(tmp_path, source) as replica:
            answers = [value(replica.infer(x(7.0), parameters=sent)) for sent in ({"k": 1}, {"k": 2}, {"k": 1}, {})]

            assert answers[0] == answers[2]
            assert len(set(answers)) == 3
