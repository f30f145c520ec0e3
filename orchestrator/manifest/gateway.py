"""The fields of a manifest's `gateway:` section: where clients reach the models, who may, and what is borne from them.

The bounds are those of `router/config.py`, and a test holds them to it: a manifest that passes must give settings that
a gateway can start with.
"""

# ruff: noqa: RUF009  (`setting()` makes a dataclasses.field)

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Literal

from orchestrator.manifest.groups import Group, GroupOrFlag, setting
from orchestrator.manifest.kinds import DAY_S, GI, KI, MI, Choice, Integer, IntegerOr, Number, Size, Text

PATH = Text("the path of a file")
# `gateway.processes: auto`, as the gateway knows it.
AS_MANY_AS_CORES = 0
# `gateway.grpc_port: off`.
NO_GRPC = 0


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    """What the gateway bears from one client or connection (the keys of docs/CONTRACTS.md)."""

    head_bytes: int = setting(Size(KI, MI), "Request line and header fields together; beyond it 431.", default=32 * KI)
    fields: int = setting(Integer(8, 10_000), "Header fields of one request; beyond it 431.", default=100)
    target_bytes: int = setting(
        Size(KI, 64 * KI), "The request target (path and query), a part of the head; beyond it 414.", default=8 * KI
    )
    body_bytes: int = setting(Size(KI, 64 * GI), "The body of a request; beyond it 413.", default=64 * MI)
    buffer_bytes: int = setting(
        Size(KI, 64 * MI), "Bodies up to this size are held whole; larger ones stream.", default=MI
    )
    held_bytes: int = setting(Size(MI, 1024 * GI), "All held bodies together; beyond it 503.", default=256 * MI)
    connections: int = setting(Integer(1, 1_000_000), "Client connections at one time.", default=20_000)
    connections_per_address: int = setting(
        Integer(1, 1_000_000), "Client connections of one address; loopback is not counted.", default=2_000
    )
    requests_per_connection: int = setting(
        Integer(1, 1_000_000_000), "Requests after which a connection is closed.", default=1_000_000
    )
    header_timeout_s: float = setting(Number(0.1, 3600), "Seconds for the head of a request to arrive.", default=10.0)
    body_timeout_s: float = setting(Number(0.1, 3600), "Seconds without a byte while a body arrives.", default=30.0)
    write_timeout_s: float = setting(
        Number(0.1, 3600), "Seconds in which a client takes nothing of its answer.", default=30.0
    )
    idle_timeout_s: float = setting(Number(1, DAY_S), "Seconds that an idle connection is kept.", default=75.0)
    drain_timeout_s: float = setting(
        Number(0.1, 3600), "Seconds to finish requests when the gateway stops.", default=30.0
    )
    upstream_connect_timeout_s: float = setting(
        Number(0.05, 300), "Seconds to connect to a replica before another is tried.", default=2.0
    )


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """PEM files, relative to the manifest."""

    certificate: str = setting(PATH, "The certificate, with its chain.")
    key: str = setting(PATH, "Its private key, without a password.")
    client_ca: str | None = setting(
        PATH, "Whose certificates clients must show. Left out: clients show none.", default=None
    )


@dataclass(frozen=True, slots=True)
class AccessLogConfig:
    """One JSON line a request in `logs/access.log`."""

    share: float = setting(Number(0, 1), "The share of requests that is logged.", default=1.0)


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """Where clients reach the models."""

    host: str = setting(
        Text(
            "an address or host name, such as 127.0.0.1 or 0.0.0.0",
            r"[A-Za-z0-9][A-Za-z0-9.-]*|[0-9A-Fa-f]*:[0-9A-Fa-f:.]+",
            253,
        ),
        "The address to listen on; 0.0.0.0 is every interface. Other than loopback needs `auth: required`.",
        default="127.0.0.1",
    )
    port: int = setting(Integer(1, 65_535), "The port for predictions.", default=8080)
    grpc_port: int = setting(
        IntegerOr("off", NO_GRPC, Integer(1, 65_535)),
        "The port for predictions over gRPC, on the same address and with the same `tls`; off opens none.",
        default=8081,
    )
    metrics_port: int = setting(
        Integer(1, 65_535), "The port for metrics and health, always on loopback.", default=8082
    )
    processes: int = setting(
        IntegerOr("auto", AS_MANY_AS_CORES, Integer(1, 256)),
        "Processes that share the port; auto is one for each core.",
        default=1,
    )
    auth: Literal["off", "required"] = setting(
        Choice(("off", "required")),
        "Whether a request needs a key (`modelfleet keys create`). `off` is for loopback alone.",
        default="off",
    )
    tls: TlsConfig | None = setting(
        Group(TlsConfig), "HTTPS in place of HTTP; the files are read again when they change.", default=None
    )
    access_log: AccessLogConfig | None = setting(
        GroupOrFlag(Group(AccessLogConfig)), "One JSON line a request in `logs/access.log`.", default=None
    )
    limits: LimitsConfig = setting(Group(LimitsConfig), "What is borne from a client.", factory=LimitsConfig)

    @property
    def is_open(self) -> bool:
        """Whether others than this machine may ask without a key."""
        return self.auth == "off" and not is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether nothing but this machine reaches `host`; a name other than localhost may be anything."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
