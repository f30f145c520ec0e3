"""Which traffic of a model is in force now: what is desired, or still what was routed before.

Desired weights wait until every version whose share grows can carry it; a label waits until its new version can.
Versions that only the routing in force still names are held: they serve on until it has moved. Nothing waits when the
routing in force serves nobody, for then there is nothing to keep. Read `staffing.py` for what happens to replicas.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from orchestrator.core.entities import Desired, DesiredModel, DesiredVersion, RouteSettings, VersionKey
from orchestrator.core.failures import FailureCount
from orchestrator.core.plan import RoutedModel, RoutedVersion
from orchestrator.core.roster import Roster, Rosters, phase


@dataclass(frozen=True, slots=True)
class Traffic:
    """Weights and labels in force. `held`: versions that they name but nobody desires. `waits_for`: versions that must
    become ready before the desired traffic is in force; none when it is. `paused`: the model is."""

    weights: Mapping[str, int]
    labels: Mapping[str, str]
    held: frozenset[str] = frozenset()
    waits_for: tuple[str, ...] = ()
    paused: bool = False

    def holds(self, version: str) -> bool:
        return version in self.held

    def leans_on(self, version: str) -> bool:
        """Whether it carries traffic that is to move elsewhere: until then it keeps the replicas for it."""
        return bool(self.waits_for) and (version in self.weights or version in self.labels.values())


@dataclass(frozen=True, slots=True)
class _Scene:
    """One model in this decision, and the questions that the rules ask about its versions."""

    model: DesiredModel
    previous: RoutedModel
    rosters: Rosters
    failures: FailureCount

    def roster(self, version: str) -> Roster:
        key = VersionKey(self.model.name, version)
        return self.rosters.get(key) or Roster(key)

    def serves(self, version: str) -> bool:
        roster = self.roster(version)
        return bool(roster.ready or roster.old_ready)

    def can_carry(self, version: str) -> bool:
        """Whether it is ready for a greater share: all its replicas are, or one is and waiting for the others,
        which fail, may be in vain."""
        roster = self.roster(version)
        if roster.wanted is None:
            return False
        ready = len(roster.ready)
        return ready >= roster.wanted.replicas or (ready > 0 and self.failures.of(roster) is not None)


def decide_traffic(
    desired: Desired, previous: Mapping[str, RoutedModel], rosters: Rosters, failures: FailureCount
) -> dict[str, Traffic]:
    """The traffic in force of every desired model."""
    return {name: _of_model(model, previous.get(name), rosters, failures) for name, model in desired.models.items()}


def _of_model(model: DesiredModel, previous: RoutedModel | None, rosters: Rosters, failures: FailureCount) -> Traffic:
    wanted = {version: weight for version, weight in model.traffic.items() if weight > 0}
    if previous is None:
        return Traffic(wanted, dict(model.labels), paused=model.paused)
    scene = _Scene(model, previous, rosters, failures)
    if model.paused and all(v in model.versions or scene.serves(v) for v in previous.weights):
        return _as_it_is(scene)
    waits_for = _waits_for(scene, wanted)
    weights = previous.weights if waits_for else wanted
    labels = {label: _label_target(scene, label, version) for label, version in model.labels.items()}
    held = frozenset({*weights, *labels.values()}.difference(model.versions))
    moving = [version for label, version in model.labels.items() if labels[label] != version]
    return Traffic(weights, labels, held, tuple(dict.fromkeys((*waits_for, *moving))), model.paused)


def _as_it_is(scene: _Scene) -> Traffic:
    """A paused model's: nothing moves while what carries it can be kept."""
    weights = dict(scene.previous.weights)
    labels = {label: _kept_target(scene, label, version) for label, version in scene.model.labels.items()}
    held = frozenset({*weights, *labels.values()}.difference(scene.model.versions))
    return Traffic(weights, labels, held, paused=True)


def _kept_target(scene: _Scene, label: str, wanted: str) -> str:
    before = scene.previous.labels.get(label, wanted)
    return before if before in scene.model.versions or scene.serves(before) else wanted


def _waits_for(scene: _Scene, wanted: Mapping[str, int]) -> tuple[str, ...]:
    """The versions whose share grows and that cannot carry it yet; none when the wanted weights take force."""
    before = scene.previous.weights
    growing = tuple(v for v, weight in wanted.items() if weight > before.get(v, 0) and not scene.can_carry(v))
    serves_then = any(scene.serves(v) and scene.model.versions[v].replicas > 0 for v in wanted)
    if any(scene.serves(v) for v in before):
        # Where no share grows, those that stay must still be able to serve when the others go.
        return growing if growing or serves_then else tuple(v for v in wanted if not scene.can_carry(v))
    is_hopeless = not any(v in scene.model.versions for v in before)
    return () if serves_then or is_hopeless else growing


def _label_target(scene: _Scene, label: str, wanted: str) -> str:
    before = scene.previous.labels.get(label, wanted)
    if before == wanted or scene.can_carry(wanted):
        return wanted
    return before if scene.serves(before) or before in scene.model.versions else wanted


def route(
    model: DesiredModel,
    traffic: Traffic,
    previous: RoutedModel | None,
    rosters: Rosters,
    leaving: set[str],
    failures: FailureCount,
) -> RoutedModel:
    """The model as the gateway shall route it; replicas that are `leaving` in this plan are no longer in it."""
    versions = {
        v: _route_wanted(wanted, rosters[wanted.key], leaving, failures) for v, wanted in model.versions.items()
    }
    for version in sorted(traffic.held):
        before = previous.versions.get(version) if previous else None
        roster = rosters.get(VersionKey(model.name, version))
        versions[version] = _route_held(before, roster, leaving)
    return RoutedModel(versions, traffic.weights, traffic.labels, model.settings)


def _route_wanted(wanted: DesiredVersion, roster: Roster, leaving: set[str], failures: FailureCount) -> RoutedVersion:
    ids = _endpoints(roster, leaving)
    return RoutedVersion(wanted.route_settings, ids, "" if ids else absence(roster, failures), wanted.drain_timeout_s)


def _route_held(before: RoutedVersion | None, roster: Roster | None, leaving: set[str]) -> RoutedVersion:
    """Carried as it was: nobody desires the version any more, so only the routing still knows its settings."""
    ids = _endpoints(roster, leaving) if roster else ()
    return replace(before or RoutedVersion(RouteSettings()), replicas=ids, state="" if ids else "stopped")


def _endpoints(roster: Roster, leaving: set[str]) -> tuple[str, ...]:
    """Sorted, so that an unchanged world is an unchanged table whatever order the engine lists it in."""
    return tuple(sorted(r.id for r in roster.serving if r.id not in leaving))


def absence(roster: Roster, failures: FailureCount) -> str:
    """Why a version has no ready replica, for clients. It names no seconds: they would make every table a new one."""
    wanted, failed = roster.wanted, failures.of(roster)
    if wanted is not None and wanted.replicas == 0:
        return f"stopped: {wanted.held}" if wanted.held else "asleep: a request wakes it"
    if roster.standby or roster.old_standby or roster.woken:
        return "waking: from standby"
    if failed is not None and failed.is_verdict:
        return f"failed: {failed.reason}"
    if roster.pending:
        return f"starting: {phase(roster.pending[0])}"
    return "starting: waiting for a replica"
