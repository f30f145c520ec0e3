"""What the autoscaler needs of a source of signals: one round of readings of all gateways, or a reason why not.

Two adapters pass the same tests: `scrape.py` reads the gateways themselves, `prometheus.py` asks a Prometheus server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from orchestrator.core.scaling.series import GatewayReadings


class SignalsUnavailable(Exception):  # noqa: N818
    """The source said nothing that can be used; the message is one sentence for people."""


@dataclass(frozen=True, slots=True)
class Round:
    """The newest readings of each gateway, by its name. `missing` are those that should be there and are not.

    Times are by this machine's clock. `note` is what an operator should know though it works ("": nothing).
    """

    gateways: Mapping[str, GatewayReadings]
    missing: tuple[str, ...] = ()
    note: str = ""

    @property
    def at(self) -> float:
        """The age of a round is that of its oldest part."""
        return min(gateway.at for gateway in self.gateways.values())


class Source(Protocol):
    """Somewhere to read signals. `every_s`: how often there may be something new."""

    name: str
    every_s: float

    async def read(self) -> Round:
        """Raises `SignalsUnavailable`. Bounded in time; never blocks the event loop for long."""
