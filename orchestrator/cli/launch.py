"""Starts a control plane detached, and waits until one has ended. Bounded, and it says what the log says."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.adapters.state_dir import StateDir
from orchestrator.cli import control
from orchestrator.cli.control import Control
from orchestrator.cli.errors import CliError, NotRunningError

START_TIMEOUT_S = 30.0
_POLL_S = 0.05
_TAIL_LINES = 15


@dataclass(frozen=True, slots=True)
class Options:
    """What the control plane is told on its command line; what is None is left to the manifest."""

    engine: str | None = None
    api_port: int | None = None
    cluster: str | None = None
    base_image: str | None = None

    def arguments(self) -> list[str]:
        given = {
            "--engine": self.engine,
            "--api-port": self.api_port,
            "--cluster": self.cluster,
            "--base-image": self.base_image,
        }
        return [part for name, value in given.items() if value is not None for part in (name, str(value))]


def start(state_dir: Path, options: Options, timeout_s: float = START_TIMEOUT_S) -> Control:
    """Starts a control plane and returns when it answers. Raises `CliError` with the end of its log if it does not."""
    state = StateDir(state_dir)
    state.open()
    log = state.logs / "control.log"
    with log.open("ab") as stream:
        offset = stream.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator", "--state-dir", str(state_dir), *options.arguments()],
            stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True, close_fds=True,
        )  # fmt: skip
    try:
        return _await_answer(state_dir, process, log, offset, timeout_s)
    finally:
        # It outlives this command by design; that is nothing for the interpreter to warn of.
        process.returncode = process.returncode if process.returncode is not None else 0


def _await_answer(
    state_dir: Path, process: subprocess.Popen[bytes], log: Path, offset: int, timeout_s: float
) -> Control:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = answering(state_dir)
        # Another `up` may have been faster: its control plane serves as well as ours, which then refuses to start.
        if found is not None:
            return found
        if process.poll() is not None:
            return _taken_over(state_dir) or _raise_ended(process.returncode, log, offset)
        time.sleep(_POLL_S)
    process.kill()
    process.wait()
    raise CliError(
        f"the control plane did not answer within {timeout_s:g} s{_tail(log, offset)}", hint=f"its log is {log}"
    )


def _taken_over(state_dir: Path) -> Control | None:
    """The control plane of another `up` that holds the directory and is about to answer."""
    deadline = time.monotonic() + 3.0
    while time.monotonic() < deadline:
        if found := answering(state_dir):
            return found
        if not _lock_is_held(state_dir):
            return None
        time.sleep(_POLL_S)
    return None


def _lock_is_held(state_dir: Path) -> bool:
    try:
        return control.is_alive(int((state_dir / "control.lock").read_text().split()[0]))
    except (OSError, ValueError, IndexError):
        return False


def _raise_ended(code: int, log: Path, offset: int) -> Control:
    said = _read_from(log, offset)
    errors = [line.removeprefix("Error: ") for line in said if line.startswith("Error: ")]
    if errors:
        raise CliError(errors[-1], exit_code=code if code in (1, 2) else 1, code="CONTROL_PLANE_REFUSED")
    raise CliError(f"the control plane ended at once (exit code {code}){_tail(log, offset)}", hint=f"its log is {log}")


def answering(state_dir: Path) -> Control | None:
    """The control plane that is up. One that control.json names but that does not answer as that process is none: its
    process id may be another program's by now. If it is merely slow, its lock keeps a second one from starting.
    """
    try:
        found = control.find(state_dir)
    except NotRunningError:
        return None
    return found if is_healthy(found) else None


def is_healthy(found: Control) -> bool:
    """Whether it answers /healthz, as the process that control.json names."""
    address = urlsplit(found.url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=5)
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        return answer.status == 200 and f'"pid":{found.pid}' in answer.read().decode().replace(" ", "")
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def await_end(pid: int, timeout_s: float) -> None:
    """Returns when process `pid` is gone. Raises `CliError` when it is not, in time."""
    deadline = time.monotonic() + timeout_s
    while control.is_alive(pid):
        if time.monotonic() > deadline:
            raise CliError(
                f"the control plane (process {pid}) has not ended within {timeout_s:g} s; it may be finishing requests",
                hint=f"wait and run it again, or end it hard with `kill -9 {pid}`",
            )
        time.sleep(_POLL_S)


def _read_from(log: Path, offset: int) -> list[str]:
    try:
        with log.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(offset, size - 64 * 1024))
            return stream.read().decode(errors="replace").splitlines()
    except OSError:
        return []


def _tail(log: Path, offset: int) -> str:
    lines = _read_from(log, offset)[-_TAIL_LINES:]
    return "; the end of its log:\n" + "\n".join(f"  {line}" for line in lines) if lines else ""
