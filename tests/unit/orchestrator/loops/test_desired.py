"""A manifest as the desired state: what a replica is started from, and what only the gateway obeys."""

from __future__ import annotations

from pathlib import Path

from orchestrator.core.entities import DesiredModel, RateLimit, Shadow, VersionKey
from orchestrator.loops.desired import Resolved, build
from orchestrator.manifest import load

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
