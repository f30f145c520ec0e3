"""The fields of a manifest that say how the model server runs a model: batches, and what they are sized for.

Each is part of what a replica is started from: a change of one replaces the version's replicas. docs/CONTRACTS.md says
how they reach the container.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from orchestrator.manifest.groups import OrNull, setting
from orchestrator.manifest.kinds import GI, KI, AutoOr, Duration, Integer, Number, Size

# Also the model server's own: a manifest that leaves it at this does not name it.
PREDICT_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class BatchingConfig:
    """How the model server joins rows of concurrent requests."""

    max_size: int | Literal["auto"] = setting(
        AutoOr(Integer(1, 65_536)),
        "Most rows that are predicted together; 1 is no batching, auto learns from the model what serves best.",
        default="auto",
    )
    max_delay_ms: float = setting(
        Number(0, 60_000), "How long in milliseconds a row waits for company while the model is free.", default=0.0
    )
    max_request_rows: int | None = setting(
        OrNull(Integer(1, 10_000_000)),
        "Most rows of one request; beyond it clients get 413. null takes any number, and splits what is larger than a "
        "batch.",
        default=None,
    )


@dataclass(frozen=True, slots=True)
class SloConfig:
    """What the version is to reach."""

    latency_ms: float | None = setting(
        OrNull(Number(0.1, 60_000)),
        "Latency in milliseconds that replicas are counted for (docs/AUTOSCALING.md) and batches are sized for "
        "(`batching.max_size: auto`).",
        default=None,
    )
    percentile: float = setting(
        Number(50, 99.99), "Percent of the requests that are to be answered within it.", default=95.0
    )


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """Answers that a replica keeps for equal requests. Only for models whose answer depends on the request alone."""

    ttl_s: float = setting(Duration("1ms", "24h"), "How long an answer is kept.", key="ttl")
    max_bytes: int = setting(
        Size(64 * KI, 1024 * GI), "Memory for answers in one replica; the longest unused go first.", key="max"
    )
