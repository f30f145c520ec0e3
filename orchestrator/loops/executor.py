"""Act: executes the actions of a plan and decides nothing. Each action is idempotent and runs as a task of its own.

A start that is under way counts as a replica from the moment it was decided (`pending`), so that the next decision
does not start it again; one that the engine refused counts as a failed replica (`refused`) until reconcile took note.
An action that failed because the engine was away is dropped: the next observation asks for it again.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx

from orchestrator.adapters.engine import Engine, EngineUnavailable, Launch
from orchestrator.adapters.probe import announce_pause
from orchestrator.core.entities import Replica, ReplicaSpec, VersionKey
from orchestrator.core.errors import FleetError
from orchestrator.core.plan import (
    Action,
    DrainReplica,
    PauseReplica,
    RemoveReplica,
    StartReplica,
    StopReplica,
    WakeReplica,
)
from orchestrator.core.states import ReplicaState
from orchestrator.loops.journal import Journal
from orchestrator.loops.observe import refused_start
from orchestrator.loops.tasks import TaskGroup

STOPS_AT_ONCE = 8
ANNOUNCE_TIMEOUT_S = 1.0
# The engine starts a container within a second, and within some on a busy machine.
SETTLE_S = 30.0


class Executor:
    """Runs actions against `engine` on `threads`, and on some of its own those that last for the grace of whoever ends:
    nobody who waits for a replica waits for these. `done` is called after each, to observe again, `lost` for each
    replica that failed though it was wanted, `oom_killed` for each that its memory limit ended: once what is left of it
    is removed, so that no control plane after this one counts it again.

    `locate` gives the directory of an artifact by digest, `secret` the value of a secret by keyed digest.
    """

    def __init__(
        self,
        engine: Engine,
        journal: Journal,
        threads: ThreadPoolExecutor,
        client: httpx.AsyncClient,
        *,
        locate: Callable[[str], Path],
        secret: Callable[[str], str],
        done: Callable[[], None],
        woken: Callable[[str], None] = lambda _id: None,
        lost: Callable[[VersionKey], None] = lambda _key: None,
        oom_killed: Callable[[VersionKey], None] = lambda _key: None,
    ) -> None:
        self._engine = engine
        self._journal = journal
        self._threads = threads
        self._stops = ThreadPoolExecutor(STOPS_AT_ONCE, thread_name_prefix="stop")
        self._client = client
        self._locate = locate
        self._secret = secret
        self._done = done
        self._woken = woken
        self._lost = lost
        self._oom_killed = oom_killed
        self._tasks = TaskGroup("executor")
        self._busy: set[str] = set()
        self._inside: set[Future[None]] = set()
        self.pending: dict[str, Replica] = {}
        self.refused: dict[str, Replica] = {}

    def execute(self, actions: tuple[Action, ...]) -> None:
        """Begins every action that is not under way already; returns at once."""
        for action in actions:
            match action:
                case StartReplica():
                    self._begin_start(action)
                case DrainReplica():
                    self._journal.record(
                        "replica_draining", action.cause, key=action.key, replica=action.replica_id
                    )  # fmt: skip
                case WakeReplica():
                    self._begin(action.replica_id, self._wake(action))
                case PauseReplica():
                    self._begin(action.replica_id, self._pause(action))
                case StopReplica():
                    self._begin(action.replica_id, self._stop(action))
                case RemoveReplica():
                    self._begin(action.replica_id, self._remove(action))

    async def close(self) -> None:
        await self._tasks.cancel()
        self._stops.shutdown(wait=False, cancel_futures=True)

    async def settle(self) -> None:
        """After `close`: waits for what is inside the engine. A start there is made, though nobody waits for it."""
        inside = [asyncio.wrap_future(future) for future in tuple(self._inside)]
        if inside:
            await asyncio.wait(inside, timeout=SETTLE_S)

    def _begin_start(self, action: StartReplica) -> None:
        spec = action.version.spec
        id_ = f"{spec.model}-{spec.version}-{secrets.token_hex(4)}"
        self.pending[id_] = Replica(
            id=id_, key=spec.key, digest=action.version.digest, state=ReplicaState.STARTING,
            created_at=time.time(), revision=action.revision, phase="creating",
        )  # fmt: skip
        self._begin(id_, self._start(id_, action))

    def _begin(self, replica_id: str, work: Coroutine[None, None, None]) -> None:
        if replica_id in self._busy:
            work.close()
            return
        self._busy.add(replica_id)
        self._tasks.spawn(self._run(replica_id, work), name=replica_id)

    async def _run(self, replica_id: str, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except EngineUnavailable as exc:
            self._journal.record("action_postponed", str(exc), level="warning", replica=replica_id)
            await asyncio.sleep(1.0)
        except FleetError as exc:
            self._journal.record("action_failed", str(exc), level="error", replica=replica_id)
            await asyncio.sleep(1.0)
        finally:
            self._busy.discard(replica_id)
            self.pending.pop(replica_id, None)
            self._done()

    async def _start(self, replica_id: str, action: StartReplica) -> None:
        spec = action.version.spec
        launch = Launch(
            replica_id=replica_id,
            spec=spec,
            digest=action.version.digest,
            revision=action.revision,
            artifact_dir=self._locate(spec.artifact) if spec.artifact else None,
            secrets=self._values(spec),
        )
        try:
            await self._call(partial(self._engine.start, launch))
        except EngineUnavailable:
            raise
        except FleetError as exc:
            self.refused[replica_id] = refused_start(self.pending[replica_id], str(exc))
            return
        self._journal.record(
            "replica_started", action.cause, key=spec.key, replica=replica_id, revision=action.revision
        )  # fmt: skip

    async def _wake(self, action: WakeReplica) -> None:
        await self._call(partial(self._engine.unpause, action.replica_id))
        self._woken(action.replica_id)
        self._journal.record("replica_woken", action.cause, key=action.key, replica=action.replica_id)

    async def _pause(self, action: PauseReplica) -> None:
        inside = await announce_pause(self._client, action.host, action.port, ANNOUNCE_TIMEOUT_S)
        if inside:
            raise FleetError(
                f"replica {action.replica_id!r}: not paused: {inside} requests are inside that the gateway does not "
                f"know of; whoever sends them should ask the gateway; it is tried again"
            )
        await self._call(partial(self._engine.pause, action.replica_id))
        self._journal.record("replica_paused", action.cause, key=action.key, replica=action.replica_id)

    async def _stop(self, action: StopReplica) -> None:
        await self._call(partial(self._engine.stop, action.replica_id, action.grace_s), self._stops)
        self._journal.record("replica_stopped", action.cause, key=action.key, replica=action.replica_id)

    async def _remove(self, action: RemoveReplica) -> None:
        if self.refused.pop(action.replica_id, None) is None:
            await self._call(partial(self._engine.stop, action.replica_id, 0.0), self._stops)
        if action.oom_killed:
            self._oom_killed(action.key)
        if not action.is_loss:
            self._journal.record("replica_stopped", action.cause, key=action.key, replica=action.replica_id)
            return
        self._lost(action.key)
        tail = "".join(f"\n    {line}" for line in action.log_tail[-10:])
        message = f"{action.cause}{tail}"
        self._journal.record("replica_failed", message, level="error", key=action.key, replica=action.replica_id)

    def _values(self, spec: ReplicaSpec) -> dict[str, str]:
        return {name: self._secret(digest) for name, digest in spec.secrets}

    async def _call(self, work: Callable[[], None], threads: ThreadPoolExecutor | None = None) -> None:
        if threads is not None:
            await asyncio.get_running_loop().run_in_executor(threads, work)
            return
        future = self._threads.submit(work)
        self._inside.add(future)
        future.add_done_callback(self._inside.discard)
        await asyncio.wrap_future(future)
