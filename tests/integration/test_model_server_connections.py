"""What a connection of the model server does with requests that come in any pieces and any order.

Small predictions take a shorter way than everything else: a client must never notice which.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.fakes import models
from tests.fakes.replica import Replica, ready_replica, until_deadline

BODY = json.dumps(
    {"inputs": [{"name": "x", "datatype": "FP64", "shape": [1, 4], "data": [5.1, 3.5, 1.4, 0.2]}]}
).encode()
PAGE = b"GET /v2/health/live HTTP/1.1\r\nhost: replica\r\n\r\n"
SLOW = """
import threading, time

class Model:
    inputs = [{"name": "x", "datatype": "FP64", "shape": [-1]}]

    def load(self, path):
        pass

    def predict(self, inputs):
        time.sleep(float(inputs["x"].max()))
        return inputs["x"]
"""


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    directory = models.iris(tmp_path_factory.mktemp("models") / "iris", named_classes=True)
    with ready_replica(directory) as running:
        yield running


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Replica]:
    directory = tmp_path / "slow"
    directory.mkdir()
    (directory / "model.py").write_text(SLOW)
    with ready_replica(directory, backend="python", model="slow") as running:
        yield running


def infer(*fields: bytes, body: bytes = BODY, target: bytes = b"/v2/models/iris/infer", minor: int = 1) -> bytes:
    head = [b"POST %b HTTP/1.%d" % (target, minor), b"host: replica", *fields, b"content-length: %d" % len(body)]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def connect(replica: Replica) -> socket.socket:
    return socket.create_connection(("127.0.0.1", replica.port), timeout=40)


class Answers:
    """Reads answers off a connection, one after the other."""

    def __init__(self, connection: socket.socket) -> None:
        self._file = connection.makefile("rb")

    def read(self) -> tuple[int, dict[str, str], bytes]:
        status = int(self._file.readline().split()[1])
        fields = {}
        while line := self._file.readline().strip().decode():
            name, _, value = line.partition(": ")
            fields[name] = value
        return status, fields, self._file.read(int(fields["content-length"]))

    def is_at_end(self) -> bool:
        return self._file.read(1) == b""


class TestPieces:
    def test_a_request_byte_by_byte_is_answered_as_one_that_comes_whole(self, replica: Replica) -> None:
        with connect(replica) as connection:
            answers = Answers(connection)
            connection.sendall(infer())
            whole = answers.read()
            for byte in infer():
                connection.sendall(bytes([byte]))
            assert answers.read() == whole

        assert whole[0] == 200

    @pytest.mark.parametrize(
        "request_bytes",
        [
            infer(target=b"/v2/models/iris/infer?x=1"),
            infer(target=b"/v2/models/iri%73/infer"),
            infer(b"expect: 100-continue"),
            infer(b"connection: close"),
            infer(minor=0),
            infer()[: -len(BODY)].replace(b"content-length: %d" % len(BODY), b"transfer-encoding: chunked")
            + b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY),
        ],
        ids=["query", "escaped", "expect", "close", "http-1.0", "chunked"],
    )
    def test_every_way_gives_the_same_answer(self, replica: Replica, request_bytes: bytes) -> None:
        with connect(replica) as connection:
            connection.sendall(infer())
            usual = Answers(connection).read()
        with connect(replica) as connection:
            connection.sendall(request_bytes)
            answers = Answers(connection)
            if b"expect" in request_bytes:
                assert connection.recv(25, socket.MSG_WAITALL) == b"HTTP/1.1 100 Continue\r\n\r\n"
            status, fields, body = answers.read()

        assert (status, body) == (usual[0], usual[2])
        assert fields["content-type"] == "application/json"

    @pytest.mark.parametrize("fields", [(b"connection: close",), ()], ids=["close", "http-1.0"])
    def test_a_client_that_wants_one_answer_sees_the_end(self, replica: Replica, fields: tuple[bytes, ...]) -> None:
        with connect(replica) as connection:
            connection.sendall(infer(*fields, minor=1 if fields else 0))
            answers = Answers(connection)

            assert answers.read()[0] == 200
            assert answers.is_at_end()


class TestPipelining:
    def test_answers_come_in_the_order_of_the_requests(self, slow: Replica) -> None:
        def ask(value: float) -> bytes:
            tensor = {"name": "x", "datatype": "FP64", "shape": [1], "data": [value]}
            return infer(body=json.dumps({"inputs": [tensor]}).encode(), target=b"/v2/models/slow/infer")

        with connect(slow) as connection:
            connection.sendall(ask(0.2) + PAGE + ask(0.1) + ask(0.0) + PAGE)
            answers = Answers(connection)
            bodies = [json.loads(answers.read()[2]) for _ in range(5)]

        values = [body["outputs"][0]["data"][0] if "outputs" in body else "live" for body in bodies]
        assert values == [0.2, "live", 0.1, 0.0, "live"]

    def test_a_wrong_request_between_right_ones_fails_alone(self, replica: Replica) -> None:
        with connect(replica) as connection:
            connection.sendall(infer() + infer(body=b"{}") + infer())
            answers = Answers(connection)

            assert [answers.read()[0] for _ in range(3)] == [200, 400, 200]


class TestLeaving:
    def test_a_caller_that_left_is_counted_and_strands_nobody(self, slow: Replica) -> None:
        tensor = {"name": "x", "datatype": "FP64", "shape": [1], "data": [0.3]}
        with connect(slow) as connection:
            connection.sendall(infer(body=json.dumps({"inputs": [tensor]}).encode(), target=b"/v2/models/slow/infer"))
            for _ in until_deadline():
                if "modelfleet_server_inflight{" in (page := httpx.get(f"{slow.url}/metrics").text) and (
                    'version="1"} 1' in page.split("modelfleet_server_inflight{", 1)[1].splitlines()[0]
                ):
                    break

        assert slow.infer({**tensor, "data": [0.0]}).status_code == 200
        page = httpx.get(f"{slow.url}/metrics").text
        assert 'modelfleet_server_responses_total{model="slow",version="1",code="499"} 1' in page
        assert 'modelfleet_server_inflight{model="slow",version="1"} 0' in page

    def test_an_error_names_the_request(self, replica: Replica) -> None:
        with connect(replica) as connection:
            connection.sendall(infer(b"x-request-id: abc", body=b"{"))
            status, _, body = Answers(connection).read()

        assert (status, json.loads(body)["request_id"]) == (400, "abc")
