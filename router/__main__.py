"""`python -m router`: a gateway, under a control plane (`--config`) or alone (`--table`).

Reads the settings and becomes the supervisor of the processes that serve (`supervisor.py`).
"""

from __future__ import annotations

import argparse
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from router.config import Config, ConfigError, Limits, Tls, Tracing, check, limits_from, read_config
from router.contract import TableError, decode
from router.job import SupervisorState
from router.listeners import bind_problem
from router.log import EventLog
from router.otlp import missing_packages, read_headers
from router.supervisor import Supervisor, take_state
from router.tls import read_context

EXIT_CONFIG = 2
_LIMITS = {field.name: field.default for field in msgspec.structs.fields(Limits)}


def main(argv: Sequence[str] | None = None) -> int:
    flags = _parser().parse_args(argv)
    state = take_state()
    if state is not None:
        return _revive(flags, state)
    try:
        config = _config(flags)
        if flags.check:
            return _try_code()
        _check_ports(config, flags)
        log = EventLog(config.log_file)
    except (ConfigError, OSError) as exc:
        print(f"Error: {exc}", file=sys.stderr)  # noqa: T201
        return EXIT_CONFIG
    _raise_open_files()
    try:
        supervisor = Supervisor.fresh(config, log)
    except OSError as exc:
        log.error("gateway cannot listen", reason=str(exc))
        return 1
    return supervisor.run()


def _revive(flags: argparse.Namespace, state: SupervisorState) -> int:
    """Goes on as the supervisor that executed itself anew. Nothing here may end it: others serve meanwhile."""
    before = msgspec.json.decode(state.config, type=Config)
    log = EventLog(before.log_file)
    config: Config | None = None
    try:
        config = _config(flags)
        _check_same_address(before, config)
    except (ConfigError, OSError) as exc:
        log.error("gateway not restarted; it goes on as it is", reason=str(exc))
        config = None
    return Supervisor.revived(state, config, log).run()


def _check_same_address(before: Config, now: Config) -> None:
    for field in ("host", "port", "grpc_port", "metrics_host", "metrics_port"):
        was, wanted = getattr(before, field), getattr(now, field)
        if was != wanted:
            raise ConfigError(f"{field}: {wanted!r} was {was!r}; a running gateway keeps its address; start another")


def _try_code() -> int:
    """Whether the code that would serve can be loaded at all."""
    import router.worker  # noqa: F401

    return 0


def _raise_open_files() -> None:
    """A connection is an open file, and many systems allow 1,024 of them unless asked."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _config(flags: argparse.Namespace) -> Config:
    config = read_config(Path(flags.config)) if flags.config else _alone(flags)
    if config.tls is not None:
        read_context(config.tls)  # what is wrong is said here, where a person sees it
    if config.tracing is not None:
        if missing := missing_packages():
            raise ConfigError(f"tracing: {missing}")
        read_headers(config.tracing)
    return config


def _alone(flags: argparse.Namespace) -> Config:
    limits = limits_from({n: v for n in _LIMITS if (v := getattr(flags, n)) is not None}, "limits")
    if not 0 <= flags.processes <= 256:
        raise ConfigError(f"--processes: {flags.processes} is not in 0..256; 0 is as many as there are cores")
    config = Config(
        host=flags.host,
        port=flags.port,
        metrics_port=flags.metrics_port,
        grpc_port=_grpc_port(flags.grpc_port),
        table_file=flags.table,
        processes=flags.processes,
        limits=limits,
        log_file=flags.log_file,
        access_log=flags.access_log,
        shadow_samples=flags.shadow_samples,
        auth=flags.auth,
        tls=_tls(flags),
        tracing=_tracing(flags),
    )
    check(config, "command line")
    _check_table(Path(flags.table))
    return config


def _grpc_port(word: str) -> int | None:
    if word == "off":
        return None
    if not word.isascii() or not word.isdigit() or int(word) > 65_535:
        raise ConfigError(f"--grpc-port: {word!r} is no port; write a number in 0..65535, or off")
    return int(word)


def _tracing(flags: argparse.Namespace) -> Tracing | None:
    if not flags.otlp:
        return None
    if not 0 <= flags.trace_sample <= 1:
        raise ConfigError(f"--trace-sample: {flags.trace_sample:g} is no share; write a number in 0..1")
    return Tracing(flags.otlp, flags.trace_sample, flags.otlp_headers_file)


def _tls(flags: argparse.Namespace) -> Tls | None:
    if bool(flags.tls_certificate) != bool(flags.tls_key) or (flags.tls_client_ca and not flags.tls_key):
        raise ConfigError("--tls-certificate and --tls-key belong together; name both files")
    return Tls(flags.tls_certificate, flags.tls_key, flags.tls_client_ca) if flags.tls_key else None


def _check_ports(config: Config, flags: argparse.Namespace) -> None:
    if flags.config:
        return  # the control plane looked, and its gateways share ports with their own successors
    for flag, host, port in (
        ("--port", config.host, config.port),
        *([] if config.grpc_port is None else [("--grpc-port", config.host, config.grpc_port)]),
        ("--metrics-port", "127.0.0.1", config.metrics_port),
    ):
        problem = bind_problem(host, port)
        if problem:
            raise ConfigError(f"{flag}: {port} on {host}: {problem}; it must be free; name another port")


def _check_table(path: Path) -> None:
    try:
        decode(path.read_bytes())
    except (OSError, TableError) as exc:
        raise ConfigError(f"--table {path}: {exc}") from exc


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m router",
        description="The gateway. With --table it serves a routing table from a file, read again when it changes. "
        "SIGHUP restarts it without losing a request; SIGTERM ends it when all requests are answered.",
        epilog="example: python -m router --table table.json --port 8080",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--config", metavar="FILE", help="the control plane's config.json; all else stands in it")
    source.add_argument("--table", metavar="FILE", default="", help="a routing table (docs/CONTRACTS.md)")
    parser.add_argument("--check", action="store_true", help="read the settings, say what is wrong, and end")
    parser.add_argument("--host", default="127.0.0.1", help="address of the public port (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="public port, 0: any (default: %(default)s)")
    parser.add_argument(
        "--grpc-port", default="8081", metavar="PORT", help="port of gRPC, 0: any, off: none (default: %(default)s)"
    )
    parser.add_argument("--metrics-port", type=int, default=8082, help="private port (default: %(default)s)")
    parser.add_argument(
        "--processes", type=int, default=1, metavar="N", help="share the ports; 0: one for each core (default: 1)"
    )
    parser.add_argument("--log-file", default="", metavar="FILE", help="JSON events; default: standard error")
    parser.add_argument("--access-log", default="", metavar="FILE", help="one JSON line a request; default: none")
    parser.add_argument(
        "--shadow-samples", default="", metavar="FILE", help="differing answers of shadow versions; default: none"
    )
    parser.add_argument(
        "--auth", choices=("off", "required"), default="off",
        help="required: every request to a model needs a key of the table; a must on a host that others reach",
    )  # fmt: skip
    tls = parser.add_argument_group("TLS of the public port, in PEM files that are read again when they change")
    tls.add_argument("--tls-certificate", default="", metavar="FILE", help="the chain, the server's own first")
    tls.add_argument("--tls-key", default="", metavar="FILE", help="its key, without a password")
    tls.add_argument("--tls-client-ca", default="", metavar="FILE", help="ask clients for a certificate of this one's")
    tracing = parser.add_argument_group("traces to an OpenTelemetry collector (pip install 'modelfleet[tracing]')")
    tracing.add_argument("--otlp", default="", metavar="URL", help="its address, such as http://127.0.0.1:4318")
    tracing.add_argument(
        "--trace-sample", type=float, default=0.01, metavar="SHARE",
        help="the share of requests without a traceparent that begin one (default: %(default)s)",
    )  # fmt: skip
    tracing.add_argument(
        "--otlp-headers-file", default="", metavar="FILE", help="`name: value` lines for the collector, a token mostly"
    )
    limits = parser.add_argument_group("limits")
    for name, default in _LIMITS.items():
        kind = type(default)
        limits.add_argument(
            "--" + name.replace("_", "-"), type=kind, metavar="N" if kind is int else "S", help=f"default: {default}"
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
