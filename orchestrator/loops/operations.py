"""Applies, rollbacks and deletes: each is an operation that is stored before it begins and resumed after a crash.

    preparing (nothing has changed) --> converging (its revision is in force) --> succeeded
             \\--> failed                        \\--> failed (still trying), superseded by a newer revision

One operation prepares at a time. Convergence is reconcile's: an operation only watches its verdicts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog

from orchestrator import manifest as manifests
from orchestrator.adapters.gateway import bind_problem
from orchestrator.adapters.store import Store, StoredOperation, StoredRevision
from orchestrator.config import Config
from orchestrator.core import diff
from orchestrator.core.entities import Desired, DesiredModel, VersionKey
from orchestrator.core.errors import ConflictError, FleetError, NotFoundError
from orchestrator.core.plan import Plan
from orchestrator.loops.journal import Journal, Signal
from orchestrator.loops.keeper import GatewayKeeper
from orchestrator.loops.observability import Observability
from orchestrator.loops.prepare import Prepared, Preparer, listener_of
from orchestrator.loops.reconcile import ReconcileLoop
from orchestrator.loops.routing import TableBoard
from orchestrator.loops.sources import Fetching, Watcher
from orchestrator.loops.tasks import TaskGroup
from orchestrator.manifest import ManifestError

log = structlog.get_logger("modelfleet")

T = TypeVar("T")

FAILED_AFTER = 3
KEPT_REVISIONS = 20
WATCH_EVERY_S = 5.0
GATEWAY_EVERY_S = 0.05


class Request(msgspec.Struct, frozen=True):
    """What was asked, as stored. `text` and `base_dir` make it whole without the file it came from.

    `from_revision`: nothing is resolved anew, all is as that revision has it; but `model`, if one is named, gets the
    shares of the text (a promotion), or is as `model_from`, another revision, has it (its roll back). `version` is
    then the one that it is about.
    """

    kind: str
    text: str
    file: str
    base_dir: str
    summary: str = ""
    from_revision: int | None = None
    model: str = ""
    version: str = ""
    model_from: int | None = None

    @property
    def outcome(self) -> str:
        """What the rollout of a model ends as, where it ends well."""
        return "promoted" if self.kind == "promote" else "rolled_back"


class Operations:
    """Begins, resumes and watches operations. `changed` is notified at every step of any of them, `rolled_out` is told
    how each promotion, and each roll back of one model, ended."""

    def __init__(
        self,
        config: Config,
        store: Store,
        preparer: Preparer,
        loop: ReconcileLoop,
        keeper: GatewayKeeper,
        observability: Observability,
        board: TableBoard,
        journal: Journal,
        threads: ThreadPoolExecutor,
        rolled_out: Callable[[VersionKey, str], None] = lambda _key, _outcome: None,
    ) -> None:
        self._config = config
        self._rolled_out = rolled_out
        self._board = board
        self._store = store
        self._preparer = preparer
        self._loop = loop
        self._keeper = keeper
        self._observability = observability
        self._journal = journal
        self._threads = threads
        self._tasks = TaskGroup("operation")
        self._preparing: str | None = None
        self.changed = Signal()
        # What the operation that prepares fetches now, by the version that asked first.
        self.fetching: dict[VersionKey, Fetching] = {}

    # -- plans ----------------------------------------------------------------------------------------------

    async def plan(self, text: str, file: str, base_dir: Path) -> tuple[tuple[diff.Change, ...], tuple[str, ...]]:
        """What applying this manifest would do, with warnings. Raises `ManifestError`."""
        prepared = await self._on_thread(self._resolve, text, file, base_dir)
        changes = diff.preview(self._loop.desired, self._loop.foresee(prepared.desired), self._loop.observed)
        manifest = prepared.manifest
        watched = self._observability.changes(manifest.observability)
        waiting = self._waiting(prepared.desired)
        return (*changes, *waiting, *self._gateway_change(manifest), *watched), prepared.warnings

    def _waiting(self, desired: Desired) -> tuple[diff.Change, ...]:
        """What an apply would change about models whose rollout is paused, once they are resumed."""
        paused = self._loop.pauses.all.keys()
        before, after = (
            replace(d, models={name: model for name, model in d.models.items() if name in paused})
            for d in (self._loop.applied, replace(self._loop.applied, models=desired.models))
        )
        return tuple(
            replace(change, sentence=f"{change.sentence}, once its rollout is resumed")
            for change in diff.preview(before, after, self._loop.observed)
        )

    def _resolve(self, text: str, file: str, base_dir: Path) -> Prepared:
        return self._preparer.resolve(self._preparer.load(text, file, base_dir))

    def _gateway_change(self, manifest: manifests.Manifest) -> tuple[diff.Change, ...]:
        before, after = self._keeper.listener, listener_of(manifest, self._config)
        if before is None or before == after:
            return ()
        old, new = before.facts(), after.facts()
        causes = [f"{name} {old[name]} -> {value}" for name, value in new.items() if old.get(name) != value]
        sentence = "move the gateway: a new process listens, the old one finishes its requests and ends"
        if before.has_address_of(after):
            sentence = "change the gateway's settings in a hot restart: no request is lost"
        return (diff.Change("~", "gateway", sentence, "; ".join(causes)),)

    # -- begin ----------------------------------------------------------------------------------------------

    async def apply(self, text: str, file: str, base_dir: Path, plan_digest: str) -> StoredOperation:
        """Begins an apply. Raises `ManifestError`, or `ConflictError` when the shown plan is no longer true."""
        changes, _ = await self.plan(text, file, base_dir)
        if plan_digest and diff.digest(changes) != plan_digest:
            raise ConflictError(
                "apply: the plan that was shown is no longer what would happen, for the cluster or the sources changed "
                "meanwhile; run it again and read the new plan"
            )
        return self.begin(Request("apply", text, file, str(base_dir), _summary(changes)))

    def rollback(self, number: int | None) -> StoredOperation:
        """Begins a return to revision `number`, or to the one before the current. Raises `NotFoundError`."""
        target = self._rollback_target(number)
        summary = f"rolled back to revision {target.revision}"
        return self.begin(
            Request("rollback", target.manifest, target.file, target.base_dir, summary, target.revision)
        )  # fmt: skip

    def delete(self, model: str) -> StoredOperation:
        """Begins the removal of a model from what is in force. Raises `NotFoundError`."""
        current = self._store.current_revision()
        if current is None or model not in current.desired.models:
            names = ", ".join(sorted(current.desired.models)) if current else ""
            raise NotFoundError(f"model {model!r}: not in force; the models are: {names or 'none'}; name one of them")
        if model in self._loop.pauses.all:
            raise ConflictError(
                f"model {model!r}: its rollout is paused, and nothing of it is removed meanwhile; resume it first "
                f"(`modelfleet rollout resume {model}`)"
            )
        text = manifests.without_model(current.manifest, model)
        request = Request("delete", text, current.file, current.base_dir, f"deleted model {model}", current.revision)
        return self.begin(request)

    def resume(self) -> None:
        """Takes up what an earlier process left: preparations start again, convergence is watched on."""
        for operation in self._store.open_operations():
            if operation.state == "preparing":
                self._journal.record(
                    "operation_resumed", f"{operation.kind} {operation.id} begins again after a restart"
                )
                self._preparing = operation.id
                self._tasks.spawn(self._run(operation), name=operation.id)
            else:
                self._tasks.spawn(self._watch(operation), name=operation.id)

    async def close(self) -> None:
        await self._tasks.cancel()

    def begin(self, request: Request) -> StoredOperation:
        """Raises `ConflictError` while another one prepares."""
        if self._preparing is not None:
            raise ConflictError(
                f"{request.kind}: operation {self._preparing} is being prepared; one is prepared at a time; wait for "
                f"it (`modelfleet status`)"
            )
        operation = self._store.add_operation(request.kind, msgspec.json.encode(request).decode(), "begins")
        self._preparing = operation.id
        self._tasks.spawn(self._run(operation), name=operation.id)
        return operation

    def _rollback_target(self, number: int | None) -> StoredRevision:
        current = self._store.current_revision()
        if current is None:
            raise NotFoundError("rollback: nothing was ever applied; apply a manifest first")
        if number is None:
            number = current.revision - 1
        target = self._store.revision(number)
        if target is None or number == current.revision:
            raise NotFoundError(
                f"rollback: revision {number} is not an earlier one; revisions go from 1 to {current.revision} "
                f"(current); see `modelfleet history`"
            )
        return target

    # -- run ------------------------------------------------------------------------------------------------

    async def _run(self, operation: StoredOperation) -> None:
        request = msgspec.json.decode(operation.request, type=Request)
        try:
            desired = await self._prepare(operation, request)
        except FleetError as exc:
            self._fail(operation, exc)
            return
        finally:
            self._preparing = None
            self.fetching = {}
        revision = self._store.add_revision(
            operation=operation.id, kind=request.kind, file=request.file, base_dir=request.base_dir,
            summary=request.summary, manifest=request.text, desired=desired,
        )  # fmt: skip
        message = f"revision {revision.revision} is in force: {request.summary}"
        self._journal.record("revision_applied", message, revision=revision.revision)
        if request.model:
            key = VersionKey(request.model, request.version)
            self._journal.record(f"model_{request.outcome}", request.summary, key=key, revision=revision.revision)
        self.enforce(revision)
        stored = self._store.operation(operation.id)
        if stored is not None:
            await self._watch(stored)

    def enforce(self, revision: StoredRevision) -> None:
        """Makes a stored revision the one that runs."""
        manifest = manifests.load(revision.manifest, file=revision.file, base_dir=Path(revision.base_dir))
        self._keeper.want(listener_of(manifest, self._config))
        self._observability.want(manifest.observability)
        if manifest.gateway.is_open:
            # No apply makes one, but an earlier release did. Its gateway goes on; this release starts none like it.
            self._journal.record("gateway_open", (
                f"the gateway listens on {manifest.gateway.host} and asks nobody for a key; apply the manifest with "
                f"`auth: required` in its gateway section, for another gateway cannot be started like that"
            ), level="warning", revision=revision.revision)  # fmt: skip
        self._loop.set_desired(revision.desired)
        self.changed.notify()

    async def _prepare(self, operation: StoredOperation, request: Request) -> Desired:
        def step(sentence: str) -> None:
            runner.call_soon_threadsafe(self._step, operation.id, sentence)

        def fetching(progress: Fetching) -> None:
            runner.call_soon_threadsafe(self._note, operation.id, progress)

        runner = asyncio.get_running_loop()
        await self._keeper.ensure()
        if request.from_revision is not None:
            return await self._on_thread(self._restore, request, step)
        return await self._on_thread(self._fetch, request, Watcher(step, fetching))

    def _fetch(self, request: Request, watcher: Watcher) -> Desired:
        manifest = self._preparer.load(request.text, request.file, Path(request.base_dir))
        self._check_listener(manifest)
        return self._preparer.fetch(manifest, watcher).desired

    def _restore(self, request: Request, step: Callable[[str], None]) -> Desired:
        """What a stored revision desired, to the byte: sources are not read again."""
        stored = self._store.revision(request.from_revision or 0)
        if stored is None:
            raise NotFoundError(f"revision {request.from_revision}: not in the store; see `modelfleet history`")
        manifest = manifests.load(request.text, file=request.file, base_dir=Path(request.base_dir))
        if faults := manifests.check_gateway(manifest):
            raise ManifestError(faults)
        self._check_listener(manifest)
        wanted = {name: model for name, model in stored.desired.models.items() if name in manifest.models}
        if request.model:
            wanted[request.model] = self._rolled(request, stored.desired, manifest)
        self._preparer.require(wanted, manifest, step)
        return replace(stored.desired, models=wanted)

    def _rolled(self, request: Request, desired: Desired, manifest: manifests.Manifest) -> DesiredModel:
        """The model that a rollout is about, as it shall be."""
        if request.model_from is None:
            traffic = dict(manifest.models[request.model].traffic)
            return replace(desired.models[request.model], traffic=traffic)
        earlier = self._store.revision(request.model_from)
        if earlier is None or request.model not in earlier.desired.models:
            raise NotFoundError(f"revision {request.model_from}: not in the store; see `modelfleet history`")
        return earlier.desired.models[request.model]

    def _check_listener(self, manifest: manifests.Manifest) -> None:
        """A port that somebody else uses is found before anything changes."""
        wanted, mine = listener_of(manifest, self._config), self._keeper.ports()
        for field, host, port in wanted.ports:
            if mine.get(field) == port:
                continue
            if problem := bind_problem(host, port):
                raise ManifestError((manifest.diagnostic(("gateway", field), (
                    f"{port}: {problem} on {host}; it must be free; end what listens there, or name another port"
                )),))  # fmt: skip

    def _step(self, operation: str, sentence: str) -> None:
        self._store.update_operation(operation, step=sentence)
        self.changed.notify()

    def _note(self, operation: str, progress: Fetching) -> None:
        """Bytes are not stored: a new process counts its own."""
        if operation == self._preparing:
            self.fetching[progress.key] = progress
            self.changed.notify()

    def _fail(self, operation: StoredOperation, error: FleetError) -> None:
        diagnostics = error.diagnostics if isinstance(error, ManifestError) else ()
        self._store.end_operation(operation, "failed", str(error), msgspec.json.encode(diagnostics).decode())
        self._journal.record("operation_failed", f"{operation.kind} changed nothing: {error}", level="error")
        self._count(operation, has_failed=True)
        self.changed.notify()

    def _count(self, operation: StoredOperation, *, has_failed: bool = False) -> None:
        request = msgspec.json.decode(operation.request, type=Request)
        if request.model:
            outcome = "failed" if has_failed else request.outcome
            self._rolled_out(VersionKey(request.model, request.version), outcome)

    async def ensure_runtime(self, key: VersionKey) -> None:
        """Makes sure that what a version in force is started in is there; builds it again where somebody removed it.

        Raises `FleetError` when it cannot be.
        """
        await self._on_thread(self._ensure_runtime, key)

    def _ensure_runtime(self, key: VersionKey) -> None:
        revision = self._store.current_revision()
        model = revision.desired.models.get(key.model) if revision else None
        if revision is None or model is None or key.version not in model.versions:
            return
        manifest = manifests.load(revision.manifest, file=revision.file, base_dir=Path(revision.base_dir))
        one = replace(model, versions={key.version: model.versions[key.version]})
        self._preparer.require({key.model: one}, manifest, lambda _: None)

    # -- watch ----------------------------------------------------------------------------------------------

    async def _watch(self, operation: StoredOperation) -> None:
        """Ends the operation when its revision has converged or persistently fails."""
        while True:
            seen = self._loop.decided.count
            stored = self._store.operation(operation.id)
            if stored is None or stored.state != "converging":
                self.changed.notify()
                return
            plan = self._loop.plan
            pause_s = WATCH_EVERY_S
            if plan is not None and self._loop.plan_revision == stored.revision:
                is_routed = not self._runs(plan) or await self._is_routed(stored)
                if is_routed and self._settle(stored, plan):
                    self.changed.notify()
                    return
                pause_s = WATCH_EVERY_S if is_routed else GATEWAY_EVERY_S
            self.changed.notify()
            await self._loop.decided.wait(seen, pause_s)

    @staticmethod
    def _runs(plan: Plan) -> bool:
        return plan.is_converged and not plan.memory.draining

    async def _is_routed(self, operation: StoredOperation) -> bool:
        """Whether the gateway has its newest settings and table. Replicas that no request can reach are not done."""
        report = await self._keeper.report()
        if report is not None and report.tag == self._board.tag and self._keeper.is_current:
            return True
        step = self._keeper.error or "every version is ready; the gateway takes over the routing table"
        if step != operation.step:
            self._step(operation.id, step)
        return False

    def _settle(self, operation: StoredOperation, plan: Plan) -> bool:
        if self._runs(plan):
            self._store.end_operation(operation, "succeeded")
            self._journal.record("converged", f"revision {operation.revision} runs", revision=operation.revision or 0)
            self._count(operation)
            self._collect_garbage()
            return True
        waiting = [v for v in plan.verdicts.values() if not v.is_settled and v.state != "stopping"]
        hopeless = [v for v in waiting if self._attempts(v.key, plan) >= FAILED_AFTER and v.state == "failed"]
        if not waiting or len(hopeless) < len(waiting):
            return False
        reasons = "; ".join(f"{v.key}: {v.reason}" for v in hopeless)
        message = f"revision {operation.revision} did not converge, and is still tried: {reasons}"
        self._store.end_operation(operation, "failed", message)
        self._journal.record("not_converged", message, level="error", revision=operation.revision or 0)
        self._count(operation, has_failed=True)
        return True

    def _attempts(self, key: VersionKey, plan: Plan) -> int:
        wanted = self._loop.desired.versions().get(key)
        failures = plan.memory.failures.get(wanted.digest) if wanted else None
        return failures.count if failures else 0

    def _collect_garbage(self) -> None:
        kept = [r.desired for r in self._store.revisions(KEPT_REVISIONS)]
        kept.append(self._loop.asked)  # a paused model may be of an older one
        try:
            self._preparer.collect_garbage(kept)
        except OSError as exc:
            self._journal.record("garbage_kept", f"old artifacts could not be removed: {exc}", level="warning")

    async def _on_thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(work, *arguments))


def _summary(changes: tuple[diff.Change, ...]) -> str:
    """One line for the history: the targets that change."""
    targets = list(dict.fromkeys(f"{c.symbol}{c.target}" for c in changes))
    shown = ", ".join(targets[:6])
    return f"{shown} and {len(targets) - 6} more" if len(targets) > 6 else shown or "nothing changed"
