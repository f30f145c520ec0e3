"""What a managed Prometheus runs with: `configs/prometheus/`, and this control plane to ask what there is to scrape."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from orchestrator.adapters.companions.kinds import Kind, Recipe, shipped

# The control plane's address in the shipped configuration.
DEFAULT_ADDRESS = "127.0.0.1:7070"

PROMETHEUS = Kind(
    name="prometheus",
    title="Prometheus",
    image="prom/prometheus:v3.5.0",
    entrypoint=("prometheus",),
    programs=("prometheus",),
    words=lambda _program: (),
    advice="`apt-get install prometheus`",
    health="/-/healthy",
    # 35,000 series take 220 MB; twice that and a large query fit in.
    memory_bytes=2 * 1024**3,
    dockerfile="prometheus/Dockerfile",
    reloads=True,
)


@dataclass(frozen=True, slots=True)
class PrometheusSettings:
    """`max_disk_bytes` are of what is kept; what came in the last two hours is on top of it.

    `control` is the control plane's host and port.
    """

    port: int
    retention_s: float
    max_disk_bytes: int
    control: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def facts(self) -> dict[str, str]:
        return {
            "prometheus_port": str(self.port),
            "retention": f"{self.retention_s / 3600:g}h",
            "max_disk": f"{self.max_disk_bytes} bytes",
        }

    def recipe(self, home: Path) -> Recipe:
        return Recipe(
            arguments=(
                f"--config.file={home / 'prometheus.yml'}",
                f"--storage.tsdb.path={home / 'data'}",
                f"--storage.tsdb.retention.time={self.retention_s:.0f}s",
                f"--storage.tsdb.retention.size={self.max_disk_bytes}B",
                f"--web.listen-address=127.0.0.1:{self.port}",
                # A point of a latency then leads to the trace of a request.
                "--enable-feature=exemplar-storage",
                "--log.format=json",
                "--log.level=warn",
            ),
            files=self._files(),
        )

    def _files(self) -> dict[str, bytes]:
        text = shipped("prometheus/prometheus.yml").read_text().replace(DEFAULT_ADDRESS, self.control)
        rules = sorted(shipped("prometheus/rules").glob("*.yml"))
        return {"prometheus.yml": text.encode(), **{f"rules/{file.name}": file.read_bytes() for file in rules}}
