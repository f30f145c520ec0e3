"""The nouns of the control plane, as frozen values: what is desired and what was observed.

Nothing here does anything. Desired state comes from a `Manifest` (`loops/desired.py` builds it), observed state from
the engine, the probes and the gateway's report. "Unknown" is always its own value (None), never zero or absent.
Read `reconcile.py` next.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from orchestrator.core.states import ReplicaState


@dataclass(frozen=True, slots=True, order=True)
class VersionKey:
    """One version of one model, by the author's names."""

    model: str
    version: str

    def __str__(self) -> str:
        return f"{self.model}@{self.version}"


@dataclass(frozen=True, slots=True)
class Resources:
    """Limits of one replica. `cpus` in cores, `memory_bytes` a hard limit, `pids` processes and threads."""

    cpus: float = 1.0
    memory_bytes: int = 512 * 1024 * 1024
    pids: int = 256


@dataclass(frozen=True, slots=True)
class ReplicaSpec:
    """Everything that a replica is started from; two equal specs start interchangeable replicas.

    `artifact` is the SHA-256 of the source's content ("" for an image that carries its model), `runtime` the image
    id or environment digest. `secrets` maps a name to a keyed digest of its value: the value itself is never here.
    `settings` goes to the model server as JSON (docs/CONTRACTS.md).
    """

    model: str
    version: str
    backend: str
    artifact: str
    runtime: str
    env: tuple[tuple[str, str], ...] = ()
    secrets: tuple[tuple[str, str], ...] = ()
    resources: Resources = Resources()
    port: int = 8000
    egress: bool = False
    settings: str = "{}"

    @property
    def key(self) -> VersionKey:
        return VersionKey(self.model, self.version)

    def digest(self) -> str:
        """16 hexadecimal digits, stable across processes and releases that do not change a field."""
        canonical = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteSettings:
    """How the gateway carries one version's requests (see `router/contract.py`). No part of what a replica is."""

    concurrency: int = 32
    queue_max: int = 1000
    queue_timeout_ms: int = 5000
    request_timeout_ms: int = 60_000
    idempotent: bool = True
    retry_max: int = 2
    retry_budget: float = 0.2
    retry_on: tuple[str, ...] = ("connect", "reset")
    eject: bool = True
    balance: str = "two_choices"
    websocket: bool = False


@dataclass(frozen=True, slots=True)
class RateLimit:
    """`requests_per_s` on average, and `burst` at once after a pause."""

    requests_per_s: float
    burst: int


@dataclass(frozen=True, slots=True)
class Shadow:
    """Copies of `percent` of a model's requests go to `version` too, at most `queue_max` at a time; answers that differ
    by more than `tolerance` are sampled."""

    version: str
    percent: float = 100.0
    queue_max: int = 100
    tolerance: float = 0.0
    samples_per_minute: int = 10


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """How the gateway carries a model's requests, whichever version takes them. "" and None: it does not do that."""

    sticky: str = ""
    shadow: Shadow | None = None
    rate_limit: RateLimit | None = None


@dataclass(frozen=True, slots=True)
class ScheduledMinimum:
    """`minimum` replicas at least from each moment of `cron` (by the clock of `zone`) on."""

    cron: str
    minimum: int
    zone: str = "UTC"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """Between what the autoscaler may choose for a version, and what for (docs/MANIFEST.md). No part of a replica.

    `latency_s` is the objective at `percentile` (None: none is set), `worth_s` the replica-seconds that an answer in
    time is worth. `is_capped`: the manifest names `maximum` itself, so that a person's word may not go above it.
    """

    minimum: int = 1
    maximum: int = 1
    is_capped: bool = False
    standby: int = 0
    idle_after_s: float = 600.0
    gone_after_s: float | None = None
    schedule: tuple[ScheduledMinimum, ...] = ()
    worth_s: float = 10.0
    priority: int = 0
    latency_s: float | None = None
    percentile: float = 95.0

    @property
    def is_fixed(self) -> bool:
        """Whether there is nothing to choose: `DesiredVersion.replicas` run."""
        return self.maximum <= self.minimum and not self.schedule and not self.standby


@dataclass(frozen=True, slots=True)
class Target:
    """How many replicas of a version should be awake, and how many more loaded and paused."""

    replicas: int
    standby: int = 0


@dataclass(frozen=True, slots=True)
class ClusterLimits:
    """What all replicas together may take. None: no limit. `max_starting` of all versions may start at one time."""

    max_cpus: float | None = None
    max_memory_bytes: int | None = None
    max_starting: int = 4

    @property
    def is_limited(self) -> bool:
        """Whether what one version takes may be missing for another."""
        return self.max_cpus is not None or self.max_memory_bytes is not None


@dataclass(frozen=True, slots=True)
class SignalSource:
    """Where the autoscaler reads: `kind` is auto, prometheus or direct, `prometheus` that server's URL ("": none)."""

    kind: str = "auto"
    prometheus: str = ""


@dataclass(frozen=True, slots=True)
class Pricing:
    """What an hour of one core and of one GiB costs, as replicas ask for them. Both zero: nobody has said.

    `gpu_hour` is that of a GPU, of which no replica has one yet. `currency` is a label for people, "" for none.
    """

    cpu_hour: float = 0.0
    memory_gib_hour: float = 0.0
    gpu_hour: float = 0.0
    currency: str = ""

    @property
    def is_set(self) -> bool:
        return self.cpu_hour > 0 or self.memory_gib_hour > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredVersion(RouteSettings):
    """A version that should run: `replicas` copies of `spec`, and `standby` more that are loaded and paused.

    `digest` is `spec.digest()`, computed once. What the autoscaler chose takes the place of the two counts
    (`loops/targets.py`); `scaling` says what it may choose. Without replicas it is asleep, and a request wakes it; or
    it is `held` so, with the reason, and none does.
    """

    spec: ReplicaSpec
    digest: str
    replicas: int
    standby: int = 0
    held: str = ""
    scaling: Scaling = Scaling()
    startup_timeout_s: float = 300.0
    drain_timeout_s: float = 30.0

    @property
    def key(self) -> VersionKey:
        return self.spec.key

    @property
    def is_asleep(self) -> bool:
        return self.replicas == 0 and not self.held

    @property
    def route_settings(self) -> RouteSettings:
        """The part of it that the gateway obeys."""
        return RouteSettings(**{name: getattr(self, name) for name in RouteSettings.__slots__})


@dataclass(frozen=True, slots=True)
class DesiredModel:
    """A model's versions, the share of traffic (weights that sum to 100) and labels of each. `paused`: nothing of it
    that lives is replaced or removed (`pausing.py`); never so in what is applied."""

    name: str
    versions: Mapping[str, DesiredVersion]
    traffic: Mapping[str, int]
    labels: Mapping[str, str] = field(default_factory=dict)
    settings: ModelSettings = field(default_factory=ModelSettings)
    paused: bool = False


@dataclass(frozen=True, slots=True)
class Desired:
    """All that should run. `revision` is the applied revision that asked for it (0: nothing was ever applied)."""

    revision: int = 0
    models: Mapping[str, DesiredModel] = field(default_factory=dict)
    limits: ClusterLimits = ClusterLimits()
    signals: SignalSource = SignalSource()
    pricing: Pricing = Pricing()

    def versions(self) -> dict[VersionKey, DesiredVersion]:
        return {v.key: v for m in self.models.values() for v in m.versions.values()}


@dataclass(frozen=True, slots=True)
class Exit:
    """How a replica ended. `reason` is one sentence for people; `log_tail` its last lines."""

    code: int | None
    reason: str
    oom_killed: bool = False
    log_tail: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Loading:
    """How a model server became ready, as it says itself: the seconds of each phase in order, and when it was ready
    (since the epoch; 0.0: it does not say)."""

    phases: tuple[tuple[str, float], ...]
    ready_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Replica:
    """One container (or process) as observed. `created_at` in seconds since the epoch.

    `phase` is what the model server says it is doing, in a word, and `phase_since` since when (None: nobody says);
    `loading` is how a ready one became so (None: it does not say). `in_flight` is the gateway's count, None while
    the gateway has not said. `routed`: the table that the gateway applied names it (None: unknown). `ejected`:
    why the gateway left it alone, until it passes a probe again; "": it does not.
    """

    id: str
    key: VersionKey
    digest: str
    state: ReplicaState
    created_at: float
    revision: int = 0
    host: str = ""
    port: int = 0
    phase: str = ""
    phase_since: float | None = None
    loading: Loading | None = None
    in_flight: int | None = None
    routed: bool | None = None
    ejected: str = ""
    exit: Exit | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """A snapshot of the world: every replica with our cluster's label, in any state."""

    replicas: tuple[Replica, ...] = ()

    def of(self, key: VersionKey) -> tuple[Replica, ...]:
        return tuple(r for r in self.replicas if r.key == key)
