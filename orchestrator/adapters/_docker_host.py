"""What kind of Docker Engine this is: what it can limit, how its containers are reached, what is wrong with it.

Pure functions of the engine's own `info`, but for the look at the disk under its data. `doctor` prints the problems.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

DISK_LOW_BYTES = 3 * 1024**3
_LOCAL_HOSTS = {"", "localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True, slots=True)
class Facts:
    """`published`: containers are reached by a port on 127.0.0.1, not by their address. `init`: docker-init exists."""

    version: str
    cpus: int
    memory_bytes: int
    published: bool
    init: bool
    problems: tuple[str, ...]


def facts_of(info: Mapping[str, Any], host: str) -> Facts:
    published = is_published(info, host)
    return Facts(
        version=str(info.get("ServerVersion", "")),
        cpus=int(info.get("NCPU", 0)),
        memory_bytes=int(info.get("MemTotal", 0)),
        published=published,
        init=_has_init(info),
        problems=tuple(_problems(info, host, published)),
    )


def is_published(info: Mapping[str, Any], host: str) -> bool:
    """Whether a container's own address is out of reach from here.

    It is within reach only where the engine's bridge is in our network namespace: Linux, a local socket, no virtual
    machine (Docker Desktop) and no user namespace (rootless). The price of a published port: Docker publishes none
    from an internal network, so that replicas there are not kept from calling out.
    """
    rootless = any("rootless" in str(option) for option in info.get("SecurityOptions") or ())
    desktop = "docker desktop" in str(info.get("OperatingSystem", "")).lower()
    return sys.platform != "linux" or rootless or desktop or not is_local(host)


def is_local(host: str) -> bool:
    parts = urlsplit(host)
    return parts.scheme in ("unix", "npipe", "http+unix") or (parts.hostname or "") in _LOCAL_HOSTS


def _has_init(info: Mapping[str, Any]) -> bool:
    """An engine that could not run docker-init says N/A; with `init: true` each of its starts would fail.

    An empty commit is fine: Debian's docker-init does not say what it was built from.
    """
    commit = info.get("InitCommit")
    return commit is not None and commit.get("ID") != "N/A"


def _problems(info: Mapping[str, Any], host: str, published: bool) -> list[str]:
    problems = [sentence for key, sentence in _MISSING.items() if info.get(key) is False]
    if info.get("OSType", "linux") != "linux":
        problems.append(f"the engine runs {info['OSType']} containers; models need Linux containers; switch it over")
    if not is_local(host):
        problems.append(
            f"the engine at {host} is on another machine; replicas mount files of this one; unset DOCKER_HOST"
        )
    elif published:
        problems.append(
            "replicas are reached through published ports (Docker Desktop or a rootless engine), so models are not "
            "kept from calling out; use a Linux host with an engine run by root where that matters"
        )
    return problems + _disk_problems(str(info.get("DockerRootDir", "")), host)


def _disk_problems(root: str, host: str) -> list[str]:
    if not root or not is_local(host):
        return []
    try:
        free = shutil.disk_usage(root).free
    except OSError:  # in a virtual machine, or not ours to read
        return []
    if free >= DISK_LOW_BYTES:
        return []
    return [
        f"disk under {root}: {free / 1024**3:.1f} GiB free, builds need about 3 GiB; free some (`docker image prune`)"
    ]


_MISSING = {
    "MemoryLimit": "the kernel cannot limit memory, so one model can take it all; boot with cgroup_enable=memory",
    "SwapLimit": "the kernel cannot limit swap, so a model may swap beyond its memory; boot with swapaccount=1",
    "PidsLimit": "the kernel cannot limit processes, so a model can start any number; enable the pids cgroup",
    "CpuCfsQuota": "the kernel cannot limit CPU time, so one model can take it all; enable CONFIG_CFS_BANDWIDTH",
    "BridgeNfIptables": "bridge-nf-call-iptables is off, so models can reach each other; load br_netfilter "
    "(`modprobe br_netfilter`, `sysctl net.bridge.bridge-nf-call-iptables=1`)",
}
