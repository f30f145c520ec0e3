"""Keeps one companion running while the manifest in force asks for it. Without that it costs nothing.

Nothing here holds up serving or an apply: what is wrong is one event and a line of `status`, and is tried again. What
an engine that does not answer runs is unknown, and stays as it was known last.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from orchestrator.adapters.companions.companion import Companion
from orchestrator.adapters.companions.kinds import CompanionFailed, Settings
from orchestrator.adapters.companions.running import Running, answers
from orchestrator.adapters.engine import EngineUnavailable
from orchestrator.loops.journal import Journal
from orchestrator.loops.tasks import wait_until_set

T = TypeVar("T")

CHECK_EVERY_S = 5.0
IDLE_S = 3600.0
# One that ends by itself so often has a pause before it is started again.
ENDS, WITHIN_S, PAUSE_S = 3, 600.0, 120.0


class Ends:
    """When a companion ended by itself, and how it did `last`."""

    def __init__(self) -> None:
        self._at: list[float] = []
        self.last = ""

    def note(self, said: str, now: float) -> None:
        self._at = [at for at in self._at if now - at < WITHIN_S] + [now]
        self.last = said

    def has_pause(self, now: float) -> bool:
        """Whether it ended so often that the next start waits."""
        recent = [at for at in self._at if now - at < WITHIN_S]
        return len(recent) >= ENDS and now < recent[-1] + PAUSE_S


class CompanionKeeper:
    """`wanted` is what should run, `running` what does, `error` why nothing does though it is wanted."""

    def __init__(self, companion: Companion, journal: Journal, threads: ThreadPoolExecutor) -> None:
        self.kind = companion.kind
        self._companion = companion
        self._journal = journal
        self._threads = threads
        self._changed = asyncio.Event()
        # Guards starting and ending.
        self._lock = asyncio.Lock()
        self._is_ending = False
        self._may_run = True  # by an earlier control plane
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ends = Ends()
        self._is_end_noted = False
        self.wanted: Settings | None = None
        self.running: Running | None = None
        self.error = ""

    @property
    def note(self) -> str:
        """What is being done to have it run, or why it runs in no container though it might."""
        if self.running is None:
            return self._companion.doing
        return "" if self.running.container else self._companion.problem

    def want(self, settings: Settings | None) -> None:
        if settings != self.wanted:
            self._ends = Ends()
        self.wanted = settings
        self._changed.set()

    async def run(self) -> None:
        self._loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            await self.ensure()
            has_work = self.wanted is not None or self._may_run
            await wait_until_set(self._changed, CHECK_EVERY_S if has_work else IDLE_S)

    async def ensure(self) -> None:
        """Has it run, or not, as the manifest says; remembers why it could not."""
        async with self._lock:
            if self._is_ending:
                return
            with contextlib.suppress(EngineUnavailable):  # `status` says so of the engine itself
                await (self._end() if self.wanted is None else self._keep(self.wanted))

    async def stop(self) -> None:
        """For good: the cluster goes down. Raises `EngineUnavailable` where that could not be done; call it again."""
        self._is_ending = True
        async with self._lock:
            await self._end()

    async def answers(self) -> bool:
        """Whether it answers now."""
        if self.wanted is None:
            return False
        return await self._on_thread(answers, self.kind, self.wanted)

    async def _keep(self, settings: Settings) -> None:
        self._may_run = True
        try:
            self.running = await self._on_thread(self._companion.find, settings)
            if self.running is None:
                await self._start(settings)
            else:
                self.error = ""
        except CompanionFailed as exc:
            if str(exc) != self.error:
                self._journal.record(f"{self.kind.name}_failed", str(exc), level="error")
            self.error = str(exc)

    async def _start(self, settings: Settings) -> None:
        before = await self._on_thread(self._companion.running)
        if before is None:
            await self._note_end()
            if self._ends.has_pause(time.monotonic()):
                raise CompanionFailed(
                    f"{self.kind.name}: ended {ENDS} times within {WITHIN_S / 60:.0f} minutes, last "
                    f"{self._ends.last}; it is started again {PAUSE_S / 60:.0f} minutes after that"
                )
        self.running = await self._on_thread(self._companion.start, settings, self._image_came)
        self._is_end_noted = self._is_end_noted and self.running is None
        self.error = ""
        # The same as before reads its configuration again: the control plane has another address.
        if self.running is not None and (before is None or before.id != self.running.id):
            note = f"; in no container: {self.note}" if self.note else ""
            message = f"{self.kind.title} answers at {settings.url} ({self.running.words}){note}"
            self._journal.record(f"{self.kind.name}_started", message)

    async def _note_end(self) -> None:
        """An end that nobody asked for, once."""
        if self._is_end_noted:
            return
        if said := await self._on_thread(self._companion.how_it_ended):
            self._is_end_noted = True
            self._ends.note(said, time.monotonic())
            self._journal.record(f"{self.kind.name}_ended", f"{self.kind.title} ended {said}", level="warning")

    async def _end(self) -> None:
        self.error = ""
        if not self._may_run:
            return
        had_one = await self._on_thread(self._companion.stop)
        self.running, self._may_run = None, False
        if had_one:
            message = f"{self.kind.title} ended; what it kept stays in the state directory"
            self._journal.record(f"{self.kind.name}_stopped", message)

    def _image_came(self) -> None:
        """Called from another thread, after the loop's end perhaps."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._changed.set)

    async def _on_thread(self, call: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *args)
