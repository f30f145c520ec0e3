"""What the gateway saw of replicas, brought to the probes: whom it leaves alone is asked at once whether it is ready.

The gateway ejects by what requests meet; the control plane probes. Each alone may err: an ejected replica that passes
its probes stays, and one that fails both is replaced (`core/roster.py` decides that). Here it is only asked and told.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from orchestrator.core.entities import Observed
from orchestrator.loops.journal import Journal
from orchestrator.loops.keeper import GatewayKeeper
from orchestrator.loops.observe import Prober
from router.contract import GatewayReport

LOOK_EVERY_S = 1.0
# A report of 10,000 models is work for the gateway: looking takes at most this share of the time.
LOOK_SHARE = 0.02
SELDOM_S = 10.0


class EjectionWatch:
    """Asks the gateway now and then; `changed` is called when somebody was ejected or came back."""

    def __init__(
        self,
        keeper: GatewayKeeper,
        prober: Prober,
        journal: Journal,
        observed: Callable[[], Observed],
        changed: Callable[[], None],
    ) -> None:
        self._keeper = keeper
        self._prober = prober
        self._journal = journal
        self._observed = observed
        self._changed = changed
        self._report: GatewayReport | None = None

    @property
    def report(self) -> GatewayReport | None:
        """What the gateway said when it was asked last; None: it did not answer."""
        return self._report

    async def run(self) -> None:
        while True:
            began = time.monotonic()
            await self.look()
            await asyncio.sleep(pause_s(time.monotonic() - began))

    async def look(self) -> None:
        """A gateway that does not answer says nothing of anybody: what it said last stays."""
        report = self._report = await self._keeper.report()
        if report is None:
            return
        found = self._prober.note_ejected(report.ejected, time.monotonic())
        keys = {replica.id: replica.key for replica in self._observed().replicas}
        for id_ in found.began:
            message = f"ejected by the gateway: {report.ejected[id_]}; it is asked at once whether it is ready"
            self._journal.record("replica_ejected", message, level="warning", key=keys.get(id_), replica=id_)
        for id_ in found.ended:
            self._journal.record(
                "replica_returned", "the gateway uses it again, and it is ready", key=keys.get(id_), replica=id_
            )
        if found.began or found.ended:
            self._changed()


def pause_s(took_s: float) -> float:
    """How long not to look again after a look that took so long."""
    return min(SELDOM_S, max(LOOK_EVERY_S, took_s / LOOK_SHARE))
