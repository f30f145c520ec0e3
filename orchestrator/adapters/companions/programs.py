"""A companion as a detached program of this machine: found on the PATH, started, told of new files, and ended.

Like the gateway it outlives the control plane on purpose, and a new one finds it by `process.json` in its directory.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil

from orchestrator.adapters.companions.kinds import CompanionFailed, Kind, Recipe, Settings
from orchestrator.adapters.companions.running import STOP_TIMEOUT_S, Running, await_answer
from orchestrator.adapters.state_dir import write_private

# What a program may know of our environment. There may be secrets in the rest of it, or settings of another Grafana.
_PASSED_ON = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR")

_TAIL_BYTES = 4000


class Program:
    """The program of one directory. Blocking; whoever calls makes sure that it is called once at a time."""

    def __init__(self, kind: Kind, directory: Path, log_file: Path) -> None:
        self.home = directory
        self._kind = kind
        self._log_file = log_file
        self._record = directory / "process.json"
        # What this control plane started: to be waited for, and the one whose end it can tell.
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._ended_words = ""

    def found(self) -> str:
        """Where it is on the PATH, "" where it is not."""
        return next((path for program in self._kind.programs if (path := shutil.which(program))), "")

    def running(self) -> Running | None:
        for pid, process in list(self._children.items()):
            if said := self._ended(process, 0):
                self._ended_words = said
                del self._children[pid]
        try:
            known: dict[str, Any] = json.loads(self._record.read_bytes())
            process_now = psutil.Process(known["pid"])
            same = abs(process_now.create_time() - known["created"]) < 1
            if not same or process_now.status() == psutil.STATUS_ZOMBIE:
                return None
            return Running(str(known["pid"]), known["digest"], pid=known["pid"])
        except (OSError, ValueError, KeyError, psutil.NoSuchProcess):
            return None

    def how_it_ended(self) -> str:
        """In words, where this control plane started it and did not end it, else ""."""
        self.running()
        return self._ended_words

    def start(self, program: str, recipe: Recipe, settings: Settings) -> Running:
        """Raises `CompanionFailed`."""
        offset = self._log_file.stat().st_size if self._log_file.exists() else 0
        command = [program, *self._kind.words(program), *recipe.arguments]
        environ = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        with open(self._log_file, "ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.home, start_new_session=True,
                env={**environ, **recipe.environment},
            )  # fmt: skip
        self._ended_words = ""
        try:
            await_answer(self._kind, settings, lambda: self._ended(process, offset), str(self._log_file))
        except CompanionFailed:
            process.kill()
            process.wait()
            raise
        self._children[process.pid] = process
        created = psutil.Process(process.pid).create_time()
        digest = recipe.digest(self._kind)
        record = {"pid": process.pid, "created": created, "digest": digest}
        write_private(self._record, json.dumps(record).encode())
        return Running(str(process.pid), digest, pid=process.pid)

    def reload(self, running: Running) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(running.id), signal.SIGHUP)

    def stop(self) -> bool:
        """Ends every program of this directory, one too that is on no record: its control plane was killed meanwhile.

        Returns whether there was one.
        """
        mark = f"{self.home}{os.sep}"
        found = [process for process in psutil.process_iter() if _is_started_with(process, mark)]
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        for process in psutil.wait_procs(found, STOP_TIMEOUT_S)[1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for child in self._children.values():
            child.poll()
        self._children.clear()
        self._ended_words = ""
        self._record.unlink(missing_ok=True)
        return bool(found)

    def _ended(self, process: subprocess.Popen[bytes], offset: int) -> str:
        if process.poll() is None:
            return ""
        with open(self._log_file, "rb") as log:
            log.seek(max(offset, os.fstat(log.fileno()).st_size - _TAIL_BYTES))
            lines = log.read().decode(errors="replace").strip().splitlines()
        return f"with code {process.returncode}: {lines[-1] if lines else 'no output'}"


def _is_started_with(process: psutil.Process, mark: str) -> bool:
    """Whether its first argument that names a configuration names one below `mark`. False for somebody else's."""
    try:
        return any(word.startswith("--config") and f"={mark}" in word for word in process.cmdline())
    except psutil.Error:
        return False
