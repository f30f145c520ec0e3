"""The console's live numbers, of a real cluster under real load, read as a browser reads them."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from orchestrator.api import schemas, schemas_console
from tests.integration.cluster import Cluster, fleet, until

SCHEMAS: dict[str, type[BaseModel]] = {
    "fleet": schemas_console.FleetUpdate, "model": schemas_console.ModelUpdate, "journal": schemas.Event,
}  # fmt: skip


@dataclass
class Console:
    """What a browser's EventSource makes of a stream: events with their parsed data."""

    answer: httpx.Response
    lines: Iterator[str]
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)

    def next(self) -> tuple[str, Any]:
        name, data = "", ""
        for line in self.lines:
            if not line:
                if data:
                    break
                name = ""
            elif line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                data = line.removeprefix("data: ")
        else:
            raise EOFError("the stream ended")
        return name, self._checked(name, json.loads(data))

    def until(self, name: str, is_it: Any, within_s: float = 20.0) -> Any:
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            found, body = self.next()
            if found == name and is_it(body):
                return body
        raise AssertionError(f"no such {name} event within {within_s} s")

    def _checked(self, name: str, body: Any) -> Any:
        SCHEMAS[name].model_validate(body)
        if name == "fleet":
            if body["whole"]:
                self.rows.clear()
            self.rows.update((row["name"], row) for row in body["models"])
            for gone in body["gone"]:
                del self.rows[gone]
        return body


@contextmanager
def watching(cluster: Cluster, model: str = "") -> Iterator[Console]:
    token = (cluster.state_dir / "token").read_text().strip()
    headers = {"authorization": f"Bearer {token}"}
    with (
        httpx.Client(trust_env=False, timeout=20, headers=headers) as client,
        client.stream("GET", f"{cluster.url}/api/v1/stream", params={"model": model} if model else {}) as answer,
    ):
        assert answer.status_code == 200
        yield Console(answer, answer.iter_lines())


@pytest.fixture
def running(tmp_path: Any, cluster: str, free_port: Any) -> Iterator[Cluster]:
    found = Cluster(tmp_path, cluster, free_port).start()
    try:
        yield found
    finally:
        found.close()


class TestStream:
    def test_shows_a_fleet_under_load_and_what_happens_to_it(self, running: Cluster) -> None:
        slow = running.write_model("slow", 2.0, predict="time.sleep(0.03)")
        with watching(running) as console:
            name, first = console.next()
            assert (name, first["whole"], first["models"], first["state"]) == ("fleet", True, [], "empty")
            assert first["totals"]["rate_per_s"] is None
            assert console.answer.headers["content-type"].startswith("text/event-stream")

            running.apply(
                fleet(slow={"versions": {"1": {"source": slow}}, "slo": {"latency_ms": 250, "percentile": 99}})
            )
            console.until("journal", lambda e: e["kind"] == "replica_ready" and e["model"] == "slow")
            console.until("fleet", lambda _: console.rows["slow"]["state"] == "ready")
            assert (console.rows["slow"]["slo_ms"], console.rows["slow"]["slo_percentile"]) == (250, 99)

            with running.load("slow", connections=4):
                console.until("fleet", lambda _: (console.rows["slow"]["rate_per_s"] or 0) > 20)
                row = console.until("fleet", lambda u: u["totals"]["in_flight"]) and console.rows["slow"]
            assert 25 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"] < 1000
            assert row["error_ratio"] == 0

            assert running.api("DELETE", "/models/slow").status_code == 202
            console.until("fleet", lambda _: not console.rows)

    def test_shows_one_model_with_its_replicas_and_where_time_goes(self, running: Cluster) -> None:
        slow = running.write_model("slow", 2.0, predict="time.sleep(0.05)")
        running.apply(fleet(slow={"versions": {"1": {"source": slow}}, "concurrency": 1}))
        with watching(running, "slow") as console, running.load("slow", connections=4):
            found = console.until("model", lambda m: m["versions"][0]["queue_p95_ms"])
            busy = console.until("model", lambda m: m["versions"][0]["replicas"][0]["in_flight"] == 1)

        version = found["versions"][0]
        assert (version["version"], version["weight"], version["ready"], version["desired"]) == ("1", 100, 1, 1)
        # Four who ask one after the other for a replica that takes one at a time: three wait.
        assert version["model_p95_ms"] > 40
        assert version["queue_p95_ms"] > version["model_p95_ms"]
        replica = busy["versions"][0]["replicas"][0]
        assert (replica["state"], replica["current"]) == ("ready", True)
        assert 0 < replica["since"] <= time.time()

    def test_a_model_that_is_not_there_is_said_not_to_exist(self, running: Cluster) -> None:
        with watching(running, "nobody") as console:
            found = console.until("model", lambda _: True)

        assert (found["exists"], found["versions"]) == (False, [])

    def test_two_who_watch_see_the_same_though_one_came_later(self, running: Cluster) -> None:
        running.write_model("quick")
        with watching(running) as early:
            early.next()
            running.apply(fleet(quick="quick"))
            early.until("fleet", lambda _: early.rows.get("quick", {}).get("state") == "ready")
            with watching(running) as late:
                assert late.next()[1]["whole"]
                # The next change is shown to both.
                running.predict("quick")
                early.until("fleet", lambda _: early.rows["quick"]["p50_ms"])
                late.until("fleet", lambda _: late.rows["quick"]["p50_ms"])
                assert late.rows.keys() == early.rows.keys()


class TestItsEnd:
    def test_ends_at_once_when_the_control_plane_does(self, running: Cluster) -> None:
        assert running.process is not None
        with watching(running) as console:
            console.next()
            os.kill(running.process.pid, signal.SIGTERM)
            began = time.monotonic()
            with pytest.raises(EOFError):
                console.until("fleet", lambda _: False)
            assert running.process.wait(20) == 0
            assert time.monotonic() - began < 10

    def test_one_too_many_is_told_so_and_a_place_is_free_when_one_leaves(self, running: Cluster) -> None:
        with _Many(running, 32) as many:
            refused = running.api("GET", "/stream")
            assert refused.status_code == 503
            assert "32" in refused.json()["error"]

            many.close_one()

            def joins() -> bool:
                try:
                    with watching(running) as console:
                        return bool(console.next())
                except AssertionError:
                    return False

            until("a place is free", joins)


class _Many:
    """Streams that are open and read by nobody for the moment."""

    def __init__(self, cluster: Cluster, count: int) -> None:
        self._cluster = cluster
        self._count = count
        self._open: list[socket.socket] = []

    def __enter__(self) -> _Many:
        for _ in range(self._count):
            self._open.append(_asked(self._cluster))
        for each in self._open:
            assert b"200 OK" in each.recv(4096)
        return self

    def __exit__(self, *exc: object) -> None:
        for each in self._open:
            each.close()

    def close_one(self) -> None:
        self._open.pop().close()


def _asked(cluster: Cluster) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", cluster.api_port), timeout=20)
    token = (cluster.state_dir / "token").read_text().strip()
    head = f"GET /api/v1/stream HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {token}\r\n\r\n"
    made.sendall(head.encode())
    return made
