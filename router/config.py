"""The gateway's settings: config.json of the control plane, or flags when it runs alone.

Read once, checked, passed in. Every message names the file, the field, what was there and the rule.
"""

from __future__ import annotations

import functools
from importlib import metadata
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta


class ConfigError(ValueError):
    """Settings that the gateway cannot start with; the sentence is for the person who wrote them."""


Bytes = Annotated[int, Meta(ge=1024, le=1 << 50)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Port = Annotated[int, Meta(ge=0, le=65_535)]


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a client or replica may ask of the gateway at most.

    `buffer_bytes`: bodies up to this size are taken in whole before a replica is asked, so that a slow client holds no
    slot and the request can be sent again; longer ones are streamed; all held bodies together take at most
    `held_bytes`. `connections_per_address` does not count loopback, where proxies stand. A connection is closed after
    `requests_per_connection`. `header_timeout_s` runs from a head's first byte, `body_timeout_s` between two pieces of
    a body, `write_timeout_s` while a client takes nothing of its answer, `idle_timeout_s` between two requests of a
    connection.
    """

    head_bytes: Bytes = 32_768
    fields: Annotated[int, Meta(ge=8, le=10_000)] = 100
    target_bytes: Bytes = 8_192
    body_bytes: Bytes = 64 << 20
    buffer_bytes: Bytes = 1 << 20
    held_bytes: Bytes = 256 << 20
    connections: Annotated[int, Meta(ge=1, le=1_000_000)] = 20_000
    connections_per_address: Annotated[int, Meta(ge=1, le=1_000_000)] = 2_000
    requests_per_connection: Annotated[int, Meta(ge=1, le=1_000_000_000)] = 1_000_000
    header_timeout_s: Seconds = 10.0
    body_timeout_s: Seconds = 30.0
    write_timeout_s: Seconds = 30.0
    idle_timeout_s: Seconds = 75.0
    drain_timeout_s: Seconds = 30.0
    upstream_connect_timeout_s: Seconds = 2.0


class Tls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """PEM files, read again when they change. With `client_ca` a client must show a certificate that it signed."""

    certificate: str
    key: str
    client_ca: str = ""


class Tracing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Traces to an OpenTelemetry collector, over OTLP and HTTP.

    `otlp`: its address; `/v1/traces` is added. `sample`: the share of requests without a `traceparent` whose trace is
    recorded; one with it is as its sender says. Header fields for the collector, a token mostly, come from a file
    (`name: value` a line, read again when it changes) or an environment variable (`name=value,...`, as OTel's
    OTEL_EXPORTER_OTLP_HEADERS), never from here. `queue_spans` wait at most, `timeout_s` is for one batch with all its
    attempts.
    """

    otlp: str
    sample: Annotated[float, Meta(ge=0, le=1)] = 0.01
    headers_file: str = ""
    headers_env: str = ""
    service_name: Annotated[str, Meta(min_length=1, max_length=100)] = "modelfleet-gateway"
    queue_spans: Annotated[int, Meta(ge=64, le=1_000_000)] = 4096
    timeout_s: Annotated[float, Meta(gt=0, le=60)] = 5.0


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One gateway. Tables come from `control_url` (with `token_file`) or, alone, from `table_file`.

    `processes` share its ports; 0 is as many as the machine has cores for it. `auth`: whether a request needs an API
    key of the table. `shadow_samples`: the file that differing answers of shadow versions are sampled to.
    """

    host: str = "127.0.0.1"
    port: Port = 8080
    metrics_host: str = "127.0.0.1"
    metrics_port: Port = 8082
    grpc_port: Port | None = None  # on `host`; None: no gRPC
    control_url: str = ""
    token_file: str = ""
    table_cache: str = ""
    table_file: str = ""
    processes: Annotated[int, Meta(ge=0, le=256)] = 1
    auth: Literal["off", "required"] = "off"
    tls: Tls | None = None
    limits: Limits = Limits()
    log_file: str = ""
    access_log: str = ""  # a file; "": none
    access_log_share: Annotated[float, Meta(ge=0, le=1)] = 1.0
    shadow_samples: str = ""  # a file; "": none
    tracing: Tracing | None = None


def read_config(path: Path) -> Config:
    """Raises `ConfigError`."""
    try:
        raw = path.read_bytes()
    except OSError as exc:
        raise ConfigError(f"{path}: {(exc.strerror or str(exc)).lower()}; it must be a readable JSON file") from exc
    try:
        config = msgspec.json.decode(raw, type=Config)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ConfigError(f"{path}: {exc}; correct the field") from exc
    check(config, str(path))
    return config


def check(config: Config, source: str) -> None:
    """Raises `ConfigError` at the first field that contradicts another."""
    if bool(config.control_url) == bool(config.table_file):
        raise ConfigError(f"{source}: exactly one of control_url and table_file says where tables come from; set one")
    if config.control_url and not config.token_file:
        raise ConfigError(f"{source}: token_file is missing; control_url needs a bearer token; name the file")
    if config.control_url and not config.control_url.startswith(("http://", "https://")):
        raise ConfigError(
            f"{source}: control_url: {config.control_url!r} is not an http:// or https:// URL; correct it"
        )
    if config.tracing is not None:
        _check_tracing(config.tracing, source)
    if config.auth == "off" and not is_loopback(config.host):
        raise ConfigError(
            f"{source}: auth: 'off' on host {config.host!r}; other machines reach it, and without keys any "
            "of them may ask for everything; set auth to required, or host to 127.0.0.1"
        )
    if config.limits.target_bytes > config.limits.head_bytes:
        raise ConfigError(
            f"{source}: limits.target_bytes: {config.limits.target_bytes} is above head_bytes "
            f"({config.limits.head_bytes}); a target is a part of the head; lower it or raise head_bytes"
        )


def _check_tracing(tracing: Tracing, source: str) -> None:
    try:
        url = urlsplit(tracing.otlp)
        is_good = url.scheme in ("http", "https") and bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:
        is_good = False
    if not is_good or url.query or url.fragment:
        raise ConfigError(
            f"{source}: tracing.otlp: {tracing.otlp!r} is no http:// or https:// address; write the collector's, such "
            "as http://127.0.0.1:4318"
        )
    if "@" in url.netloc:
        raise ConfigError(f"{source}: tracing.otlp: it holds a password; put a header into headers_file instead")
    if tracing.headers_file and tracing.headers_env:
        raise ConfigError(f"{source}: tracing: headers_file and headers_env are both set; keep one")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a listener at `host`; a name other than localhost may mean anything."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def limits_from(values: dict[str, Any], source: str) -> Limits:
    """Limits from flags; those left out keep their default. Raises `ConfigError`."""
    try:
        return msgspec.convert(values, Limits)
    except msgspec.ValidationError as exc:
        raise ConfigError(f"{source}: {exc}; correct the flag") from exc


@functools.cache
def release() -> str:
    """Of the installed package; "0" where the source is run without one."""
    try:
        return metadata.version("modelfleet")
    except metadata.PackageNotFoundError:
        return "0"
