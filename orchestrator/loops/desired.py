"""Manifest -> desired state: a pure translation, once everything that it rests on has been resolved.

`Resolved` holds what needed I/O (content digests, runtime ids, keyed digests of secrets); `prepare.py` gathers it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import ceil

import msgspec

from orchestrator.core.entities import (
    ClusterLimits,
    Desired,
    DesiredModel,
    DesiredVersion,
    ModelSettings,
    Pricing,
    RateLimit,
    ReplicaSpec,
    Resources,
    Scaling,
    ScheduledMinimum,
    Shadow,
    SignalSource,
    VersionKey,
)
from orchestrator.manifest import BatchingConfig, Manifest, ModelConfig, VersionConfig
from orchestrator.manifest.serving import PREDICT_TIMEOUT_S

CONTAINER_PORT = 8000


@dataclass(frozen=True, slots=True)
class Resolved:
    """What the manifest's names stand for now. Versions without a source or secrets are absent from the maps."""

    artifacts: Mapping[VersionKey, str] = field(default_factory=dict)
    runtimes: Mapping[VersionKey, str] = field(default_factory=dict)
    secrets: Mapping[VersionKey, Mapping[str, str]] = field(default_factory=dict)


def build(manifest: Manifest, resolved: Resolved) -> Desired:
    """The desired state; `revision` 0 until the store numbers it."""
    body_bytes = manifest.gateway.limits.body_bytes
    cluster, autoscaler = manifest.cluster_settings, manifest.autoscaler
    return Desired(
        models={name: _model(name, m, resolved, body_bytes) for name, m in manifest.models.items()},
        limits=ClusterLimits(cluster.max_cpus, cluster.max_memory_bytes, cluster.max_starting),
        pricing=Pricing(**asdict(manifest.pricing)),
        signals=SignalSource(autoscaler.source, autoscaler.prometheus or manifest.observability.url),
    )


def _model(name: str, config: ModelConfig, resolved: Resolved, body_bytes: int) -> DesiredModel:
    versions = {v: _version(VersionKey(name, v), c, resolved, body_bytes) for v, c in config.versions.items()}
    return DesiredModel(name, versions, dict(config.traffic), dict(config.labels), _model_settings(config))


def _model_settings(config: ModelConfig) -> ModelSettings:
    shadow, rate = config.shadow, config.rate_limit
    return ModelSettings(
        sticky=config.sticky or "",
        shadow=None if shadow is None else Shadow(**asdict(shadow)),
        rate_limit=None if rate is None else RateLimit(rate.requests_per_s, rate.burst or ceil(rate.requests_per_s)),
    )


def _version(key: VersionKey, config: VersionConfig, resolved: Resolved, body_bytes: int) -> DesiredVersion:
    spec = ReplicaSpec(
        model=key.model,
        version=key.version,
        backend=config.backend or "",
        artifact=resolved.artifacts.get(key, ""),
        runtime=resolved.runtimes[key],
        env=tuple(sorted(config.env.items())),
        secrets=tuple(sorted(resolved.secrets.get(key, {}).items())),
        resources=Resources(config.resources.cpus, config.resources.memory_bytes, config.resources.pids),
        port=config.port if config.image else CONTAINER_PORT,
        egress=config.egress,
        settings=_settings(config, body_bytes),
    )
    return DesiredVersion(
        spec=spec,
        digest=spec.digest(),
        # One that may sleep starts awake, so that an apply shows whether it loads.
        replicas=max(1, config.scaling.min),
        standby=config.scaling.standby,
        scaling=_scaling(config),
        concurrency=config.concurrency,
        queue_max=config.queue.max,
        queue_timeout_ms=config.queue.timeout_ms,
        request_timeout_ms=config.request_timeout_ms,
        idempotent=config.idempotent,
        retry_max=config.retry.max,
        retry_budget=config.retry.budget,
        retry_on=config.retry.on,
        eject=config.eject,
        balance=config.balance,
        websocket=config.websocket,
        startup_timeout_s=config.startup_timeout_s,
        drain_timeout_s=config.drain_timeout_s,
    )


def _scaling(config: VersionConfig) -> Scaling:
    scaling = config.scaling
    schedule = tuple(ScheduledMinimum(each.cron, each.min, each.zone) for each in scaling.schedule)
    return Scaling(
        minimum=scaling.min,
        maximum=scaling.max or max(1, scaling.min, *(each.minimum for each in schedule)),
        is_capped=scaling.max is not None,
        standby=scaling.standby,
        idle_after_s=scaling.idle_after_s,
        gone_after_s=scaling.gone_after_s,
        schedule=schedule,
        worth_s=scaling.worth,
        priority=scaling.priority,
        latency_s=None if config.slo.latency_ms is None else config.slo.latency_ms / 1000,
        percentile=config.slo.percentile,
    )


def _settings(config: VersionConfig, body_bytes: int) -> str:
    """What the model server must know. The gateway's settings stay out: changing one restarts no replica. What is at
    its default stays out too: a field that a release adds replaces no replica that does not use it.
    """
    settings: dict[str, object] = {
        "max_body_bytes": body_bytes,
        "drain_timeout_s": config.drain_timeout_s,
        "load_timeout_s": config.startup_timeout_s,
        "batching": None if config.batching is None else _batching(config.batching),
    }
    if config.slo.latency_ms is not None:
        settings["slo_ms"] = config.slo.latency_ms
    if config.instances != 1:
        settings["instances"] = config.instances
    if config.predict_timeout_s != PREDICT_TIMEOUT_S:
        settings["predict_timeout_s"] = config.predict_timeout_s
    if config.outputs:
        settings["outputs"] = config.outputs
    if config.cache is not None:
        settings["cache"] = {"ttl_s": config.cache.ttl_s, "max_bytes": config.cache.max_bytes}
    return msgspec.json.encode(settings, order="sorted").decode()


def _batching(batching: BatchingConfig) -> dict[str, object]:
    said: dict[str, object] = {"max_size": batching.max_size, "max_delay_ms": batching.max_delay_ms}
    if batching.max_request_rows is not None:
        said["max_request_rows"] = batching.max_request_rows
    return said
