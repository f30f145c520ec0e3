"""The stream of the admin API, read on a thread of its own for as long as `modelfleet top` runs.

A control plane that ends is looked for again, wherever it answers next: the state directory says where. Whoever waits
on `wake` learns that something came.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from pathlib import Path
from typing import Any

from orchestrator.cli import control
from orchestrator.cli.client import Client, Stream
from orchestrator.cli.errors import CliError

# The stream says something each second.
SILENCE_S = 6.0
RETRY_S = 1.0


class Feed:
    """`wake` is a descriptor that becomes readable when `taken` has something to give."""

    def __init__(self, state_dir: Path, model: str = "") -> None:
        self._state_dir = state_dir
        self._model = model
        self._events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._stream: Stream | None = None
        self._ended = threading.Event()
        # Guards `_model` and `_stream`: who looks at another model ends the stream about the one before.
        self._lock = threading.Lock()
        self.wake, self._write = os.pipe()
        os.set_blocking(self.wake, False)
        os.set_blocking(self._write, False)
        self._thread = threading.Thread(target=self._run, name="top feed", daemon=True)

    def __enter__(self) -> Feed:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._hang_up()
        self._thread.join(1.0)
        os.close(self.wake)
        os.close(self._write)

    def look_at(self, model: str) -> None:
        """Reads about this model too from now on ("": about none)."""
        with self._lock:
            if model == self._model:
                return
            self._model = model
        self._hang_up()

    def taken(self) -> list[tuple[str, Any]]:
        """The events since the last call; `("lost", reason)` when the control plane went away."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.wake, 4096)
        found = []
        while not self._events.empty():
            found.append(self._events.get_nowait())
        return found

    def nudge(self) -> None:
        """Wakes whoever waits, though nothing came. A signal handler may call it."""
        with contextlib.suppress(BlockingIOError):  # it is readable already
            os.write(self._write, b"x")

    def _run(self) -> None:
        while not self._ended.is_set():
            with self._lock:
                model = self._model
            try:
                self._follow(model)
            except CliError as exc:
                with self._lock:
                    was_hung_up = model != self._model
                if not was_hung_up and not self._ended.is_set():
                    self._give("lost", exc.message)
                    self._ended.wait(RETRY_S)

    def _follow(self, model: str) -> None:
        stream = Client(control.find(self._state_dir)).stream(model, SILENCE_S)
        with self._lock:
            self._stream = stream
            is_wanted = model == self._model and not self._ended.is_set()
        try:
            for name, body in stream if is_wanted else ():
                self._give(name, body)
        finally:
            stream.close()
        if is_wanted:
            self._ended.wait(
                min(RETRY_S, 0.1)
            )  # it ended in order: the control plane does, and says so at the next try

    def _give(self, name: str, body: Any) -> None:
        self._events.put((name, body))
        if not self._ended.is_set():
            self.nudge()

    def _hang_up(self) -> None:
        with self._lock:
            if self._stream is not None:
                self._stream.close()


def first(state_dir: Path, within_s: float) -> list[tuple[str, Any]]:
    """What a stream begins with: the whole fleet. Raises `CliError` when nobody says it in time."""
    stream = Client(control.find(state_dir)).stream("", within_s)
    deadline = time.monotonic() + within_s
    try:
        for name, body in stream:
            if name == "fleet" or time.monotonic() > deadline:
                return [(name, body)]
    finally:
        stream.close()
    raise CliError("the control plane ended its stream without a word", hint="its log is in the state directory")
