"""What a container is created with: names, labels, environment and every limit that confines a model.

Pure functions from a `Launch` to the arguments of Docker's create call. SECURITY.md promises what stands here, and
tests/integration/test_engine_hardening.py tries each forbidden thing from inside.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docker.types import LogConfig, Mount, Ulimit

from orchestrator.adapters.engine import Launch

CONTAINER_UID = "65534:65534"
MODEL_DIR = "/model"
SECRETS_DIR = "/run/secrets"
# For temporary files of libraries; it counts against the memory limit, so it can't be an escape from that.
TMPFS_OPTIONS = "rw,noexec,nosuid,nodev,size=64m,mode=1777"
LABEL = "modelfleet"
# A container on an internal network still has Docker's resolver, and engines before 23.0.11 let it ask the host's
# resolver, a way out (CVE-2024-29018). A server named here is asked from inside the container, where nothing listens
# on loopback. Docker's resolver stays silent then, so the options bound how long a library that tries is held up: 1 s.
NO_RESOLVER = "127.0.0.1"
NO_RESOLVER_OPTIONS = ["timeout:1", "attempts:1"]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where and how a cluster's containers run: what the engine can do, found out once by `prepare`."""

    cluster: str
    network: str
    egress_network: str
    published: bool
    init: bool


def labels_of(cluster: str, launch: Launch, created_at: float) -> dict[str, str]:
    return {
        f"{LABEL}.cluster": cluster,
        f"{LABEL}.model": launch.spec.model,
        f"{LABEL}.version": launch.spec.version,
        f"{LABEL}.revision": str(launch.revision),
        f"{LABEL}.spec": launch.digest,
        f"{LABEL}.role": "replica",
        f"{LABEL}.replica": launch.replica_id,
        f"{LABEL}.port": str(launch.spec.port),
        # The engine's own list knows whole seconds only, and a cold start takes one.
        f"{LABEL}.created_at": f"{created_at:.3f}",
    }


def container_name(cluster: str, launch: Launch, suffix: str) -> str:
    """For people only: whose container it is stands in its labels."""
    parts = ("mf", cluster, launch.spec.model, launch.spec.version, suffix)
    return "-".join(re.sub(r"[^a-zA-Z0-9_.-]+", "_", part) for part in parts)


def environment(launch: Launch, *, model_dir: str, secrets_dir: str, host: str, port: int) -> dict[str, str]:
    """The contract's variables. The version's own `env` comes first, so that it cannot replace one of them."""
    spec = launch.spec
    secrets = {"MODELFLEET_SECRETS_DIR": secrets_dir} if secrets_dir else {}
    return {
        **dict(spec.env),
        **secrets,
        "MODELFLEET_MODEL": spec.model,
        "MODELFLEET_VERSION": spec.version,
        "MODELFLEET_BACKEND": spec.backend,
        "MODELFLEET_MODEL_DIR": model_dir,
        "MODELFLEET_HOST": host,
        "MODELFLEET_PORT": str(port),
        "MODELFLEET_SETTINGS": spec.settings,
        "MODELFLEET_CPUS": f"{spec.resources.cpus:g}",
        "MODELFLEET_MEMORY_BYTES": str(spec.resources.memory_bytes),
    }


def create_arguments(launch: Launch, place: Placement, name: str, created_at: float) -> dict[str, Any]:
    """Keyword arguments of `APIClient.create_container`, but for `host_config`, which is `host_arguments`."""
    spec = launch.spec
    secrets_dir = SECRETS_DIR if launch.secrets else ""
    variables = environment(launch, model_dir=MODEL_DIR, secrets_dir=secrets_dir, host="0.0.0.0", port=spec.port)
    return {
        "image": spec.runtime,
        "name": name,
        "user": CONTAINER_UID,
        "labels": labels_of(place.cluster, launch, created_at),
        # Its user has no home, and libraries that want to write there fail at import.
        "environment": {"HOME": "/tmp", **variables},
        "ports": [spec.port],
        # What has no terminal cannot be attached to, and a custom image's shell ends at once instead of waiting.
        "tty": False,
        "stdin_open": False,
        # Replicas answer to an address; a name in DNS would only let models look for each other.
        "hostname": "replica",
    }


def host_arguments(launch: Launch, place: Placement, secrets_dir: Path | None) -> dict[str, Any]:
    """Keyword arguments of `APIClient.create_host_config`: the confinement, the same for every image."""
    spec = launch.spec
    arguments: dict[str, Any] = {
        "read_only": True,
        "tmpfs": {"/tmp": TMPFS_OPTIONS},
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "pids_limit": spec.resources.pids,
        "mem_limit": spec.resources.memory_bytes,
        # Equal to mem_limit: no swap. A model that swaps answers late instead of failing where one sees why.
        "memswap_limit": spec.resources.memory_bytes,
        "nano_cpus": round(spec.resources.cpus * 1_000_000_000),
        # A core dump would write the model's memory to the host. Open files stay at the engine's own limit: to name
        # one above it makes every start fail, because the container may not raise it.
        "ulimits": [Ulimit(name="core", soft=0, hard=0)],
        # Restarting is the control plane's decision, with back-off and a reason.
        "restart_policy": {"Name": "no"},
        "log_config": LogConfig(type="json-file", config={"max-size": "10m", "max-file": "3"}),
        "mounts": _mounts(launch, secrets_dir),
        "network_mode": place.egress_network if spec.egress else place.network,
        "ipc_mode": "private",
    }
    if not spec.egress:
        arguments["dns"] = [NO_RESOLVER]
        arguments["dns_opt"] = NO_RESOLVER_OPTIONS
    if place.init:
        arguments["init"] = True
    if place.published:
        arguments["port_bindings"] = {spec.port: ("127.0.0.1", None)}
    return arguments


def endpoint_of(listed: Mapping[str, Any], port: int, published: bool) -> tuple[str, int]:
    """Where the control plane and the gateway reach a listed container, ("", 0) while it has no address."""
    if published:
        ports = listed.get("Ports") or []
        public = [int(p["PublicPort"]) for p in ports if p.get("PrivatePort") == port and p.get("PublicPort")]
        return ("127.0.0.1", public[0]) if public else ("", 0)
    networks = (listed.get("NetworkSettings") or {}).get("Networks") or {}
    addresses = [str(n["IPAddress"]) for n in networks.values() if n.get("IPAddress")]
    return (addresses[0], port) if addresses else ("", 0)


def _mounts(launch: Launch, secrets_dir: Path | None) -> list[Mount]:
    mounts = []
    if launch.artifact_dir is not None:
        mounts.append(Mount(MODEL_DIR, str(launch.artifact_dir.resolve()), type="bind", read_only=True))
    if secrets_dir is not None:
        mounts.append(Mount(SECRETS_DIR, str(secrets_dir.resolve()), type="bind", read_only=True))
    return mounts
