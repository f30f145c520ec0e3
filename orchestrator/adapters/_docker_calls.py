"""The one connection to a Docker Engine: which engine, with which timeouts, and what its errors mean.

Everything that talks to Docker goes through `DockerCalls`, and every exception of the SDK, requests and urllib3 leaves
it as one of ours with a sentence. Nothing connects before the first call, so that a constructor never fails or blocks.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import docker
import requests
import urllib3
from docker.auth import get_config_header, resolve_repository_name
from docker.context import ContextAPI
from docker.errors import APIError, DockerException, create_api_error_from_http_exception
from docker.utils import kwargs_from_env, parse_repository_tag

from orchestrator.adapters.engine import EngineUnavailable

# A list call takes 5 ms on a healthy engine; one that took 10 s is as good as away.
QUICK_TIMEOUT_S = 10.0
# Create, start and remove wait for disks and for the kernel's network lock when many start at once.
SLOW_TIMEOUT_S = 90.0
# Connections kept for reuse: as many as the loops have threads.
POOL_SIZE = 32

_TRANSPORT_ERRORS = (
    requests.exceptions.RequestException,
    urllib3.exceptions.HTTPError,
    DockerException,
    OSError,
    json.JSONDecodeError,
)


class DockerCalls:
    """Clients of one engine, made on first use. `host` as DOCKER_HOST; None: that variable, or Docker's context."""

    def __init__(self, host: str | None = None, timeout_s: float = QUICK_TIMEOUT_S) -> None:
        self._host = host
        self._timeout_s = timeout_s
        self._clients: dict[float, Any] = {}
        # Guards `_clients`.
        self._lock = threading.Lock()

    @property
    def quick(self) -> Any:
        """For calls that only read."""
        return self._client(self._timeout_s)

    @property
    def slow(self) -> Any:
        """For calls that make, start and remove."""
        return self._client(self._timeout_s * (SLOW_TIMEOUT_S / QUICK_TIMEOUT_S))

    def with_timeout(self, timeout_s: float) -> Any:
        """For the few calls with a length of their own: imports."""
        return self._client(timeout_s)

    def pull(self, reference: str, silence_s: float, most_s: float = math.inf) -> None:
        """Pulls an image, as long as the engine says something each `silence_s` and it takes no more than `most_s`.

        The SDK's own call waits for ever for a registry that does not answer. To be called inside `during`; raises
        `APIError` where the registry has no such image.
        """
        client = self.with_timeout(silence_s)
        repository, tag = parse_repository_tag(reference)
        header = get_config_header(client, resolve_repository_name(repository)[0])
        deadline = time.monotonic() + most_s
        response = client.post(
            f"{client.base_url}/v{client.api_version}/images/create",
            params={"fromImage": repository, "tag": tag or "latest"},
            headers={"X-Registry-Auth": header} if header else {},
            stream=True,
            timeout=silence_s,
        )
        with response:
            try:
                response.raise_for_status()
            except requests.HTTPError as exc:
                create_api_error_from_http_exception(exc)
            for line in response.iter_lines():
                if error := json.loads(line or b"{}").get("error"):
                    raise APIError(error, explanation=error)
                if time.monotonic() > deadline:
                    raise APIError(reference, explanation=f"not done within {most_s:.0f} s")

    def host(self) -> str:
        """The engine's address, for people and for deciding how replicas are reached."""
        return self._host or os.environ.get("DOCKER_HOST") or _context_host() or "unix:///var/run/docker.sock"

    @contextlib.contextmanager
    def during(self, action: str) -> Iterator[None]:
        """Turns whatever goes wrong in the block into `EngineUnavailable`; catch the SDK's own inside for more."""
        try:
            yield
        except APIError as exc:
            raise EngineUnavailable(
                f"Docker Engine: could not {action}: {explain(exc)}; see its log, or `modelfleet doctor`"
            ) from exc
        except _TRANSPORT_ERRORS as exc:
            raise EngineUnavailable(self._why_unreachable(action, exc)) from exc

    def close(self) -> None:
        with self._lock:
            clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            client.close()

    def _client(self, timeout_s: float) -> Any:
        with self._lock:
            known = self._clients.get(timeout_s)
        if known is not None:
            return known
        # Outside of the lock: with an engine that hangs, threads would wait for one another's timeouts in turn.
        made = self._connect(timeout_s)
        with self._lock:
            kept = self._clients.setdefault(timeout_s, made)
        if kept is not made:
            made.close()
        return kept

    def _connect(self, timeout_s: float) -> Any:
        settings: dict[str, Any] = {**kwargs_from_env()}
        settings["base_url"] = self._host or settings.get("base_url") or _context_host()
        # The stubs say int; requests takes a float, and tests need timeouts below a second.
        settings["timeout"] = timeout_s
        return docker.APIClient(version="auto", max_pool_size=POOL_SIZE, **settings)

    def _why_unreachable(self, action: str, exc: BaseException) -> str:
        text = str(exc)
        where = f"Docker Engine at {self.host()}"
        if "Permission denied" in text:
            return (
                f"{where}: permission denied; the socket belongs to the group docker; add your user to it or use sudo"
            )
        if "No such file" in text or "Connection refused" in text:
            return f"{where}: nothing listens there; start the engine (`dockerd`, `systemctl start docker`)"
        if "timed out" in text.lower() or "timeout" in text.lower():
            return (
                f"{where}: no answer within {self._timeout_s:g} s while trying to {action}; it hangs or is overloaded"
            )
        return f"{where}: could not {action}: {text}; is it running?"


def explain(exc: APIError) -> str:
    """The engine's own sentence, without the SDK's address and status around it."""
    return str(exc.explanation or exc).strip().rstrip(".")


def _context_host() -> str | None:
    """What `docker context use` chose (rootless engines and Docker Desktop are found so), None for the default."""
    try:
        context = ContextAPI.get_current_context()
    except (DockerException, OSError, ValueError, KeyError):
        return None
    if context is None or context.Name == "default":
        return None
    return context.Host or None
