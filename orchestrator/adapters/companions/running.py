"""What the two ways of running a companion have in common: what runs, and the wait until it answers."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from orchestrator.adapters.companions.kinds import CompanionFailed, Kind, Settings

# A Prometheus reads its log of the last hours first, a Grafana makes its database.
START_TIMEOUT_S = 60.0
# A Prometheus writes what it holds in memory.
STOP_TIMEOUT_S = 15.0
_ASK_EVERY_S = 0.05


@dataclass(frozen=True, slots=True)
class Running:
    """One that runs, with the digest of what it was started with. A process has a `pid`, a container its name."""

    id: str
    digest: str
    pid: int | None = None
    container: str = ""

    @property
    def words(self) -> str:
        return f"container {self.container}" if self.container else f"process {self.pid}"


def await_answer(kind: Kind, settings: Settings, ended: Callable[[], str], log: str) -> None:
    """Returns when it answers. `ended` says how it ended, "" while it runs. Raises `CompanionFailed`."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if said := ended():
            raise CompanionFailed(f"{kind.name}: ended at its start {said}; see {log}")
        if answers(kind, settings):
            return
        time.sleep(_ASK_EVERY_S)
    raise CompanionFailed(f"{kind.name}: did not answer within {START_TIMEOUT_S:.0f} s; see {log}")


def answers(kind: Kind, settings: Settings, timeout_s: float = 1.0) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        # Plain HTTP on loopback; to read the machine's authorities would take longer than the answer.
        answer = httpx.get(f"{settings.url}{kind.health}", timeout=timeout_s, trust_env=False, verify=False)
        return answer.status_code == httpx.codes.OK
    return False
