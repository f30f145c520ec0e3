"""The admin API as calls, with answers that read like `orchestrator/api/schemas.py`.

The one place that speaks HTTP to the control plane. It uses the standard library's client and plain records, for
`modelfleet status` must take less than half a second: importing httpx costs 0.33 s, building the pydantic schemas
0.27 s (python -X importtime, two cores).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote, urlencode, urlsplit

from orchestrator.cli.control import Control, is_alive
from orchestrator.cli.errors import ApiError, CliError, NotRunningError

if TYPE_CHECKING:
    from orchestrator.api import schemas, schemas_console

ANSWER_TIMEOUT_S = 15.0
# A plan reads and digests every source, which may be gigabytes.
PLAN_TIMEOUT_S = 300.0


class Record(dict[str, Any]):
    """A JSON object whose keys are also attributes. Statically it passes for the schema that the call answers with."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise CliError(
                f"the control plane's answer has no {name!r}; it is of another release than this command",
                hint="restart it: `modelfleet down --keep-replicas`, then `modelfleet up`",
            ) from None


def decode(raw: bytes) -> Any:
    return json.loads(raw, object_hook=Record)


class Stream:
    """Server-sent events as (name, body) pairs."""

    def __init__(
        self,
        connection: http.client.HTTPConnection,
        answer: http.client.HTTPResponse,
        lost: Callable[[Exception], CliError],
    ) -> None:
        self._connection = connection
        self._answer = answer
        self._lost = lost
        self._is_closed = False

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Ends with the stream; raises `NotRunningError` when it broke."""
        name = ""
        try:
            for line in self._answer:
                if self._is_closed:
                    return
                field, _, value = line.partition(b": ")
                if field == b"event":
                    name = value.strip().decode()
                elif field == b"data":
                    yield name, decode(value)
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as exc:
            # Closed by another thread it fails in whatever it was doing, without its socket.
            raise self._lost(
                exc if isinstance(exc, OSError | http.client.HTTPException) else OSError(str(exc))
            ) from exc

    def close(self) -> None:
        """From any thread; who reads meanwhile is woken, at the latest by the next line."""
        self._is_closed = True
        with contextlib.suppress(OSError):
            if self._connection.sock is not None:
                self._connection.sock.shutdown(socket.SHUT_RDWR)
        self._connection.close()


class Client:
    """Calls of one control plane. Every call opens its own connection: they are few, and to this machine."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._address = urlsplit(control.url)

    def status(self) -> schemas.ClusterStatus:
        return cast("schemas.ClusterStatus", self._call("GET", "/status"))

    def model(self, name: str) -> schemas.ModelDescription:
        return cast("schemas.ModelDescription", self._call("GET", f"/models/{quote(name, safe='')}"))

    def plan(self, request: dict[str, str]) -> schemas.PlanResponse:
        return cast("schemas.PlanResponse", self._call("POST", "/plan", body=request, timeout_s=PLAN_TIMEOUT_S))

    def apply(self, request: dict[str, str]) -> schemas.OperationStatus:
        return cast("schemas.OperationStatus", self._call("POST", "/apply", body=request, timeout_s=PLAN_TIMEOUT_S))

    def rollback(self, revision: int | None) -> schemas.OperationStatus:
        return cast("schemas.OperationStatus", self._call("POST", "/rollback", body={"revision": revision}))

    def delete(self, model: str) -> schemas.OperationStatus:
        return cast("schemas.OperationStatus", self._call("DELETE", f"/models/{quote(model, safe='')}"))

    def operation(self, operation_id: str, wait_s: float) -> schemas.OperationStatus:
        path = f"/operations/{quote(operation_id, safe='')}"
        return cast("schemas.OperationStatus", self._call("GET", path, wait_s=wait_s))

    def history(self) -> list[schemas.Revision]:
        return cast("list[schemas.Revision]", self._call("GET", "/history"))

    def revision(self, revision: int) -> schemas.Revision:
        return cast("schemas.Revision", self._call("GET", f"/history/{revision}"))

    def events(
        self, *, model: str = "", version: str = "", after: int = 0, limit: int = 0, wait_s: float = 0
    ) -> list[schemas.Event]:
        query = {"model": model, "version": version, "after": after, "limit": limit, "wait_s": wait_s}
        given: dict[str, Any] = {name: value for name, value in query.items() if value}
        return cast("list[schemas.Event]", self._call("GET", "/events", **given))

    def api_keys(self) -> list[schemas.Key]:
        return cast("list[schemas.Key]", self._call("GET", "/keys"))

    def create_key(self, request: dict[str, Any]) -> schemas.KeyCreated:
        return cast("schemas.KeyCreated", self._call("POST", "/keys", body=request))

    def revoke_key(self, key: str) -> schemas.KeyRevoked:
        return cast("schemas.KeyRevoked", self._call("DELETE", f"/keys/{quote(key, safe='')}"))

    def scale(self, model: str, version: str, request: dict[str, Any]) -> schemas.ScalingStatus:
        return cast("schemas.ScalingStatus", self._call("PUT", _scale_path(model, version), body=request))

    def release_scale(self, model: str, version: str) -> schemas.ScalingStatus:
        return cast("schemas.ScalingStatus", self._call("DELETE", _scale_path(model, version)))

    def scaling(self, model: str, version: str) -> list[schemas.ScalingStatus]:
        path = f"/models/{quote(model, safe='')}/scaling"
        return cast("list[schemas.ScalingStatus]", self._call("GET", path, version=version))

    def scaling_history(self, model: str, version: str, limit: int) -> list[schemas.ScaleDecision]:
        path = f"/models/{quote(model, safe='')}/scaling/history"
        return cast("list[schemas.ScaleDecision]", self._call("GET", path, version=version, limit=limit))

    def rollout(self, model: str) -> schemas_console.RolloutStatus:
        return cast("schemas_console.RolloutStatus", self._call("GET", _rollout_path(model)))

    def promote(self, model: str, version: str) -> schemas.OperationStatus:
        path = f"{_rollout_path(model)}/promote"
        return cast("schemas.OperationStatus", self._call("POST", path, body={"version": version}))

    def rollback_model(self, model: str, revision: int | None) -> schemas.OperationStatus:
        path = f"{_rollout_path(model)}/rollback"
        return cast("schemas.OperationStatus", self._call("POST", path, body={"revision": revision}))

    def pause_rollout(self, model: str, reason: str) -> schemas_console.RolloutStatus:
        path = f"{_rollout_path(model)}/pause"
        return cast("schemas_console.RolloutStatus", self._call("POST", path, body={"reason": reason}))

    def resume_rollout(self, model: str) -> schemas_console.RolloutStatus:
        return cast("schemas_console.RolloutStatus", self._call("POST", f"{_rollout_path(model)}/resume", body={}))

    def console_link(self) -> schemas_console.ConsoleLink:
        return cast("schemas_console.ConsoleLink", self._call("POST", "/console/links"))

    def cost(self, *, since: float, model: str, by: str) -> schemas.CostReport:
        query: dict[str, Any] = {"since": since, "by": by, **({"model": model} if model else {})}
        return cast("schemas.CostReport", self._call("GET", "/cost", **query))

    def stream(self, model: str, silence_s: float) -> Stream:
        """What changes, once a second, until it is closed. Silence of `silence_s` is a control plane that is lost."""
        target = _target("/stream", {"model": model} if model else {})
        return Stream(*self._send("GET", target, None, timeout_s=silence_s), self._lost)

    def doctor(self) -> list[schemas.Check]:
        return cast("list[schemas.Check]", self._call("GET", "/doctor", timeout_s=60))

    def down(self, *, keep_replicas: bool) -> None:
        self._call("POST", "/down", body={"keep_replicas": keep_replicas})

    def logs(self, model: str, *, version: str, tail: int, follow: bool, **parts: str) -> Iterator[schemas.LogEntry]:
        """Log lines as they come; with `follow` it ends only when the control plane does. Of a `model`, or with "" of
        the `parts` alone."""
        query = {"version": version, "tail": tail, "follow": str(follow).lower(), **parts}
        path = f"/models/{quote(model, safe='')}/logs" if model else "/logs"
        target = _target(path, {k: v for k, v in query.items() if v != ""})
        connection, answer = self._send("GET", target, None, timeout_s=None if follow else ANSWER_TIMEOUT_S)
        try:
            for line in answer:
                if line.strip():
                    yield cast("schemas.LogEntry", decode(line))
        except (OSError, http.client.HTTPException) as exc:
            raise self._lost(exc) from exc
        finally:
            connection.close()

    def _call(
        self, method: str, path: str, *, body: Any = None, timeout_s: float = ANSWER_TIMEOUT_S, **query: Any
    ) -> Any:
        target = _target(path, query)
        connection, answer = self._send(method, target, body, timeout_s=timeout_s + float(query.get("wait_s", 0)))
        try:
            raw = answer.read()
            return decode(raw) if raw else None
        except (OSError, http.client.HTTPException) as exc:
            raise self._lost(exc) from exc
        except ValueError as exc:
            raise CliError(f"{self._control.url}: {method} {path} was not answered with JSON: {raw[:200]!r}") from exc
        finally:
            connection.close()

    def _send(
        self, method: str, target: str, body: Any, *, timeout_s: float | None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """Sends one request and returns the answer's beginning. Raises what its status means."""
        connection = http.client.HTTPConnection(str(self._address.hostname), self._address.port, timeout=timeout_s)
        fields = {"authorization": f"Bearer {self._control.token}", "accept": "application/json"}
        if body is not None:
            fields["content-type"] = "application/json"
        try:
            connection.request(method, target, None if body is None else json.dumps(body), fields)
            answer = connection.getresponse()
            if answer.status >= 400:
                raise _refusal(answer, self._control)
        except (OSError, http.client.HTTPException) as exc:
            connection.close()
            raise self._lost(exc) from exc
        except CliError:
            connection.close()
            raise
        return connection, answer

    def _lost(self, exc: Exception) -> CliError:
        who = f"the control plane (process {self._control.pid}, {self._control.url})"
        if not is_alive(self._control.pid):
            return NotRunningError(
                f"{who} has ended", hint="`modelfleet up` starts another, which takes over what runs"
            )
        if isinstance(exc, TimeoutError | socket.timeout):
            return NotRunningError(
                f"{who} did not answer in time", hint="its log is in the state directory: logs/control.log"
            )
        return NotRunningError(
            f"{who} cannot be reached: {exc}", hint="its log is in the state directory: logs/control.log"
        )


def _rollout_path(model: str) -> str:
    return f"/models/{quote(model, safe='')}/rollout"


def _scale_path(model: str, version: str) -> str:
    return f"/models/{quote(model, safe='')}/versions/{quote(version, safe='')}/scale"


def _target(path: str, query: dict[str, Any]) -> str:
    return f"/api/v1{path}?{urlencode(query)}" if query else f"/api/v1{path}"


def _refusal(answer: http.client.HTTPResponse, control: Control) -> ApiError:
    raw = answer.read()
    hint = ""
    if answer.status in (401, 403):
        hint = "the token in the state directory is not that control plane's: check --state-dir"
    try:
        body = decode(raw)
        return ApiError(answer.status, body["error"], body["code"], body.get("diagnostics", ()), hint)
    except (ValueError, KeyError, TypeError):
        text = raw[:300].decode(errors="replace").strip() or answer.reason
        return ApiError(answer.status, f"{control.url} answered {answer.status}: {text}", "UNEXPECTED", (), hint)
