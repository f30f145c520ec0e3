"""What people do about the rollout of one model: promote a version, pause, resume, roll back.

A promotion and a roll back are operations as an apply is, on the manifest in force with this one model changed in its
text; nothing is resolved anew, so that nothing else changes with it. A pause is no revision: it is kept beside them
(`pauses.py`). Each step is an event with its reason, and counted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from orchestrator import manifest as manifests
from orchestrator.adapters.store import Store, StoredOperation, StoredRevision
from orchestrator.core.entities import DesiredModel, VersionKey
from orchestrator.core.errors import ConflictError, NotFoundError
from orchestrator.core.pausing import Pause, is_waiting
from orchestrator.loops.journal import Journal
from orchestrator.loops.operations import Operations, Request
from orchestrator.loops.pauses import Pauses
from orchestrator.loops.reconcile import ReconcileLoop

T = TypeVar("T")


class Rollouts:
    """`count` is told what was paused and resumed; how the operations end, `operations.py` tells it."""

    def __init__(
        self,
        store: Store,
        loop: ReconcileLoop,
        pauses: Pauses,
        operations: Operations,
        journal: Journal,
        threads: ThreadPoolExecutor,
        count: Callable[[VersionKey, str], None],
    ) -> None:
        self._store = store
        self._loop = loop
        self._pauses = pauses
        self._operations = operations
        self._journal = journal
        self._threads = threads
        self._count = count

    # -- operations -----------------------------------------------------------------------------------------

    async def promote(self, model: str, version: str) -> StoredOperation:
        """Begins to send all of a model's traffic to one version. Raises `NotFoundError`, `ConflictError`."""
        current = self._current(model)
        wanted = current.desired.models[model]
        if version not in wanted.versions:
            names = ", ".join(wanted.versions)
            raise NotFoundError(
                f"model {model!r} has no version {version!r}; its versions are: {names}; name one of them"
            )
        if {name: share for name, share in wanted.traffic.items() if share} == {version: 100}:
            raise ConflictError(f"promote {model}@{version}: it has all of the traffic already; there is nothing to do")
        text = await self._on_thread(_promoted, current, model, version)
        summary = f"promoted {model}@{version}: all traffic goes there, {_split(wanted)} before"
        return self._begin(current, _request("promote", current, text, summary, VersionKey(model, version)))

    async def roll_back(self, model: str, number: int | None) -> StoredOperation:
        """Begins to make one model as it was in revision `number`, or in the newest in which it was another. Raises
        `NotFoundError`, `ConflictError`."""
        current = self._current(model, may_be_gone=True)
        earlier = await self._on_thread(self._earlier, current, model, number)
        text = await self._on_thread(_as_it_was, current, earlier, model)
        wanted = earlier.desired.models[model]
        summary = f"rolled model {model} back to how it was in revision {earlier.revision}: traffic {_split(wanted)}"
        return self._begin(current, _request("rollback", current, text, summary, _main(wanted), earlier.revision))

    def _begin(self, current: StoredRevision, request: Request) -> StoredOperation:
        newest = self._store.current_revision()
        if newest is None or newest.revision != current.revision:
            raise ConflictError(
                f"{request.kind} {request.model}: another revision came into force meanwhile; look, and do it again"
            )
        return self._operations.begin(request)

    def _current(self, model: str, *, may_be_gone: bool = False) -> StoredRevision:
        """The revision in force, in which the model is (or may have been before), and not paused."""
        current = self._store.current_revision()
        if current is None or (model not in current.desired.models and not may_be_gone):
            raise _unknown(model, current.desired.models if current else ())
        if self._pauses.get(model) is not None:
            raise ConflictError(
                f"model {model!r}: its rollout is paused; nothing of it is changed meanwhile; resume it first "
                f"(`modelfleet rollout resume {model}`)"
            )
        return current

    def _earlier(self, current: StoredRevision, model: str, number: int | None) -> StoredRevision:
        now = current.desired.models.get(model)
        if number is not None:
            found = self._store.revision(number)
            if found is None or number >= current.revision or model not in found.desired.models:
                raise NotFoundError(
                    f"revision {number}: not an earlier one with model {model!r} in it; see `modelfleet history`"
                )
            if found.desired.models[model] == now:
                raise ConflictError(
                    f"model {model!r}: is as it was in revision {number}; there is nothing to roll back"
                )
            return found
        for each in range(current.revision - 1, 0, -1):
            found = self._store.revision(each)
            if found is not None and found.desired.models.get(model, now) != now:
                return found
        if now is None:
            raise _unknown(model, current.desired.models)
        raise NotFoundError(f"model {model!r}: was never another than it is now; there is nothing to roll back to")

    # -- pauses ---------------------------------------------------------------------------------------------

    def pause(self, model: str, reason: str) -> None:
        """From now on nothing of the model is replaced or removed. Raises `NotFoundError`, `ConflictError`."""
        wanted = self._loop.asked.models.get(model)
        if wanted is None:
            raise _unknown(model, self._loop.asked.models)
        if self._pauses.get(model) is not None:
            raise ConflictError(
                f"model {model!r}: its rollout is paused already; `modelfleet rollout resume {model}` ends that"
            )
        self._pauses.put(model, Pause(time.time(), reason, replace(wanted, paused=False)))
        self._loop.reapply()
        why = f" ({reason})" if reason else ""
        self._tell("rollout_paused", f"paused{why}; until it is resumed nothing of it is replaced or removed", wanted)
        self._count(_main(wanted), "paused")

    def resume(self, model: str) -> None:
        """Takes up what was applied meanwhile. Raises `ConflictError`."""
        pause = self._pauses.get(model)
        if pause is None:
            raise ConflictError(f"model {model!r}: its rollout is not paused; there is nothing to resume")
        then = "what was applied meanwhile is taken up" if is_waiting(self._loop.applied, pause) else "it goes on"
        self._pauses.put(model, None)
        self._loop.reapply()
        self._tell("rollout_resumed", f"resumed after {time.time() - pause.at:.0f} s; {then}", pause.model)
        self._count(_main(pause.model), "resumed")

    def _tell(self, kind: str, message: str, model: DesiredModel) -> None:
        self._journal.record(kind, message, model=model.name, revision=self._loop.applied.revision)

    async def _on_thread(self, work: Callable[..., T], *arguments: object) -> T:
        """Manifests of a thousand models take a while to read."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)


def _request(
    kind: str, current: StoredRevision, text: str, summary: str, key: VersionKey, model_from: int | None = None
) -> Request:
    return Request(
        kind=kind,
        text=text,
        file=current.file,
        base_dir=current.base_dir,
        summary=summary,
        from_revision=current.revision,
        model=key.model,
        version=key.version,
        model_from=model_from,
    )


def _promoted(current: StoredRevision, model: str, version: str) -> str:
    text = manifests.with_all_traffic(current.manifest, model, version)
    manifests.load(text, file=current.file, base_dir=Path(current.base_dir))
    return text


def _as_it_was(current: StoredRevision, earlier: StoredRevision, model: str) -> str:
    """The manifest in force with the model's section of then. What that section inherits must be the same as then."""
    text = manifests.with_model(current.manifest, model, manifests.section(earlier.manifest, model))
    now = manifests.load(text, file=current.file, base_dir=Path(current.base_dir))
    then = manifests.load(earlier.manifest, file=earlier.file, base_dir=Path(earlier.base_dir))
    if current.base_dir != earlier.base_dir or now.models[model] != then.models[model]:
        raise ConflictError(
            f"model {model!r}: what it inherits is no longer what it was in revision {earlier.revision} (defaults, or "
            f"the directory of its sources); roll back all (`modelfleet rollback {earlier.revision}`), or apply a "
            f"manifest that says it"
        )
    return text


def _main(model: DesiredModel) -> VersionKey:
    """The version that gets the most."""
    version = max(model.traffic, key=lambda each: model.traffic[each], default=next(iter(model.versions), ""))
    return VersionKey(model.name, version)


def _split(model: DesiredModel) -> str:
    return ", ".join(f"{version} {share} %" for version, share in model.traffic.items() if share)


def _unknown(model: str, known: Iterable[str]) -> NotFoundError:
    names = ", ".join(sorted(known)) or "none"
    return NotFoundError(f"model {model!r}: not in force; the models are: {names}; name one of them")
