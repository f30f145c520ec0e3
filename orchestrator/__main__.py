"""`python -m orchestrator`: one control plane in the foreground. `modelfleet up` starts it detached.

SIGTERM and SIGINT end the control plane alone: replicas and gateway go on, and the next control plane adopts them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

import uvicorn

from orchestrator.adapters.state_dir import StateDir
from orchestrator.adapters.store import Store
from orchestrator.api.app import create_app
from orchestrator.config import DEFAULT_API_PORT, ENGINES, Config, default_state_dir, port_from_environment
from orchestrator.core.errors import ConflictError, FleetError
from orchestrator.log import configure
from orchestrator.loops.control import ControlPlane


def main(arguments: list[str] | None = None) -> int:
    """Runs until told to stop. Returns the exit code; a user's mistake is one `Error:` line."""
    try:
        configure(os.environ, is_terminal=sys.stderr.isatty())
        config = _config(arguments)
        os.umask(0o077)
        asyncio.run(_serve(config))
    except FleetError as exc:
        print(f"Error: {exc}", file=sys.stderr)  # noqa: T201 - this is the program's answer to its user
        return exc.exit_code
    return 0


def _config(arguments: list[str] | None) -> Config:
    parser = argparse.ArgumentParser(prog="python -m orchestrator", description=__doc__)
    parser.add_argument("--state-dir", type=Path, default=None)
    parser.add_argument("--api-port", type=int, default=None, help=f"default {DEFAULT_API_PORT}; 0 takes a free one")
    parser.add_argument("--engine", choices=ENGINES)
    parser.add_argument("--cluster")
    parser.add_argument("--base-image")
    given = parser.parse_args(arguments)
    asked = given.api_port if given.api_port is not None else port_from_environment("MODELFLEET_API_PORT")
    return Config(
        state_dir=(given.state_dir or default_state_dir()).absolute(),
        api_port=DEFAULT_API_PORT if asked is None else asked,
        engine=given.engine,
        cluster=given.cluster,
        base_image=given.base_image or os.environ.get("MODELFLEET_BASE_IMAGE") or None,
        gateway_port=port_from_environment("MODELFLEET_GATEWAY_PORT"),
        metrics_port=port_from_environment("MODELFLEET_METRICS_PORT"),
        grpc_port=port_from_environment("MODELFLEET_GRPC_PORT"),
    )


async def _serve(config: Config) -> None:
    state = StateDir(config.state_dir)
    state.open()
    state.acquire()
    listener = _listen(config.api_port)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    store = Store(state.database)
    try:
        control = ControlPlane(config, state, store, url)
        await _run(control, listener)
    finally:
        state.release()
        store.close()


async def _run(control: ControlPlane, listener: socket.socket) -> None:
    server = uvicorn.Server(
        uvicorn.Config(create_app(control), log_config=None, access_log=False, lifespan="off",
                       timeout_graceful_shutdown=2, server_header=False)
    )  # fmt: skip
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, control.stopped.set)
    # Not `serve`: it would take the signals for itself, and they end more than the API here.
    serving = asyncio.create_task(server._serve([listener]), name="admin api")
    control.state.announce(control.facts())
    await control.run()
    server.should_exit = True
    await serving


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as exc:
        raise ConflictError(
            f"admin API: port {port}: {(exc.strerror or '').lower()}; it must be free on 127.0.0.1; end what listens "
            f"there, or name another with --api-port"
        ) from exc
    listener.listen(128)
    listener.setblocking(False)
    return listener


if __name__ == "__main__":
    sys.exit(main())
