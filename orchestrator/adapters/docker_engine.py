"""Replicas as containers of a Docker Engine: starts, lists, follows and ends those with our cluster's label.

What a container may do is decided in `_docker_create.py`, what an error means in `_docker_calls.py`, which image it
runs in `images.py`. Nothing is remembered that the engine knows: after a restart of ours, labels say whose is what. A
container without our cluster's label is never stopped, removed or renamed, whatever its name.
"""

from __future__ import annotations

import contextlib
import json
import secrets as random_names
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from docker.errors import APIError, NotFound, create_api_error_from_http_exception
from requests import HTTPError

from orchestrator.adapters._docker_calls import QUICK_TIMEOUT_S, DockerCalls, explain
from orchestrator.adapters._docker_create import (
    LABEL,
    Placement,
    container_name,
    create_arguments,
    endpoint_of,
    host_arguments,
)
from orchestrator.adapters._docker_host import Facts, facts_of
from orchestrator.adapters._docker_networks import ClusterNetworks
from orchestrator.adapters._docker_stream import ended_by, read_log
from orchestrator.adapters._docker_usage import ContainerUsage
from orchestrator.adapters._exits import LOG_READ_LINES, describe_exit
from orchestrator.adapters._replica_dir import ReplicaDirs
from orchestrator.adapters.engine import (
    EngineEvent,
    EngineReplica,
    EngineStatus,
    EngineUnavailable,
    Launch,
    LogLine,
    Progress,
    ReplicaUsage,
    RuntimeRequest,
    StartFailed,
)
from orchestrator.adapters.images import ImageBuilder
from orchestrator.core.entities import Exit, VersionKey
from orchestrator.core.errors import NotFoundError

EVENT_KINDS = ("start", "die", "oom", "stop", "destroy", "pause", "unpause")
RECONNECT_MAX_S = 2.0
# Another container's removal of the same id (ours, cut short, or an operator's) ends within this time.
REMOVAL_TIMEOUT_S = 30.0
TEARDOWN_GRACE_S = 5.0
PARALLEL_STOPS = 8
_NAME_TRIES = 5
_ENDED = {"exited", "dead"}
# What the engine says of a container that is removed: already, or at this moment.
_GONE = {404, 409}


class DockerEngine:
    """See `Engine`. `base_image` is what worker images are built on (None: found out, see `images.py`)."""

    name = "docker"

    def __init__(
        self,
        cluster: str,
        state_dir: Path,
        base_image: str | None = None,
        *,
        host: str | None = None,
        timeout_s: float = QUICK_TIMEOUT_S,
    ) -> None:
        self.cluster = cluster
        self.images = ImageBuilder(state_dir, base_image, calls := DockerCalls(host, timeout_s))
        self.calls = self._calls = calls
        self._networks = ClusterNetworks(cluster, calls)
        self._dirs = ReplicaDirs(state_dir / "containers" / cluster)
        self._placement: Placement | None = None
        # Ids that this process has begun to start: a container of theirs that does not run yet was not abandoned.
        self._started: set[str] = set()
        self._exits: dict[str, Exit] = {}
        # The engine's own id of each replica that was listed last.
        self._containers: dict[str, str] = {}
        # Of those, the ones that ran.
        self._running: dict[str, str] = {}
        self._usage = ContainerUsage(calls)

    # -- the engine itself ---------------------------------------------------------------------------------------

    def status(self) -> EngineStatus:
        facts = self._facts()
        return EngineStatus("docker", facts.version, facts.cpus, facts.memory_bytes, facts.problems)

    def prepare(self) -> None:
        facts = self._facts()
        self._dirs.prepare()
        place = self._place(facts)
        self._networks.ensure_default(place)
        self._placement = place
        self._remove_abandoned_dirs()

    def runtime_id(self, request: RuntimeRequest) -> str:
        return self.images.runtime_id(request)

    def ensure_runtime(self, request: RuntimeRequest, progress: Progress | None = None) -> str:
        return self.images.ensure(request, progress)

    # -- replicas --------------------------------------------------------------------------------------------------

    def start(self, launch: Launch) -> None:
        self._started.add(launch.replica_id)
        if self._start_found(launch):
            return
        place = self._placed()
        self._networks.ensure_for(launch, place)
        try:
            self._create_and_start(launch, place)
        except BaseException:
            self._started.discard(launch.replica_id)
            raise

    def stop(self, replica_id: str, grace_s: float) -> None:
        for listed in self._list(replica_id):
            self._stop_container(listed["Id"], grace_s)
        self._dirs.remove(replica_id)
        self._started.discard(replica_id)

    def pause(self, replica_id: str) -> None:
        with self._calls.during("pause a replica"):
            self._set_paused(replica_id, self._calls.slow.pause, "already paused")

    def unpause(self, replica_id: str) -> None:
        with self._calls.during("wake a replica"):
            self._set_paused(replica_id, self._calls.slow.unpause, "not paused")

    def replicas(self) -> list[EngineReplica]:
        published = self._placed().published
        listed = self._list()
        self._exits = {id_: end for id_, end in self._exits.items() if any(c["Id"] == id_ for c in listed)}
        self._containers = {c["Labels"][f"{LABEL}.replica"]: c["Id"] for c in listed}
        found = [self._replica(container, published) for container in listed]
        self._running = {replica.id: replica.engine_id for replica in found if replica.running}
        return found

    def usage(self) -> list[ReplicaUsage]:
        return self._usage.read(dict(self._running))

    def logs(
        self, replica_id: str, tail: int = 100, follow: bool = False, stopped: threading.Event | None = None
    ) -> Iterator[LogLine]:
        listed = self._list(replica_id)
        if not listed:
            raise NotFoundError(f"replica {replica_id!r}: not found; it ended and was removed; see `modelfleet events`")
        return self._log_lines(listed[0]["Id"], replica_id, tail, follow, stopped)

    def events(self, stopped: threading.Event) -> Iterator[EngineEvent]:
        pause_s = 0.0
        while not stopped.wait(pause_s):
            try:
                for event in self._subscribe(stopped):
                    pause_s = 0.0
                    yield event
            except EngineUnavailable:
                # Said by the next list call, which the reconcile loop makes anyway; here it is only waited out.
                pass
            pause_s = min(RECONNECT_MAX_S, pause_s * 2 or 0.1)

    def teardown(self) -> None:
        containers = [listed["Id"] for listed in self._list()]
        with ThreadPoolExecutor(PARALLEL_STOPS, thread_name_prefix="teardown") as pool:
            list(pool.map(lambda container: self._stop_container(container, TEARDOWN_GRACE_S), containers))
        for replica_id in self._dirs.ids():
            self._dirs.remove(replica_id)
        self._networks.remove_all()
        self._placement = None
        self._started.clear()

    def close(self) -> None:
        self._calls.close()

    # -- the engine itself, below ------------------------------------------------------------------------------------

    def _facts(self) -> Facts:
        with self._calls.during("ask what it is"):
            return facts_of(self._calls.quick.info(), self._calls.host())

    def _place(self, facts: Facts) -> Placement:
        network = f"modelfleet-{self.cluster}"
        return Placement(self.cluster, network, f"{network}-egress", facts.published, facts.init)

    def _placed(self) -> Placement:
        """What `prepare` found out; asked for again where a caller lists before it prepares."""
        if self._placement is None:
            self._placement = self._place(self._facts())
        return self._placement

    def _remove_abandoned_dirs(self) -> None:
        """Secrets of replicas that somebody removed while no control plane was up."""
        present = {listed["Labels"][f"{LABEL}.replica"] for listed in self._list()}
        for replica_id in self._dirs.ids():
            if replica_id not in present and replica_id not in self._started:
                self._dirs.remove(replica_id)

    # -- start and stop, below ---------------------------------------------------------------------------------------

    def _start_found(self, launch: Launch) -> bool:
        """Whether this replica exists. One that was created and never started is removed, to be made again."""
        found = self._list(launch.replica_id)
        for listed in found:
            if listed["State"] == "created":
                self._remove(listed["Id"])
                found = [other for other in found if other is not listed]
        return bool(found)

    def _create_and_start(self, launch: Launch, place: Placement) -> None:
        with self._calls.during(f"start a replica of {launch.spec.key}"):
            container = ""
            try:
                secrets_dir = self._dirs.write_secrets(launch.replica_id, launch.secrets)
                container = self._create(launch, place, secrets_dir)
                self._calls.slow.start(container)
            except APIError as exc:
                self._discard(container, launch.replica_id)
                raise StartFailed(_start_sentence(launch, exc)) from exc
            except BaseException:
                self._discard(container, launch.replica_id)
                raise

    def _create(self, launch: Launch, place: Placement, secrets_dir: Path | None) -> str:
        client = self._calls.slow
        host_config = client.create_host_config(**host_arguments(launch, place, secrets_dir))
        suffix = launch.replica_id[-8:]
        for _ in range(_NAME_TRIES):
            name = container_name(self.cluster, launch, suffix)
            try:
                arguments = create_arguments(launch, place, name, time.time())
                return str(client.create_container(**arguments, host_config=host_config)["Id"])
            except APIError as exc:
                if exc.status_code != 409:
                    raise
            # Somebody else's container has the name. It stays as it is: a name is for people, ours gets another.
            suffix = random_names.token_hex(4)
        raise StartFailed(f"{launch.spec.key}: cannot start: {_NAME_TRIES} container names in a row were taken")

    def _discard(self, container: str, replica_id: str) -> None:
        """After a failed start. What cannot be removed now is listed as never started, and removed by a later stop."""
        if container:
            with contextlib.suppress(EngineUnavailable):
                self._remove(container)
        self._dirs.remove(replica_id)

    def _set_paused(self, replica_id: str, call: Callable[[str], None], done_already: str) -> None:
        """`call` by the container's id where this process knows it, which spares a list: a request may wait."""
        container = self._containers.get(replica_id) or self._container_of(replica_id)
        try:
            call(container)
        except NotFound:
            raise _no_such(replica_id) from None
        except APIError as exc:
            # The engine has one status for "it is so already" and for "it does not run": only its words differ.
            said = explain(exc)
            if "is not running" in said:
                raise _no_such(replica_id) from exc
            if done_already not in said:
                raise

    def _container_of(self, replica_id: str) -> str:
        for listed in self._list(replica_id):
            return str(listed["Id"])
        raise _no_such(replica_id)

    def _stop_container(self, container: str, grace_s: float) -> None:
        with self._calls.during("stop a replica"), contextlib.suppress(NotFound):
            with contextlib.suppress(APIError):  # a paused one sees no SIGTERM; one that is not says so
                self._calls.slow.unpause(container)
            self._calls.slow.stop(container, timeout=max(0, round(grace_s)))
        self._remove(container)

    def _remove(self, container: str) -> None:
        """Returns when it is gone. Raises when it is not: a replica that we failed to remove must stay in sight."""
        deadline = time.monotonic() + REMOVAL_TIMEOUT_S
        while True:
            try:
                with self._calls.during("remove a replica"):
                    try:
                        self._calls.slow.remove_container(container, v=True, force=True)
                        return
                    except NotFound:
                        return
                    except APIError as exc:
                        if exc.status_code != 409 or time.monotonic() > deadline:
                            raise
            finally:
                self._exits.pop(container, None)
            time.sleep(0.1)  # "removal is already in progress": somebody else's, to be waited for

    # -- what there is, below ----------------------------------------------------------------------------------------

    def _list(self, replica_id: str = "") -> list[dict[str, Any]]:
        labels = [f"{LABEL}.cluster={self.cluster}", f"{LABEL}.role=replica"]
        if replica_id:
            labels.append(f"{LABEL}.replica={replica_id}")
        with self._calls.during("list the replicas"):
            listed: list[dict[str, Any]] = self._calls.quick.containers(all=True, filters={"label": labels})
        return [container for container in listed if container["State"] != "removing"]

    def _replica(self, listed: dict[str, Any], published: bool) -> EngineReplica:
        labels, state = listed["Labels"], listed["State"]
        running = state in ("running", "paused", "restarting")
        host, port = endpoint_of(listed, int(labels.get(f"{LABEL}.port", 0)), published) if running else ("", 0)
        return EngineReplica(
            id=labels[f"{LABEL}.replica"],
            key=VersionKey(labels[f"{LABEL}.model"], labels[f"{LABEL}.version"]),
            digest=labels[f"{LABEL}.spec"],
            revision=int(labels.get(f"{LABEL}.revision", 0)),
            created_at=float(labels.get(f"{LABEL}.created_at", listed["Created"])),
            running=running,
            paused=state == "paused",
            host=host,
            port=port,
            exit=None if running else self._exit(listed["Id"], labels[f"{LABEL}.replica"], state),
            engine_id=listed["Id"],
        )

    def _exit(self, container: str, replica_id: str, state: str) -> Exit | None:
        if state == "created":
            if replica_id in self._started:
                return None
            return describe_exit(None, (), engine_error="was created but never started: the control plane ended first")
        if container not in self._exits:
            end = self._inspect_exit(container, replica_id)
            if end is None:
                return describe_exit(None, ())
            self._exits[container] = end
        return self._exits[container]

    def _inspect_exit(self, container: str, replica_id: str) -> Exit | None:
        """None: it was removed between the list and the look at it."""
        with self._calls.during("ask how a replica ended"):
            try:
                inspected = self._calls.quick.inspect_container(container)
                tail = [line.text for line in self._read_log(container, replica_id, LOG_READ_LINES)]
            except APIError as exc:
                if exc.status_code not in _GONE:
                    raise
                return None
        state, limits = inspected["State"], inspected["HostConfig"]
        return describe_exit(
            state.get("ExitCode"),
            tail,
            oom_killed=bool(state.get("OOMKilled")),
            memory_bytes=int(limits.get("Memory") or 0),
            engine_error=str(state.get("Error") or ""),
        )

    # -- streams, below ------------------------------------------------------------------------------------------------

    def _log_response(self, container: str, tail: int, follow: bool) -> Any:
        # The SDK's logs() drops which stream a line came from; this is the same call with its framing kept.
        client = self._calls.quick
        parameters: dict[str, str | int] = {
            "stdout": 1,
            "stderr": 1,
            "timestamps": 1,
            "tail": tail,
            "follow": int(follow),
        }
        timeout = (client.timeout, None if follow else client.timeout)
        url = f"{client.base_url}/v{client.api_version}/containers/{container}/logs"
        response = client.get(url, params=parameters, stream=True, timeout=timeout)
        try:
            response.raise_for_status()
        except HTTPError as exc:
            create_api_error_from_http_exception(exc)  # raises NotFound or another APIError, as the SDK's own calls do
        return response

    def _read_log(self, container: str, replica_id: str, tail: int) -> list[LogLine]:
        response = self._log_response(container, tail, follow=False)
        with response:
            return list(read_log(response, replica_id))

    def _log_lines(
        self, container: str, replica_id: str, tail: int, follow: bool, stopped: threading.Event | None
    ) -> Iterator[LogLine]:
        with self._calls.during("read a replica's log"):
            try:
                response = self._log_response(container, tail, follow)
            except APIError as exc:
                if exc.status_code not in _GONE:
                    raise
                return
            with ended_by(stopped, response):
                try:
                    yield from read_log(response, replica_id)
                except Exception:
                    if stopped is None or not stopped.is_set():
                        raise

    def _subscribe(self, stopped: threading.Event) -> Iterator[EngineEvent]:
        """One connection's events. It begins a second in the past, so that nothing falls between two connections."""
        labels = [f"{LABEL}.cluster={self.cluster}", f"{LABEL}.role=replica"]
        filters = {"type": "container", "event": list(EVENT_KINDS), "label": labels}
        with self._calls.during("follow its events"):
            client = self._calls.quick
            parameters = {"filters": json.dumps({k: [v] if isinstance(v, str) else v for k, v in filters.items()})}
            response = client.get(
                f"{client.base_url}/v{client.api_version}/events",
                params={**parameters, "since": int(time.time()) - 1},
                stream=True,
                timeout=(client.timeout, None),
            )
            response.raise_for_status()
            with ended_by(stopped, response):
                yield EngineEvent("resync")
                try:
                    for line in response.iter_lines(chunk_size=1):
                        if line:
                            yield _event(json.loads(line))
                except Exception:
                    if not stopped.is_set():
                        raise


def _event(told: dict[str, Any]) -> EngineEvent:
    attributes = (told.get("Actor") or {}).get("Attributes") or {}
    return EngineEvent(kind=str(told.get("Action", "")), replica_id=attributes.get(f"{LABEL}.replica", ""))


def _no_such(replica_id: str) -> NotFoundError:
    return NotFoundError(f"replica {replica_id!r}: it does not run; see `modelfleet events`")


def _start_sentence(launch: Launch, exc: APIError) -> str:
    said = explain(exc)
    advice = "see `modelfleet doctor`"
    if "No such image" in said:
        advice = "the image was removed from the engine; apply again to build or pull it"
    elif "CPUs" in said or "memory limit" in said.lower():
        advice = "change `resources` of this version"
    elif "no space left" in said.lower():
        advice = "free disk space where Docker keeps its data"
    return f"{launch.spec.key}: cannot start: {said}; {advice}"
