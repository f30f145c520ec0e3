"""A real gateway in a process of its own before real model servers, for tests that ask as clients do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from router.contract import ApiKey, Endpoint, ModelRoute, Table, VersionRoute, encode
from tests.fakes.replica import Replica, free_port, until_deadline


@contextmanager
def gateway(
    directory: Path,
    *replicas: Replica,
    keys: dict[str, ApiKey] | None = None,
    grpc_port: int | None = None,
    **models: ModelRoute,
) -> Iterator[str]:
    """The URL of a gateway for `replicas`, each the one replica of version 1 of its model, and for `models`."""
    routes = {
        replica.model: ModelRoute(
            {"1": VersionRoute((Endpoint(f"r{replica.port}", "127.0.0.1", replica.port),))}, {"1": 1}
        )
        for replica in replicas
    }
    table = directory / "table.json"
    table.write_bytes(encode(Table("e", 1, "c", routes | models, keys or {})))
    port, log = free_port(), directory / "gateway.log"
    arguments: tuple[str, ...] = (
        "--table",
        str(table),
        "--port",
        str(port),
        "--metrics-port",
        str(free_port()),
        "--log-file",
        str(log),
    )
    arguments += ("--grpc-port", str(grpc_port or "off"))
    auth = ("--auth", "required") if keys else ()
    process = subprocess.Popen([sys.executable, "-m", "router", *arguments, *auth])
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in until_deadline():
            if process.poll() is not None or _serves(url):
                break
        assert process.poll() is None, log.read_text()
        yield url
    finally:
        process.terminate()
        process.wait(20)


def _serves(url: str) -> bool:
    try:
        return httpx.get(f"{url}/v2/health/ready").status_code in (200, 401)
    except httpx.TransportError:
        return False
