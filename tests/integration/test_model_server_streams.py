"""Streams of a model's answers, read as clients read them: a real model server, server-sent events event by event."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes import models
from tests.fakes.replica import Replica, ready_replica, until_deadline

COUNTER = """
import pathlib, time

class Model:
    inputs = [{"name": "x", "datatype": "FP64", "shape": [-1]}]
    MORE
    def load(self, path):
        self.go = pathlib.Path(path).parent / "go"

    def predict(self, inputs):
        return inputs["x"] * 2

    def predict_stream(self, inputs, parameters):
        step = parameters.get("step", 1)
        try:
            for number in range(int(inputs["x"][0])):
                print("making", number)
                if parameters.get("waits_at") == number:
                    while not self.go.exists():
                        time.sleep(0.005)
                if parameters.get("fails_at") == number:
                    raise RuntimeError("no more")
                if parameters.get("refuses_at") == number:
                    raise ValueError("too many")
                yield {"n": [number * step], "pad": ["x" * parameters.get("pad", 0)]}
        finally:
            print("closed")
"""
ASYNC = (
    COUNTER.replace("import pathlib, time", "import asyncio, pathlib")
    .replace("time.sleep(0.005)", "await asyncio.sleep(0.005)")
    .replace("def predict_stream", "async def predict_stream")
)


def counter(directory: Path, source: str = COUNTER, more: str = "") -> Path:
    return models.python(directory, source.replace("MORE", more))


def body(count: int, **parameters: Any) -> dict[str, Any]:
    tensor = {"name": "x", "datatype": "FP64", "shape": [1], "data": [count]}
    return {"inputs": [tensor], "id": "7", "parameters": parameters}


@contextmanager
def streaming(replica: Replica, count: int, headers: dict[str, str] | None = None, **parameters: Any) -> Iterator[Any]:
    """The answer and its events, (name, data), as they come."""
    url = f"{replica.url}/v2/models/iris/infer_stream"
    with httpx.stream("POST", url, json=body(count, **parameters), headers=headers, timeout=30) as answer:
        yield answer, events_of(answer.iter_lines())


def events_of(lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
    name = ""
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))
            name = ""


def number_of(event: tuple[str, Any]) -> Any:
    name, answer = event
    assert name == ""
    return next(output["data"][0] for output in answer["outputs"] if output["name"] == "n")


@pytest.fixture(scope="module", params=[COUNTER, ASYNC], ids=["sync", "async"])
def replica(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    directory = counter(tmp_path_factory.mktemp("models") / "counter", request.param)
    with ready_replica(directory, backend="python") as running:
        yield running


class TestAStream:
    def test_gives_an_event_for_each_answer_and_one_for_the_end(self, replica: Replica) -> None:
        with streaming(replica, 3, step=10) as (answer, events):
            got = list(events)

        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert [number_of(event) for event in got[:-1]] == [0, 10, 20]
        assert got[-1] == ("end", {})
        assert got[0][1]["model_name"] == "iris"
        assert got[0][1]["id"] == "7"

    def test_sends_each_answer_before_the_next_is_made(self, tmp_path: Path) -> None:
        with (
            ready_replica(counter(tmp_path / "counter"), backend="python") as replica,
            streaming(replica, 3, waits_at=1) as (_, events),
        ):
            assert number_of(next(events)) == 0
            (tmp_path / "go").touch()
            assert [number_of(event) for event in list(events)[:-1]] == [1, 2]

    def test_of_no_answer_ends_at_once(self, replica: Replica) -> None:
        with streaming(replica, 0) as (_, events):
            assert list(events) == [("end", {})]

    def test_that_fails_before_its_first_answer_is_an_ordinary_error(self, replica: Replica) -> None:
        with streaming(replica, 3, fails_at=0) as (failed, _):
            failed.read()
        with streaming(replica, 3, refuses_at=0) as (refused, _):
            refused.read()

        assert (failed.status_code, failed.json()["code"]) == (500, "MODEL_FAILED")
        assert "no more (model.py:" in failed.json()["error"]
        assert (refused.status_code, refused.json()["code"]) == (400, "BAD_REQUEST")

    def test_that_fails_in_the_middle_says_so_in_its_last_event(self, replica: Replica) -> None:
        with streaming(replica, 3, fails_at=1, headers={"x-request-id": "r-1"}) as (answer, events):
            got = list(events)

        assert answer.status_code == 200
        assert [name for name, _ in got] == ["", "error"]
        assert got[1][1]["code"] == "MODEL_FAILED"
        assert got[1][1]["request_id"] == "r-1"

    def test_refuses_what_a_prediction_would_refuse(self, replica: Replica) -> None:
        wrong = body(1) | {"inputs": [{"name": "x", "datatype": "INT64", "shape": [1], "data": [1]}]}

        answer = httpx.post(f"{replica.url}/v2/models/iris/infer_stream", json=wrong)

        assert answer.status_code == 400
        assert "the model wants FP64" in answer.json()["error"]
        other = httpx.get(f"{replica.url}/v2/models/iris/infer_stream")
        assert (other.status_code, other.headers["allow"]) == (405, "POST")

    def test_runs_beside_others_and_beside_predictions(self, tmp_path: Path) -> None:
        with ready_replica(counter(tmp_path / "counter"), backend="python") as replica:
            with streaming(replica, 3, waits_at=1) as (_, one), streaming(replica, 3, waits_at=1) as (_, two):
                assert number_of(next(one)) == number_of(next(two)) == 0

                tensor = {"name": "x", "datatype": "FP64", "shape": [1], "data": [4.0]}
                assert replica.infer(tensor).json()["outputs"][0]["data"] == [8.0]
                with streaming(replica, 2) as (_, three):
                    assert [number_of(event) for event in list(three)[:-1]] == [0, 1]
                assert "modelfleet_server_streams{" in (page := httpx.get(f"{replica.url}/metrics").text)
                assert 'modelfleet_server_streams{model="iris",version="1"} 2' in page

                (tmp_path / "go").touch()
                assert len(list(one)) == len(list(two)) == 3
            assert 'stream_answers_total{model="iris",version="1"} 8' in httpx.get(f"{replica.url}/metrics").text


class TestClosing:
    def test_a_client_that_leaves_closes_the_generator(self, replica: Replica) -> None:
        closed = replica.log.count("closed")
        with streaming(replica, 10**9, pad=1000) as (_, events):
            next(events)

        for _ in until_deadline():
            if replica.log.count("closed") > closed:
                break
        assert replica.log.count("closed") == closed + 1
        for _ in until_deadline():
            if 'responses_total{model="iris",version="1",code="499"}' in httpx.get(f"{replica.url}/metrics").text:
                return
        raise AssertionError("it was never counted")

    def test_a_client_that_leaves_interrupts_an_async_generator_that_waits(self, tmp_path: Path) -> None:
        with ready_replica(counter(tmp_path / "counter", ASYNC), backend="python") as replica:
            with streaming(replica, 2, waits_at=1) as (_, events):
                next(events)
                replica.wait_for_line("making 1")

            replica.wait_for_line("closed")

    def test_a_slow_reader_pauses_the_generator(self, tmp_path: Path) -> None:
        """Nothing piles up in the server: once buffers are full, no answer is made."""
        with ready_replica(counter(tmp_path / "counter"), backend="python") as replica:
            content = json.dumps(body(10**6, pad=100_000)).encode()
            with socket.create_connection(("127.0.0.1", replica.port)) as client:
                head = (
                    f"POST /v2/models/iris/infer_stream HTTP/1.1\r\nhost: x\r\ncontent-length: {len(content)}\r\n\r\n"
                )
                client.sendall(head.encode() + content)
                made = -1
                for _ in until_deadline(0.5):
                    if made == (made := replica.log.count("making")) and made > 0:
                        break
                assert 0 < made < 500, "answers were made that nobody reads"
                while replica.log.count("making") == made:
                    assert client.recv(1 << 20)
            replica.wait_for_line("closed")

    @pytest.mark.parametrize("source", [COUNTER, ASYNC], ids=["sync", "async"])
    def test_the_deadline_ends_it_with_a_sentence(self, tmp_path: Path, source: str) -> None:
        with ready_replica(counter(tmp_path / "counter", source), backend="python") as replica:
            with streaming(replica, 10, waits_at=2, headers={"x-request-timeout-ms": "600"}) as (_, events):
                got = list(events)
            (tmp_path / "go").touch()
            replica.wait_for_line("closed")

        assert [name for name, _ in got] == ["", "", "error"]
        assert got[-1][1]["code"] == "DEADLINE"

    def test_one_that_hangs_between_two_answers_is_ended_by_the_watchdog(self, tmp_path: Path) -> None:
        settings = json.dumps({"predict_timeout_s": 0.5})
        with ready_replica(counter(tmp_path / "counter"), backend="python", MODELFLEET_SETTINGS=settings) as replica:
            with streaming(replica, 3, waits_at=1) as (_, events):
                got = list(events)

            assert [name for name, _ in got] == ["", "error"]
            assert "did not answer within 0.5 s" in got[-1][1]["error"]
            assert replica.exit_code() == 72


class TestLimits:
    def test_more_than_max_streams_wait_for_their_turn(self, tmp_path: Path) -> None:
        directory = counter(tmp_path / "counter", more="max_streams = 1")
        with ready_replica(directory, backend="python") as replica, ThreadPoolExecutor(1) as other:

            def second() -> list[Any]:
                with streaming(replica, 2) as (_, events):
                    return list(events)

            with streaming(replica, 2, waits_at=1) as (_, events):
                next(events)
                waiting = other.submit(second)
                with streaming(replica, 2, headers={"x-request-timeout-ms": "200"}) as (late, _):
                    late.read()
                assert (late.status_code, late.json()["code"]) == (504, "DEADLINE")
                assert not waiting.done()
                (tmp_path / "go").touch()
                assert len(list(events)) == 2
            assert len(waiting.result(30)) == 3

    def test_several_processes_are_refused_when_it_is_loaded(self, tmp_path: Path) -> None:
        settings = json.dumps({"instances": 2})
        with Replica(counter(tmp_path / "counter"), backend="python", MODELFLEET_SETTINGS=settings) as replica:
            assert replica.exit_code() == 64
            last = json.loads(replica.log.splitlines()[-1])

        assert last["reason"].startswith("instances: 2; the model has predict_stream()")

    def test_a_model_without_one_says_what_to_ask(self, tmp_path: Path) -> None:
        with ready_replica(models.iris(tmp_path / "iris")) as replica:
            answer = httpx.post(f"{replica.url}/v2/models/iris/infer_stream", json=body(1))

        assert answer.status_code == 400
        assert "has no predict_stream(); ask with /v2/models/iris/infer" in answer.json()["error"]


class TestDraining:
    def test_a_stream_is_finished_before_the_process_ends(self, tmp_path: Path) -> None:
        with ready_replica(counter(tmp_path / "counter"), backend="python") as replica:
            with streaming(replica, 3, waits_at=1) as (_, events):
                next(events)
                replica.terminate()
                replica.wait_until_closed()
                (tmp_path / "go").touch()

                assert list(events)[-1] == ("end", {})
            assert replica.exit_code() == 0

    def test_one_that_begins_meanwhile_is_the_last_on_its_connection(self, tmp_path: Path) -> None:
        with (
            ready_replica(counter(tmp_path / "counter"), backend="python") as replica,
            httpx.Client(base_url=replica.url, timeout=30) as kept,
        ):
            assert kept.get("/v2/health/live").status_code == 200
            with streaming(replica, 3, waits_at=1) as (_, events):
                next(events)
                replica.terminate()
                replica.wait_until_closed()

                late = kept.post("/v2/models/iris/infer_stream", json=body(1))
                (tmp_path / "go").touch()
                list(events)

            assert (late.status_code, late.headers["connection"]) == (200, "close")
            assert replica.exit_code() == 0

    def test_one_that_is_still_open_then_is_told_and_closed(self, tmp_path: Path) -> None:
        settings = json.dumps({"drain_timeout_s": 0.3})
        directory = counter(tmp_path / "counter", ASYNC)
        with ready_replica(directory, backend="python", MODELFLEET_SETTINGS=settings) as replica:
            with streaming(replica, 3, waits_at=1) as (_, events):
                next(events)
                replica.terminate()
                got = list(events)

            assert (got[-1][0], got[-1][1]["code"]) == ("error", "NOT_READY")
            assert replica.exit_code() == 0
            assert "closed" in replica.log


CHAT = """
class Model:
    inputs = [
        {"name": "prompt", "datatype": "BYTES", "shape": [-1]},
        {"name": "count", "datatype": "INT64", "shape": [-1]},
    ]
    warmup_example = {"prompt": ["a b"], "count": [1]}

    def load(self, path): ...

    def predict(self, inputs, parameters):
        words = inputs["prompt"][0].split()[: inputs["count"][0]]
        return {"text": [parameters.get("joiner", " ").join(words)], "words": [len(words)]}

    def predict_stream(self, inputs):
        for word in inputs["prompt"][0].split()[: inputs["count"][0]]:
            if word == "STOP":
                raise RuntimeError("stopped")
            yield word
"""


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    directory = models.python(tmp_path_factory.mktemp("models") / "chat", CHAT)
    with ready_replica(directory, backend="python", model="chat") as running:
        yield running


class TestGenerate:
    """Triton's generate extension."""

    def test_answers_text_with_text(self, chat: Replica) -> None:
        asked = {"text_input": "one two three", "count": 2, "parameters": {"joiner": "-"}}

        answer = httpx.post(f"{chat.url}/v2/models/chat/generate", json=asked)

        assert answer.json() == {"model_name": "chat", "model_version": "1", "text_output": "one-two", "words": 2}

    def test_streams_an_event_for_each_piece(self, chat: Replica) -> None:
        asked = {"text_input": "one two STOP", "count": 3}

        with httpx.stream("POST", f"{chat.url}/v2/models/chat/generate_stream", json=asked) as answer:
            got = list(events_of(answer.iter_lines()))

        assert [data["text_output"] for _, data in got[:2]] == ["one", "two"]
        assert "stopped" in got[2][1]["error"]
        assert {name for name, _ in got} == {""}

    @pytest.mark.parametrize(
        ("asked", "words"),
        [
            ({"text": "a"}, "no text under 'text_input'"),
            ({"text_input": "a", "count": "many"}, "count"),
            ({"text_input": "a"}, "input 'count': missing"),
            ({"text_input": "a", "parameters": [1]}, "parameters: [1]"),
        ],
    )
    def test_says_what_is_wrong(self, chat: Replica, asked: dict[str, Any], words: str) -> None:
        answer = httpx.post(f"{chat.url}/v2/models/chat/generate", json=asked)

        assert answer.status_code == 400
        assert words in answer.json()["error"]


class TestManyAtOnce:
    def test_get_their_own_answers(self, replica: Replica) -> None:
        def ask(step: int) -> list[Any]:
            with streaming(replica, 20, step=step) as (_, events):
                return [number_of(event) for event in list(events)[:-1]]

        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(ask, range(1, 49)))

        assert answers == [[step * number for number in range(20)] for step in range(1, 49)]
        for _ in until_deadline():
            if 'modelfleet_server_streams{model="iris",version="1"} 0' in httpx.get(f"{replica.url}/metrics").text:
                return
        raise AssertionError("a stream was left open")
