"""From what was written to what is meant: inheritance, the rules that span fields, and the defaults of traffic.

Works on the plain dictionaries that `groups.py` reads. `INVALID` in them was reported before, and no rule here speaks
of it again. Pure: what needs the file system is in `world.py`.
"""

from __future__ import annotations

import re
from typing import Any

from orchestrator.backends import BACKENDS
from orchestrator.manifest.diagnostics import Path, listed, shown, unknown_name
from orchestrator.manifest.gateway import NO_GRPC, GatewayConfig, LimitsConfig
from orchestrator.manifest.groups import settings_of
from orchestrator.manifest.kinds import INVALID, Report, size_text
from orchestrator.manifest.model import ModelConfig, VersionConfig, written
from orchestrator.manifest.observability import MANAGED, OFF, ObservabilityConfig
from orchestrator.manifest.scaling import ScalingConfig

Layer = dict[str, Any]

# An image and a backend are one choice: the deepest layer that makes it takes away what the layers above chose.
# A pinned digest is of one source.
_DISPLACES = {"image": ("backend",), "backend": ("image", "port"), "source": ("sha256",)}
# Fields that only a managed server of that name has.
_OF_A_MANAGED = {
    "prometheus_port": "prometheus",
    "retention": "prometheus",
    "max_disk": "prometheus",
    "grafana_port": "grafana",
}
_VERSION_FIELDS = frozenset(settings_of(VersionConfig))
_MODEL_FIELDS = frozenset(settings_of(ModelConfig))


def resolve(manifest: Layer, report: Report) -> Layer:
    """`manifest` with every version complete but for plain defaults, and with each model's traffic."""
    defaults = _checked_layer(manifest.get("defaults", {}), ("defaults",), report)
    models = _mapping(manifest.get("models"))
    _check_gateway(_mapping(manifest.get("gateway", {})), report)
    observability = _mapping(manifest.get("observability", {}))
    _check_autoscaler(_mapping(manifest.get("autoscaler", {})), observability, report)
    _check_observability(observability, _mapping(manifest.get("gateway", {})), report)
    resolved = {name: _resolve_model(model, defaults, ("models", name), report) for name, model in models.items()}
    _check_sticky(manifest, resolved, report)
    if manifest.get("engine") == "process":
        _check_process_engine(manifest, resolved, report)
    return {**manifest, "models": resolved}


def newest(versions: list[str]) -> str:
    """The last in the order of the numbers in the names; `2-rc1` comes before `2`, and `2` before `2.1`."""
    return max(versions, key=lambda name: (_natural(name), name))


def _resolve_model(model: Any, defaults: Layer, path: Path, report: Report) -> Layer:
    if not isinstance(model, dict):
        return {}
    own = _checked_layer({key: model[key] for key in model.keys() & _VERSION_FIELDS}, path, report)
    inherited = _merge(defaults, own)
    versions = _mapping(model.get("versions"))
    resolved = {}
    for name, version in versions.items():
        at = (*path, "versions", name)
        resolved[name] = _merge(inherited, _checked_layer(version, at, report))
        _check_version(resolved[name], at, report)
    _check_labels(_mapping(model.get("labels", {})), versions, path, report)
    traffic = _mapping(model.get("traffic", {}))
    if traffic:
        _check_traffic(traffic, versions, (*path, "traffic"), report)
    elif versions:
        traffic = {newest(list(versions)): 100}
    _check_shadow(_mapping(model.get("shadow")), versions, traffic, (*path, "shadow"), report)
    return {**{key: model[key] for key in model.keys() & _MODEL_FIELDS}, "versions": resolved, "traffic": traffic}


def _merge(base: Layer, over: Layer) -> Layer:
    """Mappings merge key by key; anything else of `over` replaces what `base` has."""
    displaced = {other for key in over.keys() & _DISPLACES.keys() for other in _DISPLACES[key]}
    merged = {key: value for key, value in base.items() if key not in displaced}
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _checked_layer(layer: Any, path: Path, report: Report) -> Layer:
    own = _mapping(layer)
    if "image" in own and "backend" in own:
        report.add((*path, "image"), "image and backend exclude each other; an image brings its own server; remove one")
    return own


def _check_version(version: Layer, path: Path, report: Report) -> None:
    if "image" not in version:
        if "backend" not in version:
            report.add(path, f"backend is missing; write `backend:` with {listed(BACKENDS)}, or `image:` for your own")
        if "source" not in version:
            report.add(path, "source is missing; write `source:` with the model's file or folder, or its URL")
        if "port" in version:
            at = written(report.root, (*path, "port"))
            report.add(at, "has an effect with `image:` alone; the model server's port is fixed; remove it", key=True)
    for name in ("sha256", "unpack"):
        if name in version and "source" not in version:
            at = written(report.root, (*path, name))
            report.add(at, "has an effect with `source:` alone; name one, or remove it", key=True)
    _check_scaling(_mapping(version.get("scaling", {})), (*path, "scaling"), report)
    both = _mapping(version.get("env", {})).keys() & _mapping(version.get("secrets", {})).keys()
    for name in sorted(both):
        at = written(report.root, (*path, "secrets", name))
        report.add(at, f"{shown(name)} is in env and in secrets; a variable has one value; remove one", key=True)


def _check_scaling(scaling: Layer, path: Path, report: Report) -> None:
    most = scaling.get("max")
    if not isinstance(most, int):
        return
    least = scaling.get("min", settings_of(ScalingConfig)["min"].default)
    if least is not INVALID and most < least:
        at = written(report.root, (*path, "max"))
        report.add(at, f"{most} is below min ({least}); raise it, or lower min")
    schedule = scaling.get("schedule", [])
    for number, each in enumerate([] if schedule is INVALID else schedule):
        minimum = _mapping(each).get("min")
        if isinstance(minimum, int) and minimum > most:
            at = (*written(report.root, (*path, "schedule")), number, "min")
            report.add(at, f"{minimum} is above max ({most}); lower it, or raise max")


def _check_traffic(traffic: Layer, versions: Layer, path: Path, report: Report) -> None:
    for version in traffic.keys() - versions.keys():
        report.add((*path, version), f"no such version; {unknown_name(version, versions)}", key=True)
    if INVALID in traffic.values():
        return
    total = sum(traffic.values())
    if total != 100:
        change = f"raise one by {100 - total}" if total < 100 else f"lower them by {total - 100}"
        report.add(path, f"weights sum to {total}; they must sum to 100; {change}")


def _check_labels(labels: Layer, versions: Layer, path: Path, report: Report) -> None:
    for label, version in labels.items():
        at = (*path, "labels", label)
        if label in versions and label != version:
            report.add(
                at, f"{shown(label)} is the name of a version; a label cannot hide it; rename the label", key=True
            )
        if isinstance(version, str) and version not in versions:
            report.add(at, f"no such version {shown(version)}; {unknown_name(version, versions)}")


def _check_shadow(shadow: Layer, versions: Layer, traffic: Layer, path: Path, report: Report) -> None:
    version = shadow.get("version")
    if not isinstance(version, str):
        return
    at = (*path, "version")
    if version not in versions:
        report.add(at, f"no such version {shown(version)}; {unknown_name(version, versions)}")
    elif [name for name, weight in traffic.items() if weight] == [version]:
        others = [name for name in versions if name != version]
        mend = f"write `traffic:` with {shown(others[0])}" if others else "add the version that it is compared with"
        report.add(at, f"{shown(version)} takes all traffic; its copies would tell nothing; {mend}, or name another")


def _check_sticky(manifest: Layer, models: Layer, report: Report) -> None:
    """Without keys no request has one to stick to."""
    if _mapping(manifest.get("gateway", {})).get("auth", "off") != "off":
        return
    for name, model in models.items():
        if model.get("sticky") == "key":
            report.add(
                ("models", name, "sticky"),
                "'key' has an effect with `gateway: {auth: required}` alone; write that, or header:NAME or cookie:NAME",
            )


def _check_gateway(gateway: Layer, report: Report) -> None:
    _check_ports(gateway, report)
    limits = _mapping(gateway.get("limits", {}))
    for part, whole, of in (("target_bytes", "head_bytes", "the head"), ("buffer_bytes", "held_bytes", "what is held")):
        _check_part(limits, part, whole, of, report)


def _check_ports(gateway: Layer, report: Report) -> None:
    known = settings_of(GatewayConfig)
    taken: dict[object, str] = {}
    for field in ("port", "grpc_port", "metrics_port"):
        port = gateway.get(field, known[field].default)
        if port is INVALID or port == NO_GRPC:
            continue
        other = taken.setdefault(port, field)
        if other != field:
            at = ("gateway", field if field in gateway else other)
            report.add(at, f"{other} and {field} are both {port}; each has a port of its own; change one")


def _check_part(limits: Layer, part: str, whole: str, of: str, report: Report) -> None:
    known = settings_of(LimitsConfig)
    value, most = limits.get(part, known[part].default), limits.get(whole, known[whole].default)
    if INVALID not in (value, most) and value > most:
        at = ("gateway", "limits", part if part in limits else whole)
        message = f"{part} ({size_text(value)}) is above {whole} ({size_text(most)}), but a part of {of}"
        report.add(at, f"{message}; lower it, or raise {whole}")


def _check_autoscaler(autoscaler: Layer, observability: Layer, report: Report) -> None:
    is_watched = observability.get("prometheus", OFF) != OFF
    if autoscaler.get("source") == "prometheus" and autoscaler.get("prometheus") is None and not is_watched:
        rule = "needs the server's URL; write `prometheus: http://127.0.0.1:9090`, or `source: direct`"
        report.add(("autoscaler", "source"), f"'prometheus' {rule}")


def _check_observability(observability: Layer, gateway: Layer, report: Report) -> None:
    modes = {name: observability.get(name, OFF) for name in ("prometheus", "grafana")}
    for field, name in _OF_A_MANAGED.items():
        if field in observability and modes[name] not in (MANAGED, INVALID):
            rule = f"has an effect with `{name}: managed` alone; write that, or remove it"
            report.add(("observability", field), rule, key=True)
    trace_url = _mapping(observability.get("tracing", {})).get("trace_url", INVALID)
    if trace_url is not INVALID and modes["grafana"] not in (MANAGED, INVALID):
        rule = "has an effect with `observability.grafana: managed` alone; write that, or remove it"
        report.add(("observability", "tracing", "trace_url"), rule, key=True)
    if modes["grafana"] == MANAGED and modes["prometheus"] == OFF:
        rule = "needs numbers to show; write `prometheus: managed` beside it, or the URL of a Prometheus"
        report.add(("observability", "grafana"), f"{MANAGED!r} {rule}")
    _check_observability_ports(observability, [name for name in modes if modes[name] == MANAGED], gateway, report)


def _check_observability_ports(observability: Layer, managed: list[str], gateway: Layer, report: Report) -> None:
    """Whoever listens on this machine has a port of its own."""
    ours, theirs = settings_of(ObservabilityConfig), settings_of(GatewayConfig)
    taken = {
        f"gateway.{name}": gateway.get(name, theirs[name].default) for name in ("port", "grpc_port", "metrics_port")
    }
    for name in managed:
        field = f"{name}_port"
        port = observability.get(field, ours[field].default)
        for other, number in taken.items():
            if port is not INVALID and number == port:
                at = ("observability", field if field in observability else name)
                report.add(at, f"{field} and {other} are both {port}; each has its own; change one")
        taken[field] = port


def _check_process_engine(manifest: Layer, models: Layer, report: Report) -> None:
    rule = "has an effect with `engine: docker` alone; remove it, or change the engine"
    if _mapping(manifest.get("images", {})).get("base") is not None:
        report.add(("images", "base"), rule, key=True)
    images = {
        written(report.root, ("models", name, "versions", version, "image"))
        for name, model in models.items()
        for version, config in model.get("versions", {}).items()
        if "image" in config
    }
    for at in sorted(images, key=str):
        report.add(at, rule, key=True)


def _mapping(value: Any) -> Layer:
    """`value`, or nothing where it was wrong and has been reported."""
    return value if isinstance(value, dict) else {}


def _natural(name: str) -> list[tuple[int, int, str]]:
    # Words rank below the end of the name and numbers above it: 2-rc1 < 2 < 2.1.
    tokens = re.findall(r"[0-9]+|[A-Za-z]+", name)
    ranks = [(2, int(token), "") if token[0].isdigit() else (0, 0, token) for token in tokens]
    return [*ranks, (1, 0, "")]
