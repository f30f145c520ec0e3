"""The fields of a manifest that say how many replicas run: of one version, and of all versions of the cluster together.

None of them is a part of what a replica is: a change restarts nothing. What they lead to is decided in `core/scaling/`;
docs/AUTOSCALING.md explains it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from orchestrator.core.scaling.cron import CronError, parse_cron, parse_zone
from orchestrator.manifest.diagnostics import shown
from orchestrator.manifest.groups import Group, ListOf, OrNull, setting
from orchestrator.manifest.kinds import GI, MI, Choice, Duration, Integer, Number, ScalarKind, Size, Text
from orchestrator.manifest.nodes import Scalar

MOST_REPLICAS = 1000
UTC = "UTC"


class CronText(ScalarKind):
    """The five fields of cron, kept as written."""

    rule = 'minute, hour, day of month, month and day of week, such as "0 8 * * mon-fri"'

    def _parse(self, scalar: Scalar) -> str:
        return parse_cron(scalar.text).text

    def schema(self) -> dict[str, object]:
        return {"type": "string"}


class ZoneName(ScalarKind):
    """A time zone that this machine knows."""

    rule = "the name of a time zone, such as UTC or Europe/Berlin"

    def _parse(self, scalar: Scalar) -> str:
        try:
            parse_zone(scalar.text)
        except CronError:
            raise ValueError(f"{shown(scalar.text)} is not known on this machine") from None
        return scalar.text

    def schema(self) -> dict[str, object]:
        return {"type": "string"}


@dataclass(frozen=True, slots=True)
class ScheduleConfig:
    """Another minimum from each moment of `cron` on, until another schedule's moment."""

    cron: str = setting(CronText(), "From when on.")
    min: int = setting(Integer(0, MOST_REPLICAS), "Least replicas from then on.")
    zone: str = setting(ZoneName(), "Whose clock the cron is read by.", default=UTC)


@dataclass(frozen=True, slots=True)
class ScalingConfig:
    """How many replicas run."""

    min: int = setting(Integer(0, MOST_REPLICAS), "Least replicas; 0 lets the version sleep while idle.", default=1)
    max: int | None = setting(
        OrNull(Integer(1, MOST_REPLICAS)),
        "Most replicas. Left out: no more than `min` and the schedules ask for, which without schedules is a fixed "
        "number.",
        default=None,
    )
    standby: int = setting(
        Integer(0, MOST_REPLICAS), "Replicas kept loaded and paused, which wake in milliseconds.", default=0
    )
    idle_after_s: float = setting(
        Duration("1s", "24h"),
        "With `min: 0`: how long without a request before the version sleeps.",
        default=600.0,
        key="idle_after",
    )
    gone_after_s: float | None = setting(
        OrNull(Duration("1s", "24h")),
        "How long a sleeping version keeps its standby replicas without a request; null keeps them.",
        default=None,
        key="gone_after",
    )
    schedule: tuple[ScheduleConfig, ...] = setting(
        ListOf(Group(ScheduleConfig)), "Other minimums by the clock.", default=()
    )
    worth: float = setting(
        Number(0.1, 1000),
        "Replica-seconds that an answer in time is worth: more keeps replicas longer, less saves them.",
        default=10.0,
    )
    priority: int = setting(
        Integer(-1000, 1000), "Who goes first when the cluster's limits do not suffice; larger first.", default=0
    )


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """The cluster's name, and the limits of all its replicas together."""

    name: str = setting(
        Text("lower-case letters, digits and - between them, at most 40", r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?", 40),
        "The name that marks all that this manifest runs; two clusters on one engine never touch each other.",
        default="default",
    )
    max_cpus: float | None = setting(
        OrNull(Number(0.05, 1_000_000)), "Most CPU cores of all replicas together.", default=None
    )
    max_memory_bytes: int | None = setting(
        OrNull(Size(16 * MI, 1024 * 1024 * GI)),
        "Most memory of all replicas together, standby ones included.",
        default=None,
        key="max_memory",
    )
    max_starting: int = setting(Integer(1, 1000), "Most replicas that start at one time.", default=4)


@dataclass(frozen=True, slots=True)
class AutoscalerConfig:
    """Where the autoscaler reads what the gateway counts."""

    source: Literal["auto", "prometheus", "direct"] = setting(
        Choice(("auto", "prometheus", "direct")),
        "`direct` reads the gateway each second, `prometheus` asks Prometheus, `auto` takes the fresher of the two.",
        default="auto",
    )
    prometheus: str | None = setting(
        OrNull(Text("the URL of a Prometheus server, such as http://127.0.0.1:9090", r"https?://[^\s\x00-\x1f\x7f]+")),
        "The Prometheus server that scrapes the gateway. Left out: that of `observability`; without one `auto` is "
        "`direct`.",
        default=None,
    )
