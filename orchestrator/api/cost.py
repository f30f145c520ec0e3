"""The admin API's routes for what replicas cost: thin; what is counted stands in `loops/cost.py` and `core/cost/`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import reduce
from operator import add
from typing import Annotated

from fastapi import APIRouter, Query

from orchestrator.api import schemas
from orchestrator.api.context import Control
from orchestrator.core.cost.account import DAYS_KEPT_S, Bucket
from orchestrator.core.cost.advice import advice
from orchestrator.core.cost.amounts import Amounts
from orchestrator.core.entities import VersionKey
from orchestrator.core.errors import NotFoundError

router = APIRouter()

DEFAULT_S = 86_400.0
# Amounts below this are what is left of sums of many small ones.
_NOTHING_S = 1e-6
Sums = Mapping[tuple[str, str, float | None], Amounts]


@router.get("/cost")
async def cost(
    control: Control,
    since: Annotated[float | None, Query(description="seconds since the epoch; left out: a day ago")] = None,
    model: str = "",
    by: schemas.CostBy = "model",
) -> schemas.CostReport:
    """What replicas took since then, with prices in the currency of the manifest."""
    now = time.time()
    since = max(now - DEFAULT_S if since is None else since, now - DAYS_KEPT_S)
    versions = await control.cost.by_version(since, model)
    if model and not versions and model not in control.loop.desired.models:
        raise NotFoundError(
            f"model {model!r}: nothing of it ran since then; see `modelfleet cost`, or `modelfleet status`"
        )
    buckets = await control.cost.by_bucket(since, model)
    pricing = control.loop.desired.pricing
    return schemas.CostReport(
        since=min([since, *(bucket.start for bucket in buckets)]) if buckets else since,
        until=now,
        by=by,
        prices=schemas.Prices(**asdict(pricing)) if pricing.is_set else None,
        cost_per_hour=control.cost.hourly(model),
        rows=[_row(each, *at) for at, each in sorted(_grouped(by, versions, buckets).items(), key=_order)],
        total=_row(_sum(versions.values())),
        advice=advice(versions, control.loop.desired.versions(), pricing.currency),
    )


def _grouped(by: schemas.CostBy, versions: Mapping[VersionKey, Amounts], buckets: Mapping[Bucket, Amounts]) -> Sums:
    if by == "version":
        return {(key.model, key.version, None): each for key, each in versions.items()}
    found: dict[tuple[str, str, float | None], Amounts] = {}
    if by == "model":
        for key, each in versions.items():
            found[key.model, "", None] = found.get((key.model, "", None), Amounts()) + each
        return found
    for bucket, each in buckets.items():
        at = "", "", _beginning(bucket.start, by)
        found[at] = found.get(at, Amounts()) + each
    return found


def _beginning(at: float, by: schemas.CostBy) -> float:
    """Of the hour or day, by the clock of this machine. What is kept in days alone is in the day of its beginning."""
    local = time.localtime(at)
    hour = local.tm_hour if by == "hour" else 0
    return time.mktime((local.tm_year, local.tm_mon, local.tm_mday, hour, 0, 0, 0, 0, -1))


def _order(item: tuple[tuple[str, str, float | None], Amounts]) -> tuple[float, float, str, str]:
    """By time; without one, what costs most comes first."""
    (model, version, start), each = item
    return (start or 0.0, -(each.cost or each.memory_gib_s) if start is None else 0.0, model, version)


def _sum(parts: Iterable[Amounts]) -> Amounts:
    return reduce(add, parts, Amounts())


def _row(each: Amounts, model: str = "", version: str = "", start: float | None = None) -> schemas.CostRow:
    is_priced = each.is_priced
    return schemas.CostRow(
        model=model,
        version=version,
        start=start,
        replica_hours=each.replica_s / 3600,
        standby_hours=each.standby_s / 3600,
        cpu_hours=each.cpu_s / 3600,
        memory_gib_hours=each.memory_gib_s / 3600,
        unknown_hours=each.unknown_s / 3600,
        unpriced_hours=0.0 if each.unpriced_s < _NOTHING_S else each.unpriced_s / 3600,
        cost=each.cost if is_priced else None,
        idle_cost=each.idle_cost if is_priced else None,
        idle_share=each.idle_share,
        predictions=round(each.predictions),
        cost_per_1000=each.cost_per_1000,
    )
