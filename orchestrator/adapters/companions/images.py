"""The image of a companion: here already, or to be pulled, or built on the base of the worker images.

Pulling and building take minutes or fail for good, so they happen in a thread of its own that nobody waits for, and
not again soon after they failed. That thread is a daemon: the control plane may end in the middle of it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from docker.errors import APIError

from orchestrator.adapters._docker_calls import DockerCalls, explain
from orchestrator.adapters.companions.kinds import Kind, shipped
from orchestrator.adapters.engine import EngineUnavailable, RuntimeBuildFailed
from orchestrator.adapters.images import ImageBuilder

# A registry that is silent for so long is not reachable from here.
PULL_SILENCE_S = 30.0
# 150 MB on a slow line.
PULL_TIMEOUT_S = 600.0
# A registry or a package source that was away may be back.
RETRY_S = 900.0


class CompanionImage:
    """`doing` is what is being done to get it ("": nothing), `problem` why it could not be had ("": not tried yet)."""

    def __init__(self, kind: Kind, calls: DockerCalls, builder: ImageBuilder) -> None:
        self._kind = kind
        self._calls = calls
        self._builder = builder
        # Guards what follows.
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._failed_at: float | None = None
        self.doing = ""
        self.problem = ""

    def present(self) -> str:
        """The best image that the engine has, "" without one. Raises `EngineUnavailable`."""
        if self._builder.has(self._kind.image):
            return self._kind.image
        if self._kind.dockerfile:
            name = self._builder.name_on_base(self._kind.name, self._dockerfile())
            return name if self._builder.has(name) else ""
        return ""

    def may_come(self, done: Callable[[], None]) -> bool:
        """Begins to get it, unless that goes on or failed lately. `done` is called from another thread at the end."""
        with self._lock:
            if self._thread is not None:
                return True
            if self._failed_at is not None and time.monotonic() < self._failed_at + RETRY_S:
                return False
            self._thread = threading.Thread(
                target=self._obtain, args=(done,), name=f"{self._kind.name} image", daemon=True
            )
            self._thread.start()
            return True

    def _obtain(self, done: Callable[[], None]) -> None:
        problem = "it was interrupted"
        try:
            problem = self._pull()
            if problem and self._kind.dockerfile:
                problem = self._build(problem)
        finally:
            with self._lock:
                self._thread, self.doing, self.problem = None, "", problem
                self._failed_at = time.monotonic() if problem else None
            done()

    def _pull(self) -> str:
        """Why it failed, "" when it is here."""
        image = self._kind.image
        self.doing = f"pulling {image}"
        try:
            with self._calls.during(f"pull {image}"):
                try:
                    self._calls.pull(image, PULL_SILENCE_S, PULL_TIMEOUT_S)
                except APIError as exc:
                    return f"image {image}: not here and pull failed: {explain(exc)}"
        except EngineUnavailable as exc:
            return f"image {image}: not here and pull failed: {exc}"
        return ""

    def _build(self, before: str) -> str:
        def say(sentence: str, /) -> None:
            self.doing = sentence

        try:
            self._builder.ensure_on_base(self._kind.name, self._dockerfile(), say)
        except (EngineUnavailable, RuntimeBuildFailed) as exc:
            first, *rest = str(exc).splitlines()
            return f"{before}; {first}{': ' + rest[-1].strip() if rest else ''}"
        return ""

    def _dockerfile(self) -> str:
        return shipped(self._kind.dockerfile).read_text()
