"""`python -m router`: one gateway process, under a control plane (`--config`) or alone (`--table`)."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import uvloop

from router.config import Config, ConfigError, Limits, check, limits_from, read_config
from router.contract import TableError, decode
from router.log import EventLog
from router.server import Gateway, bind_problem
from router.sync import follow_control_plane, follow_file, load_cache

EXIT_CONFIG = 2
_LIMITS = {field.name: field.default for field in msgspec.structs.fields(Limits)}


def main(argv: Sequence[str] | None = None) -> int:
    try:
        config = _config(_parser().parse_args(argv))
        log = EventLog(config.log_file)
    except (ConfigError, OSError) as exc:
        print(f"Error: {exc}", file=sys.stderr)  # noqa: T201
        return EXIT_CONFIG
    _raise_open_files()
    try:
        uvloop.run(_run(config, log))
    except OSError as exc:
        log.error("gateway cannot listen", reason=str(exc))
        return 1
    return 0


def _raise_open_files() -> None:
    """A connection is an open file, and many systems allow 1,024 of them unless asked."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _run(config: Config, log: EventLog) -> None:
    gateway = Gateway(config, log)
    if config.table_cache:
        await load_cache(gateway)
    await gateway.listen()
    follow = follow_control_plane if config.control_url else follow_file
    source = asyncio.create_task(follow(gateway), name="tables")
    serving = asyncio.create_task(gateway.serve_until_signal(), name="serving")
    await asyncio.wait((source, serving), return_when=asyncio.FIRST_COMPLETED)
    if source.done():
        source.result()  # it never ends but by a fault of ours: do not serve on without tables in silence
    source.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await source
    await serving


def _config(flags: argparse.Namespace) -> Config:
    if flags.config:
        return read_config(Path(flags.config))
    limits = limits_from({n: v for n in _LIMITS if (v := getattr(flags, n)) is not None}, "limits")
    config = Config(
        host=flags.host,
        port=flags.port,
        metrics_port=flags.metrics_port,
        table_file=flags.table,
        limits=limits,
        log_file=flags.log_file,
        access_log=flags.access_log,
    )
    check(config, "command line")
    _check_table(Path(flags.table))
    for flag, host, port in (
        ("--port", config.host, config.port),
        ("--metrics-port", "127.0.0.1", config.metrics_port),
    ):
        problem = bind_problem(host, port)
        if problem:
            raise ConfigError(f"{flag}: {port} on {host}: {problem}; it must be free; name another port")
    return config


def _check_table(path: Path) -> None:
    try:
        decode(path.read_bytes())
    except (OSError, TableError) as exc:
        raise ConfigError(f"--table {path}: {exc}") from exc


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m router",
        description="The gateway. With --table it serves a routing table from a file, read again when it changes.",
        epilog="example: python -m router --table table.json --port 8080",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--config", metavar="FILE", help="the control plane's config.json; all else stands in it")
    source.add_argument("--table", metavar="FILE", default="", help="a routing table (docs/CONTRACTS.md)")
    parser.add_argument("--host", default="127.0.0.1", help="address of the public port (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="public port, 0: any (default: %(default)s)")
    parser.add_argument("--metrics-port", type=int, default=8082, help="private port (default: %(default)s)")
    parser.add_argument("--log-file", default="", metavar="FILE", help="JSON events; default: standard error")
    parser.add_argument("--access-log", default="", metavar="FILE", help="one JSON line a request; default: none")
    limits = parser.add_argument_group("limits")
    for name, default in _LIMITS.items():
        kind = type(default)
        limits.add_argument(
            "--" + name.replace("_", "-"), type=kind, metavar="N" if kind is int else "S", help=f"default: {default}"
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
