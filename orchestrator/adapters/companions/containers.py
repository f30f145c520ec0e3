"""A companion as a container of a Docker Engine on Linux, confined: what it may do, and how it is found again.

It is on the host's network, for gateway and control plane listen on loopback, and the replicas' network has no way out
and is reached by address; so it must listen on loopback alone, as every recipe says. Its directory is mounted to be
read, and `data/` in it to be written. By its role no list of replicas has it.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from pathlib import Path
from typing import Any

from docker.errors import APIError, NotFound
from docker.types import LogConfig, Mount, Ulimit

from orchestrator.adapters._docker_calls import DockerCalls, explain
from orchestrator.adapters._docker_create import CONTAINER_UID, LABEL, TMPFS_OPTIONS
from orchestrator.adapters._docker_host import facts_of
from orchestrator.adapters.companions.kinds import CompanionFailed, Kind, Recipe, Settings
from orchestrator.adapters.companions.running import STOP_TIMEOUT_S, Running, await_answer

DATA = "data"
# A Go program has a thread for each core and each blocked write; what starts more went wrong.
PIDS = 512
# An eighth of the usual weight: where cores are scarce, what serves comes first.
CPU_SHARES = 128
_NO_SUCH_NETWORK = (
    "containers of this engine (Docker Desktop, a rootless one, or one elsewhere) do not reach the loopback of this "
    "machine, where gateway and control plane listen"
)


class Containers:
    """What there is of one cluster on one engine. Blocking; raises `EngineUnavailable` where the engine does."""

    def __init__(self, cluster: str, calls: DockerCalls) -> None:
        self.cluster = cluster
        self.calls = calls

    def complaint(self) -> str:
        """Why no companion can run in a container here, "" where one can."""
        with self.calls.during("ask what it is"):
            published = facts_of(self.calls.quick.info(), self.calls.host()).published
        return _NO_SUCH_NETWORK if published else ""


class Container:
    """The container of one kind and directory. Whoever calls makes sure that it is called once at a time."""

    def __init__(self, kind: Kind, directory: Path, log_file: Path, containers: Containers) -> None:
        self.home = Path("/srv/modelfleet") / kind.name
        self._kind = kind
        self._directory = directory
        self._log_file = log_file
        self._cluster = containers.cluster
        self._calls = containers.calls

    def running(self) -> Running | None:
        for listed in self._list():
            if listed["State"] == "running":
                name = str(listed["Names"][0]).lstrip("/")
                return Running(listed["Id"], listed["Labels"].get(f"{LABEL}.settings", ""), container=name)
        return None

    def how_it_ended(self) -> str:
        """In words, as long as the engine has what is left of it, "" where none ended by itself."""
        left = (each["Id"] for each in self._list() if each["State"] in ("exited", "dead"))
        return next((self._ended(container) for container in left), "")

    def start(self, image: str, recipe: Recipe, settings: Settings) -> Running:
        """Raises `CompanionFailed`, or `OSError` where its directory cannot be given to its user."""
        _give(self._directory)
        digest = recipe.digest(self._kind)
        container, name = self._launch(image, recipe, digest)
        try:
            await_answer(self._kind, settings, lambda: self._ended(container), str(self._log_file))
        except CompanionFailed:
            self._remove(container)
            raise
        return Running(container, digest, container=name)

    def reload(self, running: Running) -> None:
        _give(self._directory)
        with self._calls.during(f"tell {self._kind.title} of new files"):
            self._calls.quick.kill(running.id, signal="SIGHUP")

    def stop(self) -> bool:
        """Ends and removes it, and what is left of others. Returns whether one ran."""
        listed = self._list()
        for each in listed:
            with self._calls.during(f"end {self._kind.title}"), contextlib.suppress(NotFound):
                self._calls.slow.stop(each["Id"], timeout=round(STOP_TIMEOUT_S))
            self._remove(each["Id"])
        return any(each["State"] == "running" for each in listed)

    def _list(self) -> list[dict[str, Any]]:
        labels = [f"{LABEL}.cluster={self._cluster}", f"{LABEL}.role={self._kind.name}"]
        with self._calls.during(f"look for {self._kind.title}"):
            listed: list[dict[str, Any]] = self._calls.quick.containers(all=True, filters={"label": labels})
        return [each for each in listed if each["State"] != "removing"]

    def _launch(self, image: str, recipe: Recipe, digest: str) -> tuple[str, str]:
        """Creates and starts it; its id and its name."""
        with self._calls.during(f"start {self._kind.title}"):
            container, name = self._create(image, recipe, digest)
            try:
                self._calls.slow.start(container)
            except APIError as exc:
                self._remove(container)
                raise CompanionFailed(f"{self._kind.name}: its container cannot start: {explain(exc)}") from exc
        return container, name

    def _create(self, image: str, recipe: Recipe, digest: str) -> tuple[str, str]:
        client = self._calls.slow
        # Go collects harder from there on: better slow for a while than ended by the kernel.
        garbage_from = self._kind.memory_bytes * 9 // 10
        arguments = {
            "image": image,
            "entrypoint": list(self._kind.entrypoint),
            "command": list(recipe.arguments),
            "user": owner(),
            "environment": {"HOME": "/tmp", "GOMEMLIMIT": str(garbage_from), **recipe.environment},
            "labels": {
                f"{LABEL}.cluster": self._cluster,
                f"{LABEL}.role": self._kind.name,
                f"{LABEL}.settings": digest,
            },
            "host_config": client.create_host_config(**host_arguments(self._kind, self._directory, self.home)),
        }
        name = re.sub(r"[^a-zA-Z0-9_.-]+", "_", f"mf-{self._cluster}-{self._kind.name}")
        try:
            return str(client.create_container(name=name, **arguments)["Id"]), name
        except APIError as exc:
            if exc.status_code != 409:
                raise
        # Somebody else's container has the name. It stays as it is: a name is for people, ours gets another.
        name = f"{name}-{secrets.token_hex(4)}"
        return str(client.create_container(name=name, **arguments)["Id"]), name

    def _ended(self, container: str) -> str:
        """How it ended, with its last words, "" while it runs."""
        with self._calls.during(f"ask how {self._kind.title} is"):
            state = self._calls.quick.inspect_container(container)["State"]
            if state["Running"]:
                return ""
            said = self._calls.quick.logs(container, tail=100)
        # The container's own log goes with it.
        with open(self._log_file, "ab") as log:
            log.write(said)
        lines = said.decode(errors="replace").strip().splitlines()
        why = "out of memory" if state.get("OOMKilled") else f"with code {state.get('ExitCode')}"
        return f"{why}: {lines[-1] if lines else state.get('Error') or 'no output'}"

    def _remove(self, container: str) -> None:
        with self._calls.during(f"remove {self._kind.title}"), contextlib.suppress(NotFound):
            self._calls.slow.remove_container(container, v=True, force=True)


def host_arguments(kind: Kind, directory: Path, home: Path) -> dict[str, Any]:
    """Keyword arguments of `APIClient.create_host_config`: the confinement."""
    return {
        "network_mode": "host",
        # An engine that maps users refuses the host's network otherwise; the user is none that may do much.
        "userns_mode": "host",
        "read_only": True,
        "tmpfs": {"/tmp": TMPFS_OPTIONS},
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "pids_limit": PIDS,
        "mem_limit": kind.memory_bytes,
        "memswap_limit": kind.memory_bytes,
        "cpu_shares": CPU_SHARES,
        "ulimits": [Ulimit(name="core", soft=0, hard=0)],
        "restart_policy": {"Name": "no"},
        "log_config": LogConfig(type="json-file", config={"max-size": "10m", "max-file": "3"}),
        "mounts": [
            Mount(str(home), str(directory.resolve()), type="bind", read_only=True),
            Mount(str(home / DATA), str((directory / DATA).resolve()), type="bind"),
        ],
        "ipc_mode": "private",
    }


def owner() -> str:
    """User and group inside, and the owner of its files: ours, or nobody where we are root."""
    return CONTAINER_UID if os.geteuid() == 0 else f"{os.geteuid()}:{os.getegid()}"


def _give(directory: Path) -> None:
    """Lets the user inside read its directory and write its data. For anybody but root they are that user's already."""
    if os.geteuid() != 0:
        return
    user, group = map(int, owner().split(":"))
    # `walk` passes over what is removed meanwhile by one that runs.
    for folder, _, names in os.walk(directory):
        for path in (Path(folder), *(Path(folder, name) for name in names)):
            with contextlib.suppress(FileNotFoundError):
                if path.lstat().st_uid != user:
                    os.chown(path, user, group, follow_symlinks=False)
