"""The autoscaler on real replicas, beside a simulation of the same arrivals: `make bench-autoscale`.

A model of 20 ms that takes one request at a time, on a real engine. A recorded trace, compressed to ten minutes, goes
through the gateway in an open loop while a real Prometheus scrapes it. Late requests, replica-seconds and decisions
stand beside what `orchestrator/core/scaling` makes of the same arrivals in simulation, and beside fixed counts of equal
cost, live and simulated. Ends with 1 when live and simulated differ by more than the stated error.

The model sleeps: on a small host replicas that computed would share the cores, and measure the host.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

from benchmarks.fleet import Cluster, free_port
from orchestrator.adapters.scrape import Exposition
from orchestrator.core.entities import VersionKey
from orchestrator.core.scaling.distributions import Service
from orchestrator.core.scaling.facts import Objective, Settings
from orchestrator.core.scaling.pool import Setup
from orchestrator.core.scaling.series import readings
from orchestrator.core.scaling.simulation import Chooser, Result, by_policy, fixed, simulate
from orchestrator.load import arrivals, traces
from orchestrator.whatif.measured import service_of
from orchestrator.whatif.scenario import TICK_S

ROOT = Path(__file__).resolve().parents[2]
TRACE = Path(__file__).parent / "traces/azure_llm_code_2023.csv"
MODEL = """
import time

class Model:
    inputs = [{"name": "x", "datatype": "FP64", "shape": [-1]}]
    outputs = [{"name": "y", "datatype": "FP64", "shape": [-1]}]

    def load(self, path):
        pass

    def predict(self, inputs):
        time.sleep(0.02)
        return inputs["x"]
"""
BODY = json.dumps({"inputs": [{"name": "x", "datatype": "FP64", "shape": [1], "data": [1.0]}]})
PROMETHEUS = """
global: {{scrape_interval: 2s, scrape_timeout: 2s}}
scrape_configs:
  - job_name: modelfleet
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""
# The autoscaler holds the count for a minute after its start; the simulation begins with the same silence.
SILENCE_S = 65.0
SAMPLE_S = 0.5
QUEUE_TIMEOUT_S = 5.0
SEEDS = range(5)
# A generator that is later than this measures the machine.
MOST_LAG_MS = 50.0
# How far live may be from simulated: a replica starts when the engine lets it, and a burst has one beginning.
MOST_LATE_POINTS = 4.0
MOST_COST_SHARE = 0.25


@dataclass(slots=True)
class Watch:
    """What the control plane says each half second: awake replicas, and how long each took to be ready."""

    api: httpx.Client
    replica_s: float = 0.0
    standby_s: float = 0.0
    most: int = 0
    starts_s: dict[str, float] = field(default_factory=dict)
    _ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        last = time.monotonic()
        while not self._ended.wait(SAMPLE_S):
            with contextlib.suppress(httpx.HTTPError, KeyError, ValueError):
                replicas = self._replicas()
                now = time.monotonic()
                awake = sum(replica["state"] not in ("standby", "failed") for replica in replicas)
                self.replica_s += awake * (now - last)
                self.standby_s += (len(replicas) - awake) * (now - last)
                self.most = max(self.most, awake)
                last = now

    def stop(self) -> None:
        self._ended.set()

    def _replicas(self) -> list[dict[str, Any]]:
        status = self.api.get("/api/v1/status").raise_for_status().json()
        found = [r for m in status["models"] for v in m["versions"] for r in v["replicas"]]
        self.starts_s |= {r["id"]: r["ready_after_s"] for r in found if r.get("ready_after_s")}
        return found


@dataclass(frozen=True, slots=True)
class Seen:
    """One row of the answer."""

    name: str
    late_percent: float
    replica_s: float
    most: int
    changes: int | None
    more: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="docker", choices=("docker", "process"))
    parser.add_argument("--minutes", type=float, default=10, help="how long the trace takes")
    parser.add_argument("--part", type=float, default=1.0, help="the first share of the recording, for a short run")
    parser.add_argument("--scale", type=float, default=1.0, help="arrivals for each one recorded")
    parser.add_argument("--slo-ms", type=float, default=200)
    parser.add_argument("--max", type=int, default=8, help="most replicas")
    parser.add_argument("--standby", type=int, default=0)
    parser.add_argument("--no-fixed", action="store_true", help="simulate fixed counts only")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mf-live-") as name:
        raise SystemExit(measure(Path(name), options))


def measure(directory: Path, options: argparse.Namespace) -> int:
    (directory / "slow").mkdir()
    (directory / "slow/model.py").write_text(MODEL)
    (directory / "request.json").write_text(BODY)
    times = played(options, directory / "arrivals.csv")
    length_s = options.minutes * 60
    print(f"{len(times):,} requests in {options.minutes:g} min, p95 ≤ {options.slo_ms:g} ms, engine {options.engine}")
    cluster = Cluster(directory, options.engine)
    try:
        with prometheus(directory, cluster.metrics_port):
            cluster.apply(manifest(options, {"min": 1, "max": options.max, "standby": options.standby}), directory)
            time.sleep(SILENCE_S)
            live, watch = run(cluster, directory, options, "live, by the policy")
            service = measured(cluster)
            cold_s = statistics.mean(watch.starts_s.values())
            rows = [live]
            count = max(1, round(live.replica_s / length_s))
            if not options.no_fixed:
                cluster.apply(manifest(options, {"min": count}), directory)
                rows.append(run(cluster, directory, options, f"live, always {count}")[0])
    finally:
        end(cluster)
    tries = simulated(times, options, service, cold_s)
    rows.insert(1, joined("simulated, by the policy", tries))
    always = setup(options, service, cold_s, first=count, seed=0)
    rows.append(of_result(f"simulated, always {count}", simulate(times, always, fixed(count))))
    print(f"a request takes {service.mean_s * 1000:.1f} ms in a replica, a start {cold_s:.1f} s")
    return show(rows)


def played(options: argparse.Namespace, into: Path) -> list[float]:
    """The arrivals, also as a file that `modelfleet bench` plays as it is."""
    recorded = traces.read(TRACE)
    part = [at for at in recorded.times if at <= options.part * recorded.length_s]
    speed = part[-1] / (options.minutes * 60)
    times = list(arrivals.played(replace(recorded, times=part), speed=speed, factor=options.scale, seed=1).times)
    into.write_text("t_seconds\n" + "".join(f"{at:.6f}\n" for at in times))
    return times


def manifest(options: argparse.Namespace, scaling: dict[str, int]) -> str:
    model = {
        "backend": "python",
        "concurrency": 1,
        "slo": {"latency_ms": options.slo_ms, "percentile": 95},
        "queue": {"timeout_ms": int(QUEUE_TIMEOUT_S * 1000)},
        "resources": {"memory": "256Mi"},
        "scaling": scaling,
        "versions": {"1": {"source": "slow"}},
    }
    return json.dumps({"models": {"slow": model}})  # JSON is YAML


def run(cluster: Cluster, directory: Path, options: argparse.Namespace, name: str) -> tuple[Seen, Watch]:
    """Plays the trace once."""
    watch = Watch(cluster.api)
    watching = threading.Thread(target=watch.run, daemon=True)
    before = decisions(cluster)
    watching.start()
    shown = bench(cluster, directory, options)
    watch.stop()
    watching.join()
    made = decisions(cluster)[len(before) :]
    for reason in made:
        print(f"  {reason}")
    more = f"p99 {shown['latency_ms']['p99']:.0f} ms, {shown['errors']['count']} errors {shown['errors']['by_kind']}"
    return Seen(name, shown["late"]["percent"], watch.replica_s, watch.most, len(made), more), watch


def bench(cluster: Cluster, directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    command = [
        sys.executable,
        "-c",
        "from orchestrator.cli.main import main; main()",
        "--state-dir",
        str(cluster.state),
    ]
    command += ["bench", "slow", "--trace", str(directory / "arrivals.csv"), "--slo", f"{options.slo_ms:g}ms"]
    command += ["--file", str(directory / "request.json"), "--timeout", "20s", "-o", "json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if not done.stdout:
        raise SystemExit(f"live: {done.stderr}")
    shown: dict[str, Any] = json.loads(done.stdout)
    if shown["left_late_ms"]["p99"] > MOST_LAG_MS:
        print(f"  void: requests left {shown['left_late_ms']['p99']:.0f} ms late; something else had the machine")
    return shown


def decisions(cluster: Cluster) -> list[str]:
    """Every change of the count, in words."""
    found: list[dict[str, Any]] = []
    while True:
        after = found[-1]["id"] if found else 0
        page = cluster.api.get("/api/v1/events", params={"after": after, "limit": 1000}).raise_for_status().json()
        if not page:
            return [event["message"] for event in found if event["kind"] == "scaled"]
        found += page


def measured(cluster: Cluster) -> Service:
    page = httpx.get(f"http://127.0.0.1:{cluster.metrics_port}/metrics", trust_env=False).text
    said = readings(Exposition().read(page), time.time())
    service = service_of(said.of(VersionKey("slow", "1")).model)
    if service is None:
        raise SystemExit("live: the gateway answered nothing")
    return service


@contextlib.contextmanager
def prometheus(directory: Path, port: int) -> Iterator[None]:
    """A Prometheus that scrapes the gateway each 2 s, where there is one to run."""
    if shutil.which("prometheus") is None:
        print("no prometheus is installed: measured without one")
        yield
        return
    config = directory / "prometheus.yml"
    config.write_text(PROMETHEUS.format(port=port))
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={directory}/prometheus"]
    command += [f"--web.listen-address=127.0.0.1:{free_port()}", "--log.level=warn"]
    with (directory / "prometheus.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield
    finally:
        server.terminate()
        server.wait(30)


def end(cluster: Cluster) -> None:
    """Says so when it does not end, and keeps what was measured."""
    try:
        cluster.close()
    except subprocess.TimeoutExpired:
        print(f"  the control plane does not end: modelfleet down --state-dir {cluster.state}")


# -- the same in simulation ---------------------------------------------------------------------------------------


def setup(options: argparse.Namespace, service: Service, cold_s: float, *, first: int, seed: int) -> Setup:
    return Setup(
        service=service, latency_s=options.slo_ms / 1000, cold_start_s=cold_s, queue_timeout_s=QUEUE_TIMEOUT_S,
        tick_s=TICK_S, first=first, seed=seed,
    )  # fmt: skip


def simulated(times: Sequence[float], options: argparse.Namespace, service: Service, cold_s: float) -> list[Seen]:
    """Once for each seed, after the same silence; the silence itself costs nothing."""
    settings = Settings(
        minimum=1, maximum=options.max, slots=1, objective=Objective(options.slo_ms / 1000), standby=options.standby
    )
    shifted = [SILENCE_S + at for at in times]
    found = []
    for seed in SEEDS:
        choose: Chooser = by_policy(settings)
        result = simulate(shifted, setup(options, service, cold_s, first=1, seed=seed), choose)
        silent_s = sum(point.ready + point.starting for point in result.timeline if point.at <= SILENCE_S)
        seen = of_result("", result)
        found.append(replace(seen, replica_s=seen.replica_s - silent_s))
    return found


def of_result(name: str, result: Result) -> Seen:
    most = max(point.ready + point.starting for point in result.timeline)
    return Seen(name, result.violation_percent, result.replica_s, most, result.changes)


def joined(name: str, tries: Sequence[Seen]) -> Seen:
    """The means over the seeds, with how far they reach."""
    late = [seen.late_percent for seen in tries]
    changes = [seen.changes or 0 for seen in tries]
    more = f"{min(late):.2f} to {max(late):.2f} % late, {min(changes)} to {max(changes)} decisions, {len(tries)} seeds"
    cost_s = statistics.mean(seen.replica_s for seen in tries)
    return Seen(name, statistics.mean(late), cost_s, max(s.most for s in tries), round(statistics.mean(changes)), more)


def show(rows: Sequence[Seen]) -> int:
    print(f"\n{'':28} {'late %':>8} {'replica-s':>10} {'most':>5} {'decisions':>10}")
    for row in rows:
        changes = "-" if "always" in row.name else row.changes
        print(f"{row.name:28} {row.late_percent:8.2f} {row.replica_s:10,.0f} {row.most:5} {changes!s:>10}  {row.more}")
    live, sim = rows[0], rows[1]
    points = abs(live.late_percent - sim.late_percent)
    share = abs(math.log(live.replica_s / sim.replica_s)) if live.replica_s and sim.replica_s else math.inf
    kept = points <= MOST_LATE_POINTS and share <= math.log1p(MOST_COST_SHARE)
    print(
        f"\nlive and simulated differ by {points:.2f} points late (at most {MOST_LATE_POINTS:g}) and "
        f"{math.expm1(share):.0%} of replica-seconds (at most {MOST_COST_SHARE:.0%}): {'kept' if kept else 'MISSED'}"
    )
    return 0 if kept else 1


if __name__ == "__main__":
    main()
