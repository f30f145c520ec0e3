"""A manifest as the desired state: what a replica is started from, and what only the gateway obeys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapters.gateway import GatewayProcess, make_table
from orchestrator.config import Config
from orchestrator.core.entities import (
    ClusterLimits,
    DesiredModel,
    DesiredVersion,
    RateLimit,
    Scaling,
    ScheduledMinimum,
    Shadow,
    SignalSource,
    VersionKey,
)
from orchestrator.core.plan import RoutedModel, RoutedVersion
from orchestrator.loops.desired import Resolved, build
from orchestrator.loops.prepare import listener_of
from orchestrator.manifest import GatewayConfig, LimitsConfig, RateLimitConfig, RetryConfig, ShadowConfig, load
from orchestrator.manifest.groups import Group, GroupOrFlag, ListOf, settings_of
from orchestrator.manifest.kinds import Choice, Flag, Integer, IntegerOr, Kind, Number, Size
from router import config as gateway_config
from router import contract

KEYS = [VersionKey("iris", "1"), VersionKey("iris", "2")]
VERSIONS = 'versions: {"1": {source: m, backend: onnx}, "2": {source: m, backend: onnx}}, traffic: {"1": 100}'
SETTINGS = (
    "retry: {budget: 0.5, max: 1, on: [503]}, eject: false, balance: round_robin, websocket: true, "
    'sticky: header:x-user, shadow: {version: "2", percent: 5}, rate_limit: {requests_per_s: 2.5}'
)


def iris(section: str, gateway: str = "{}") -> DesiredModel:
    text = f"gateway: {gateway}\nmodels: {{iris: {{{section}}}}}"
    manifest = load(text, file="models.yaml", base_dir=Path("/"))
    return build(manifest, Resolved(runtimes=dict.fromkeys(KEYS, "runtime"))).models["iris"]


def test_a_setting_that_only_the_gateway_obeys_is_no_part_of_a_replicas_spec() -> None:
    plain = iris(VERSIONS)

    changed = iris(
        f"{SETTINGS}, concurrency: 3, queue: {{max: 1}}, idempotent: false, {VERSIONS}",
        "{processes: auto, auth: required, access_log: true, limits: {connections: 5, write_timeout_s: 1}}",
    )

    assert {v: plain.versions[v].digest for v in "12"} == {v: changed.versions[v].digest for v in "12"}
    assert plain != changed


def test_the_settings_of_a_model_and_its_versions_are_carried() -> None:
    model = iris(f"{SETTINGS}, {VERSIONS}")

    version = model.versions["2"].route_settings
    assert (version.retry_budget, version.retry_max, version.retry_on) == (0.5, 1, ("503",))
    assert (version.eject, version.balance, version.websocket) == (False, "round_robin", True)
    assert model.settings.sticky == "header:x-user"
    assert model.settings.shadow == Shadow("2", percent=5)
    assert model.settings.rate_limit == RateLimit(2.5, 3)


def scaling_of(section: str) -> DesiredVersion:
    return iris(f"{section}, {VERSIONS}").versions["1"]


@pytest.mark.parametrize(
    ("section", "replicas", "scaling"),
    [
        ("scaling: {min: 3}", 3, Scaling(minimum=3, maximum=3)),
        ("scaling: {min: 0}", 1, Scaling(minimum=0)),
        ("scaling: {max: 4, standby: 2, worth: 3}", 1, Scaling(maximum=4, is_capped=True, standby=2, worth_s=3)),
        ("slo: {latency_ms: 50, percentile: 99}", 1, Scaling(latency_s=0.05, percentile=99)),
        (
            'scaling: {schedule: [{cron: "0 8 * * *", min: 6}]}',
            1,
            Scaling(maximum=6, schedule=(ScheduledMinimum("0 8 * * *", 6),)),
        ),
    ],
)
def test_says_between_what_the_count_may_be_chosen(section: str, replicas: int, scaling: Scaling) -> None:
    version = scaling_of(section)

    assert (version.replicas, version.scaling) == (replicas, scaling)


@pytest.mark.parametrize(
    ("section", "is_fixed"),
    [
        ("scaling: {min: 3}", True),
        ("scaling: {min: 3, max: 3}", True),
        ("scaling: {min: 0}", False),
        ("scaling: {max: 2}", False),
        ("scaling: {standby: 1}", False),
        ('scaling: {schedule: [{cron: "0 8 * * *", min: 1}]}', False),
    ],
)
def test_a_version_without_anything_to_choose_is_fixed(section: str, is_fixed: bool) -> None:
    assert scaling_of(section).scaling.is_fixed is is_fixed


def test_a_change_of_scaling_restarts_no_replica() -> None:
    scaling = "scaling: {min: 0, max: 9, standby: 2, idle_after: 1m, worth: 3, priority: 2}, slo: {percentile: 99}"

    assert scaling_of(scaling).digest == scaling_of("scaling: {min: 1}").digest


def test_carries_the_limits_of_the_cluster_and_the_source_of_signals() -> None:
    text = "cluster: {max_cpus: 2, max_memory: 1Gi, max_starting: 3}\n"
    text += "autoscaler: {source: prometheus, prometheus: 'http://p:9090'}\nmodels: {}"

    made = build(load(text, file="models.yaml", base_dir=Path("/")), Resolved())

    assert made.limits == ClusterLimits(2, 2**30, 3)
    assert made.signals == SignalSource("prometheus", "http://p:9090")


def server_settings(fields: str = "") -> dict[str, Any]:
    """The JSON that version 1 with these fields hands to its model server."""
    model = iris(f'versions: {{"1": {{source: m, backend: onnx{fields}}}}}')
    decoded: dict[str, Any] = json.loads(model.versions["1"].spec.settings)
    return decoded


def test_a_replica_is_told_of_no_field_that_is_at_its_default() -> None:
    """Else a release with a new field would replace every replica."""
    assert server_settings() == {
        "batching": None,
        "drain_timeout_s": 30.0,
        "load_timeout_s": 300.0,
        "max_body_bytes": 67_108_864,
    }


@pytest.mark.parametrize(
    ("fields", "key", "value"),
    [
        ("batching: {}", "batching", {"max_size": "auto", "max_delay_ms": 0.0}),
        ("batching: {max_size: 8}", "batching", {"max_size": 8, "max_delay_ms": 0.0}),
        (
            "batching: {max_request_rows: 9}",
            "batching",
            {"max_size": "auto", "max_delay_ms": 0.0, "max_request_rows": 9},
        ),
        ("slo: {latency_ms: 50}", "slo_ms", 50.0),
        ("instances: 4", "instances", 4),
        ("cache: {ttl: 60s, max: 64Mi}", "cache", {"ttl_s": 60.0, "max_bytes": 64 << 20}),
        ("outputs: [predict, predict_proba]", "outputs", ["predict", "predict_proba"]),
        ("predict_timeout_s: 0.5", "predict_timeout_s", 0.5),
    ],
)
def test_a_replica_is_told_how_to_serve(fields: str, key: str, value: object) -> None:
    assert server_settings(f", {fields}")[key] == value


def values(kind: Kind) -> st.SearchStrategy[Any]:
    """What the kind's own bounds allow, as JSON."""
    match kind:
        case Integer() | Size():
            return st.one_of(st.sampled_from([kind.least, kind.most]), st.integers(kind.least, kind.most))
        case Number():
            bounds = [int(kind.least * 1000), int(kind.most * 1000)]
            return st.one_of(st.sampled_from(bounds), st.integers(*bounds)).map(lambda thousandths: thousandths / 1000)
        case Choice():
            return st.sampled_from(kind.options)
        case Flag():
            return st.booleans()
        case IntegerOr():
            return st.one_of(st.just(kind.word), values(kind.number))
        case ListOf():
            return st.lists(values(kind.value), unique=True)
        case GroupOrFlag():
            return st.one_of(st.booleans(), group(kind.kind.cls))
        case Group():
            return group(kind.cls)
    return st.nothing()


def group(cls: type, *names: str) -> st.SearchStrategy[dict[str, Any]]:
    """Some of a group's settings (those named, or all but texts), each of any value that it may have."""
    known = {name: values(each.kind) for name, each in settings_of(cls).items()}
    chosen = {name: value for name, value in known.items() if not value.is_empty and (not names or name in names)}
    return st.fixed_dictionaries({}, optional=chosen)


@given(
    retry=group(RetryConfig),
    shadow=group(ShadowConfig),
    rate=group(RateLimitConfig),
    limits=group(LimitsConfig),
    gateway=group(GatewayConfig, "processes", "auth", "access_log"),
    sticky=st.sampled_from(["header:x-user", "cookie:a"]),
)
def test_whatever_a_manifest_may_say_a_gateway_takes(
    retry: dict[str, Any], shadow: dict[str, Any], rate: dict[str, Any], limits: dict[str, Any],
    gateway: dict[str, Any], sticky: str,
) -> None:  # fmt: skip
    """A manifest that passes and a table or config.json that is refused would leave a cluster without its gateway."""
    limits |= {"target_bytes": 1024, "buffer_bytes": 1024}
    settings = {
        "retry": retry, "shadow": {**shadow, "version": "2"}, "rate_limit": {"requests_per_s": 1, **rate}, "sticky": sticky,
    }  # fmt: skip
    versions = {name: {"source": "m", "backend": "onnx"} for name in "12"}
    model = {**settings, "versions": versions, "traffic": {"1": 100}}
    text = json.dumps({"gateway": {**gateway, "limits": limits}, "models": {"iris": model}})

    manifest = load(text, file="models.yaml", base_dir=Path("/"))

    wanted = build(manifest, Resolved(runtimes=dict.fromkeys(KEYS, "runtime"))).models["iris"]
    routed = {name: RoutedVersion(version.route_settings) for name, version in wanted.versions.items()}
    models = {"iris": RoutedModel(routed, {"1": 100}, {}, wanted.settings)}
    table = make_table(epoch="e", revision=1, cluster="c", routed=models, replicas={})
    assert contract.decode(contract.encode(table)) == table
    process = GatewayProcess(Path("/none"), "http://127.0.0.1:1", Path("/token"), Path("/log"))
    config = process._config(listener_of(manifest, Config(Path("/"))))
    gateway_config.check(msgspec.convert(config, gateway_config.Config), "config.json")
