"""What `reconcile` decides: one dataclass per action, each with its cause, and the routing that goes with them.

A plan is a value. It is executed by `loops/executor.py`, which decides nothing; a plan for an unchanged world has no
actions, and executing it makes no call. Read `reconcile.py` for how one is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from orchestrator.core.entities import DesiredVersion, ModelSettings, RouteSettings, VersionKey

DEFAULT_DRAIN_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class StartReplica:
    """Start one more replica of `version`. The executor names it."""

    version: DesiredVersion
    revision: int
    cause: str

    def render(self) -> str:
        return f"+ start {self.version.key} spec={self.version.digest}: {self.cause}"


@dataclass(frozen=True, slots=True)
class WakeReplica:
    """Give a paused replica its time back. It is routed once it has passed a probe."""

    replica_id: str
    key: VersionKey
    cause: str

    def render(self) -> str:
        return f"^ wake {self.key} {self.replica_id}: {self.cause}"


@dataclass(frozen=True, slots=True)
class PauseReplica:
    """Pause a drained replica: nothing is in flight in it, and nothing is sent to it any more. It is told before at
    `host` and `port`."""

    replica_id: str
    key: VersionKey
    cause: str
    host: str = ""
    port: int = 0

    def render(self) -> str:
        return f"_ pause {self.key} {self.replica_id}: {self.cause}"


@dataclass(frozen=True, slots=True)
class DrainReplica:
    """Take a ready replica out of routing; `PauseReplica` or `StopReplica` follows when nothing is in flight, and
    `StopReplica` when its time is up."""

    replica_id: str
    key: VersionKey
    cause: str

    def render(self) -> str:
        return f"~ drain {self.key} {self.replica_id}: {self.cause}"


@dataclass(frozen=True, slots=True)
class StopReplica:
    """End a replica that takes no requests: SIGTERM, SIGKILL after `grace_s`, removal."""

    replica_id: str
    key: VersionKey
    grace_s: float
    cause: str

    def render(self) -> str:
        return f"- stop {self.key} {self.replica_id}: {self.cause}"


@dataclass(frozen=True, slots=True)
class RemoveReplica:
    """Remove what is left of a replica that ended; `cause` is how it ended and goes into an event.

    `is_loss`: it was wanted, so that its end is a failure and not just the end that it was on the way to. `oom_killed`:
    the engine killed a process of it because it needed more memory than its limit.
    """

    replica_id: str
    key: VersionKey
    cause: str
    log_tail: tuple[str, ...] = ()
    is_loss: bool = True
    oom_killed: bool = False

    def render(self) -> str:
        return f"- remove {self.key} {self.replica_id}: {self.cause}"


Action = StartReplica | WakeReplica | DrainReplica | PauseReplica | StopReplica | RemoveReplica


@dataclass(frozen=True, slots=True)
class RoutedVersion:
    """One version as routed: the ids of replicas that take its requests, and why there are none if there are none.

    `drain_timeout_s` is kept here for the drain of a version that nobody desires any more.
    """

    settings: RouteSettings
    replicas: tuple[str, ...] = ()
    state: str = ""
    drain_timeout_s: float = DEFAULT_DRAIN_TIMEOUT_S


@dataclass(frozen=True, slots=True)
class RoutedModel:
    """One model as routed now. It lags behind the desired traffic until the versions that it names are ready."""

    versions: Mapping[str, RoutedVersion]
    weights: Mapping[str, int]
    labels: Mapping[str, str]
    settings: ModelSettings = field(default_factory=ModelSettings)


@dataclass(frozen=True, slots=True)
class Failures:
    """How often replicas of one spec failed in a row, and when the next may start (seconds since the epoch).

    `peers` are the replicas of the spec that ran when `count` last grew: if they fail as well (an engine that
    restarts ends them all), that is the same failure and not one more in a row. `is_proven`: replicas of this very spec
    were ready before, so that a single failure says little of the next.
    """

    count: int
    retry_at: float
    reason: str
    log_tail: tuple[str, ...] = ()
    failed_at: float = 0.0
    is_proven: bool = False
    peers: frozenset[str] = frozenset()

    @property
    def is_blip(self) -> bool:
        """Whether it is the one failure of a replica that had been ready: replaced at once, nothing to report."""
        return self.count == 1 and self.retry_at <= self.failed_at

    @property
    def is_verdict(self) -> bool:
        """Whether requests are told so rather than kept waiting for the next try."""
        return self.count > 1 or not (self.is_blip or self.is_proven)


@dataclass(frozen=True, slots=True)
class Memory:
    """What reconcile must know beyond the present. All of it may be lost but `routed`, which the store keeps.

    `failures` by spec digest; `draining` when each replica's drain began and `drain_until` when it must end;
    `counted` the ended or stopped replicas that must not count as failures again; `routed` the routing that was
    published last. `ready_since` names every listed replica that was ever ready, with the beginning of its last
    ready stretch; `pending_since` when each one that is not ready was first seen so. `pausing` are drained ones that
    are being paused: they are not taken back. `woken`: when each that was woken and is not ready was last paused.
    `proven`: digests of wanted specs of which a replica was ready once.
    """

    failures: Mapping[str, Failures] = field(default_factory=dict)
    draining: Mapping[str, float] = field(default_factory=dict)
    counted: frozenset[str] = frozenset()
    routed: Mapping[str, RoutedModel] = field(default_factory=dict)
    drain_until: Mapping[str, float] = field(default_factory=dict)
    ready_since: Mapping[str, float] = field(default_factory=dict)
    pending_since: Mapping[str, float] = field(default_factory=dict)
    pausing: frozenset[str] = frozenset()
    woken: Mapping[str, float] = field(default_factory=dict)
    proven: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Policy:
    """Bounds on how fast the world is changed. Delays in seconds."""

    max_starting: int = 4
    max_surge_ratio: float = 0.25
    backoff_first_s: float = 1.0
    backoff_max_s: float = 60.0
    stable_after_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """Where one version stands. `reason` is a sentence when it is not "ready", or ready with a replica ejected.

    `ready` of `desired` replicas are awake and ready, `standby` are loaded and paused. `paused`: its model's rollout
    is, so that nobody waits for it to become ready.
    """

    key: VersionKey
    state: Literal["ready", "asleep", "starting", "updating", "failed", "stopping"]
    ready: int
    desired: int
    reason: str = ""
    standby: int = 0
    paused: bool = False

    @property
    def is_settled(self) -> bool:
        """Whether nothing more is to come of it by itself."""
        return self.paused or self.state in ("ready", "asleep")


@dataclass(frozen=True, slots=True)
class Plan:
    """Actions to execute now, the routing to publish, the memory for next time, and a verdict per version.

    `wake_at` is when to decide again even if nothing happens (a back-off or a drain ends); None: not needed.
    """

    actions: tuple[Action, ...]
    routes: Mapping[str, RoutedModel]
    memory: Memory
    verdicts: Mapping[VersionKey, Verdict]
    wake_at: float | None = None

    @property
    def is_empty(self) -> bool:
        return not self.actions

    @property
    def is_converged(self) -> bool:
        return self.is_empty and all(v.is_settled for v in self.verdicts.values())

    def render(self) -> str:
        return "\n".join(action.render() for action in self.actions)
