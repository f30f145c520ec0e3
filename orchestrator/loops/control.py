"""The control plane, put together: one engine, one store, one gateway, and the loops between them.

`run` returns when it was told to stop. Ending this process, in whatever way, ends no replica and no gateway: only
`down` does that. Read `reconcile.py` and `operations.py` for what the parts do.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_fixed

from orchestrator.adapters.docker_engine import DockerEngine
from orchestrator.adapters.engine import Engine
from orchestrator.adapters.gateway import GatewayProcess
from orchestrator.adapters.metrics import Metrics
from orchestrator.adapters.process_engine import ProcessEngine
from orchestrator.adapters.prometheus import Prometheus
from orchestrator.adapters.scrape import Scrape
from orchestrator.adapters.signals import Source
from orchestrator.adapters.state_dir import StateDir
from orchestrator.adapters.store import Store
from orchestrator.config import ENGINES, VERSION, Config
from orchestrator.core.entities import Resources, SignalSource
from orchestrator.core.errors import ConflictError, UnavailableError
from orchestrator.core.plan import Policy
from orchestrator.loops.autoscale import Autoscaler
from orchestrator.loops.cost import CostKeeper
from orchestrator.loops.ejections import EjectionWatch
from orchestrator.loops.executor import Executor
from orchestrator.loops.journal import Journal
from orchestrator.loops.keeper import GatewayKeeper
from orchestrator.loops.keys import Keys
from orchestrator.loops.observability import Observability
from orchestrator.loops.observe import Prober
from orchestrator.loops.operations import Operations
from orchestrator.loops.pauses import Pauses
from orchestrator.loops.prepare import Preparer, listener_of
from orchestrator.loops.reconcile import ReconcileLoop
from orchestrator.loops.recorder import Recorder
from orchestrator.loops.resources import ResourceWatch
from orchestrator.loops.rollouts import Rollouts
from orchestrator.loops.routing import TableBoard
from orchestrator.loops.signals import Signals
from orchestrator.loops.targets import Targets
from orchestrator.loops.tasks import TaskGroup, forever
from orchestrator.loops.waking import Waking
from orchestrator.manifest import Manifest

THREADS = 16


class ControlPlane:
    """Owns everything that lives as long as the process. `url` is where the admin API answers."""

    def __init__(self, config: Config, state: StateDir, store: Store, url: str) -> None:
        self.config = config
        self.state = state
        self.store = store
        self.url = url
        self.started_at = time.time()
        self.cluster = _settle(store, "cluster", config.cluster, "default")
        self.stopped = asyncio.Event()
        self.metrics = Metrics(VERSION)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="engine")
        self._client = httpx.AsyncClient(timeout=2.0, trust_env=False)
        # Guards a change of names: two first applies at once must not both assemble.
        self._naming = asyncio.Lock()
        self._assemble(_settle(store, "engine", config.engine, ENGINES[0]))

    def _assemble(self, engine: str) -> None:
        """Makes every part for `self.cluster` on the engine of that name."""
        self.engine = make_engine(engine, self.cluster, self.config, self.state)
        self._engine_stopped = threading.Event()
        self._tasks = TaskGroup("control")
        self.journal = Journal(self.store)
        self.preparer = Preparer(self.config, self.state, self.engine, self.cluster)
        self.board = TableBoard(self.store, self.cluster)
        self.prober = Prober(self._client, changed=self._wake)
        gateway_log = self.state.logs / "gateway.log"
        process = GatewayProcess(self.state.gateway, self.url, self.state.token_file, gateway_log)
        self.keeper = GatewayKeeper(process, self.journal, self._client, self._threads)
        self.observability = Observability(self.state, self.url, self.engine, self.journal, self._threads)
        self.keys = Keys(self.store, self.board, self.keeper, self.journal)
        self.executor = Executor(
            self.engine, self.journal, self._threads, self._client,
            locate=self.preparer.locate, secret=self.state.secret, done=self._wake,
            woken=self._note_unpaused,
            lost=self.metrics.failed,
            oom_killed=self.metrics.oom_killed,
        )  # fmt: skip
        self.targets = Targets(self.store.scaling)
        self.pauses = Pauses(self.store)
        self.loop = ReconcileLoop(
            self.engine, self.board, self.prober, self.keeper, self.executor, self.journal, self._threads, Policy(),
            self.targets, self.pauses, self.metrics.woke, self.metrics.turned,
        )  # fmt: skip
        self.ejections = EjectionWatch(self.keeper, self.prober, self.journal, lambda: self.loop.observed, self._wake)
        self.resources = ResourceWatch(self.engine, self._threads, lambda: self.loop.plan is not None)
        self.operations = Operations(
            self.config, self.store, self.preparer, self.loop, self.keeper, self.observability, self.board,
            self.journal, self._threads, self.metrics.rolled_out,
        )  # fmt: skip
        self.rollouts = Rollouts(
            self.store, self.loop, self.pauses, self.operations, self.journal, self._threads, self.metrics.rolled_out
        )  # fmt: skip
        self.recorder = Recorder(lambda: self.loop.plan.verdicts if self.loop.plan else {})
        self.signals = Signals(self.journal, self.recorder.hear)
        self.autoscaler = Autoscaler(
            self.loop, self.targets, self.signals, self.store.scaling, self.journal, self.metrics,
            sources=self._sources_of_signals, ensure=self.operations.ensure_runtime,
        )  # fmt: skip
        self.cost = CostKeeper(
            self.loop, self.store.cost, self.metrics,
            report=lambda: self.ejections.report, readings=lambda: self.signals.latest, specs=self._specs,
        )  # fmt: skip
        self.waking = Waking(self.loop, self.targets, self.journal, choose=self.autoscaler.wake)

    def _wake(self) -> None:
        self.loop.wake()

    def _specs(self) -> dict[str, Resources]:
        """What replicas of all revisions that are remembered ask for, by the digest of what they were started from."""
        versions = (v for r in self.store.revisions() for v in r.desired.versions().values())
        return {version.digest: version.spec.resources for version in versions}

    def _note_unpaused(self, replica_id: str) -> None:
        self.loop.note_unpaused(replica_id)

    def _sources_of_signals(self, wanted: SignalSource) -> list[Source]:
        direct = Scrape(self._client, self.keeper.metrics_urls, self._threads, lambda: self.recorder.watched)
        if not wanted.prometheus or wanted.kind == "direct":
            return [direct]
        prometheus = Prometheus(self._client, wanted.prometheus, self.cluster, self._threads)
        return [prometheus] if wanted.kind == "prometheus" else [direct, prometheus]

    async def run(self) -> None:
        """Adopts what runs, takes up what was left, and keeps at it until `stopped` is set."""
        self.journal.record("control_plane_started", f"control plane of cluster {self.cluster} answers at {self.url}")
        self._begin()
        await self.stopped.wait()
        await self.close()

    async def take_names(self, manifest: Manifest) -> None:
        """While nothing was ever applied the cluster has no name and engine of its own: the first manifest gives them.

        What `--cluster` and `--engine` gave stays. Afterwards `Preparer.load` refuses a manifest with other names.
        """
        async with self._naming:
            cluster = self.config.cluster or (manifest.cluster if manifest.says("cluster") else self.cluster)
            engine = self.config.engine or (manifest.engine if manifest.says("engine") else self.engine.name)
            if self.store.current_revision() is not None or (cluster, engine) == (self.cluster, self.engine.name):
                return
            left = self.board
            await self._dismantle()
            await asyncio.get_running_loop().run_in_executor(self._threads, self._forget_engine)
            self.cluster = cluster
            self.store.put("cluster", cluster)
            self.store.put("engine", engine)
            self._assemble(engine)
            left.changed.notify()  # a gateway that waits at the board that nobody writes on any more asks again
            self.state.announce(self.facts())
            self._begin()

    def facts(self) -> dict[str, object]:
        """What control.json says."""
        return {"pid": os.getpid(), "url": self.url, "cluster": self.cluster, "version": VERSION}

    def _begin(self) -> None:
        revision = self.store.current_revision()
        if revision is None:
            self.keeper.want(listener_of(Manifest(models={}), self.config))
        else:
            self.operations.enforce(revision)
        self.operations.resume()
        self._gateway_task = self._tasks.spawn(forever("gateway", self.keeper.run), name="gateway")
        self._tasks.spawn(self._reconcile(), name="reconcile")
        self._tasks.spawn(forever("probe", self.prober.run), name="probe")
        self._tasks.spawn(forever("ejections", self.ejections.run), name="ejections")
        self._companion_tasks = [
            self._tasks.spawn(forever(keeper.kind.name, keeper.run), name=keeper.kind.name)
            for keeper in self.observability.keepers
        ]
        self._tasks.spawn(forever("autoscale", self.autoscaler.run), name="autoscale")
        self._tasks.spawn(forever("cost", self.cost.run), name="cost")
        self._tasks.spawn(forever("resources", self.resources.run), name="resources")
        self._watch_engine()

    async def down(self) -> None:
        """Ends every replica, the gateway, and what the engine made for this cluster. Then `run` returns."""
        self.loop.frozen = True
        self.preparer.close()
        await self.operations.close()
        await self.executor.close()
        await self.executor.settle()
        self.journal.record("cluster_down", "replicas and gateway end, as asked")
        self._gateway_task.cancel()
        for task in self._companion_tasks:
            task.cancel()
        await self.keeper.stop()
        await self._tear_down()
        self.cost.end(time.time())
        self.stopped.set()

    @retry(
        stop=stop_after_attempt(5), wait=wait_fixed(1), retry=retry_if_exception_type(UnavailableError), reraise=True
    )
    async def _tear_down(self) -> None:
        """Again where the engine refused: each try lists anew, and a container may just have been ending."""
        await self.observability.stop()
        await asyncio.get_running_loop().run_in_executor(self._threads, self.engine.teardown)

    def release_waiters(self) -> None:
        """Answers every long poll of the admin API, so that its server can end."""
        for signal in (self.journal.changed, self.operations.changed, self.board.changed, self.recorder.changed):
            signal.close()

    async def close(self) -> None:
        self.release_waiters()
        await self._dismantle()
        await self._client.aclose()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.engine.close()

    async def _dismantle(self) -> None:
        """Ends the loops; what runs goes on."""
        self._engine_stopped.set()
        self.preparer.close()
        await self.operations.close()
        await self._tasks.cancel()
        self.cost.write()
        await self.executor.close()

    def _forget_engine(self) -> None:
        """Removes the networks of the name that is given up. An engine that is away keeps them: they hold nothing."""
        with contextlib.suppress(UnavailableError):
            self.engine.teardown()
        self.engine.close()

    async def _reconcile(self) -> None:
        await forever("prepare engine", self._prepare_once)

    async def _prepare_once(self) -> None:
        """The engine's shared parts come first; while the engine is away this raises and is tried again."""
        await asyncio.get_running_loop().run_in_executor(self._threads, self.engine.prepare)
        await self.loop.run()

    def _watch_engine(self) -> None:
        """On a daemon thread: a blocked read of the engine's events must not keep the process from ending."""
        loop = asyncio.get_running_loop()
        wake = partial(loop.call_soon_threadsafe, self.loop.wake_for_event)
        threading.Thread(
            target=self.loop.watch_events, args=(self._engine_stopped, wake), name="engine-events", daemon=True
        ).start()


def make_engine(name: str, cluster: str, config: Config, state: StateDir) -> Engine:
    if name == "process":
        return ProcessEngine(cluster, state.root)
    return DockerEngine(cluster, state.root, config.base_image)


def _settle(store: Store, key: str, asked: str | None, default: str) -> str:
    """A fact of the cluster that must not change under what runs: the one asked for, else the one on record.

    Raises `ConflictError` when both are there and differ while a revision is in force.
    """
    known = store.get(key)
    if asked and known and asked != known and store.current_revision() is not None:
        raise ConflictError(
            f"{key}: {asked!r} was asked for, but this state directory runs with {known!r}; end that first "
            f"(`modelfleet down`), or name another --state-dir"
        )
    value = asked or known or default
    store.put(key, value)
    return value
