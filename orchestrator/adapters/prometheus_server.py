"""A Prometheus server of our own: a detached process that is started, adopted, told of new settings, and ended.

Like the gateway it outlives the control plane on purpose, and a new one finds it by `prometheus/process.json`. What it
scrapes it learns from the control plane itself; its configuration is made from `configs/prometheus/`. It owns nothing
that serving needs: whatever fails here is said, and stops nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil

from orchestrator.adapters.gateway import bind_problem
from orchestrator.adapters.state_dir import write_private
from orchestrator.core.errors import UnavailableError

# Its web server answers before the log of the last hours is read.
START_TIMEOUT_S = 30.0
# It writes what it holds in memory.
STOP_TIMEOUT_S = 15.0
# The control plane's address in the shipped configuration.
DEFAULT_ADDRESS = "127.0.0.1:7070"
# In a wheel beside the package, in a checkout beside the packages.
_SHIPPED = (Path(__file__).parents[1] / "configs" / "prometheus", Path(__file__).parents[2] / "configs" / "prometheus")


class PrometheusFailed(UnavailableError):  # noqa: N818
    """There is no Prometheus; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Settings:
    """`max_disk_bytes` are of what is kept; what came in the last two hours is on top of it."""

    port: int
    retention_s: float
    max_disk_bytes: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def facts(self) -> dict[str, str]:
        """Every setting in words, by its name in the manifest."""
        return {
            "prometheus_port": str(self.port),
            "retention": f"{self.retention_s / 3600:g}h",
            "max_disk": f"{self.max_disk_bytes} bytes",
        }


class PrometheusProcess:
    """The server of one state directory. Blocking. `program` is looked for on the PATH."""

    def __init__(self, directory: Path, control_url: str, log_file: Path, program: str = "prometheus") -> None:
        self._directory = directory
        self._control = urlsplit(control_url).netloc
        self._log_file = log_file
        self._program = program
        self._record = directory / "process.json"
        self._config = directory / "prometheus.yml"
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        # Guards starting and ending: a stop during a start must end what is being started too.
        self._lock = threading.Lock()

    def find(self, settings: Settings) -> int | None:
        """The process id of the server that runs with these settings for this control plane, else None."""
        found = self._read()
        if found is None or (found["command"], found["content"]) != (self._arguments(settings), self._content):
            return None
        return int(found["pid"])

    def running(self) -> int | None:
        """The process id of the server that runs, whatever its settings."""
        found = self._read()
        return int(found["pid"]) if found else None

    def start(self, settings: Settings) -> int:
        """Has a server run with these settings, and returns its process id. Raises `PrometheusFailed`.

        One that runs with them already only reads its configuration again.
        """
        with self._lock:
            program = shutil.which(self._program)
            found = self._read()
            command = self._arguments(settings)
            if found is not None and found["command"] == command:
                self._write_config()
                os.kill(found["pid"], signal.SIGHUP)
                self._write_record(int(found["pid"]), command)
                return int(found["pid"])
            if program is None:
                raise PrometheusFailed(
                    f"observability.prometheus: no program {self._program!r} on the PATH; `managed` runs it; install "
                    f"it (`apt-get install prometheus`), name the URL of a server that runs, or write off"
                )
            self._write_config()
            self._end_all()
            return self._start(program, command, settings)

    def stop(self) -> bool:
        """Ends it; what it kept stays. Returns whether there was one."""
        with self._lock:
            had_one = self._read() is not None
            if self._directory.exists():
                self._end_all()
            self._record.unlink(missing_ok=True)
            return had_one

    def _start(self, program: str, command: list[str], settings: Settings) -> int:
        if problem := bind_problem("127.0.0.1", settings.port):
            raise PrometheusFailed(
                f"observability.prometheus_port: {settings.port}: {problem}; it must be free on 127.0.0.1; end what "
                f"listens there, or name another port in the manifest"
            )
        offset = self._log_file.stat().st_size if self._log_file.exists() else 0
        with open(self._log_file, "ab") as log:
            process = subprocess.Popen(
                [program, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._directory,
                start_new_session=True,
            )  # fmt: skip
        self._children[process.pid] = process
        self._await_answer(process, settings, offset)
        self._write_record(process.pid, command)
        return process.pid

    def _await_answer(self, process: subprocess.Popen[bytes], settings: Settings, offset: int) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise PrometheusFailed(
                    f"prometheus: ended at its start with code {process.returncode}: {self._last_line(offset)}; see "
                    f"{self._log_file}"
                )
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{settings.url}/-/healthy", timeout=1.0, trust_env=False).status_code == httpx.codes.OK:
                    return
            time.sleep(0.05)
        process.kill()
        process.wait()
        raise PrometheusFailed(f"prometheus: did not answer within {START_TIMEOUT_S:.0f} s; see {self._log_file}")

    def _arguments(self, settings: Settings) -> list[str]:
        return [
            f"--config.file={self._config}",
            f"--storage.tsdb.path={self._directory / 'data'}",
            f"--storage.tsdb.retention.time={settings.retention_s:.0f}s",
            f"--storage.tsdb.retention.size={settings.max_disk_bytes}B",
            f"--web.listen-address=127.0.0.1:{settings.port}",
            "--log.format=json",
            "--log.level=warn",
        ]

    @cached_property
    def _files(self) -> dict[str, bytes]:
        """The configuration for this control plane, by path."""
        shipped = next(path for path in _SHIPPED if path.is_dir())
        text = (shipped / "prometheus.yml").read_text().replace(DEFAULT_ADDRESS, self._control)
        rules = sorted((shipped / "rules").glob("*.yml"))
        return {"prometheus.yml": text.encode(), **{f"rules/{file.name}": file.read_bytes() for file in rules}}

    @cached_property
    def _content(self) -> str:
        return hashlib.sha256(b"\0".join(self._files.values())).hexdigest()

    def _write_config(self) -> None:
        (self._directory / "rules").mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, content in self._files.items():
            path = self._directory / name
            if not path.exists() or path.read_bytes() != content:
                write_private(path, content)

    def _write_record(self, pid: int, command: list[str]) -> None:
        created = psutil.Process(pid).create_time()
        record = {"pid": pid, "created": created, "command": command, "content": self._content}
        write_private(self._record, json.dumps(record).encode())

    def _read(self) -> dict[str, Any] | None:
        for pid, process in list(self._children.items()):
            if process.poll() is not None:
                del self._children[pid]
        try:
            found: dict[str, Any] = json.loads(self._record.read_bytes())
            process_now = psutil.Process(found["pid"])
            same = abs(process_now.create_time() - found["created"]) < 1
            return found if same and process_now.status() != psutil.STATUS_ZOMBIE else None
        except (OSError, ValueError, KeyError, psutil.NoSuchProcess):
            return None

    def _end_all(self) -> None:
        """Ends every server of this directory, one too that is on no record: its control plane was killed meanwhile."""
        word = f"--config.file={self._config}"
        found = [process for process in psutil.process_iter() if word in _words(process)]
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        for process in psutil.wait_procs(found, STOP_TIMEOUT_S)[1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def _last_line(self, offset: int) -> str:
        with open(self._log_file, "rb") as log:
            log.seek(offset)
            lines = log.read()[-4000:].decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "no output"


def _words(process: psutil.Process) -> list[str]:
    """[] for one that ended or is somebody else's."""
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []
