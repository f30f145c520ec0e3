"""What a manifest wants to be looked at with, and the keepers of it: Prometheus and Grafana."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from orchestrator.adapters.companions.companion import Companion
from orchestrator.adapters.companions.containers import Containers
from orchestrator.adapters.companions.grafana import GRAFANA, GrafanaSettings
from orchestrator.adapters.companions.kinds import Kind, Settings
from orchestrator.adapters.companions.prometheus import PROMETHEUS, PrometheusSettings
from orchestrator.adapters.docker_engine import DockerEngine
from orchestrator.adapters.engine import Engine
from orchestrator.adapters.state_dir import StateDir
from orchestrator.core import diff
from orchestrator.loops.companions import CompanionKeeper
from orchestrator.loops.journal import Journal
from orchestrator.manifest import ObservabilityConfig


class Observability:
    """`config` is what the manifest in force says. On a Docker Engine they run in containers."""

    def __init__(
        self, state: StateDir, control_url: str, engine: Engine, journal: Journal, threads: ThreadPoolExecutor
    ) -> None:
        self._control = urlsplit(control_url).netloc
        self.config = ObservabilityConfig()

        def keeper(kind: Kind) -> CompanionKeeper:
            directory, log_file = state.root / kind.name, state.logs / f"{kind.name}.log"
            if isinstance(engine, DockerEngine):
                containers = Containers(engine.cluster, engine.calls)
                return CompanionKeeper(
                    Companion(kind, directory, log_file, containers, engine.images), journal, threads
                )
            return CompanionKeeper(Companion(kind, directory, log_file), journal, threads)

        self.prometheus = keeper(PROMETHEUS)
        self.grafana = keeper(GRAFANA)

    @property
    def keepers(self) -> tuple[CompanionKeeper, ...]:
        return self.prometheus, self.grafana

    def want(self, config: ObservabilityConfig) -> None:
        self.config = config
        for keeper in self.keepers:
            keeper.want(self._settings(keeper.kind, config))

    def changes(self, config: ObservabilityConfig) -> tuple[diff.Change, ...]:
        """What applying `config` would do."""
        found = (_change(keeper.kind, keeper.wanted, self._settings(keeper.kind, config)) for keeper in self.keepers)
        return tuple(change for change in found if change is not None)

    async def stop(self) -> None:
        """For good. Raises `EngineUnavailable` where that could not be done; call it again."""
        await asyncio.gather(*(keeper.stop() for keeper in self.keepers))

    def _settings(self, kind: Kind, config: ObservabilityConfig) -> Settings | None:
        """What the managed one runs with; None without one."""
        if kind is GRAFANA:
            trace_url = (config.tracing.trace_url or "") if config.tracing else ""
            return GrafanaSettings(config.grafana_port, config.url, trace_url) if config.is_grafana_managed else None
        if not config.is_managed:
            return None
        return PrometheusSettings(config.prometheus_port, config.retention_s, config.max_disk_bytes, self._control)


def _change(kind: Kind, before: Settings | None, after: Settings | None) -> diff.Change | None:
    key = f"observability.{kind.name}"
    if before == after:
        return None
    if after is None:
        return diff.Change("-", kind.name, "end it; what it kept stays", f"{key} changed")
    if before is None:
        return diff.Change("+", kind.name, f"run it at {after.url}", f"{key} is managed")
    old = before.facts()
    causes = [f"{name} {old[name]} -> {value}" for name, value in after.facts().items() if old[name] != value]
    return diff.Change("~", kind.name, "start it again with other settings", "; ".join(causes))
