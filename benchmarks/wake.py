"""What the first request of a sleeping model waits: `make bench-wake`.

A model with `min: 0` on a real engine falls asleep and is asked, again and again: from standby (one replica kept loaded
and paused), from nothing, and by a burst of 500 requests at once. What counts is the time that a request takes beyond
one for the same model awake, each on a connection of its own. Ends with 1 when a hundredth of those from standby waited
longer than the promised 100 ms, or a request of a burst failed.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from benchmarks.fleet import Cluster

MODEL = """
class Model:
    inputs = [{"name": "x", "datatype": "FP64", "shape": [-1]}]
    outputs = [{"name": "y", "datatype": "FP64", "shape": [-1]}]

    def load(self, path):
        pass

    def predict(self, inputs):
        return inputs["x"]
"""
BODY = {"inputs": [{"name": "x", "datatype": "FP64", "shape": [1], "data": [1.0]}]}
PATH = "/v2/models/m/infer"
PROMISED_MS = 100.0
AWAKE_REQUESTS = 100
# The engine goes on for a moment with the removal of what it says it has stopped.
SETTLE_S = 0.5
BURST = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", action="append", choices=("docker", "process"), help="default: both")
    parser.add_argument("--wakes", type=int, default=100, help="from standby")
    parser.add_argument("--starts", type=int, default=5, help="from nothing")
    parser.add_argument("--bursts", type=int, default=3)
    options = parser.parse_args()
    kept = [measure(engine, options) for engine in options.engine or ("process", "docker")]
    raise SystemExit(0 if all(kept) else 1)


def measure(engine: str, options: argparse.Namespace) -> bool:
    """Whether the promises were kept on this engine."""
    with tempfile.TemporaryDirectory(prefix="mf-wake-") as name:
        directory = Path(name)
        (directory / "m").mkdir()
        (directory / "m/model.py").write_text(MODEL)
        cluster = Cluster(directory, engine)
        try:
            return _measure(cluster, directory, engine, options)
        finally:
            cluster.close()


def _measure(cluster: Cluster, directory: Path, engine: str, options: argparse.Namespace) -> bool:
    cluster.apply(manifest(standby=1, most=1), directory)
    awake = [ask(cluster) for _ in range(AWAKE_REQUESTS)]
    base_ms = statistics.median(awake)
    print(f"{engine}: awake {base_ms:.1f} ms (p99 {percentile(awake, 99):.1f} ms)", flush=True)
    standby = [woken(cluster, standby=1) - base_ms for _ in range(options.wakes)]
    tell(engine, "from standby", standby)
    cluster.apply(manifest(standby=0, most=1), directory)
    tell(engine, "from nothing", [woken(cluster, standby=0) - base_ms for _ in range(options.starts)])
    cluster.apply(manifest(standby=2, most=4), directory)
    failed = sum(burst(cluster, engine) for _ in range(options.bursts))
    return not failed and percentile(standby, 99) <= PROMISED_MS


def manifest(standby: int, most: int) -> str:
    scaling = {"min": 0, "max": most, "standby": standby, "idle_after": "1s"}
    section = {
        "versions": {"1": {"source": "m"}},
        "scaling": scaling,
        "queue": {"timeout_ms": 30_000},
        "concurrency": 1,
    }
    return json.dumps({"defaults": {"backend": "python"}, "models": {"m": section}})


def woken(cluster: Cluster, standby: int) -> float:
    """Milliseconds of the first request after it fell asleep."""
    fall_asleep(cluster, standby)
    return ask(cluster)


def fall_asleep(cluster: Cluster, standby: int) -> None:
    """Returns when nothing moves any more: a replica that starts would take part in what is measured."""

    def is_asleep() -> bool:
        (version,) = cluster.api.get("/api/v1/models/m").json()["model"]["versions"]
        states = [replica["state"] for replica in version["replicas"]]
        return version["state"] == "asleep" and states == ["standby"] * standby

    wait_until(is_asleep)
    time.sleep(SETTLE_S)


def ask(cluster: Cluster) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", cluster.gateway_port, timeout=60)
    body = json.dumps(BODY)
    began = time.perf_counter()
    connection.request("POST", PATH, body, {"content-type": "application/json"})
    answer = connection.getresponse()
    said = answer.read()
    took_ms = (time.perf_counter() - began) * 1000
    connection.close()
    if answer.status != http.client.OK:
        raise SystemExit(f"a request failed: {answer.status} {said!r}")
    return took_ms


def burst(cluster: Cluster, engine: str) -> int:
    """How many of so many requests at once, to a sleeping model, were not answered."""
    fall_asleep(cluster, standby=2)
    began = time.perf_counter()
    statuses = asyncio.run(_burst(cluster))
    took_s = time.perf_counter() - began
    events: list[dict[str, Any]] = cluster.api.get("/api/v1/events", params={"limit": 50}).json()
    replicas = {e["replica"] for e in events if e["kind"] == "replica_ready" and e["at"] > time.time() - took_s}
    print(f"{engine}: burst of {BURST}: {dict(statuses)} within {took_s:.2f} s, {len(replicas)} replicas", flush=True)
    return BURST - statuses[200]


async def _burst(cluster: Cluster) -> Counter[int]:
    limits = httpx.Limits(max_connections=BURST, max_keepalive_connections=0)
    async with httpx.AsyncClient(trust_env=False, timeout=60, limits=limits) as client:
        url = f"http://127.0.0.1:{cluster.gateway_port}{PATH}"
        answers = await asyncio.gather(*(client.post(url, json=BODY) for _ in range(BURST)))
    return Counter(answer.status_code for answer in answers)


def wait_until(is_true: Callable[[], bool], within_s: float = 120) -> None:
    until = time.monotonic() + within_s
    while not is_true():
        if time.monotonic() > until:
            raise SystemExit(f"the model did not fall asleep within {within_s:g} s")
        time.sleep(0.1)


def tell(engine: str, what: str, added_ms: list[float]) -> None:
    if added_ms:
        told = ", ".join(f"p{p} {percentile(added_ms, p):.0f} ms" for p in (50, 90, 99))
        print(f"{engine}: {what}: {told} added at the first request (of {len(added_ms)})", flush=True)


def percentile(values: list[float], percent: float) -> float:
    """The smallest that is not exceeded by more than the rest."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0


if __name__ == "__main__":
    main()
