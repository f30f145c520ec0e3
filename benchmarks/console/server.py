"""What the console costs the control plane: `make bench-console`.

A control plane and a gateway as they are run, with 200 models that are asked all the time, so that the rows of the
fleet change each second. The CPU time of the control plane with one console listening, less that without, is what the
console costs. No model runs: each is scaled to 0 by hand, so that the gateway itself answers, counts and times every
request. Ends with 1 when a console costs 5 % of a core or more, or when rows did not change.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

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
BODY = json.dumps({"inputs": [{"name": "x", "datatype": "FP64", "shape": [1], "data": [1.0]}]}).encode()
JSON = {"content-type": "application/json"}
PROMISED_RATIO = 0.05
SETTLE_S = 15.0
# So many requests a second at most to each model: how many went out in ten seconds is hardly ever the same twice.
MOST_ASKED = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=40.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=2, help="with and without, in turn")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mf-console-") as name:
        directory = Path(name)
        (directory / "m").mkdir()
        (directory / "m/model.py").write_text(MODEL)
        cluster = Cluster(directory, "process")
        try:
            is_kept = measure(cluster, directory, options)
        finally:
            cluster.close()
    raise SystemExit(0 if is_kept else 1)


def measure(cluster: Cluster, directory: Path, options: argparse.Namespace) -> bool:
    names = [f"model-{number:03}" for number in range(options.models)]
    put_to_sleep(cluster, directory, names)
    process = psutil.Process(cluster.process.pid)
    alone, watched, changed = [], [], []
    with asking(cluster, names):
        time.sleep(SETTLE_S)
        for _ in range(options.rounds):
            alone.append(used_ratio(process, options.seconds))
            with listening(cluster) as rows:
                watched.append(used_ratio(process, options.seconds))
            changed.extend(rows)
    # On a busy machine gateways are read less often than once a second: then a second brings nothing new.
    fresh = [rows for rows in changed if rows] or [0]
    rows_mean = statistics.mean(fresh)
    cost = sum(watched) / len(watched) - sum(alone) / len(alone)
    say("control plane, nobody watches", ", ".join(f"{ratio * 100:.1f} %" for ratio in alone) + " of a core")
    say("control plane, one console open", ", ".join(f"{ratio * 100:.1f} %" for ratio in watched) + " of a core")
    say("the console", f"{cost * 100:.1f} % of a core")
    say(
        "rows that changed in a second",
        f"{rows_mean:.0f} of {options.models}, in {len(fresh)} of {len(changed)} seconds",
    )
    return cost < PROMISED_RATIO and rows_mean >= 0.9 * options.models


def put_to_sleep(cluster: Cluster, directory: Path, names: list[str]) -> None:
    """All of them in force, and none of them running."""
    section = {"versions": {"1": {"source": "m"}}, "scaling": {"min": 0, "max": 1}, "slo": {"latency_ms": 50}}
    manifest = {
        "cluster": {"name": cluster.name, "max_starting": 1},
        "defaults": {"backend": "python"},
        "models": dict.fromkeys(names, section),
    }
    request = {"text": json.dumps(manifest), "file": "models.yaml", "base_dir": str(directory)}
    operation = cluster.api.post("/api/v1/apply", json=request).raise_for_status().json()["id"]
    while not cluster.api.get("/api/v1/status").json()["revision"]:
        time.sleep(0.2)
    for name in names:
        cluster.api.put(f"/api/v1/models/{name}/versions/1/scale", json={"replicas": 0}).raise_for_status()
    cluster.follow(operation)


def used_ratio(process: psutil.Process, seconds: float) -> float:
    """CPU seconds of the process a second."""
    began, before = time.monotonic(), process.cpu_times()
    time.sleep(seconds)
    after = process.cpu_times()
    return (after.user + after.system - before.user - before.system) / (time.monotonic() - began)


@contextmanager
def asking(cluster: Cluster, names: list[str]) -> Iterator[None]:
    """Asks every model some times a second, now more and now less, so that its rates change."""
    ended = threading.Event()

    def ask() -> None:
        chance = random.Random(1)
        connection = http.client.HTTPConnection("127.0.0.1", cluster.gateway_port, timeout=30)
        while not ended.is_set():
            began = time.monotonic()
            for name in names:
                for _ in range(chance.randrange(MOST_ASKED)):
                    connection.request("POST", f"/v2/models/{name}/infer", BODY, JSON)
                    connection.getresponse().read()
            ended.wait(max(0.0, 1.0 - (time.monotonic() - began)))
        connection.close()

    thread = threading.Thread(target=ask, name="asking")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def listening(cluster: Cluster) -> Iterator[list[int]]:
    """One console; the list is of how many rows each of its seconds brought."""
    rows: list[int] = []
    ended = threading.Event()

    def listen() -> None:
        with cluster.api.stream("GET", "/api/v1/stream") as answer:
            for line in answer.iter_lines():
                if line.startswith("data: {") and '"whole":false' in line[:80]:
                    rows.append(len(json.loads(line.removeprefix("data: "))["models"]))
                if ended.is_set():
                    return

    thread = threading.Thread(target=listen, name="listening")
    thread.start()
    try:
        yield rows
    finally:
        ended.set()
        thread.join()


def say(what: str, figure: str) -> None:
    print(f"{what:<34} {figure}", flush=True)


if __name__ == "__main__":
    main()
