"""The parent of one replica's process: `python -I -S _launcher.py DIRECTORY`. Standard library only: it starts fast.

It leaves the caller's session, so that the replica outlives the control plane, and does what a container engine does
for a container: keeps the log bounded, kills at the memory limit, forwards SIGTERM, and writes down how it ended.

    launch.json  read: command, env, cwd, memory_bytes     log, log.1  written: `SECONDS o|e TEXT` a line
    alive        locked (flock) while this process lives    pids.json   written: launcher, server, started_at
    exit.json    written last: code, oom_killed
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LOG_MAX_BYTES = 10 * 1024 * 1024
LINE_MAX_BYTES = 256 * 1024
MEMORY_CHECK_S = 0.25
# What the dead server's pipes still hold is read for this long: a grandchild may keep them open for ever.
LAST_WORDS_S = 1.0
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38


def main(directory: Path) -> int:
    """Returns in the caller's process as soon as the server runs, or with a sentence on standard error."""
    read_end, write_end = os.pipe()
    if os.fork() == 0:
        os.close(read_end)
        _be_daemon()
        os._exit(_supervise(directory, lambda sentence: _report(write_end, sentence)))
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        sentence = pipe.read()
    if sentence == "started":
        return 0
    sys.stderr.write(sentence or "its supervisor ended before it started it")
    return 1


class Log:
    """Two files of bounded size; lines keep the moment and the stream they came from."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab", buffering=0)
        self._pending = {"o": b"", "e": b""}

    def feed(self, stream: str, content: bytes) -> None:
        *lines, rest = (self._pending[stream] + content).split(b"\n")
        if len(rest) > LINE_MAX_BYTES:
            lines, rest = [*lines, rest], b""
        self._pending[stream] = rest
        self._write(stream, lines)

    def close(self) -> None:
        for stream, rest in self._pending.items():
            if rest:
                self._write(stream, [rest])
        self._file.close()

    def _write(self, stream: str, lines: list[bytes]) -> None:
        stamp = f"{time.time():.6f} {stream} ".encode()
        # A full disk must not end the model: its lines are lost instead.
        with contextlib.suppress(OSError):
            self._file.write(b"".join(stamp + line.rstrip(b"\r") + b"\n" for line in lines))
            if self._file.tell() > LOG_MAX_BYTES:
                os.replace(self._path, self._path.with_name("log.1"))
                self._file.close()
                self._file = self._path.open("ab", buffering=0)


def _be_daemon() -> None:
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)


def _report(pipe: int, sentence: str) -> None:
    with contextlib.suppress(BrokenPipeError):  # the control plane was killed while it waited for us
        os.write(pipe, sentence.encode())
    os.close(pipe)


def _supervise(directory: Path, report: Callable[[str], None]) -> int:
    launch = json.loads((directory / "launch.json").read_text())
    # Held until this process ends, however it ends; its descriptor is not inherited by the server.
    alive = os.open(directory / "alive", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(alive, fcntl.LOCK_EX)
    wake = _wake_on_signals()
    try:
        server = _start_server(launch)
    except OSError as exc:
        report(f"{launch['command'][0]} cannot be executed: {exc.strerror}")
        return 1
    signal.signal(signal.SIGTERM, lambda *_: server.send_signal(signal.SIGTERM))
    pids = {"launcher": os.getpid(), "server": server.pid, "started_at": time.time()}
    _write(directory / "pids.json", pids)
    report("started")
    log = Log(directory / "log")
    oom_killed = _watch(server, log, wake, int(launch["memory_bytes"]))
    log.close()
    code = server.returncode if server.returncode >= 0 else 128 - server.returncode
    _write(directory / "exit.json", {"code": code, "oom_killed": oom_killed})
    return 0


def _wake_on_signals() -> int:
    """A descriptor that becomes readable at each signal: the death of the server must not wait for a timer."""
    read_end, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else os.pipe()
    os.set_blocking(read_end, False)
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return read_end


def _start_server(launch: dict[str, Any]) -> subprocess.Popen[bytes]:
    prctl = ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None

    def confine() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if prctl is not None:
            # Without its supervisor nobody would see the server end, so it ends with it.
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)

    return subprocess.Popen(
        launch["command"],
        env=launch["env"],
        cwd=launch["cwd"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=confine,  # noqa: PLW1509  (no threads here, and nothing else can set these in the child)
        start_new_session=True,
        umask=0o077,
    )


def _watch(server: subprocess.Popen[bytes], log: Log, wake: int, memory_bytes: int) -> bool:
    """Until the server and its pipes ended; returns whether it was killed at its memory limit."""
    assert server.stdout is not None
    assert server.stderr is not None
    oom_killed, deadline = False, float("inf")
    with selectors.DefaultSelector() as selector:
        selector.register(server.stdout, selectors.EVENT_READ, "o")
        selector.register(server.stderr, selectors.EVENT_READ, "e")
        selector.register(wake, selectors.EVENT_READ, "")
        while len(selector.get_map()) > 1 or server.poll() is None:
            for key, _ in selector.select(MEMORY_CHECK_S):
                _take(key, selector, log)
            if server.poll() is not None:
                _kill_group(server.pid)
                deadline = min(deadline, time.monotonic() + LAST_WORDS_S)
            elif memory_bytes and resident_bytes(server.pid) > memory_bytes:
                oom_killed = True
                _kill_group(server.pid)
            if time.monotonic() > deadline:
                break
    return oom_killed


def _take(key: selectors.SelectorKey, selector: selectors.BaseSelector, log: Log) -> None:
    content = os.read(key.fd, 65536)
    if key.data and content:
        log.feed(key.data, content)
    elif key.data:
        selector.unregister(key.fileobj)


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def resident_bytes(pid: int) -> int:
    """Memory that the process and its descendants hold; 0 where it cannot be known."""
    total, waiting = 0, [pid]
    while waiting:
        process = Path(f"/proc/{waiting.pop()}")
        try:
            total += int((process / "statm").read_text().split()[1]) * resource.getpagesize()
            for task in (process / "task").iterdir():
                waiting += [int(child) for child in (task / "children").read_text().split()]
        except (OSError, IndexError, ValueError):
            continue
    return total or _resident_by_ps(pid)


def _resident_by_ps(pid: int) -> int:
    """Where there is no /proc (macOS): the server alone."""
    if Path("/proc/self").exists():  # it ended between two looks
        return 0
    told = subprocess.run(
        ["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.strip()
    return int(told) * 1024 if told.isdecimal() else 0


def _write(path: Path, value: dict[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value))
    os.replace(temporary, path)


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main(Path(sys.argv[1])))
