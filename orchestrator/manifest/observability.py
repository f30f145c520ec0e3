"""The fields of a manifest that say what watches the cluster. None of them is a part of what a replica is."""

# ruff: noqa: RUF009  (`setting()` makes a dataclasses.field)

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.manifest.groups import Group, setting
from orchestrator.manifest.kinds import GI, MI, Duration, Integer, Number, Size, Text
from orchestrator.manifest.secrets import SecretKind, SecretRef

MANAGED, OFF = "managed", "off"


@dataclass(frozen=True, slots=True)
class TracingConfig:
    """Where traces go."""

    otlp: str = setting(
        Text(
            "the address of an OpenTelemetry collector without a password, such as http://127.0.0.1:4318",
            r"https?://[^\s@?#\x00-\x1f\x7f]+",
            is_shown=False,
        ),
        "Where traces are sent, by OTLP over HTTP; `/v1/traces` is added to it.",
    )
    sample: float = setting(
        Number(0, 1),
        "The share of requests without a `traceparent` that begin a trace. One with it is recorded when its sender "
        "says so.",
        default=0.01,
    )
    headers: SecretRef | None = setting(
        SecretKind(SecretRef),
        "Header fields for the collector, a token mostly: `name: value` a line in a file, which may change at any "
        "time, or `name=value,…` in a variable.",
        default=None,
    )
    service_name: str = setting(
        Text("letters, digits, '.', '_' and '-', at most 63", r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"),
        "`service.name` of the gateway's spans; those of replicas have `-replica` behind it.",
        default="modelfleet-gateway",
    )
    trace_url: str | None = setting(
        Text(
            "a URL with {trace_id} in it once, such as http://127.0.0.1:16686/trace/{trace_id}",
            r"https?://[^\s{}\x00-\x1f\x7f]*\{trace_id\}[^\s{}\x00-\x1f\x7f]*",
        ),
        "Where a trace is looked at: a managed Grafana links there from the points of a latency.",
        default=None,
    )


@dataclass(frozen=True, slots=True)
class ObservabilityConfig:
    """Where the cluster's numbers are kept."""

    prometheus: str = setting(
        Text(
            "managed, off, or the URL of a Prometheus server, such as http://127.0.0.1:9090",
            r"managed|off|https?://[^\s\x00-\x1f\x7f]+",
        ),
        "`managed` runs one beside the gateway, with everything configured; a URL names a server of yours, which "
        "`modelfleet status` shows and the autoscaler may ask; `off` runs none.",
        default=OFF,
    )
    prometheus_port: int = setting(
        Integer(1, 65_535), "Where the managed one answers, always on loopback.", default=9090
    )
    retention_s: float = setting(
        Duration("1h", "87600h"), "How long the managed one keeps numbers.", default=1_296_000.0, key="retention"
    )
    max_disk_bytes: int = setting(
        Size(64 * MI, 1024 * GI), "Most disk of what it keeps; the oldest goes first.", default=2 * GI, key="max_disk"
    )
    grafana: str = setting(
        Text(
            "managed, off, or the URL of a Grafana, such as http://127.0.0.1:3000",
            r"managed|off|https?://[^\s\x00-\x1f\x7f]+",
        ),
        "`managed` runs one beside Prometheus, with its data source and our dashboards, for anybody on this machine to "
        "look at; a URL names one of yours, which `modelfleet status` shows; `off` runs none.",
        default=OFF,
    )
    grafana_port: int = setting(Integer(1, 65_535), "Where the managed one answers, always on loopback.", default=3000)

    tracing: TracingConfig | None = setting(
        Group(TracingConfig), "Traces of requests, sent to an OpenTelemetry collector.", default=None
    )

    @property
    def is_managed(self) -> bool:
        return self.prometheus == MANAGED

    @property
    def url(self) -> str:
        """Where a Prometheus answers, "" without one."""
        if self.is_managed:
            return f"http://127.0.0.1:{self.prometheus_port}"
        return "" if self.prometheus == OFF else self.prometheus

    @property
    def is_grafana_managed(self) -> bool:
        return self.grafana == MANAGED

    @property
    def grafana_url(self) -> str:
        """Where a Grafana answers, "" without one."""
        if self.is_grafana_managed:
            return f"http://127.0.0.1:{self.grafana_port}"
        return "" if self.grafana == OFF else self.grafana
