"""The gateway against the conformance harness: see README.md beside this file."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from router.contract import Endpoint, ModelRoute, Table, VersionRoute, encode

HARNESS = Path(__file__).parent / "harness" / "conformance.py"
TIMEOUT_S = 4
MAX_BODY = 64 << 20
BODY_LIMIT = 80 << 20
LEAST_SHOULD = 30


@pytest.fixture
def ports(free_port: Callable[[], int]) -> tuple[int, int, int]:
    """The gateway's port, its private port, and that of the back end."""
    return free_port(), free_port(), free_port()


@pytest.fixture
def gateway(tmp_path: Path, ports: tuple[int, int, int]) -> Iterator[None]:
    port, metrics_port, upstream_port = ports
    route = VersionRoute(
        (Endpoint("r", "127.0.0.1", upstream_port),), concurrency=100, request_timeout_ms=TIMEOUT_S * 1000
    )
    table = tmp_path / "table.json"
    table.write_bytes(encode(Table("conformance", 1, "c", {"echo": ModelRoute({"1": route}, {"1": 1})})))
    timeouts = ("--header-timeout-s", "--body-timeout-s", "--idle-timeout-s")
    process = subprocess.Popen([
        sys.executable, "-m", "router", "--table", str(table), "--port", str(port), "--metrics-port", str(metrics_port), "--grpc-port", "off",
        "--log-file", str(tmp_path / "log"), "--body-bytes", str(BODY_LIMIT),
        *(argument for flag in timeouts for argument in (flag, str(TIMEOUT_S))),
    ])  # fmt: skip
    try:
        await_ready(port)
        yield
    finally:
        process.terminate()
        assert process.wait(20) == 0


def await_ready(port: int) -> None:
    ends = time.monotonic() + 20
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < ends, "the gateway is not ready"
            time.sleep(0.05)


def judge(ports: tuple[int, int, int], result: Path) -> list[dict[str, Any]]:
    port, _, upstream_port = ports
    timeouts = ("--head-timeout", "--body-timeout", "--keepalive-timeout", "--upstream-timeout")
    run = subprocess.run(
        [
            sys.executable, str(HARNESS), "127.0.0.1", str(port), "--upstream-port", str(upstream_port),
            "--body-limit", str(BODY_LIMIT), "--max-body", str(MAX_BODY), "--json-out", str(result),
            *(argument for flag in timeouts for argument in (flag, str(TIMEOUT_S))),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.exists(), run.stdout + run.stderr
    cases: list[dict[str, Any]] = json.loads(result.read_text())
    return cases


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("gateway")
class TestGateway:
    def test_passes_every_must_case_and_nearly_every_should_case(
        self, tmp_path: Path, ports: tuple[int, int, int]
    ) -> None:
        """What reaches a replica is never ambiguous: no unit test can show that for 500 ways to try."""
        cases = judge(ports, tmp_path / "result.json")

        failed = [f"{c['cat']}: {c['name']}: {c['detail']}" for c in cases if c["level"] == "MUST" and not passed(c)]
        should = [case for case in cases if case["level"] == "SHOULD"]
        assert not failed, "\n".join(failed)
        assert len(cases) >= 500
        assert sum(map(passed, should)) >= LEAST_SHOULD, [c["name"] for c in should if not passed(c)]


def passed(case: dict[str, Any]) -> bool:
    return case["verdict"] == "PASS"
