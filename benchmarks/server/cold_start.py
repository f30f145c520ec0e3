"""How long a scikit-learn replica takes from `docker create` to the control plane's notice that it is ready.

`make bench-cold-start` runs a cluster of its own on the Docker Engine, starts one replica of a linear model again and
again, and says where the time goes, by the product's own records: the moment of creation, the phases that the model
server tells, and the event of the control plane. It also says what CPU time and memory the replica took. Exit code 1
when the median is not below the bar. It leaves nothing behind but the worker image.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import docker
import joblib
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from benchmarks.fleet import Cluster, poll

BAR_S = 1.5
BAR_BYTES = 150_000_000
WITHIN_S = 60.0


class Start(NamedTuple):
    """One cold start. Seconds, in their order; `cpu_s` and `memory_bytes` are the container's once it was ready."""

    created_and_started: float
    importing: float
    loading: float
    warming: float
    noticed: float
    total: float
    cpu_s: float
    memory_bytes: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    engine = docker.from_env(version="auto")
    with tempfile.TemporaryDirectory(prefix="mf-bench-") as name:
        directory = Path(name)
        train(directory / "iris")
        cluster = Cluster(directory, "docker")
        try:
            # Builds the image, and fills the page cache as any second start finds it.
            cluster.apply(manifest(0), directory)
            starts = [start(cluster, engine, directory, number) for number in range(1, options.runs + 1)]
        finally:
            cluster.close()
            engine.close()
    return report(starts)


def train(directory: Path) -> None:
    directory.mkdir()
    features, labels = load_iris(return_X_y=True)
    joblib.dump(LogisticRegression(max_iter=500).fit(features, labels), directory / "model.joblib")


def manifest(number: int) -> str:
    """Each number is another spec, and so another container."""
    version = {"source": "iris", "backend": "sklearn", "env": {"START": str(number)}}
    return json.dumps({"models": {"iris": {"versions": {"1": version}}}})


def start(cluster: Cluster, engine: docker.DockerClient, directory: Path, number: int) -> Start:
    known = {replica["id"] for replica in cluster.replicas("iris")}
    cluster.apply(manifest(number), directory)
    (replica,) = [each for each in cluster.replicas("iris") if each["id"] not in known]
    ready = poll(lambda: event(cluster, replica["id"]), WITHIN_S)
    container = engine.containers.list(filters={"label": f"modelfleet.replica={replica['id']}"})[0]
    created_at = float(container.labels["modelfleet.created_at"])
    ready_at = created_at + replica["ready_after_s"]
    phases = replica["phases"]
    used = engine.api.stats(container.attrs["Id"], stream=False, one_shot=True)
    return Start(
        created_and_started=replica["ready_after_s"] - sum(phases.values()),
        importing=phases["importing"],
        loading=phases["loading"],
        warming=phases["warming"],
        noticed=ready["at"] - ready_at,
        total=ready["at"] - created_at,
        cpu_s=used["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9,
        memory_bytes=memory_bytes(used["memory_stats"]),
    )


def event(cluster: Cluster, replica: str) -> dict[str, Any]:
    """Of its readiness. Raises `ValueError` while there is none."""
    events = cluster.api.get("/api/v1/events", params={"model": "iris", "limit": 1000}).json()
    for each in events:
        if each["kind"] == "replica_ready" and each["replica"] == replica:
            return dict(each)
    raise ValueError(f"{replica}: no event says that it is ready")


def memory_bytes(stats: dict[str, Any]) -> int:
    """Without the pages of files that the kernel may drop, as `docker stats` counts; cgroup version 1 or 2."""
    details = stats["stats"]
    return int(stats["usage"] - details.get("total_inactive_file", details.get("inactive_file", 0)))


def report(starts: list[Start]) -> int:
    middle = Start(*(statistics.median(values) for values in zip(*starts, strict=True)))
    print(f"cold start of a scikit-learn replica, {len(starts)} runs, {time.strftime('%Y-%m-%d')}: medians")
    for name in ("created_and_started", "importing", "loading", "warming", "noticed"):
        print(f"  {name.replace('_', ' '):<22}{getattr(middle, name):6.2f} s")
    totals = sorted(each.total for each in starts)
    print(f"  {'in all':<22}{middle.total:6.2f} s   (bar {BAR_S} s; {totals[0]:.2f} to {totals[-1]:.2f})")
    print(f"  {'CPU time, own':<22}{middle.cpu_s:6.2f} s")
    print(f"  {'memory, idle':<22}{middle.memory_bytes / 1e6:6.0f} MB  (bar {BAR_BYTES / 1e6:.0f} MB)")
    return 0 if middle.total < BAR_S and middle.memory_bytes < BAR_BYTES else 1


if __name__ == "__main__":
    raise SystemExit(main())
