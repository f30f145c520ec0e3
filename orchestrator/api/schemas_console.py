"""What the admin API says to the web console: sign-in, live numbers, series, timeline, diff, try-it, rollouts.

The stream (`GET /api/v1/stream`) carries `FleetUpdate`, `ModelUpdate` and `schemas.Event` as server-sent events. It is
not made of these classes, for making them would cost more than all else in it; a test reads it with them, and they
forbid what they do not name. None is "not known", never zero. Times are seconds since the epoch.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchestrator.api.schemas import ClusterState, Schema, VersionState

# -- sign-in ----------------------------------------------------------------------------------------------------


class ConsoleLink(Schema):
    """`url` opens the console signed in, once, within `expires_in_s`; the code is in its fragment."""

    url: str
    expires_in_s: float


class SignIn(Schema):
    """One of the two: the code of a link, or the token of the state directory."""

    code: str = Field(default="", max_length=200)
    token: str = Field(default="", max_length=200)


class ConsoleSession(Schema):
    """`cluster` is "" for one who is not signed in; `expires_at` None too."""

    signed_in: bool
    cluster: str = ""
    expires_at: float | None = None


# -- stream -----------------------------------------------------------------------------------------------------


class FleetRow(Schema):
    """One model, all its versions together. `state` is that of its worst version, `reason` that version's.

    Rates and percentiles are over the last ten seconds; percentiles None too where nothing was answered then.
    `cpu_cores` and `memory_bytes` are what its replicas use.
    """

    name: str
    state: VersionState
    reason: str = ""
    traffic: dict[str, int]
    ready: int
    desired: int
    standby: int
    rate_per_s: float | None = None
    error_ratio: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    slo_ms: float | None = None
    slo_percentile: float | None = None
    queued: int | None = None
    in_flight: int | None = None
    cpu_cores: float | None = None
    memory_bytes: int | None = None
    cost_per_hour: float | None = None
    paused: bool = False


class FleetTotals(Schema):
    """All models together."""

    rate_per_s: float | None = None
    error_ratio: float | None = None
    ready: int
    desired: int
    standby: int
    queued: int | None = None
    in_flight: int | None = None
    cost_per_hour: float | None = None


class FleetGateway(Schema):
    """`table_current`: it has applied the newest routing table."""

    url: str
    ready: bool
    table_current: bool
    error: str = ""


class FleetOperation(Schema):
    """The last operation, under way or ended."""

    id: str
    kind: str
    state: str
    step: str
    error: str = ""
    revision: int | None = None
    ended_at: float | None = None


class FleetUpdate(Schema):
    """`event: fleet`. The first of a stream is `whole`: `models` are all; later ones have the rows that changed, whole
    rows, and `gone` the names of models that are no more. All else is always there."""

    at: float
    whole: bool
    cluster: str
    revision: int
    state: ClusterState
    engine: str
    engine_error: str = ""
    gateway: FleetGateway
    operation: FleetOperation | None = None
    models: list[FleetRow]
    gone: tuple[str, ...] = ()
    totals: FleetTotals


class ReplicaRow(Schema):
    """One replica. `since` is when its state began, as far as was seen; `cpu_ratio` is the share of its limit."""

    id: str
    state: str
    phase: str = ""
    since: float | None = None
    current: bool = True
    cpu_ratio: float | None = None
    memory_bytes: float | None = None
    memory_limit_bytes: float | None = None
    in_flight: int | None = None
    reason: str = ""


class VersionRow(Schema):
    """One version. `weight` is the percent that is routed to it now; `queue_p95_ms` what requests waited,
    `model_p95_ms` what replicas took."""

    version: str
    state: VersionState
    reason: str = ""
    weight: int
    ready: int
    desired: int
    standby: int
    rate_per_s: float | None = None
    error_ratio: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    queue_p95_ms: float | None = None
    model_p95_ms: float | None = None
    queued: int | None = None
    in_flight: int | None = None
    cost_per_hour: float | None = None
    replicas: list[ReplicaRow]


class ModelUpdate(Schema):
    """`event: model`, with `?model=`: the model whole, each time that anything of it changed. `versions` is empty when
    the model is no more (`exists` false)."""

    at: float
    name: str
    exists: bool = True
    paused: bool = False
    versions: list[VersionRow]


# -- series and timeline ----------------------------------------------------------------------------------------


class Curves(Schema):
    """Values at the times of `Series.at`, one each; a curve that was not asked for is empty."""

    rate_per_s: tuple[float | None, ...] = ()
    error_ratio: tuple[float | None, ...] = ()
    p50_ms: tuple[float | None, ...] = ()
    p95_ms: tuple[float | None, ...] = ()
    p99_ms: tuple[float | None, ...] = ()
    queued: tuple[float | None, ...] = ()
    ready: tuple[float | None, ...] = ()
    desired: tuple[float | None, ...] = ()


class Series(Schema):
    """What the control plane kept in memory: the last 15 minutes, or since it began.

    Of all models: rate, errors and p95, each `step_s` of 15 s. Of one model (`?model=`): everything, each second, and
    by version too.
    """

    step_s: float
    at: list[float]
    models: dict[str, Curves]
    versions: dict[str, Curves]


class ReplicaSpan(Schema):
    """A replica was in `state` from `since` to `until` (None: it still is)."""

    replica: str
    version: str
    state: str
    since: float
    until: float | None = None
    reason: str = ""


class ReplicaTimeline(Schema):
    """By replica, oldest first. Nothing is known of before `known_since`."""

    known_since: float
    spans: list[ReplicaSpan]


class RevisionDiff(Schema):
    """A unified diff of two manifests, without line ends; no lines: they are the same."""

    before: int
    after: int
    lines: list[str]


# -- try it -----------------------------------------------------------------------------------------------------


class TryInput(Schema):
    """One input of a model, as its metadata has it; -1 in `shape` is any length. `example` is data for one row."""

    name: str
    datatype: str
    shape: list[int]
    example: list[object]


class TryForm(Schema):
    """What a version takes. `note` says why nothing is known of its inputs ("": all is). `example` is a whole request
    as JSON text for `url`, which is at the gateway."""

    model: str
    version: str
    url: str
    inputs: list[TryInput]
    outputs: tuple[str, ...] = ()
    example: str
    note: str = ""


class TryRequest(Schema):
    """`body` goes to the version's inference address at the gateway, as `content_type`. `key` is an API key, where the
    gateway wants one; it is kept nowhere."""

    body: str = Field(max_length=1_000_000)
    content_type: str = Field(default="application/json", max_length=200, pattern=r"^[\x20-\x7e]+$")
    key: str = Field(default="", max_length=400, pattern=r"^[\x21-\x7e]*$")
    timeout_s: float = Field(default=30, gt=0, le=60)


class TryAnswer(Schema):
    """The gateway's answer. `body` is text, or base64 where `is_binary`; cut after 1 MiB (`is_cut`)."""

    status: int
    headers: dict[str, str]
    body: str
    is_binary: bool = False
    is_cut: bool = False
    took_ms: float


# -- rollouts ---------------------------------------------------------------------------------------------------


class PromoteRequest(Schema):
    """All of a model's traffic goes to `version`."""

    version: str


class ModelRollbackRequest(Schema):
    """`revision` None: the newest in which the model was not as it is now."""

    revision: int | None = None


class PauseRequest(Schema):
    """`reason` is for other people, in the events and in the status."""

    reason: str = Field(default="", max_length=500)


class RolloutVersion(Schema):
    """`share` is the percent that was asked for, `routed` the one in force; `old` replicas are of an earlier spec."""

    version: str
    state: VersionState
    share: int
    routed: int
    ready: int
    desired: int
    old: int = 0
    reason: str = ""


class RolloutStatus(Schema):
    """Where a model's rollout stands. `paused_at` None: it is not paused. `waiting`: what was applied for it since it
    was paused waits until it is resumed."""

    model: str
    state: Literal["settled", "moving", "paused"]
    paused_at: float | None = None
    paused_reason: str = ""
    waiting: bool = False
    versions: list[RolloutVersion]
