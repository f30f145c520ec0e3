"""What there is to scrape, as Prometheus' HTTP service discovery wants it (`http_sd_configs`). Reading alone.

Like the metrics themselves it needs no token and is for this machine. An answer is always whole: while the engine is
away it is what was observed last, for Prometheus drops every target that an answer leaves out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal
from urllib.parse import urlsplit

from fastapi import APIRouter
from pydantic import BaseModel

from orchestrator.api.context import Control
from orchestrator.core.entities import Replica
from orchestrator.core.states import ReplicaState
from orchestrator.loops.control import ControlPlane

Role = Literal["gateway", "replica", "control_plane"]
# One that is starting has no port yet, and a paused one cannot answer: neither is down.
ANSWERING = frozenset({ReplicaState.LOADING, ReplicaState.READY, ReplicaState.DRAINING})

router = APIRouter()


class TargetGroup(BaseModel):
    """Addresses with the labels that every series from them gets."""

    targets: list[str]
    labels: dict[str, str]


@router.get("/prometheus/targets")
async def targets(control: Control, role: Role | None = None) -> list[TargetGroup]:
    """The private listeners of gateways, the replicas that answer, and this control plane; or those of one role."""
    return [group for group in _groups(control) if role in (None, group.labels["role"])]


def _groups(control: ControlPlane) -> Iterator[TargetGroup]:
    yield _group(control, "control_plane", urlsplit(control.url).netloc)
    for url in control.keeper.metrics_urls().values():
        yield _group(control, "gateway", urlsplit(url).netloc)
    pausing = control.loop.plan.memory.pausing if control.loop.plan else frozenset()
    for replica in control.loop.observed.replicas:
        if replica.state in ANSWERING and replica.host and replica.id not in pausing:
            yield _group(control, "replica", _address(replica), **_labels(replica))


def _group(control: ControlPlane, role: Role, address: str, **labels: str) -> TargetGroup:
    return TargetGroup(targets=[address], labels={"cluster": control.cluster, "role": role, **labels})


def _labels(replica: Replica) -> dict[str, str]:
    return {"model": replica.key.model, "version": replica.key.version, "replica": replica.id}


def _address(replica: Replica) -> str:
    return f"[{replica.host}]:{replica.port}" if ":" in replica.host else f"{replica.host}:{replica.port}"
