"""Literals for tests of the core: desired versions and observed replicas in one line each.

A spec digest is any word here ("a", "b"), so that plans read well as text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.core.entities import (
    Desired,
    DesiredModel,
    DesiredVersion,
    Exit,
    Observed,
    Replica,
    ReplicaSpec,
    VersionKey,
)
from orchestrator.core.plan import Memory, Plan, Policy
from orchestrator.core.reconcile import reconcile
from orchestrator.core.states import ReplicaState

NOW = 1000.0


def key(name: str) -> VersionKey:
    return VersionKey(*name.split("@"))


def version(name: str, replicas: int = 1, spec: str = "a", **settings: Any) -> DesiredVersion:
    model, number = name.split("@")
    made_of = ReplicaSpec(model, number, "sklearn", spec, "runtime")
    return DesiredVersion(spec=made_of, digest=spec, replicas=replicas, **settings)


def desired(
    *versions: DesiredVersion,
    traffic: Mapping[str, int] | None = None,
    labels: Mapping[str, str] | None = None,
    revision: int = 1,
) -> Desired:
    """One or more models; `traffic` and `labels` are those of each, all to its last version by default."""
    models: dict[str, DesiredModel] = {}
    for wanted in versions:
        name = wanted.key.model
        others = models[name].versions if name in models else {}
        share = traffic or {wanted.key.version: 100}
        models[name] = DesiredModel(name, {**others, wanted.key.version: wanted}, share, labels or {})
    return Desired(revision, models)


def replica(id: str, name: str, state: str = "ready", spec: str = "a", **facts: Any) -> Replica:  # noqa: A002
    return Replica(id, key(name), spec, ReplicaState(state), **{"created_at": 0.0, **facts})


def ended(id: str, name: str, reason: str = "killed", spec: str = "a", code: int = 137) -> Replica:  # noqa: A002
    return replica(id, name, "failed", spec, exit=Exit(code, reason, log_tail=(f"last words of {id}",)))


def observed(*replicas: Replica) -> Observed:
    return Observed(replicas)


def decide(want: Desired, *replicas: Replica, memory: Memory | None = None, now: float = NOW, **policy: Any) -> Plan:
    return reconcile(want, Observed(replicas), memory or Memory(), now, Policy(**policy))


def settled(want: Desired, *replicas: Replica, now: float = 0.0) -> Memory:
    """The memory after one decision on this world, and a check that it had nothing to do."""
    plan = decide(want, *replicas, now=now)
    assert plan.render() == ""
    return plan.memory


def endpoints(plan: Plan, model: str = "iris") -> dict[str, tuple[str, ...]]:
    return {name: routed.replicas for name, routed in plan.routes[model].versions.items()}
