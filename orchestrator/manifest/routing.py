"""The fields of a manifest that say how the gateway carries requests: queue, retries, stickiness, shadows, rates.

None of them is part of what a replica is started from: a change of one restarts nothing. The words and bounds are those
of `router/contract.py`, and a test holds them to it.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.manifest.groups import ListOf, setting
from orchestrator.manifest.kinds import DAY_S, Choice, Integer, Number, Text

RETRY_CAUSES = ("connect", "reset", "503")
BALANCES = ("two_choices", "least", "round_robin", "peak_ewma")
STICKY = Text(
    "key, header:NAME or cookie:NAME, such as header:x-user", r"key|(?:header|cookie):[A-Za-z0-9!#$%&'*+\-.^_`|~]{1,64}"
)


@dataclass(frozen=True, slots=True)
class QueueConfig:
    """Requests that wait in the gateway for a free replica."""

    max: int = setting(Integer(0, 1_000_000), "Most waiting requests; beyond it clients get 503.", default=1000)
    timeout_ms: int = setting(
        Integer(0, DAY_S * 1000), "Longest wait in milliseconds; after it clients get 504.", default=5000
    )


@dataclass(frozen=True, slots=True)
class RetryConfig:
    """When a failed request is sent again."""

    budget: float = setting(Number(0, 1), "Most retries, as a share of the version's requests; 0: none.", default=0.2)
    max: int = setting(Integer(0, 10), "Most retries of one request; 0: none.", default=2)
    on: tuple[str, ...] = setting(
        ListOf(Choice(RETRY_CAUSES)),
        "After what: `connect` no connection, `reset` broken before the answer, `503` the replica's own word.",
        default=("connect", "reset"),
    )


@dataclass(frozen=True, slots=True)
class ShadowConfig:
    """Copies of live requests, whose answers are compared with the live ones and dropped."""

    version: str = setting(
        Text("a version of this model", r"[A-Za-z0-9][A-Za-z0-9._-]*", 63),
        "The version that gets the copies; not the one that takes all traffic.",
    )
    percent: float = setting(Number(0, 100), "Percent of the requests that are copied.", default=100.0)
    queue_max: int = setting(Integer(1, 100_000), "Most copies at one time; others are dropped.", default=100)
    tolerance: float = setting(
        Number(0, 1), "Numbers that differ by no more than this, relatively, are equal.", default=0.0
    )
    samples_per_minute: int = setting(
        Integer(0, 10_000), "Most differing pairs a minute that are written to `logs/shadow.jsonl`.", default=10
    )


@dataclass(frozen=True, slots=True)
class RateLimitConfig:
    """How many requests a model takes from all callers together."""

    requests_per_s: float = setting(Number(0.001, 1_000_000), "Requests a second, on average.")
    burst: int | None = setting(
        Integer(1, 1_000_000), "Requests at once after a pause. Left out: as many as come in one second.", default=None
    )
