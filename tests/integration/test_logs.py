"""Logs of a real cluster: three replicas that print in turns, merged by time, now and while they are followed."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.integration.cluster import BODY, Cluster, fleet, pick_port, until

pytestmark = pytest.mark.timeout(200)

# Each prints when a file says that it is its turn, so that the order of all lines is known.
LOAD = "self.root = path"
PREDICT = """
import fcntl, pathlib
if inputs["x"][0] == 5:
    with open(pathlib.Path(OUT) / "turns", "a+") as turns:
        fcntl.flock(turns, fcntl.LOCK_EX)
        turns.seek(0)
        number = len(turns.read())
        print("turn", number)
        turns.write("x")
        turns.flush()
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    found = Cluster(tmp_path_factory.mktemp("logs"), f"test-{secrets.token_hex(4)}", pick_port)
    try:
        found.start()
        found.write_model("m", predict=PREDICT.replace("OUT", repr(str(found.root))))
        scaling = {"min": 3, "max": 3}
        access = {"gateway": {"access_log": True}}
        found.apply({**fleet(m={"versions": {"1": {"source": "m"}}, "scaling": scaling, "balance": "least"}), **access})
        yield found
    finally:
        found.close()


def turns(shared: Cluster, count: int) -> None:
    body = json.loads(json.dumps(BODY))
    body["inputs"][0]["data"] = [5.0]
    url = f"http://127.0.0.1:{shared.gateway_port}/v2/models/m/infer"
    for _ in range(count):
        assert httpx.post(url, json=body, trust_env=False, timeout=30).status_code == 200


def numbers(lines: list[dict[str, Any]]) -> list[int]:
    return [int(line["text"].split()[1]) for line in lines if line["text"].startswith("turn ")]


def read(shared: Cluster, path: str, **parameters: Any) -> list[dict[str, Any]]:
    answer = shared.api("GET", path, params=parameters)
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


class TestLogs:
    def test_of_three_replicas_are_merged_by_time(self, shared: Cluster) -> None:
        turns(shared, 30)

        lines = until("all are there", lambda: _with(read(shared, "/models/m/logs"), 30))

        assert numbers(lines) == sorted(numbers(lines))
        assert len({line["replica"] for line in lines}) == 3
        loaded = [line for line in lines if line["event"] == "model loaded"]
        assert len(loaded) == 3
        assert loaded[0]["level"] == "info"
        assert "seconds" in loaded[0]["fields"]

    def test_are_followed_by_time_too(self, shared: Cluster) -> None:
        token = (shared.state_dir / "token").read_text().strip()
        url, parameters = f"{shared.url}/api/v1/models/m/logs", {"follow": "true", "tail": "0", "gateway": "true"}
        got: list[dict[str, Any]] = []
        client = httpx.Client(trust_env=False, timeout=30, headers={"authorization": f"Bearer {token}"})
        with client, client.stream("GET", url, params=parameters) as stream:
            asking = threading.Thread(target=lambda: until("lines came", lambda: got or turns(shared, 3), 40))
            asking.start()
            for line in stream.iter_lines():
                got.append(json.loads(line))
                if len(numbers(got)) >= 3 and any(each["event"].startswith("POST ") for each in got):
                    break
            asking.join(30)

        assert numbers(got) == sorted(numbers(got))
        times = [line["at"] for line in got]
        assert times == sorted(times)

    def test_of_a_replica_that_comes_later_are_followed_from_its_beginning(self, shared: Cluster) -> None:
        token = (shared.state_dir / "token").read_text().strip()
        url, parameters = f"{shared.url}/api/v1/models/m/logs", {"follow": "true", "tail": "0"}
        before = {replica["id"] for replica in shared.version("m")["replicas"]}
        client = httpx.Client(trust_env=False, timeout=60, headers={"authorization": f"Bearer {token}"})
        with client, client.stream("GET", url, params=parameters) as stream:
            shared.server(min(before)).kill()
            for line in stream.iter_lines():
                entry = json.loads(line)
                if entry["replica"] not in before and entry["event"] == "model loaded":
                    break

        assert entry["replica"] not in before

    def test_of_gateway_and_control_plane_are_read_beside_them(self, shared: Cluster) -> None:
        turns(shared, 1)

        def both() -> list[dict[str, Any]]:
            return [
                line for line in read(shared, "/logs", gateway=True, tail=1000) if line["event"].startswith("POST ")
            ]

        access = until("the access log is written", both)
        lines = read(shared, "/models/m/logs", gateway=True, control_plane=True, tail=1000)
        assert access[-1]["event"] == "POST /v2/models/m/infer 200"
        assert access[-1]["fields"].keys() >= {"request_id", "trace_id", "model", "version", "replica"}
        assert {line["source"] for line in lines} >= {"replica", "gateway"}
        assert [line["at"] for line in lines] == sorted(line["at"] for line in lines)
        assert shared.api("GET", "/logs").status_code == 422


def _with(lines: list[dict[str, Any]], least: int) -> list[dict[str, Any]] | None:
    return lines if len(numbers(lines)) >= least else None
