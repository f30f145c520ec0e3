"""The figures of a whole cluster on a real engine: `make bench-fleet`.

Twenty versions of ten models from nothing; the control plane at rest; `modelfleet status`; one changed version, from
apply to routed; and 10,000 predictions by 16 connections across an apply, a rollback and a killed container, every
answer counted. It needs trained example models (`make up` makes them) and leaves nothing behind.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil

ROOT = Path(__file__).resolve().parent.parent
CONNECTIONS = 16
PREDICTIONS = 10_000
REST_S = 20.0


class Cluster:
    """A control plane of its own, with its gateway, below a temporary directory."""

    def __init__(self, directory: Path, engine: str) -> None:
        self.state = directory / "state"
        self.gateway_port, grpc_port, self.metrics_port = free_port(), free_port(), free_port()
        environment = {
            **os.environ,
            "MODELFLEET_GATEWAY_PORT": str(self.gateway_port),
            "MODELFLEET_GRPC_PORT": str(grpc_port),
            "MODELFLEET_METRICS_PORT": str(self.metrics_port),
        }
        name = f"bench-{os.getpid()}"
        command = [sys.executable, "-m", "orchestrator", "--state-dir", str(self.state), "--api-port", "0"]
        log = open(directory / "control.log", "wb")  # noqa: SIM115 - it lives as long as the process
        self.process = subprocess.Popen(
            [*command, "--engine", engine, "--cluster", name], stdout=log, stderr=log, env=environment, cwd=ROOT
        )
        self.name = name
        facts = poll(lambda: json.loads((self.state / "control.json").read_text()), 30)
        token = (self.state / "token").read_text().strip()
        self.api = httpx.Client(
            base_url=facts["url"], headers={"authorization": f"Bearer {token}"}, timeout=60, trust_env=False
        )

    def apply(self, manifest: str, base_dir: Path) -> float:
        """Seconds from the request to a converged cluster."""
        began = time.monotonic()
        request = {"text": manifest, "file": "models.yaml", "base_dir": str(base_dir)}
        self.follow(self.api.post("/api/v1/apply", json=request).raise_for_status().json()["id"])
        return time.monotonic() - began

    def rollback(self) -> None:
        self.follow(self.api.post("/api/v1/rollback", json={}).raise_for_status().json()["id"])

    def follow(self, operation: str) -> None:
        while True:
            found = self.api.get(f"/api/v1/operations/{operation}", params={"wait_s": 20}).json()
            if found["ended_at"]:
                break
        if found["state"] != "succeeded":
            raise SystemExit(f"fleet: {found['error']}")

    def replicas(self, model: str) -> list[dict[str, Any]]:
        return [r for v in self.api.get(f"/api/v1/models/{model}").json()["model"]["versions"] for r in v["replicas"]]

    def close(self) -> None:
        self.api.post("/api/v1/down", json={})
        self.process.wait(120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="docker", choices=("docker", "process"))
    options = parser.parse_args()
    if not (ROOT / "configs/models/iris/1").is_dir():
        raise SystemExit("fleet: the example models are not trained; run `make up` once")
    with tempfile.TemporaryDirectory(prefix="mf-bench-") as name:
        directory = Path(name)
        shutil.copytree(ROOT / "configs/models", directory / "models")
        shutil.copytree(ROOT / "configs/models/iris/1", directory / "models/changing")
        cluster = Cluster(directory, options.engine)
        try:
            measure(cluster, directory)
        finally:
            cluster.close()


def measure(cluster: Cluster, directory: Path) -> None:
    warm = manifest(1)
    say("one model from nothing (images built if need be)", f"{cluster.apply(warm, directory):.1f} s")
    say("20 versions of 10 models", f"{cluster.apply(manifest(10), directory):.1f} s")
    cpu, memory = at_rest(cluster.process.pid)
    say(f"control plane at rest, 20 replicas, over {REST_S:.0f} s", f"{cpu:.2f} % of a core, {memory:.0f} MB")
    say("modelfleet status", f"{status_s(cluster.state):.2f} s")
    change_source(directory, 1)
    say(
        "apply of one changed version, until routed and the old one gone",
        f"{cluster.apply(manifest(10), directory):.1f} s",
    )

    def apply_changed() -> None:
        change_source(directory, 2)
        cluster.apply(manifest(10), directory)

    for title, disturb in (
        ("an apply of a changed source", apply_changed),
        ("a rollback", cluster.rollback),
        ("a killed container", lambda: kill(cluster)),
    ):
        answers = asyncio.run(predict_across(cluster, disturb))
        say(f"{PREDICTIONS} predictions across {title}", ", ".join(f"{k}: {v}" for k, v in sorted(answers.items())))


def manifest(models: int) -> str:
    version = {"source": "models/iris/1", "resources": {"cpus": 1, "memory": "256Mi"}}
    section: dict[str, Any] = {
        "versions": {"1": version, "2": {**version, "source": "models/iris/2"}},
        "traffic": {"1": 50, "2": 50},
    }
    fleet = {f"m{i}": section for i in range(models)}
    fleet["m0"] = {**section, "versions": {**section["versions"], "1": {**version, "source": "models/changing"}}}
    return json.dumps({"defaults": {"backend": "sklearn"}, "models": fleet})  # JSON is YAML


def change_source(directory: Path, number: int) -> None:
    """Another content for one version, m0@1, by a file beside the model."""
    (directory / "models/changing/README.txt").write_text(f"changed {number}\n")


def at_rest(pid: int) -> tuple[float, float]:
    """Share of one core in percent, and resident memory in MB."""
    process = psutil.Process(pid)
    time.sleep(3)  # let the last apply's work fade: the figure is of rest
    process.cpu_percent()
    time.sleep(REST_S)
    return process.cpu_percent(), process.memory_info().rss / 1e6


def status_s(state: Path) -> float:
    """Median of five runs of the command as a user types it."""
    command = [str(Path(sys.executable).with_name("modelfleet")), "--state-dir", str(state), "status"]
    times = []
    for _ in range(5):
        began = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.monotonic() - began)
    return sorted(times)[2]


def kill(cluster: Cluster) -> None:
    replica = cluster.replicas("m0")[0]["id"]
    subprocess.run(["docker", "kill", f"mf-{cluster.name}-{replica}"], check=False, stdout=subprocess.DEVNULL)


async def predict_across(cluster: Cluster, disturb: Callable[[], object]) -> Counter[str]:
    """Answers by status while `disturb` runs on a thread; connections are reused until one breaks."""
    answers: Counter[str] = Counter()
    left = iter(range(PREDICTIONS))
    disturbance = asyncio.create_task(asyncio.to_thread(disturb))
    await asyncio.gather(*(one_client(cluster.gateway_port, left, answers) for _ in range(CONNECTIONS)), disturbance)
    return answers


async def one_client(port: int, left: Any, answers: Counter[str]) -> None:
    body = (ROOT / "configs/examples/iris.json").read_bytes()
    request = b"POST /v2/models/m0/infer HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    reader = writer = None
    for _ in left:
        try:
            if writer is None:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            assert reader is not None
            answers[await one_answer(reader)] += 1
        except (OSError, asyncio.IncompleteReadError) as exc:
            answers[type(exc).__name__] += 1
            writer = None
        await asyncio.sleep(0.005)  # so that the run outlasts what disturbs it
    if writer is not None:
        writer.close()


async def one_answer(reader: asyncio.StreamReader) -> str:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(int(length.split(b":")[1]))
    return head.split(b" ")[1].decode()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def poll(read: Callable[[], Any], timeout_s: float) -> Any:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return read()
        except (OSError, ValueError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def say(what: str, figure: str) -> None:
    print(f"{what:<70} {figure}", flush=True)


if __name__ == "__main__":
    main()
