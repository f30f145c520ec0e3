"""The gateway as the control plane sees it: a detached process that is started, adopted, asked and ended.

It outlives the control plane on purpose: a new control plane finds it by `gateway/process.json` (process id and
start time, so that a reused id is not mistaken for it). What travels between them stands in `router/contract.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil

from orchestrator.adapters.state_dir import write_private
from orchestrator.core.entities import Replica, RouteSettings
from orchestrator.core.errors import UnavailableError
from orchestrator.core.plan import RoutedModel
from router import contract

START_TIMEOUT_S = 15.0
# A trial of the settings and the start of the new processes, each within the gateway's own limits (45 s).
RESTART_TIMEOUT_S = 60.0
# Another value of these needs another process; all else is taken over in a hot restart.
ADDRESS = ("host", "port", "grpc_port", "metrics_host", "metrics_port")


class GatewayFailed(UnavailableError):  # noqa: N818
    """The gateway's process ended at its start; the message has its last words."""


@dataclass(frozen=True, slots=True)
class Listener:
    """Where a gateway listens and with which settings.

    `processes`: 0 is one for each core. `tls`: absolute paths by their names in the manifest, empty for plain HTTP.
    `access_log_share`: None writes no access log. `grpc_port`: None is no gRPC. `tracing`: empty for none.
    """

    host: str
    port: int
    metrics_port: int
    limits: Mapping[str, Any]
    processes: int = 1
    auth: str = "off"
    tls: Mapping[str, str] = field(default_factory=dict)
    access_log_share: float | None = None
    grpc_port: int | None = None
    tracing: Mapping[str, str | float] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self._shown_host}:{self.port}"

    @property
    def grpc_address(self) -> str:
        """Host and port, as clients of gRPC want them; "" without gRPC."""
        return f"{self._shown_host}:{self.grpc_port}" if self.grpc_port else ""

    @property
    def ports(self) -> list[tuple[str, str, int]]:
        """Name in the manifest, host and port of all that is listened on."""
        grpc = [("grpc_port", self.host, self.grpc_port)] if self.grpc_port else []
        return [("port", self.host, self.port), *grpc, ("metrics_port", "127.0.0.1", self.metrics_port)]

    def has_address_of(self, other: Listener) -> bool:
        """Whether a gateway with one can take over the other's settings without another process."""
        return (self.host, self.ports) == (other.host, other.ports)

    @property
    def _shown_host(self) -> str:
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::", "") else self.host
        return f"[{host}]" if ":" in host else host

    def facts(self) -> dict[str, str]:
        """Every setting in words, by its name in the manifest's `gateway:` section."""
        share = self.access_log_share
        settings: dict[str, Any] = {
            "host": self.host,
            "port": self.port,
            "grpc_port": self.grpc_port or "off",
            "metrics_port": self.metrics_port,
            "processes": self.processes or "auto",
            "auth": self.auth,
            **{f"tls.{name}": self.tls.get(name, "none") for name in ("certificate", "key", "client_ca")},
            "access_log": "off" if share is None else f"{share:.0%} of the requests",
            **{f"limits.{name}": value for name, value in self.limits.items()},
            "tracing": ", ".join(f"{name} {value}" for name, value in self.tracing.items()) or "off",
        }
        return {name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in settings.items()}

    @property
    def metrics_url(self) -> str:
        return f"http://127.0.0.1:{self.metrics_port}"


class GatewayProcess:
    """Starts, adopts, asks and ends the gateway of one state directory. Blocking, except `report`."""

    def __init__(self, directory: Path, control_url: str, token_file: Path, log_file: Path) -> None:
        self._directory = directory
        self._control_url = control_url
        self._token_file = token_file
        self._log_file = log_file
        self._record = directory / "process.json"
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        # One starts or stops at a time: a stop during a start must end what is being started too.
        self._lock = threading.Lock()

    def find(self, listener: Listener) -> int | None:
        """The process id of the gateway that runs with exactly this listener, else None."""
        found = self._read()
        if found is None or found["config"] != self._config(listener):
            return None
        return int(found["pid"])

    def ports(self) -> dict[str, int]:
        """The ports of the gateway that runs, whatever its settings, by their names in the manifest; none without."""
        found = self._read()
        config = found["config"] if found else {}
        return {name: int(config[name]) for name in ("port", "grpc_port", "metrics_port") if config.get(name)}

    def running(self, metrics_port: int) -> int | None:
        """The process id of the gateway that runs with this private port, whatever its other settings."""
        found = self._read()
        return int(found["pid"]) if found and found["config"].get("metrics_port") == metrics_port else None

    def start(self, listener: Listener) -> int:
        """Has a gateway run with these settings, and returns its process id. Raises `GatewayFailed`.

        One that has the same address already takes them over in a hot restart: it loses no request and keeps its
        process id. Else another is started, and the one before it ended once that listens.
        """
        with self._lock:
            before = self._read()
            config = self._config(listener)
            if before is not None and all(before["config"].get(name) == config[name] for name in ADDRESS):
                generation = _generation(listener, int(before["pid"]))
                if generation is not None:
                    return self._restart(before, config, listener, generation)
            return self._start(listener, config, before)

    def _restart(self, before: dict[str, Any], config: dict[str, Any], listener: Listener, generation: int) -> int:
        pid = int(before["pid"])
        self._end_strays(pid)
        path = self._directory / "config.json"
        offset = self._log_file.stat().st_size if self._log_file.exists() else 0
        write_private(path, json.dumps(config, indent=2).encode())
        os.kill(pid, signal.SIGHUP)
        deadline = time.monotonic() + RESTART_TIMEOUT_S
        while (_generation(listener, pid) or generation) <= generation:
            refused = self._refused_since(offset)
            if refused or time.monotonic() > deadline:
                write_private(path, json.dumps(before["config"], indent=2).encode())
                raise GatewayFailed(
                    f"gateway: new settings: {refused or 'not in force in time'}; it goes on with those before; "
                    f"correct them in the manifest; see {self._log_file}"
                )
            time.sleep(0.05)
        write_private(self._record, json.dumps({**before, "config": config}).encode())
        return pid

    def _refused_since(self, offset: int) -> str:
        """Why the gateway did not restart; "" while it has not said so."""
        with open(self._log_file, "rb") as log:
            log.seek(offset)
            for line in log:
                with contextlib.suppress(ValueError, TypeError, KeyError):
                    event = json.loads(line)
                    if str(event["event"]).startswith("gateway not restarted"):
                        return str(event["reason"])
        return ""

    def _start(self, listener: Listener, config: dict[str, Any], before: dict[str, Any] | None) -> int:
        self._end_strays(int(before["pid"]) if before else None)
        check_ports(listener, before["config"] if before else {})
        path = self._directory / "config.json"
        write_private(path, json.dumps(config, indent=2).encode())
        offset = self._log_file.stat().st_size if self._log_file.exists() else 0
        with open(self._log_file, "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "router", "--config", str(path)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self._await_listening(process, listener, offset)
        self._children[process.pid] = process
        record = {"pid": process.pid, "created": psutil.Process(process.pid).create_time(), "config": config}
        write_private(self._record, json.dumps(record).encode())
        if before is not None:
            self._end(int(before["pid"]))
        return process.pid

    def stop(self, timeout_s: float = 10.0) -> None:
        """Ends the gateway: it drains on SIGTERM, and is killed after `timeout_s`."""
        with self._lock:
            self._end_strays(None, timeout_s)
            self._record.unlink(missing_ok=True)

    def alive(self, pid: int) -> bool:
        self.reap()
        found = self._read()
        return found is not None and found["pid"] == pid

    def reap(self) -> None:
        """Collects children that ended, so that no zombie looks alive."""
        for pid, process in list(self._children.items()):
            if process.poll() is not None:
                del self._children[pid]

    def _end_strays(self, keep: int | None, timeout_s: float = 10.0) -> None:
        """Ends every gateway of this directory but `keep`, and waits for it.

        One that is on no record was left by a control plane that was killed while it started it. It would share the
        port with its successor, and answer its part of the requests from an old table.
        """
        word = str(self._directory / "config.json")
        # A child of the one that is kept has its command line for the moment between fork and exec.
        found = [p for p in psutil.process_iter() if p.pid != keep and word in _arguments(p) and _parent(p) != keep]
        for process in found:
            self._end(process.pid)
        for process in psutil.wait_procs(found, timeout_s)[1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.reap()

    def _read(self) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads(self._record.read_bytes())
            process = psutil.Process(found["pid"])
            same = abs(process.create_time() - found["created"]) < 1 and process.status() != psutil.STATUS_ZOMBIE
        except (OSError, ValueError, KeyError, psutil.NoSuchProcess):
            return None
        return found if same else None

    def _config(self, listener: Listener) -> dict[str, Any]:
        return {
            "host": listener.host,
            "port": listener.port,
            "grpc_port": listener.grpc_port,
            "metrics_host": "127.0.0.1",
            "metrics_port": listener.metrics_port,
            "control_url": self._control_url,
            "token_file": str(self._token_file),
            "table_cache": str(self._directory / "table.json"),
            "processes": listener.processes,
            "auth": listener.auth,
            "tls": dict(listener.tls) or None,
            "limits": dict(listener.limits),
            "log_file": str(self._log_file),
            "access_log": "" if listener.access_log_share is None else str(self._log_file.with_name("access.log")),
            "access_log_share": 1.0 if listener.access_log_share is None else listener.access_log_share,
            "shadow_samples": str(self._log_file.with_name("shadow.jsonl")),
            # A gateway of an earlier release refuses a key that it does not know.
            **({"tracing": dict(listener.tracing)} if listener.tracing else {}),
        }

    def _await_listening(self, process: subprocess.Popen[bytes], listener: Listener, offset: int) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise GatewayFailed(f"gateway: ended at its start with code {process.returncode}: {self._tail(offset)}")
            with contextlib.suppress(httpx.HTTPError, *contract.UNREADABLE):
                answer = httpx.get(f"{listener.metrics_url}/report", timeout=1.0, trust_env=False)
                if msgspec.json.decode(answer.content, type=contract.GatewayReport).pid == process.pid:
                    return
            time.sleep(0.02)
        process.kill()
        process.wait()
        raise GatewayFailed(f"gateway: did not listen within {START_TIMEOUT_S:.0f} s: {self._tail(offset)}")

    def _tail(self, offset: int) -> str:
        with open(self._log_file, "rb") as log:
            log.seek(offset)
            lines = log.read()[-4000:].decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"no output; see {self._log_file}"

    @staticmethod
    def _end(pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 15)


def _arguments(process: psutil.Process) -> list[str]:
    """[] for one that ended or is somebody else's."""
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def _parent(process: psutil.Process) -> int | None:
    try:
        return int(process.ppid())
    except psutil.Error:
        return None


def _generation(listener: Listener, pid: int) -> int | None:
    """The generation of the gateway `pid`; None when it does not answer, or is of a release that knows none."""
    try:
        answer = httpx.get(f"{listener.metrics_url}/report", timeout=3.0, trust_env=False).json()
        return int(answer["generation"]) if answer["pid"] == pid else None
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return None


def check_ports(listener: Listener, mine: Mapping[str, Any]) -> None:
    """Raises `GatewayFailed` for a port that somebody else listens on.

    Gateways share their ports (SO_REUSEPORT) with their own successors, so a stranger's gateway would share
    them in silence: a plain bind finds out. `mine` is the configuration of the gateway to be replaced.
    """
    for name, host, port in listener.ports:
        if mine.get(name) == port:
            continue
        if problem := bind_problem(host, port):
            raise GatewayFailed(
                f"gateway.{name}: {port} on {host}: {problem}; it must be free; end what listens there, or name "
                f"another port in the manifest"
            )


def bind_problem(host: str, port: int) -> str:
    """Why nothing can listen on `host:port` now, or "" when it can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as exc:
            return (exc.strerror or str(exc)).lower()
    return ""


async def report(client: httpx.AsyncClient, listener: Listener) -> contract.GatewayReport | None:
    """What the gateway says of itself; None when it does not answer: unknown, not idle."""
    try:
        answer = await client.get(f"{listener.metrics_url}/report")
        return msgspec.json.decode(answer.content, type=contract.GatewayReport)
    except (httpx.HTTPError, msgspec.DecodeError):
        return None


def make_table(
    *, epoch: str, revision: int, cluster: str, routed: Mapping[str, RoutedModel], replicas: Mapping[str, Replica]
) -> contract.Table:
    """The wire form of a routing. A replica without an address (it just ended) is left out."""
    models = {}
    for name, model in routed.items():
        versions = {}
        for version, route in model.versions.items():
            known = [replicas[id_] for id_ in route.replicas if id_ in replicas]
            endpoints = tuple(contract.Endpoint(r.id, r.host, r.port) for r in known if r.host and r.port)
            settings = {name: getattr(route.settings, name) for name in RouteSettings.__slots__}
            versions[version] = contract.VersionRoute(endpoints=endpoints, state=route.state, **settings)
        models[name] = _model_route(model, versions)
    return contract.Table(epoch, revision, cluster, models)


def _model_route(model: RoutedModel, versions: dict[str, contract.VersionRoute]) -> contract.ModelRoute:
    shadow, rate = model.settings.shadow, model.settings.rate_limit
    return contract.ModelRoute(
        versions,
        dict(model.weights),
        dict(model.labels),
        sticky=model.settings.sticky,
        shadow=None if shadow is None else contract.Shadow(**asdict(shadow)),
        rate_limit=None if rate is None else contract.RateLimit(**asdict(rate)),
    )
