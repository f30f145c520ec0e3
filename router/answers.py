"""What the private port says: metrics, report, state and health, of all processes of the gateway together.

Owns the gathering: a process asks the others for a fresh account (`accounts.py`), waits a moment for it, and adds. A
report speaks for all or not at all, because replicas are stopped on its word; metrics take the last account of one
that does not answer. Works in short stretches, so that no request waits long behind a scrape of many models.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Final

import msgspec

from router import metrics, openmetrics
from router.accounts import (
    LANES_PER_STEP,
    Account,
    Accounts,
    KeyAccount,
    KeyTotal,
    LaneTotal,
    Total,
    counters_only,
    key_of,
    lane_accounts,
    plus,
)
from router.config import release
from router.contract import GatewayReport
from router.page import Field, Phase
from router.stretches import in_stretches

if TYPE_CHECKING:
    from router.core.admission import Lane
    from router.server import Gateway

# A process that is killed takes so much of its counts with it.
PUBLISH_S: Final = 0.25
# Writing an account takes at most this share of the time, however many models there are.
PUBLISH_SHARE: Final = 0.02
# The others answer within a millisecond; one that is stuck for so long is not waited for.
ANSWER_S: Final = 2.0
_LOOK_S: Final = 0.0005

_JSON: Final = b"application/json"


class Answers:
    """One process's word for all."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._crew = gateway.crew
        self._before = Account()  # counted at this row before this process
        self._inherited: set[tuple[str, str]] = set()  # versions in it that no table was compared with yet
        self._accounts: Accounts | None = None
        job, page = self._crew.job, self._crew.page
        if job is not None and page is not None:
            self._accounts = Accounts(job.accounts, page)

    async def take_over(self) -> None:
        """Goes on from what was counted at this row before. To be called before anything is published."""
        if self._accounts is not None and self._crew.job is not None:
            account = self._accounts.read(self._crew.job.row)
            if account is not None:
                self._before = await in_stretches(counters_only(account))
                self._inherited = {key_of(raw) for raw in self._before.lanes}

    async def publish_now_and_then(self) -> None:
        """Keeps this process's account fresh, and answers when another asks. Runs until cancelled."""
        took_s = 0.0
        while True:
            try:
                async with asyncio.timeout(max(PUBLISH_S, took_s / PUBLISH_SHARE)):
                    await self._crew.was_asked.wait()
            except TimeoutError:
                pass
            began = time.monotonic()
            await self.publish()
            took_s = time.monotonic() - began

    async def publish(self) -> Account:
        """Writes this process's account, and returns it."""
        job, page = self._crew.job, self._crew.page
        self._crew.was_asked.clear()
        asked = page.asked if page is not None else 0
        account = await self._own()
        if self._accounts is not None and job is not None:
            self._accounts.write(job.row, account, asked)
        return account

    async def answer(self, path: bytes, accept: bytes = b"") -> tuple[int, bytes, bytes] | None:
        """The status, content type and body of a path; None when there is none. `accept`: which formats are read."""
        if path == b"/healthz":
            return 200, _JSON, b'{"status": "draining"}' if self._gateway.is_ending else b'{"status": "ok"}'
        if path == b"/metrics":
            _, total = await self._total(with_idle=True)
            is_open = openmetrics.is_wanted(accept)
            return 200, openmetrics.TYPE if is_open else metrics.TYPE, await self._metrics(total, is_open=is_open)
        if path == b"/report":
            silent, total = await self._total(with_idle=False)
            return self._refusal(silent) if silent else (200, _JSON, msgspec.json.encode(self._report(total)))
        if path == b"/debug/state":
            silent, total = await self._total(with_idle=True)
            return 200, _JSON, json.dumps(self._state(total, silent), indent=1).encode()
        return None

    # gathering

    async def _total(self, *, with_idle: bool) -> tuple[list[int], Total]:
        """The sum of all processes, and the rows of those that did not answer."""
        total = Total()
        silent = await self._ask()
        if self._accounts is not None and self._crew.job is not None:
            for row, is_live in self._accounts.rows():
                account = self._accounts.read(row) if row != self._crew.job.row else None
                if account is not None:
                    await in_stretches(total.add(account, is_live=is_live))
        # What was shown once must survive this process, or a counter would go back.
        await in_stretches(total.add(await self.publish(), is_live=True))
        if with_idle:
            await in_stretches(self._add_idle(total))
        return silent, total

    def _add_idle(self, total: Total) -> Generator[None, None, None]:
        """Versions that nobody asked yet are shown too."""
        for lane in list(self._gateway.fleet.lanes.values()):
            if lane.replicas:
                total.lane(lane.model, lane.version).replicas = lane.replicas
            yield

    async def _ask(self) -> list[int]:
        """Has the others write fresh accounts. Returns who did not."""
        job, page, accounts = self._crew.job, self._crew.page, self._accounts
        if job is None or page is None or accounts is None:
            return []
        question = page.ask()
        until = time.monotonic() + ANSWER_S
        others = [row for row, is_live in accounts.rows() if is_live and row != job.row]
        for row in others:
            self._crew.wake(row)
        while True:
            live = {row for row, is_live in accounts.rows() if is_live} if others else set()
            others = [row for row in others if row in live and not accounts.has_answered(row, question)]
            if not others or time.monotonic() > until:
                return others
            await asyncio.sleep(_LOOK_S)

    async def _own(self) -> Account:
        self._forget(time.monotonic())
        gateway, before = self._gateway, self._before
        fleet = gateway.fleet
        keys = {id_: KeyAccount(list(key.answers)) for id_, key in before.keys.items()}
        for caller in gateway.keyring.callers.values():
            mine = KeyAccount(caller.answers, caller.under_way)
            keys.setdefault(caller.id, KeyAccount([0] * len(caller.answers))).add(mine, is_live=True)
        of_now = list(fleet.lanes.values())
        lanes, queued = await in_stretches(lane_accounts(of_now, time.monotonic())), await in_stretches(_queued(of_now))
        return Account(
            tag=fleet.tag,
            connections=len(gateway.connections),
            queued=queued,
            in_flight=fleet.in_flight(),
            ejected=fleet.ejected(time.monotonic()),
            unrouted=plus(before.unrouted, gateway.unrouted),
            limited=plus(before.limited, gateway.door.limited),
            spans=plus(before.spans, {} if gateway.outbox is None else gateway.outbox.counts),
            keys=keys,
            lanes=lanes + before.lanes,
        )

    def _forget(self, now: float) -> None:
        """A model with hundreds of versions over its life shows those that there are."""
        fleet = self._gateway.fleet
        if fleet.tag:
            for key in self._inherited - fleet.lanes.keys():
                fleet.removed.setdefault(key, now)
            self._inherited.clear()
        gone = fleet.forget(now)
        if gone and self._before.lanes:
            self._before.lanes = [raw for raw in self._before.lanes if key_of(raw) not in gone]

    def _is_shown(self, lane: LaneTotal) -> bool:
        """Another process that ended may still count for a version that is forgotten here."""
        fleet, key = self._gateway.fleet, (lane.model, lane.version)
        return not fleet.tag or key in fleet.lanes or key in fleet.removed or bool(lane.in_flight or lane.queued)

    # answers

    @staticmethod
    def _refusal(silent: list[int]) -> tuple[int, bytes, bytes]:
        text = f"{len(silent)} of the gateway's processes do not answer; what they hold is unknown; ask again"
        return 503, _JSON, json.dumps({"error": text, "code": "UNKNOWN"}).encode()

    def _report(self, total: Total) -> GatewayReport:
        return GatewayReport(
            pid=self._crew.pid,
            generation=self._crew.generation,
            tag=total.tag,
            started_at=self._crew.started_at,
            in_flight=total.in_flight,
            queued={f"{lane.model}/{lane.version}": lane.queued for lane in total.lanes.values() if lane.queued},
            draining=self._gateway.is_ending,
            ejected=total.ejected,
        )

    async def _metrics(self, total: Total, *, is_open: bool) -> bytes:
        table = self._gateway.held.table
        gauges = {
            f'modelfleet_gateway_info{{cluster="{table.cluster if table else ""}"}}': ("Whose gateway this is.", 1.0),
            f'modelfleet_build_info{{release="{release()}"}}': ("The release that runs.", 1.0),
            "modelfleet_gateway_connections": ("Client connections open now.", float(total.connections)),
            "modelfleet_gateway_models": ("Models in the routing table.", float(len(self._gateway.fleet.models))),
            "modelfleet_gateway_processes": ("Processes that serve.", float(len(total.tags))),
            "modelfleet_gateway_started_at_seconds": ("When this gateway started.", self._crew.started_at),
        }
        if table is not None:
            came = ("When the routing table in force was applied.", self._gateway.held.came_at)
            gauges["modelfleet_gateway_table_applied_at_seconds"] = came
        known = [KeyTotal(id_, key) for id_, key in total.keys.items() if id_ in self._gateway.keyring.callers]
        lanes = [lane for lane in total.lanes.values() if self._is_shown(lane)]
        known_models = {lane.model for lane in lanes} | self._gateway.fleet.models.keys()
        limited = {model: n for model, n in total.limited.items() if model in known_models}
        spans = None if self._gateway.outbox is None else total.spans
        steps = metrics.render_in_steps(lanes, total.unrouted, gauges, limited, known, spans, is_open=is_open)
        return await in_stretches(steps)

    def _state(self, total: Total, silent: list[int]) -> dict[str, object]:
        fleet = self._gateway.fleet
        now = time.monotonic()
        lanes = [
            {
                "model": lane.model,
                "version": lane.version,
                "in_flight": total.lane(lane.model, lane.version).in_flight,
                "queued": total.lane(lane.model, lane.version).queued,
                "state": lane.route.state,
                "predicted_wait_ms": round(lane.predicted_wait_s() * 1000, 3),
                "replicas": [replica.id for replica in lane.replicas],
                "copies": _copies(total.lane(lane.model, lane.version)),
            }
            for lane in fleet.lanes.values()
        ]
        replicas = [
            {
                "id": replica.id,
                "address": f"{replica.host}:{replica.port}",
                "in_flight": total.in_flight.get(replica.id, 0),
                "idle_connections": len(replica.pool.idle),
                "retired": replica.retired,
                "capacity": replica.limit,
                "latency_ms": round(replica.health.latency_s * 1000, 3),
                "ejections": replica.health.ejections,
                "ejected_for_s": round(max(0.0, replica.health.ejected_until - now), 3),
                "reason": replica.health.reason,
            }
            for replica in fleet.replicas.values()
        ]
        return {
            "tag": total.tag,
            "draining": self._gateway.is_draining,
            "connections": total.connections,
            "process": os.getpid(),
            "processes": self._processes(silent),
            "table": self._table(),
            "lanes": lanes,
            "replicas": replicas,
        }

    def _table(self) -> dict[str, object] | None:
        """The table that this process holds, and what it refused last; None before the first."""
        held = self._gateway.held
        refused = {"at": held.refused_at, "reason": held.refused} if held.refused else None
        if held.table is None:
            return {"tag": "", "refused": refused} if refused else None
        return {
            "tag": held.table.tag,
            "models": len(held.table.models),
            "keys": len(held.table.keys),
            "came_as": held.came_as,
            "came_at": held.came_at,
            "refused": refused,
        }

    def _processes(self, silent: list[int]) -> list[dict[str, object]]:
        page, accounts = self._crew.page, self._accounts
        if page is None or accounts is None:
            return []
        shown = []
        for row in page.held_rows:
            account = accounts.read(row) or Account()
            shown.append(
                {
                    "pid": page.get(row, Field.PID),
                    "generation": page.get(row, Field.GENERATION),
                    "phase": Phase(page.get(row, Field.PHASE)).name.lower(),
                    "answers": row not in silent,
                    "tag": account.tag,
                    "connections": account.connections,
                    "in_flight": sum(account.in_flight.values()),
                    "queued": account.queued,
                }
            )
        return shown


def _queued(lanes: list[Lane]) -> Generator[None, None, int]:
    queued = 0
    for done, lane in enumerate(lanes, 1):
        queued += lane.queued
        if done % LANES_PER_STEP == 0:
            yield
    return queued


def _copies(lane: LaneTotal) -> dict[str, object] | None:
    """What was copied to a version; None when it never was a shadow."""
    copies = lane.copies
    if copies is None:
        return None
    return {
        "being": copies.alive,
        "waiting": copies.waiting,
        "results": copies.results,
        "drops": copies.drops,
        "failures": copies.failures,
    }
