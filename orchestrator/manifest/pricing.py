"""The fields of a manifest that say what replicas cost. None of them is a part of what a replica is."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.manifest.groups import setting
from orchestrator.manifest.kinds import Number, Text

MOST = 1_000_000


@dataclass(frozen=True, slots=True)
class PricingConfig:
    """Prices of what replicas ask for, used or not. Without any, `modelfleet cost` shows hours alone."""

    cpu_hour: float = setting(Number(0, MOST), "What one CPU core costs for an hour.", default=0.0)
    memory_gib_hour: float = setting(Number(0, MOST), "What one GiB of memory costs for an hour.", default=0.0)
    gpu_hour: float = setting(
        Number(0, MOST), "What one GPU costs for an hour. Replicas have none in this release.", default=0.0
    )
    currency: str = setting(
        Text("a sign or code of at most 8 characters, such as EUR", r"[^\s\x00-\x1f\x7f]*", 8),
        "The currency of these, shown beside amounts; nothing is converted.",
        default="",
    )

    def warnings(self) -> tuple[str, ...]:
        """What one should know before one wonders."""
        if not self.gpu_hour:
            return ()
        return ("pricing.gpu_hour: no replica has a GPU in this release, so it adds nothing to any cost",)
