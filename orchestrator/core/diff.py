"""What an apply will do, in words for people: one `Change` a line, each with every reason for it.

A preview compares two desired states; what runs only fills in counts. It says what `reconcile.py` will do and decides
nothing. Values of environment variables and secrets are never shown.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, Literal

from orchestrator.core.entities import (
    Desired,
    DesiredModel,
    DesiredVersion,
    ModelSettings,
    Observed,
    ReplicaSpec,
    Resources,
    RouteSettings,
    Scaling,
)
from orchestrator.core.sources import is_unfetched, redacted
from orchestrator.core.states import LIVE

Symbol = Literal["+", "~", "-"]

# Settings of a version that the gateway or the control plane obeys: a change of one restarts no replica.
LIVE_SETTINGS = (*RouteSettings.__slots__, "startup_timeout_s", "drain_timeout_s")
SHOWN_DIGITS = 8
SCALING_NAMES = {
    "minimum": "scaling.min", "maximum": "scaling.max", "standby": "scaling.standby",
    "idle_after_s": "scaling.idle_after", "gone_after_s": "scaling.gone_after", "schedule": "scaling.schedule",
    "worth_s": "scaling.worth", "priority": "scaling.priority", "latency_s": "slo.latency_ms",
    "percentile": "slo.percentile",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Change:
    """One line of a preview: what happens to `target` (`iris` or `iris@1`), and why ("" when the sentence says it)."""

    symbol: Symbol
    target: str
    sentence: str
    cause: str = ""

    def __str__(self) -> str:
        return f"{self.symbol} {self.target}  {self.sentence}" + (f"  ({self.cause})" if self.cause else "")


def preview(before: Desired, after: Desired, observed: Observed) -> tuple[Change, ...]:
    """The changes from `before` to `after`, model by model; none when the two ask for the same."""
    names = sorted({*before.models, *after.models})
    models = (c for name in names for c in _of_model(before.models.get(name), after.models.get(name), observed))
    return (*models, *_of_cluster(before, after))


def _of_cluster(before: Desired, after: Desired) -> Iterator[Change]:
    for target, old, new in (
        ("cluster", before.limits, after.limits),
        ("autoscaler", before.signals, after.signals),
        ("pricing", before.pricing, after.pricing),
    ):
        if causes := list(_keys("", asdict(old), asdict(new))):
            # A Prometheus may be named with its password.
            yield Change("~", target, "change settings, no restart", redacted("; ".join(causes)))


def render(changes: tuple[Change, ...]) -> str:
    """One line a change, in columns."""
    if not changes:
        return "nothing changes"
    target = max(len(c.target) for c in changes)
    return "\n".join(
        f"{c.symbol} {c.target:<{target}}  {c.sentence}" + (f"  ({c.cause})" if c.cause else "") for c in changes
    )


def digest(changes: tuple[Change, ...]) -> str:
    """Names a preview: 16 hexadecimal digits. Counts of what runs are left out: a crash makes no plan stale."""
    lines = [[c.symbol, c.target, re.sub(r"\b\d+ replicas?", "replicas", c.sentence), c.cause] for c in changes]
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()[:16]


def _of_model(before: DesiredModel | None, after: DesiredModel | None, observed: Observed) -> Iterator[Change]:
    old, new = before.versions if before else {}, after.versions if after else {}
    for version, wanted in new.items():
        yield from _of_version(old.get(version), wanted, observed)
    yield from _of_traffic(before, after)
    gone = "version removed" if after else "model removed"
    for version in (v for v in old if v not in new):
        yield _removed(old[version], gone, observed)


def _of_version(before: DesiredVersion | None, after: DesiredVersion, observed: Observed) -> Iterator[Change]:
    if before is None:
        yield _added(after, observed)
        return
    target = str(after.key)
    scaled = [f"replicas {before.replicas} -> {after.replicas}"] if before.replicas != after.replicas else []
    is_replaced = before.digest != after.digest
    if is_replaced:
        causes = [*spec_changes(before.spec, after.spec), *scaled]
        yield Change("~", target, _replace_sentence(before, after), "; ".join([*causes, *_spec(after)]))
    elif scaled:
        yield Change("~", target, _scale_sentence(before, after), scaled[0])
    settings = [
        f"{name} {_plain(getattr(before, name))} -> {_plain(getattr(after, name))}"
        for name in LIVE_SETTINGS
        if getattr(before, name) != getattr(after, name)
    ] + _scaling(before.scaling, after.scaling)
    if settings:
        sentence = "change settings" if is_replaced else "change settings, no restart"
        yield Change("~", target, sentence, "; ".join(settings))


def _scaling(before: Scaling, after: Scaling) -> list[str]:
    """A phrase for each field that differs, by its name in a manifest; two fixed counts differ by the count alone."""
    unsaid = ("minimum", "maximum") if before.is_fixed and after.is_fixed else ()
    changed = (name for name in SCALING_NAMES if name not in unsaid and getattr(before, name) != getattr(after, name))
    return [
        f"{SCALING_NAMES[name]} {_chosen(name, getattr(before, name))} -> {_chosen(name, getattr(after, name))}"
        for name in changed
    ]


def _chosen(name: str, value: Any) -> str:
    """A value of `Scaling` as one writes it in a manifest."""
    if isinstance(value, tuple):
        return f"[{', '.join(_group(each) for each in value)}]"
    if name == "latency_s" and value is not None:
        return f"{value * 1000:g}"
    return f"{value:g}s" if name in ("idle_after_s", "gone_after_s") and value is not None else _plain(value)


def _added(after: DesiredVersion, observed: Observed) -> Change:
    running = sum(1 for r in observed.of(after.key) if r.digest == after.digest and r.state in LIVE)
    adopted = min(running, after.replicas)
    sentence = f"start {_replicas(after.replicas - adopted)}"
    if adopted:
        sentence = f"adopt {_replicas(adopted)} already running" + (f", {sentence}" if adopted < after.replicas else "")
    source = [f"source {_short(after.spec.artifact)}"] if after.spec.artifact else []
    backend = after.spec.backend or f"image {_short(after.spec.runtime)}"
    cause = ["new version", f"replicas {after.replicas}", backend, *source, *_spec(after)]
    return Change("+", str(after.key), sentence, ", ".join(cause))


def _removed(before: DesiredVersion, cause: str, observed: Observed) -> Change:
    running = sum(1 for r in observed.of(before.key) if r.state in LIVE)
    return Change("-", str(before.key), f"drain and stop {_replicas(running)}", cause)


def _replace_sentence(before: DesiredVersion, after: DesiredVersion) -> str:
    if before.replicas == 0:
        return f"start {_replicas(after.replicas)}"
    if after.replicas == 0:
        return f"drain and stop {_replicas(before.replicas)}"
    return f"replace {_replicas(before.replicas)}, start before stop"


def _scale_sentence(before: DesiredVersion, after: DesiredVersion) -> str:
    more = after.replicas - before.replicas
    return f"start {_replicas(more)}" if more > 0 else f"drain and stop {_replicas(-more)}"


def _of_traffic(before: DesiredModel | None, after: DesiredModel | None) -> Iterator[Change]:
    if after is None:
        if before is not None:
            yield Change("-", before.name, "stop routing", "model removed")
        return
    if before is None:
        yield Change("+", after.name, f"traffic {_pairs(after.traffic)}", "new model")
        if after.labels:
            yield Change("+", after.name, f"labels {_pairs(after.labels)}", "new model")
        yield from _of_settings("+", after.name, ModelSettings(), after.settings)
        return
    for what, old, new in (("traffic", before.traffic, after.traffic), ("labels", before.labels, after.labels)):
        if dict(old) != dict(new):
            yield Change("~", after.name, f"{what} {_pairs(old)} -> {_pairs(new)}")
    yield from _of_settings("~", after.name, before.settings, after.settings)


def _of_settings(symbol: Symbol, model: str, before: ModelSettings, after: ModelSettings) -> Iterator[Change]:
    """A line for each of stickiness, shadow and rate limit that differs."""
    for name in ModelSettings.__slots__:
        old, new = getattr(before, name), getattr(after, name)
        if old != new:
            sentence = f"{name} {_group(new)}" if symbol == "+" else f"{name} {_group(old)} -> {_group(new)}"
            yield Change(symbol, model, sentence, "new model" if symbol == "+" else "no restart")


def settings_in_words(model: DesiredModel) -> dict[str, str]:
    """What the gateway does with a model's requests whichever version takes them; what it does not do is left out."""
    values = {name: getattr(model.settings, name) for name in ModelSettings.__slots__}
    return {name: _group(value) for name, value in values.items() if value}


def version_settings_in_words(version: DesiredVersion) -> dict[str, str]:
    """What the gateway obeys for one version."""
    return {name: _plain(getattr(version, name)) for name in RouteSettings.__slots__}


def _group(value: object) -> str:
    """A group of settings as one writes it in a manifest."""
    if is_dataclass(value):
        return "{" + ", ".join(f"{f.name}: {_plain(getattr(value, f.name))}" for f in fields(value)) + "}"
    return _plain(value)


def spec_changes(before: ReplicaSpec, after: ReplicaSpec) -> list[str]:
    """A phrase for every field of the spec that differs."""
    differing = [f.name for f in fields(ReplicaSpec) if getattr(before, f.name) != getattr(after, f.name)]
    if is_unfetched(after.artifact) and after.backend and before.backend == after.backend:
        # A runtime may rest on the source's own requirements, which nobody has seen yet.
        differing = [name for name in differing if name != "runtime"]
    return [phrase for name in differing for phrase in _phrases(name, getattr(before, name), getattr(after, name))]


def _phrases(name: str, old: object, new: object) -> Iterator[str]:
    match name, old, new:
        case "artifact", str(), str():
            yield f"source changed {_short(old)} -> {_short(new)}"
        case "runtime", str(), str():
            yield f"image or environment changed {_short(old)} -> {_short(new)}"
        case "env" | "secrets", tuple(), tuple():
            yield from _names("env" if name == "env" else "secret", dict(old), dict(new))
        case "resources", Resources(), Resources():
            yield from _keys("", _resources(old), _resources(new))
        case "settings", str(), str():
            yield from _keys("", json.loads(old), json.loads(new))
        case _:
            yield f"{name} {_plain(old)} -> {_plain(new)}"


def _names(what: str, old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    for name in sorted({*old, *new}):
        if name not in old:
            yield f"{what} {name} added"
        elif name not in new:
            yield f"{what} {name} removed"
        elif old[name] != new[name]:
            yield f"{what} {name} changed"


def _keys(prefix: str, old: Mapping[str, object], new: Mapping[str, object]) -> Iterator[str]:
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _keys(f"{prefix}{key}.", before, after)
        elif before != after:
            yield f"{prefix}{key} {_plain(before)} -> {_plain(after)}"


def _resources(resources: Resources) -> dict[str, object]:
    shown = asdict(resources)
    shown["memory"] = _size(shown.pop("memory_bytes"))
    return shown


def _size(size: int) -> str:
    """512Mi, 1.5Gi: as one writes it in a manifest."""
    for unit, factor in (("Gi", 1024**3), ("Mi", 1024**2), ("Ki", 1024)):
        if size >= factor:
            return f"{size / factor:.4g}{unit}"
    return str(size)


def _plain(value: object) -> str:
    if value is None or value == "":
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_plain, value))}]"
    return value if isinstance(value, str) else json.dumps(value)


def _short(value: str) -> str:
    """A content digest by its first digits; anything else (the name of an image) whole."""
    name = value.removeprefix("sha256:")
    if re.fullmatch(r"[0-9a-f]{16,}", name):
        return f"{name[:SHOWN_DIGITS]}…"
    return value or "none"


def _spec(version: DesiredVersion) -> list[str]:
    """Not known before the source is fetched."""
    return [] if is_unfetched(version.spec.artifact) else [f"spec {version.digest[:SHOWN_DIGITS]}"]


def _pairs(mapping: Mapping[str, object]) -> str:
    return " ".join(f"{key}={value}" for key, value in mapping.items()) or "none"


def _replicas(count: int) -> str:
    return "1 replica" if count == 1 else f"{count} replicas"
