"""A control plane as the command line sees it: real HTTP, real files in a state directory, made-up facts.

`FakeAdminApi` serves the admin API from `World`, which a test fills; every answer is built by the real schemas. It also runs
as a process of its own (`python tests/fakes/admin_api.py STATE_DIR`), for tests in which a control plane ends.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydantic import BaseModel

from orchestrator.api import schemas as s
from orchestrator.api import schemas_console as console

TOKEN = "the-token"
SECRET = "mf_key-of-a-test"
# What a version's state in the steps of an operation may be, as a fact of the schema.
MANIFEST = 'cluster: demo\nmodels:\n  iris:\n    versions:\n      "1": {source: models/iris/1}\n'


class Refused(Exception):  # noqa: N818 - it is an answer
    """Answered as an `ErrorBody` with this status."""

    def __init__(self, status: int, error: str, code: str, diagnostics: Sequence[s.Diagnostic] = ()) -> None:
        super().__init__(error)
        self.status = status
        self.body = s.ErrorBody(error=error, code=code, diagnostics=list(diagnostics))


def version(name: str, **facts: Any) -> s.VersionStatus:
    base: dict[str, Any] = {
        "version": name, "state": "ready", "ready": 1, "desired": 1, "backend": "sklearn", "source": f"models/iris/{name}",
        "spec": "abcdef0123456789", "concurrency": 32, "cpus": 1, "memory_bytes": 512 << 20,
        "replicas": [s.ReplicaStatus(id=f"iris-{name}-a1", state="ready", spec="abcdef0123456789", host="127.0.0.1",
                                     port=40001, age_s=75, in_flight=2)],
    }  # fmt: skip
    return s.VersionStatus(**{**base, **facts})


def scaling(**facts: Any) -> s.ScalingStatus:
    base: dict[str, Any] = {"model": "iris", "version": "1", "chosen_by": "load", "replicas": 3, "minimum": 1,
                            "maximum": 5}  # fmt: skip
    return s.ScalingStatus(**{**base, **facts})


def iris(**facts: Any) -> s.ModelStatus:
    base: dict[str, Any] = {
        "name": "iris", "state": "ready", "traffic": {"1": 90, "2": 10}, "routed": {"1": 90, "2": 10},
        "labels": {"stable": "1", "latest": "2"}, "versions": [version("1"), version("2", backend="onnx")],
    }  # fmt: skip
    return s.ModelStatus(**{**base, **facts})


def progress(name: str = "1", ready: int = 1, state: Any = "ready", **facts: Any) -> s.VersionProgress:
    return s.VersionProgress(model="iris", version=name, ready=ready, desired=1, state=state, **facts)


def fetched(done_bytes: int, total_bytes: int | None, name: str = "1") -> s.FetchProgress:
    return s.FetchProgress(
        model="iris", version=name, source="s3://models/iris", done_bytes=done_bytes, total_bytes=total_bytes
    )


def step(state: Any, *versions: s.VersionProgress, **facts: Any) -> s.OperationStatus:
    """One moment in the life of an operation."""
    base: dict[str, Any] = {
        "id": "op-1",
        "kind": "apply",
        "revision": None if state == "preparing" else 2,
        "step": state,
    }
    return s.OperationStatus(**{**base, "created_at": 1.0, "state": state, "versions": list(versions), **facts})


def change(symbol: Any, target: str, sentence: str, cause: str = "") -> s.Change:
    return s.Change(symbol=symbol, target=target, sentence=sentence, cause=cause)


def plan(*changes: s.Change, digest: str = "d1", warnings: Sequence[str] = ()) -> s.PlanResponse:
    return s.PlanResponse(
        base_revision=1, digest=digest, empty=not changes, changes=list(changes), warnings=list(warnings), text=""
    )


def revision(number: int, *, current: bool = False, manifest: str = MANIFEST, **facts: Any) -> s.Revision:
    base: dict[str, Any] = {
        "revision": number, "at": 1_700_000_000.0 + number, "kind": "apply", "file": "models.yaml",
        "summary": f"change {number}", "current": current, "state": "succeeded", "manifest": manifest,
    }  # fmt: skip
    return s.Revision(**{**base, **facts})


def event(number: int, message: str, *, age_s: float = 1, **facts: Any) -> s.Event:
    return s.Event(
        **{"id": number, "at": time.time() - age_s, "level": "info", "kind": "k", "message": message, **facts}
    )


def key(name: str, **facts: Any) -> s.Key:
    base: dict[str, Any] = {
        "id": f"id-{name}", "name": name, "models": None, "requests_per_s": 0, "burst": 1, "concurrency": 0,
        "created_at": time.time(), "expires_at": None, "expired": False,
    }  # fmt: skip
    return s.Key(**{**base, **facts})


def fleet_row(**facts: Any) -> console.FleetRow:
    base: dict[str, Any] = {
        "name": "iris", "state": "ready", "traffic": {"1": 100}, "ready": 2, "desired": 2, "standby": 0,
        "rate_per_s": 123.4, "error_ratio": 0.012, "p50_ms": 4.0, "p95_ms": 61.0, "p99_ms": 80.0, "slo_ms": 50,
        "slo_percentile": 95, "queued": 3, "in_flight": 7, "cpu_cores": 1.25, "memory_bytes": 300 << 20,
        "cost_per_hour": 0.085,
    }  # fmt: skip
    return console.FleetRow(**{**base, **facts})


def fleet(*rows: console.FleetRow, **facts: Any) -> console.FleetUpdate:
    base: dict[str, Any] = {
        "at": time.time(), "whole": True, "cluster": "demo", "revision": 2, "state": "converged", "engine": "process",
        "gateway": console.FleetGateway(url="http://127.0.0.1:8080", ready=True, table_current=True), "models": list(rows),
        "totals": console.FleetTotals(rate_per_s=123.4, error_ratio=0.012, ready=2, desired=2, standby=0, queued=3,
                                   in_flight=7, cost_per_hour=0.085),
    }  # fmt: skip
    return console.FleetUpdate(**{**base, **facts})


def model_update(name: str = "iris", *versions: console.VersionRow) -> console.ModelUpdate:
    replica = console.ReplicaRow(id=f"{name}-1-a1", state="ready", since=time.time() - 90, cpu_ratio=0.4,
                              memory_bytes=150 << 20, memory_limit_bytes=512 << 20, in_flight=4)  # fmt: skip
    one = console.VersionRow(version="1", state="ready", weight=100, ready=1, desired=1, standby=0, rate_per_s=123.4,
                          p95_ms=61.0, replicas=[replica])  # fmt: skip
    return console.ModelUpdate(at=time.time(), name=name, versions=list(versions or (one,)))


def cost_row(**facts: Any) -> s.CostRow:
    base: dict[str, Any] = {
        "replica_hours": 48.0, "standby_hours": 0.0, "cpu_hours": 96.0, "memory_gib_hours": 24.0, "unknown_hours": 0.0,
        "unpriced_hours": 0.0, "cost": 3.96, "idle_cost": 2.97, "idle_share": 0.75, "predictions": 12_345,
        "cost_per_1000": 0.3208,
    }  # fmt: skip
    return s.CostRow(**{**base, **facts})


def cost_report(*rows: s.CostRow, **facts: Any) -> s.CostReport:
    base: dict[str, Any] = {
        "since": 1_795_600_000.0, "until": 1_795_686_400.0, "by": "model", "cost_per_hour": 0.165, "rows": list(rows),
        "total": cost_row(), "prices": s.Prices(cpu_hour=0.04, memory_gib_hour=0.005, currency="EUR"),
    }  # fmt: skip
    return s.CostReport(**{**base, **facts})


@dataclass
class World:
    """What the control plane knows. `steps` is what asking for the operation answers, the last one for ever."""

    gateway_url: str = "http://127.0.0.1:9"
    metrics_url: str = "http://127.0.0.1:8082"
    models: list[s.ModelStatus] = field(default_factory=lambda: [iris()])
    plans: list[s.PlanResponse] = field(default_factory=lambda: [plan(change("+", "iris@1", "start 1 replica", "new"))])
    steps: list[s.OperationStatus] = field(default_factory=lambda: [step("preparing"), step("succeeded", progress())])
    events: list[s.Event] = field(default_factory=list)
    revisions: list[s.Revision] = field(default_factory=lambda: [revision(2, current=True), revision(1)])
    logs: list[s.LogEntry] = field(default_factory=list)
    checks: list[s.Check] = field(default_factory=lambda: [s.Check(name="engine", ok=True, detail="Fake 1")])
    refusals: dict[str, Refused] = field(default_factory=dict)
    keys: list[s.Key] = field(default_factory=list)
    keys_in_force: bool = True
    fleet: console.FleetUpdate = field(default_factory=lambda: fleet(fleet_row()))
    model: console.ModelUpdate | None = None
    cost: s.CostReport = field(default_factory=lambda: cost_report(cost_row(model="iris")))
    decisions: list[s.ScaleDecision] = field(default_factory=list)
    signals: s.SignalsStatus = field(default_factory=s.SignalsStatus)
    engine: str = "process"
    started_at: float = field(default_factory=lambda: time.time() - 300)

    def status(self) -> s.ClusterStatus:
        return s.ClusterStatus(
            cluster="demo", engine=self.engine, revision=2, state="converged" if self.models else "empty",
            version="0.1.0", pid=os.getpid(), started_at=self.started_at, state_dir="/state", models=self.models,
            signals=self.signals,
            gateway=s.GatewayStatus(
                url=self.gateway_url, metrics_url=self.metrics_url, pid=7, ready=True, table_current=True
            ),
        )  # fmt: skip


@dataclass
class Call:
    method: str
    path: str
    query: dict[str, str]
    body: Any


class FakeAdminApi:
    """`with FakeAdminApi(state_dir) as api:` writes control.json and token, and takes them away at its end."""

    def __init__(self, state_dir: Path, world: World | None = None) -> None:
        self.world = world or World()
        self.calls: list[Call] = []
        self.ended, self.closed = threading.Event(), threading.Event()
        self._state_dir = state_dir
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _serving(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FakeAdminApi:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        write_control(self._state_dir, pid=os.getpid(), url=self.url)
        return self

    def __exit__(self, *exc: object) -> None:
        if self.closed.is_set():
            return
        self.closed.set()
        (self._state_dir / "control.json").unlink(missing_ok=True)
        self._server.shutdown()
        self._server.server_close()

    def asked(self, method: str, path: str) -> list[Call]:
        return [call for call in self.calls if (call.method, call.path) == (method, path)]

    def answer(self, call: Call) -> Any:
        self.calls.append(call)
        if refusal := self.world.refusals.pop(f"{call.method} {call.path}", None):
            raise refusal
        head, *rest = call.path.strip("/").split("/")
        return getattr(self, f"_{call.method.lower()}_{head}")(call, *rest)

    def _get_status(self, call: Call) -> Any:
        return self.world.status()

    def _get_logs(self, call: Call) -> Any:
        return [each for each in self.world.logs if each.source in call.query]

    def _get_models(self, call: Call, name: str, what: str = "", *more: str) -> Any:
        model = next((each for each in self.world.models if each.name == name), None)
        if model is None:
            raise Refused(404, f"model {name!r}: not in force", "NOT_FOUND")
        if what == "scaling":
            if more:
                return self.world.decisions
            return [
                v.scaling for v in model.versions if v.scaling and call.query.get("version", v.version) == v.version
            ]
        if what == "rollout":
            return self._rollout(name)
        if what == "logs":
            wanted = call.query.get("version", "")
            return [
                each
                for each in self.world.logs
                if (wanted in ("", each.version) and each.source == "replica") or each.source in call.query
            ]
        urls = {"v2": f"{self.world.gateway_url}/v2/models/{name}"}
        return s.ModelDescription(
            model=model,
            settings={"sticky": "header:x-user"},
            version_settings={"1": {"concurrency": "32", "retry_max": "2", "balance": "least"}},
            manifest=MANIFEST,
            events=self.world.events,
            urls=urls,
        )

    def _rollout(self, model: str, **facts: Any) -> console.RolloutStatus:
        versions = [
            console.RolloutVersion(version="1", state="ready", share=90, routed=90, ready=1, desired=1),
            console.RolloutVersion(version="2", state="updating", share=10, routed=0, ready=1, desired=2, old=1,
                                   reason="1 of 2 replicas ready"),
        ]  # fmt: skip
        base: dict[str, Any] = {"model": model, "state": "moving", "versions": versions}
        return console.RolloutStatus(**{**base, **facts})

    def _post_models(self, call: Call, name: str, _rollout: str, what: str) -> Any:
        match what:
            case "promote":
                console.PromoteRequest.model_validate(call.body)
                return self._begun()
            case "rollback":
                console.ModelRollbackRequest.model_validate(call.body)
                return self._begun()
            case "pause":
                reason = console.PauseRequest.model_validate(call.body).reason
                return self._rollout(name, state="paused", paused_at=time.time(), paused_reason=reason, waiting=True)
        return self._rollout(name)

    def _post_plan(self, call: Call) -> Any:
        s.ManifestRequest.model_validate(call.body)
        return self.world.plans.pop(0) if len(self.world.plans) > 1 else self.world.plans[0]

    def _post_apply(self, call: Call) -> Any:
        s.ManifestRequest.model_validate(call.body)
        return self._begun()

    def _post_rollback(self, call: Call) -> Any:
        s.RollbackRequest.model_validate(call.body)
        return self._begun()

    def _delete_models(self, call: Call, name: str, *more: str) -> Any:
        if not more:
            return self._begun()
        return scaling(model=name, version=more[1], chosen_by="manifest")

    def _put_models(self, call: Call, name: str, _versions: str, version: str, _scale: str) -> Any:
        asked = s.ScaleRequest.model_validate(call.body)
        until = None if asked.for_s is None else time.time() + asked.for_s
        override = s.OverrideStatus(replicas=asked.replicas, until=until)
        return scaling(model=name, version=version, chosen_by="hand", override=override)

    def _begun(self) -> Any:
        return self.world.steps[0]

    def _get_operations(self, call: Call, name: str) -> Any:
        if len(self.world.steps) > 1:
            self.world.steps.pop(0)
        elif self.world.steps[0].ended_at is None and self.world.steps[0].state in ("preparing", "converging"):
            time.sleep(min(0.2, float(call.query.get("wait_s", 0))))
        return self.world.steps[0]

    def _get_history(self, call: Call, number: str = "") -> Any:
        if not number:
            return [each.model_copy(update={"manifest": ""}) for each in self.world.revisions]
        return next(each for each in self.world.revisions if each.revision == int(number))

    def _get_events(self, call: Call) -> Any:
        after, model = int(call.query.get("after", 0)), call.query.get("model", "")
        found = [each for each in self.world.events if each.id > after and model in ("", each.model)]
        if not found:
            time.sleep(min(0.1, float(call.query.get("wait_s", 0))))
        return found[-int(call.query.get("limit", 1000)) :]

    def _get_keys(self, call: Call) -> Any:
        return self.world.keys

    def _post_keys(self, call: Call) -> Any:
        asked = s.KeyRequest.model_validate(call.body)
        made = key(asked.name, models=asked.models, requests_per_s=asked.requests_per_s, burst=asked.burst)
        self.world.keys.append(made)
        warnings = [f"there is no model {name!r} yet" for name in asked.models or [] if name != "iris"]
        return s.KeyCreated(key=made, secret=SECRET, in_force=self.world.keys_in_force, warnings=warnings)

    def _delete_keys(self, call: Call, id_: str) -> Any:
        found = next(each for each in self.world.keys if each.id == id_)
        self.world.keys.remove(found)
        return s.KeyRevoked(key=found, in_force=self.world.keys_in_force)

    def _get_cost(self, call: Call) -> Any:
        return self.world.cost

    def _get_doctor(self, call: Call) -> Any:
        return self.world.checks

    def _post_console(self, call: Call, _links: str) -> Any:
        return console.ConsoleLink(url="http://127.0.0.1:7070/console/#code=once", expires_in_s=600)

    def _post_down(self, call: Call) -> Any:
        s.DownRequest.model_validate(call.body)


def write_control(state_dir: Path, *, pid: int, url: str) -> None:
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    (state_dir / "token").write_text(TOKEN + "\n")
    facts = {"pid": pid, "url": url, "cluster": "demo", "version": "0.1.0"}
    # In one step, as the real one does: who waits for the file may read it at once.
    (state_dir / "control.json.new").write_text(json.dumps(facts))
    (state_dir / "control.json.new").rename(state_dir / "control.json")


def _serving(api: FakeAdminApi) -> type[BaseHTTPRequestHandler]:
    class Serving(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._serve()

        do_POST = do_DELETE = do_PUT = do_GET  # noqa: N815 - the names that the base class looks for

        def log_message(self, *args: Any) -> None: ...

        def _serve(self) -> None:
            length = int(self.headers.get("content-length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            target = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(target.query).items()}
            if target.path == "/healthz":
                self._answer(200, json.dumps({"cluster": "demo", "pid": os.getpid(), "version": "0.1.0"}).encode())
            elif self.headers.get("authorization") != f"Bearer {TOKEN}":
                self._answer(
                    401, _encoded(s.ErrorBody(error="the token is not this control plane's", code="UNAUTHENTICATED"))
                )
            elif target.path == "/api/v1/stream":
                self._stream(query.get("model", ""))
            else:
                self._answer_call(Call(self.command, target.path.removeprefix("/api/v1"), query, body))

        def _stream(self, model: str) -> None:
            """As the real one, five times a second: the whole fleet each time."""
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            self.close_connection = True
            while not api.closed.is_set():
                events = [("fleet", api.world.fleet)]
                events += [("model", api.world.model)] if model and api.world.model else []
                text = "".join(f"event: {name}\ndata: {body.model_dump_json()}\n\n" for name, body in events)
                try:
                    self.wfile.write(text.encode())
                except OSError:
                    return
                time.sleep(0.2)

        def _answer_call(self, call: Call) -> None:
            try:
                answer = api.answer(call)
            except Refused as refusal:
                self._answer(refusal.status, _encoded(refusal.body))
                return
            lines = call.path.endswith("/logs")  # of a model, or of gateway and control plane
            self._answer(200, b"".join(_encoded(each) + b"\n" for each in answer) if lines else _encoded(answer))
            if (call.method, call.path) == ("POST", "/down"):
                api.ended.set()  # not before it is answered: whoever waits for this ends the process

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Serving


def _encoded(value: Any) -> bytes:
    if isinstance(value, BaseModel):
        return value.model_dump_json().encode()
    return json.dumps(None if value is None else [each.model_dump() for each in value]).encode()


class FakeGateway:
    """Answers every request by `script(method, path, body) -> (status, fields, body)` and keeps what it was asked."""

    def __init__(self, script: Callable[[str, str, bytes], tuple[int, dict[str, str], bytes]]) -> None:
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        gateway = self

        class Serving(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                fields = {name.lower(): value for name, value in self.headers.items()}
                gateway.requests.append((self.command, self.path, fields, body))
                status, answer_fields, answer = script(self.command, self.path, body)
                self.send_response(status)
                for name, value in {**answer_fields, "content-length": str(len(answer))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer)

            do_POST = do_GET  # noqa: N815

            def log_message(self, *args: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Serving)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def wear(self, certificate: Path, key: Path) -> None:
        """Speaks TLS from now on."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = self.url.replace("http:", "https:")

    def __enter__(self) -> FakeGateway:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()


if __name__ == "__main__":
    with FakeAdminApi(Path(sys.argv[1])) as running:
        running.ended.wait(60)
