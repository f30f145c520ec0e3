"""What it costs to be scraped: a Prometheus with our configuration, 200 versions, 50 replicas, all with traffic.

`make bench-scrape`. The Prometheus is real, and so is the code that makes the pages; who has them is this process, for
250 containers would drown what is to be measured. Given are shares of one core: Prometheus's own (scraping, storing,
rules), and what making the pages takes the gateway, the control plane and all replicas. Other work on the machine
lengthens nothing, for all is CPU time, but makes it somewhat dearer.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import psutil

from benchmarks.gateway.lineup import free_port
from orchestrator.adapters.metrics import Metrics as ControlPlaneMetrics
from orchestrator.adapters.metrics import VersionLevels
from orchestrator.core.entities import VersionKey
from router import metrics as gateway_page
from router.core.stats import VersionStats
from worker_image.server.metrics import Metrics as ReplicaMetrics

CONFIG = Path(__file__).parents[1] / "configs" / "prometheus"
# A dozen latencies of each version move between two scrapes, as in traffic.
REQUESTS_BETWEEN = 12


class Pages:
    """The pages of a fleet, as its processes make them, and how long that took in CPU seconds by role."""

    def __init__(self, models: int, replicas: int) -> None:
        self.random = random.Random(1)
        self.keys = [VersionKey(f"model-{n:03}", "1") for n in range(models)]
        self.lanes: Any = [
            SimpleNamespace(
                model=key.model, version=key.version, replicas=(1,), stats=VersionStats(), in_flight=1, queued=0,
                oldest_wait_s=0.0, copies=None,
            )
            for key in self.keys
        ]  # fmt: skip
        self.control_plane = ControlPlaneMetrics()
        self.replicas = [ReplicaMetrics(self.keys[n % models].model, "1") for n in range(replicas)]
        self.seconds = {"gateway": 0.0, "control_plane": 0.0, "replica": 0.0}
        self.pages = dict.fromkeys(self.seconds, 0)
        self._lock = threading.Lock()  # the page servers are threads; each page is timed alone

    def make(self, role: str, number: int) -> bytes:
        with self._lock:
            self._traffic(role, number)
            began = time.thread_time()
            page = self._make(role, number)
            self.seconds[role] += time.thread_time() - began
            self.pages[role] += 1
            return page

    def _traffic(self, role: str, number: int) -> None:
        if role == "gateway":
            for lane in self.lanes:
                for _ in range(REQUESTS_BETWEEN):
                    model_s = self.random.lognormvariate(-4, 0.7)
                    lane.stats.arrived += 1
                    lane.stats.queue_s.add(model_s / 3)
                    lane.stats.served(200, model_s * 1.3, model_s)
        elif role == "replica":
            found = self.replicas[number]
            for _ in range(REQUESTS_BETWEEN):
                found.batch_rows.observe(self.random.randint(1, 8))
                found.predict_seconds.observe(self.random.lognormvariate(-5, 0.7))
                found.request_seconds.observe(self.random.lognormvariate(-4, 0.7))
            found.responses[200] += REQUESTS_BETWEEN

    def _make(self, role: str, number: int) -> bytes:
        now = time.time()
        if role == "gateway":
            info = {'modelfleet_gateway_info{cluster="bench",version="1"}': ("Which gateway this is.", 1.0)}
            return gateway_page.render(self.lanes, {}, info)
        if role == "replica":
            return self.replicas[number].render()
        for key in self.keys:
            self.control_plane.ran(key, 10.0)
        levels = [VersionLevels(key, {"ready": 1}, 1, most=4, latency_s=0.05) for key in self.keys]
        return self.control_plane.render(levels, [("direct", 0.5)], now)


class PageServer(BaseHTTPRequestHandler):
    """`/prometheus/targets` as the control plane answers it, and a page for each target."""

    pages: ClassVar[Pages]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/prometheus/targets":
            body, kind = json.dumps(self._targets(parse_qs(url.query)["role"][0])).encode(), "application/json"
        else:
            _, role, number, _ = url.path.split("/")
            body, kind = self.pages.make(role, int(number)), "text/plain; version=0.0.4; charset=utf-8"
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _targets(self, role: str) -> list[dict[str, Any]]:
        found = []
        for number in range(len(self.pages.replicas) if role == "replica" else 1):
            labels = {"cluster": "bench", "role": role, "__metrics_path__": f"/{role}/{number}/metrics"}
            if role == "replica":
                labels |= {"replica": f"r{number}", "model": self.pages.keys[number].model, "version": "1"}
            found.append({"targets": [self.headers["host"]], "labels": labels})
        return found

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Silence."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-scrape", description=__doc__)
    parser.add_argument("--models", type=int, default=200)
    parser.add_argument("--replicas", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=120)
    asked = parser.parse_args()
    if shutil.which("prometheus") is None:
        sys.exit("bench-scrape: no prometheus on the PATH; `apt-get install prometheus`")
    PageServer.pages = Pages(asked.models, asked.replicas)
    with ThreadingHTTPServer(("127.0.0.1", 0), PageServer) as server, tempfile.TemporaryDirectory() as folder:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        _measure(PageServer.pages, server.server_address[1], Path(folder), asked.seconds)
        server.shutdown()


def _measure(pages: Pages, port: int, folder: Path, seconds: float) -> None:
    shutil.copytree(CONFIG, folder, dirs_exist_ok=True)
    config = folder / "prometheus.yml"
    config.write_text(config.read_text().replace("127.0.0.1:7070", f"127.0.0.1:{port}"))
    address = f"127.0.0.1:{free_port()}"
    options = [f"--config.file={config}", f"--storage.tsdb.path={folder}/data", f"--web.listen-address={address}"]
    process = subprocess.Popen(["prometheus", *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        watched = psutil.Process(process.pid)
        # Past the first scrapes of all, which make every series.
        time.sleep(30)
        spent, made, began = sum(watched.cpu_times()[:2]), dict(pages.seconds), time.monotonic()
        before = dict(pages.pages)
        time.sleep(seconds)
        took = time.monotonic() - began
        shares = {"Prometheus": (sum(watched.cpu_times()[:2]) - spent) / took}
        shares |= {f"pages of {role}": (pages.seconds[role] - made[role]) / took for role in made}
        series = _series(address)
        print(f"{len(pages.keys)} versions, {len(pages.replicas)} replicas, {series:,} series, {took:.0f} s")
        for name, share in shares.items():
            print(f"  {name:24} {share:6.2%} of a core")
        print(f"  {'in all':24} {sum(shares.values()):6.2%} of a core")
        gateway_ms = (pages.seconds["gateway"] - made["gateway"]) / (pages.pages["gateway"] - before["gateway"]) * 1e3
        print(f"  the gateway's page takes {gateway_ms:.1f} ms of its loop; Prometheus holds "
              f"{watched.memory_info().rss / 1e6:.0f} MB")  # fmt: skip
    finally:
        process.terminate()
        process.wait()


def _series(address: str) -> int:
    with urllib.request.urlopen(f"http://{address}/api/v1/status/tsdb", timeout=10) as answer:
        return int(json.load(answer)["data"]["headStats"]["numSeries"])


if __name__ == "__main__":
    main()
