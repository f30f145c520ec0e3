"""What the admin API says, as pydantic models: the command line, the console and scripts read these and nothing else.

`--output json` of a command prints exactly these. Times are seconds since the epoch, durations seconds, sizes bytes.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Schema(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


VersionState = Literal["ready", "asleep", "starting", "updating", "failed", "stopping"]
ClusterState = Literal["empty", "converged", "converging", "degraded"]
OperationKind = Literal["apply", "rollback", "delete", "promote"]
OperationState = Literal["preparing", "converging", "succeeded", "failed", "superseded"]


class ReplicaStatus(Schema):
    """One replica. `current` is false for one that is being replaced or removed.

    `phase` is what one that is not ready does now, and `phase_s` for how long (None: it does not say). Of one that is
    ready `phases` are the seconds that each phase took, and `ready_after_s` those from its creation to its readiness.
    `cpu_ratio` is the CPU that it uses of what it may use (with the process engine, which limits none, of what the
    manifest asks for, so that it may be above 1), `memory_bytes` its working set. None: not known.
    """

    id: str
    state: str
    phase: str = ""
    phase_s: float | None = None
    phases: dict[str, float] = {}
    ready_after_s: float | None = None
    current: bool = True
    spec: str
    host: str = ""
    port: int = 0
    age_s: float
    in_flight: int | None = None
    cpu_ratio: float | None = None
    memory_bytes: int | None = None
    memory_limit_bytes: int | None = None
    reason: str = ""


class SourceStatus(Schema):
    """One source of signals. `age_s`: how old its newest numbers are (None: there are none yet); `trouble` says why it
    cannot be relied on, "" while it can; `note` is what one should know though it can."""

    name: str
    age_s: float | None = None
    trouble: str = ""
    note: str = ""


class SignalsStatus(Schema):
    """Where the autoscaler reads. `active` is the source that counts, "" while none does."""

    active: str = ""
    sources: list[SourceStatus] = []


class OverrideStatus(Schema):
    """A count that a person set. `until` None: until it is taken back."""

    replicas: int
    until: float | None = None


class ScaleRequest(Schema):
    """`replicas` for `for_s` seconds (None: until it is taken back)."""

    replicas: int = Field(ge=0, le=1000)
    for_s: float | None = Field(default=None, gt=0, le=366 * 86_400)


class ScalingStatus(Schema):
    """How a version's count came about. `chosen_by`: `manifest` (it is fixed), `load`, or `hand`.

    `reason` is the newest decision's sentence; `inputs` are what it rested on, as (name, value) in words.
    """

    model: str
    version: str
    chosen_by: Literal["manifest", "load", "hand"]
    replicas: int
    standby: int = 0
    minimum: int
    maximum: int
    override: OverrideStatus | None = None
    decided_at: float | None = None
    reason: str = ""
    inputs: list[tuple[str, str]] = []


class ScaleDecision(Schema):
    """A decision that changed a version's count."""

    at: float
    model: str
    version: str
    before: int
    target: int
    standby: int
    reason: str


class VersionStatus(Schema):
    """One version: `ready` of `desired` replicas of the desired spec, and `standby` ones, loaded and paused; `reason`
    says why it is not there yet, how deep it sleeps, or which replicas the gateway leaves alone."""

    version: str
    state: VersionState
    ready: int
    desired: int
    standby: int = 0
    reason: str = ""
    backend: str = ""
    source: str = ""
    artifact: str = ""
    runtime: str = ""
    spec: str = ""
    concurrency: int = 0
    cpus: float = 0
    memory_bytes: int = 0
    replicas: list[ReplicaStatus] = []
    scaling: ScalingStatus | None = None


class ModelStatus(Schema):
    """One model. `traffic` is what the manifest asks for, `routed` what the gateway is told now. `paused_at`: since
    when its rollout is paused (None: it is not), and `paused_reason` why, as somebody wrote."""

    name: str
    state: VersionState
    traffic: dict[str, int]
    routed: dict[str, int]
    labels: dict[str, str]
    versions: list[VersionStatus]
    paused_at: float | None = None
    paused_reason: str = ""


class GatewayStatus(Schema):
    """The gateway. `grpc_address`: host and port, "" where there is no gRPC. `table_current`: it has applied the newest
    table; `error` says why it cannot be asked."""

    url: str
    grpc_address: str = ""
    metrics_url: str
    pid: int | None = None
    ready: bool
    table_current: bool = False
    error: str = ""


class CompanionStatus(Schema):
    """Prometheus or Grafana as the manifest has it: `mode` is managed, url or off. The managed one is a process (`pid`)
    or a container (its name), or there is none, and `error` says why. `note`: what it waits for, or why it is in no
    container."""

    mode: Literal["managed", "url", "off"] = "off"
    url: str = ""
    pid: int | None = None
    container: str = ""
    note: str = ""
    error: str = ""


class ClusterStatus(Schema):
    cluster: str
    engine: str
    revision: int
    state: ClusterState
    version: str
    pid: int
    started_at: float
    state_dir: str
    engine_error: str = ""
    gateway: GatewayStatus
    models: list[ModelStatus]
    operation: OperationStatus | None = None
    signals: SignalsStatus = SignalsStatus()
    prometheus: CompanionStatus = CompanionStatus()
    grafana: CompanionStatus = CompanionStatus()


class Prices(Schema):
    """`currency` is a label, "" for none."""

    cpu_hour: float
    memory_gib_hour: float
    gpu_hour: float = 0.0
    currency: str = ""


class CostRow(Schema):
    """What replicas took, of one model or version, or from `start` on (None: of all the time that was asked about).

    Hours are of replicas that were awake, of standby, of the cores and GiB that they asked for. `cost` and `idle_cost`
    (no request was inside, or standby) are None without prices; `unpriced_hours` are in neither. `idle_share` is the
    part of the awake time without a request inside (None: nobody knows). In `unknown_hours` replicas may have run while
    no control plane was there to see: they are in nothing else.
    """

    model: str = ""
    version: str = ""
    start: float | None = None
    replica_hours: float
    standby_hours: float
    cpu_hours: float
    memory_gib_hours: float
    unknown_hours: float
    unpriced_hours: float
    cost: float | None
    idle_cost: float | None
    idle_share: float | None
    predictions: int
    cost_per_1000: float | None


CostBy = Literal["model", "version", "day", "hour"]


class CostReport(Schema):
    """`since` is what the sums really begin with: the stretch of time that the moment asked for lies in counts whole.

    `prices` are those in force (None: there are none), `cost_per_hour` what runs now costs at them. `advice` says what
    idles most and what to do about it, "" where nothing does.
    """

    since: float
    until: float
    by: CostBy
    prices: Prices | None
    cost_per_hour: float | None
    rows: list[CostRow]
    total: CostRow
    advice: str = ""


class Event(Schema):
    """Something that happened, with its reason in words. `id` grows; ask for those after one."""

    id: int
    at: float
    level: Literal["info", "warning", "error"]
    kind: str
    message: str
    model: str = ""
    version: str = ""
    replica: str = ""
    revision: int = 0


class ModelDescription(Schema):
    """`describe`: the status, the manifest's section as applied, and the last events.

    `settings` is what the gateway does with the model's requests, `version_settings` with those of each version: in
    words, inherited ones included.
    """

    model: ModelStatus
    settings: dict[str, str] = {}
    version_settings: dict[str, dict[str, str]] = {}
    manifest: str
    events: list[Event]
    urls: dict[str, str]


class Diagnostic(Schema):
    """One error (or warning) of a manifest: where it is, the rule, and what to do."""

    file: str
    line: int
    column: int
    field: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}: "
        return f"{where}{self.field}: {self.message}" if self.field else f"{where}{self.message}"


class ManifestRequest(Schema):
    """A manifest to plan or apply. `base_dir`: what relative sources and secret files are relative to (absolute).

    `plan`: the digest of the plan that was shown; when the world has moved since, apply answers 409.
    """

    text: str
    file: str
    base_dir: str
    plan: str = ""


class Change(Schema):
    """One line of a plan: `+` is added, `~` changed or replaced, `-` removed; `cause` says why."""

    symbol: Literal["+", "~", "-"]
    target: str
    sentence: str
    cause: str


class PlanResponse(Schema):
    """What an apply would do. `digest` names this plan; `base_revision` is what it starts from."""

    base_revision: int
    digest: str
    empty: bool
    changes: list[Change]
    warnings: list[str] = []
    text: str


class VersionProgress(Schema):
    """`phase` and `phase_s` are those of its youngest replica that is not ready."""

    model: str
    version: str
    ready: int
    desired: int
    state: VersionState
    phase: str = ""
    phase_s: float | None = None
    reason: str = ""


class FetchProgress(Schema):
    """How far a source is on its way. `total_bytes` None: nobody knows how much it is."""

    model: str
    version: str
    source: str
    done_bytes: int
    total_bytes: int | None = None


class OperationStatus(Schema):
    """An apply, rollback or delete under way or ended. `step` is what it does now, in a sentence.

    `preparing`: fetching sources, building images: nothing has changed yet, and a failure here changes nothing.
    `converging`: the revision is in force. `failed` after that means: not there within the time, still trying.
    """

    id: str
    kind: OperationKind
    state: OperationState
    revision: int | None
    step: str
    created_at: float
    ended_at: float | None = None
    error: str = ""
    diagnostics: list[Diagnostic] = []
    versions: list[VersionProgress] = []
    fetching: list[FetchProgress] = []


class Revision(Schema):
    """One applied manifest. `current` is the one in force."""

    revision: int
    at: float
    kind: OperationKind
    file: str
    summary: str
    current: bool
    state: OperationState
    manifest: str = ""


class RollbackRequest(Schema):
    """`revision` None: the one before the current."""

    revision: int | None = None


class KeyRequest(Schema):
    """A key to make. `models` None: all that are and will be. `requests_per_s` 0: no limit; `concurrency` 0: no bound
    on its requests in flight or queued. `expires_in_s` None: never."""

    name: str
    models: list[str] | None = Field(default=None, min_length=1, max_length=1000)
    requests_per_s: float = Field(default=0, ge=0, le=1e9)
    burst: int = Field(default=1, ge=1, le=1_000_000_000)
    concurrency: int = Field(default=0, ge=0, le=1_000_000_000)
    expires_in_s: float | None = Field(default=None, gt=0, le=3_153_600_000)


class Key(Schema):
    """One API key; the key itself is kept nowhere. `expires_at` None: never."""

    id: str
    name: str
    models: list[str] | None
    requests_per_s: float
    burst: int
    concurrency: int
    created_at: float
    expires_at: float | None
    expired: bool


class KeyCreated(Schema):
    """A new key with its text, which nobody can be told again. `in_force`: the gateway knows it."""

    key: Key
    secret: str
    in_force: bool
    warnings: list[str] = []


class KeyRevoked(Schema):
    """`in_force`: the gateway refuses the key already."""

    key: Key
    in_force: bool


class LogEntry(Schema):
    """One line. `replica` is `gateway` or `control-plane` for theirs. `event`, `level` and `fields` are what a
    structured line says, and empty for one that is not."""

    at: float
    replica: str
    version: str
    stream: str
    text: str
    source: Literal["replica", "gateway", "control_plane"] = "replica"
    level: str = ""
    event: str = ""
    fields: dict[str, Any] = {}


class Check(Schema):
    """One check of `doctor`; `remedy` is the command or step that mends it."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


class ErrorBody(Schema):
    """Every error of the admin API."""

    error: str
    code: str
    diagnostics: list[Diagnostic] = []


class DownRequest(Schema):
    """`keep_replicas` leaves replicas and the gateway running: only the control plane ends."""

    keep_replicas: bool = False
