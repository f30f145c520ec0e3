"""A real Prometheus that scrapes one gateway, on a free port, with its data in a directory of the test's."""

from __future__ import annotations

import subprocess
from pathlib import Path

import httpx

from tests.integration.cluster import until

CONFIG = """
global: {{scrape_interval: {every_s}s, scrape_timeout: {every_s}s}}
scrape_configs:
  - job_name: modelfleet
    static_configs: [{{targets: ["127.0.0.1:{metrics_port}"]}}]
"""


class PrometheusServer:
    """Scrapes `metrics_port` each `every_s` seconds. `environ` may give its process another clock."""

    def __init__(self, root: Path, port: int, metrics_port: int, every_s: int = 2) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.process: subprocess.Popen[bytes] | None = None
        self._root = root
        self._port = port
        root.mkdir(exist_ok=True)
        (root / "prometheus.yml").write_text(CONFIG.format(every_s=every_s, metrics_port=metrics_port))

    def start(self, *flags: str) -> PrometheusServer:
        """Returns when it answers; what it scraped before it was ended is there again."""
        command = [
            "prometheus", f"--config.file={self._root}/prometheus.yml", f"--storage.tsdb.path={self._root}/data",
            f"--web.listen-address=127.0.0.1:{self._port}", "--log.level=warn", *flags,
        ]  # fmt: skip
        with (self._root / "prometheus.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        until("Prometheus is ready", self._is_ready, 30)
        return self

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)

    def ask(self, query: str) -> list[dict[str, object]]:
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": query}, trust_env=False)
        found: list[dict[str, object]] = answer.json()["data"]["result"]
        return found

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self._root / "prometheus.log").read_text()[-2000:]
        try:
            return httpx.get(f"{self.url}/-/ready", trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False
