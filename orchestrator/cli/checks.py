"""What `doctor` can find out by itself, without a control plane. Each failed check names the command that mends it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import stat
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from orchestrator.cli import control, launch
from orchestrator.cli.client import Record
from orchestrator.cli.errors import CliError, NotRunningError
from orchestrator.config import DEFAULT_API_PORT

LEAST_FREE_BYTES = 2 * 1024**3
# Engines stamp their events and log lines: further apart, ages and `--since` are wrong.
MOST_SKEW_S = 5.0
ENGINE_TIMEOUT_S = 5
_GATEWAY_PORT = 8080
_GATEWAY_GRPC_PORT = 8081
_GATEWAY_METRICS_PORT = 8082


def check(name: str, ok: bool, detail: str, remedy: str = "") -> Record:
    """A `Check` of the admin API."""
    return Record(name=name, ok=ok, detail=detail, remedy="" if ok else remedy)


def python() -> Record:
    version = ".".join(map(str, sys.version_info[:3]))
    return check(
        "python", sys.version_info >= (3, 11), f"{version} at {sys.executable}", "install Python 3.11 or newer"
    )


def state_dir(path: Path) -> Record:
    """Whether we may write there, and nobody else may read: it holds the token and secrets."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        parent = next(each for each in path.parents if each.exists())
        may = os.access(parent, os.W_OK | os.X_OK)
        return check(
            "state dir", may, f"{path} will be made by `modelfleet up`", f"sudo install -d -m 700 -o $USER {path}"
        )
    except OSError as exc:
        return check("state dir", False, f"{path}: {exc.strerror}", f"sudo chown -R $USER {path}")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        return check("state dir", False, f"{path} is not yours to write", f"sudo chown -R $USER {path}")
    detail = f"{path}, mode {mode:04o}"
    return check(
        "state dir", not mode & 0o077, f"{detail}{': others can read it' if mode & 0o077 else ''}", f"chmod 700 {path}"
    )


def control_plane(path: Path) -> Record:
    try:
        found = control.find(path)
    except NotRunningError as exc:
        died = control.has_died(path)
        return check("control plane", not died, exc.message if died else "not running", "modelfleet up")
    except CliError as exc:
        return check("control plane", False, exc.message, exc.hint)
    healthy = launch.is_healthy(found)
    detail = f"process {found.pid} at {found.url}"
    return check(
        "control plane", healthy, detail if healthy else f"{detail} does not answer",
        f"read {path / 'logs' / 'control.log'}; then kill {found.pid}; modelfleet up",
    )  # fmt: skip


def disk(path: Path) -> Record:
    place = next(each for each in (path, *path.parents) if each.exists())
    free = shutil.disk_usage(place).free
    return check(
        "disk", free >= LEAST_FREE_BYTES, f"{free / 1024**3:.1f} GiB free at {place}",
        "docker image prune; model files and images need 2 GiB or more",
    )  # fmt: skip


def ports(path: Path) -> list[Record]:
    """Of the control plane and of the gateway, as far as they are known: free, or taken by our own gateway."""
    ours = _listener(path)
    wanted = {
        "port of API": DEFAULT_API_PORT,
        "port of gateway": ours.get("port", _GATEWAY_PORT),
        "port of gRPC": ours.get("grpc_port") if ours else _GATEWAY_GRPC_PORT,
        "port of metrics": ours.get("metrics_port", _GATEWAY_METRICS_PORT),
    }
    is_ours = bool(ours) and _answers(ours.get("metrics_port", 0))
    return [_port(name, port, is_ours=is_ours and name != "port of API") for name, port in wanted.items() if port]


def _port(name: str, port: int, *, is_ours: bool) -> Record:
    if is_ours:
        return check(name, True, f"{port} is held by this cluster's gateway")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as exc:
            return (
                _taken(name, port) if exc.errno == errno.EADDRINUSE else check(name, False, f"{port}: {exc.strerror}")
            )
    return check(name, True, f"{port} is free")


def _taken(name: str, port: int) -> Record:
    holder = _holder(port)
    other = "modelfleet up --api-port N" if port == DEFAULT_API_PORT else "gateway.port in the manifest"
    end = f"kill {holder[0]} (if it may end)" if holder else f"find it with ss -ltnp 'sport = :{port}'"
    who = f"process {holder[0]} ({holder[1]})" if holder else "another process"
    return check(name, False, f"{port} is taken by {who}", f"{end}, or another port: {other}")


def _holder(port: int) -> tuple[int, str] | None:
    """The process that listens on `port`, where we may know."""
    import psutil

    try:
        for each in psutil.net_connections("tcp"):
            if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr[1] == port and each.pid:
                return each.pid, psutil.Process(each.pid).name()
    except (psutil.Error, OSError):
        pass
    return None


def _listener(path: Path) -> dict[str, Any]:
    """The gateway's configuration, empty where there is none."""
    try:
        found: dict[str, Any] = json.loads((path / "gateway" / "config.json").read_text())
        return found
    except (OSError, ValueError):
        return {}


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def sources() -> Record:
    """Which of the optional client libraries are installed."""
    from orchestrator.adapters.sources.places import readable_in_words

    return check("sources", True, readable_in_words())


def docker_engine() -> list[Record]:
    """Whether a Docker Engine answers, and whether its clock is ours."""
    import docker
    from docker.errors import DockerException

    try:
        client = docker.from_env(timeout=ENGINE_TIMEOUT_S)
        try:
            facts = client.info()
        finally:
            client.close()
    except (DockerException, OSError) as exc:
        remedy = "make engine, or start the Docker service; without Docker: modelfleet up --engine process"
        return [check("engine", False, f"no Docker Engine answers: {_short(exc)}", remedy)]
    detail = f"Docker {facts.get('ServerVersion', '?')}, {facts.get('NCPU', '?')} CPUs"
    return [check("engine", True, detail), *_clock(str(facts.get("SystemTime", "")))]


def _clock(system_time: str) -> list[Record]:
    """`system_time` as RFC 3339 with nanoseconds, of which Python reads six digits."""
    try:
        engine_s = datetime.fromisoformat(f"{system_time[:19]}+00:00").timestamp() + _offset_s(system_time)
    except ValueError:
        return []
    skew_s = abs(engine_s - time.time())
    remedy = "sudo systemctl restart systemd-timesyncd, on the machine that is wrong"
    return [check("clock", skew_s <= MOST_SKEW_S, f"the engine's clock is {skew_s:.0f} s from ours", remedy)]


def _offset_s(system_time: str) -> float:
    """What to add to the digits of a local time to have UTC's."""
    zone = system_time[-6:]
    if len(system_time) < 25 or zone[0] not in "+-":
        return 0.0
    seconds = int(zone[1:3]) * 3600 + int(zone[4:6]) * 60
    return -seconds if zone[0] == "+" else seconds


def _short(exc: Exception) -> str:
    text = str(exc)
    return text if len(text) <= 160 else text[:160] + "…"
