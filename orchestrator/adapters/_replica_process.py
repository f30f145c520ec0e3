"""One local replica as its directory tells it: who it is, whether it lives, how it ended, what it printed.

`_launcher.py` writes what is read here. Whether it lives is asked of the kernel (a lock that its launcher holds), so a
process id that was given to somebody else after a reboot is never mistaken for ours, and never signalled.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import psutil

from orchestrator.adapters._exits import LOG_READ_LINES, describe_exit
from orchestrator.adapters.engine import EngineReplica, LogLine
from orchestrator.core.entities import Exit, VersionKey

POLL_S = 0.02
FOLLOW_POLL_S = 0.1
# The launcher needs this long at most to see that its server was killed and to write it down.
KILL_TIMEOUT_S = 10.0
_STREAMS = {"o": "stdout", "e": "stderr"}


@dataclass(frozen=True, slots=True)
class Server:
    """The model server's process, and the memory at which its launcher ends it (None: at none)."""

    pid: int
    memory_limit_bytes: int | None


class ReplicaProcess:
    """Reads one replica's directory; only `end`, `pause` and `unpause` change something."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.id = directory.name

    def launch(self) -> dict[str, Any]:
        """Raises `FileNotFoundError` once it was removed."""
        return dict(json.loads((self.directory / "launch.json").read_text()))

    def alive(self) -> bool:
        try:
            descriptor = os.open(self.directory / "alive", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def was_started(self) -> bool:
        return (self.directory / "pids.json").exists()

    def observe(self, starting: bool) -> EngineReplica:
        """`starting`: this process is starting it, so that not running yet is not an end."""
        # In this order: a server that ends in between is seen as ended the next time, never as ended without a code.
        running = self.alive() and self.was_started()
        launch = self.launch()
        ended = not running and not (starting and not self.was_started())
        return EngineReplica(
            id=self.id,
            key=VersionKey(launch["model"], launch["version"]),
            digest=launch["spec"],
            revision=int(launch["revision"]),
            created_at=float(launch["created_at"]),
            running=running,
            paused=running and self.is_paused(),
            host="127.0.0.1" if running else "",
            port=int(launch["port"]) if running else 0,
            exit=self._exit(launch) if ended else None,
            engine_id=str(self._pids().get("server", "")),
        )

    def server(self) -> Server | None:
        """None: it was not started yet, or was removed."""
        pid = self._pids().get("server")
        with contextlib.suppress(FileNotFoundError):
            return None if pid is None else Server(int(pid), int(self.launch()["memory_bytes"]) or None)
        return None

    def is_paused(self) -> bool:
        """Whether the server's process is stopped (SIGSTOP): by `pause`, or by anybody."""
        pid = self._pids().get("server")
        if pid is None:
            return False
        with contextlib.suppress(OSError, IndexError):
            # The word behind the name, which may hold any byte but ends with the last bracket (proc(5)).
            return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"T"
        with contextlib.suppress(psutil.Error):  # where there is no /proc
            return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
        return False

    def pause(self) -> None:
        """Stops the server and its children. Returns when the server is stopped; raises `TimeoutError` if it is not."""
        _signal_group(self._pids()["server"], signal.SIGSTOP)
        deadline = time.monotonic() + KILL_TIMEOUT_S
        while not self.is_paused() and self.alive():
            if time.monotonic() > deadline:
                raise TimeoutError(f"process {self._pids()['server']} does not stop")
            time.sleep(POLL_S)

    def unpause(self) -> None:
        _signal_group(self._pids()["server"], signal.SIGCONT)

    def end(self, grace_s: float) -> None:
        """SIGTERM, SIGKILL after `grace_s`. Returns when nothing of it runs; raises `TimeoutError` if it cannot."""
        pids = self._pids()
        if self.alive() and pids:
            if grace_s > 0:
                _signal(pids["launcher"], signal.SIGTERM)
                _signal_group(pids["server"], signal.SIGCONT)  # one that is paused would not see the other
                self._wait(grace_s)
            if self.alive():
                _signal_group(pids["server"], signal.SIGKILL)
                self._wait(KILL_TIMEOUT_S)
            if self.alive():
                _signal(pids["launcher"], signal.SIGKILL)
                self._wait(KILL_TIMEOUT_S)
        elif self.alive():
            self._wait(KILL_TIMEOUT_S)
        if self.alive():
            raise TimeoutError(f"process {pids.get('launcher')} does not end, not even by SIGKILL")
        self._end_leftovers(pids)

    def lines(self, tail: int) -> list[LogLine]:
        content = _content(self.directory / "log.1") + _content(self.directory / "log")
        return self._last(content.splitlines(), tail)

    def follow(self, tail: int, stopped: threading.Event | None) -> Iterator[LogLine]:
        """The last lines and then each new one, until the replica ended or `stopped`."""
        log, begun, pending = self.directory / "log", False, b""
        with contextlib.ExitStack() as files:
            reader: BinaryIO | None = None
            while True:
                # Asked before the file is read: what was written before it ended is in that reading.
                alive = self.alive()
                if log.exists() and (reader is None or _was_rotated(reader.fileno(), log)):
                    pending += reader.read() if reader else b""
                    reader = files.enter_context(log.open("rb"))
                *complete, pending = (pending + (reader.read() if reader else b"")).split(b"\n")
                if not begun:
                    earlier = _content(self.directory / "log.1").splitlines()
                    yield from self._last([*earlier, *complete], tail)
                    begun = True
                else:
                    yield from (self._line(line) for line in complete)
                if not alive or (stopped is not None and stopped.is_set()):
                    return
                time.sleep(FOLLOW_POLL_S) if stopped is None else stopped.wait(FOLLOW_POLL_S)

    # -- below -------------------------------------------------------------------------------------------------------

    def _pids(self) -> dict[str, Any]:
        with contextlib.suppress(FileNotFoundError, ValueError):
            return dict(json.loads((self.directory / "pids.json").read_text()))
        return {}

    def _exit(self, launch: dict[str, Any]) -> Exit:
        tail = [line.text for line in self.lines(LOG_READ_LINES)]
        try:
            told = json.loads((self.directory / "exit.json").read_text())
        except (FileNotFoundError, ValueError):
            why = "its supervisor was killed, and it with it (the machine may have been restarted)"
            if not self.was_started():
                why = "was never started: the control plane ended first"
            return describe_exit(None, tail, engine_error=why)
        return describe_exit(
            told["code"], tail, oom_killed=told["oom_killed"], memory_bytes=int(launch["memory_bytes"])
        )

    def _wait(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while self.alive() and time.monotonic() < deadline:
            time.sleep(POLL_S)

    def _end_leftovers(self, pids: dict[str, Any]) -> None:
        """Children of a server whose launcher was killed. Its group is ours only while its leader is not another's."""
        if not pids:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pids["server"]).create_time() > pids["started_at"] + 2:
                return
        _signal_group(pids["server"], signal.SIGKILL)

    def _last(self, lines: list[bytes], tail: int) -> list[LogLine]:
        return [self._line(line) for line in lines[-tail:]] if tail > 0 else []

    def _line(self, raw: bytes) -> LogLine:
        stamp, _, rest = raw.decode(errors="replace").partition(" ")
        stream, _, text = rest.partition(" ")
        try:
            at = float(stamp)
        except ValueError:
            at = 0.0
        return LogLine(at, self.id, _STREAMS.get(stream, "stdout"), text)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _content(path: Path) -> bytes:
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    return b""


def _was_rotated(descriptor: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.fstat(descriptor).st_ino != path.stat().st_ino
    return False
