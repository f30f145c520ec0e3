"""Settings that only the gateway obeys, on a whole cluster: they arrive, they are edited, and no replica is restarted.

And the other way round: what the gateway saw of a replica reaches the control plane.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from router import contract
from tests.fakes.certificates import self_signed
from tests.integration.cluster import BODY, Cluster, fleet, until


@pytest.fixture
def cluster(tmp_path: Path, cluster: str, free_port: Callable[[], int]) -> Iterator[Cluster]:
    found = Cluster(tmp_path, cluster, free_port)
    found.start()
    yield found
    found.close()


def replicas(cluster: Cluster, model: str) -> dict[str, int]:
    """The process id of each replica's server, by the replica's id."""
    ids = [r["id"] for v in ("1", "2") for r in cluster.version(model, v)["replicas"]]
    return {id_: cluster.server(id_).pid for id_ in ids}


def table(cluster: Cluster) -> contract.Table:
    """The table that the control plane hands out."""
    token = (cluster.state_dir / "token").read_text().strip()
    url = f"{cluster.url}/internal/v1/table"
    return contract.decode(httpx.get(url, headers={"authorization": f"Bearer {token}"}, trust_env=False).content)


def config(cluster: Cluster) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((cluster.state_dir / "gateway" / "config.json").read_text())
    return found


def manifest(*, gateway: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    """Two versions of one model, and four models beside it, so that a change of the one is a delta."""
    others = {f"other{n}": "m" for n in range(4)}
    traffic = {"1": 90, "2": 10}
    iris = {"versions": {"1": {"source": "m"}, "2": {"source": "m"}}, "traffic": traffic, **settings}
    return {**fleet(iris=iris, **others), "gateway": gateway or {}}


class TestEditing:
    """One cluster lives through all of it: starting six replicas for each sentence would take minutes."""

    def test_every_setting_reaches_the_gateway_and_restarts_no_replica(self, cluster: Cluster) -> None:
        cluster.write_model("m", 3.0)
        cluster.apply(manifest())
        before = replicas(cluster, "iris")

        routing = manifest(
            retry={"budget": 0.5, "max": 1, "on": ["connect", "503"]}, eject=False, balance="least", websocket=True,
            queue={"max": 7}, sticky="header:x-user", shadow={"version": "2", "percent": 25, "tolerance": 0.01},
            rate_limit={"requests_per_s": 500, "burst": 600},
        )  # fmt: skip
        plan = cluster.api("POST", "/plan", json=cluster.request(routing)).json()
        cluster.apply(routing)

        assert {change["target"] for change in plan["changes"]} == {"iris", "iris@1", "iris@2"}
        assert all("no restart" in change["sentence"] + change["cause"] for change in plan["changes"])
        model = table(cluster).models["iris"]
        version = model.versions["1"]
        assert (version.retry_budget, version.retry_max, version.retry_on) == (0.5, 1, ("connect", "503"))
        assert (version.eject, version.balance, version.websocket, version.queue_max) == (False, "least", True, 7)
        assert model.sticky == "header:x-user"
        assert model.shadow == contract.Shadow("2", 25.0, 100, 0.01, 10)
        assert model.rate_limit == contract.RateLimit(500.0, 600)
        described = cluster.get("/models/iris")
        assert described["settings"]["rate_limit"] == "{requests_per_s: 500, burst: 600}"
        assert described["version_settings"]["2"]["retry_on"] == "[connect, 503]"
        assert cluster.predict("iris") == 3.0
        assert "table changed" in (cluster.state_dir / "logs" / "gateway.log").read_text()  # it came as a delta
        kept = cluster.state_dir / "gateway" / "table.json"
        until("the kept table is the newest", lambda: contract.decode(kept.read_bytes()) == table(cluster))

        settings = {"processes": 2, "access_log": {"share": 1}, "limits": {"connections_per_address": 99, "fields": 50}}
        served = manifest(gateway=settings, sticky="cookie:session")
        plan = cluster.api("POST", "/plan", json=cluster.request(served)).json()
        cluster.apply(served)

        (change,) = (change for change in plan["changes"] if change["target"] == "gateway")
        assert change["sentence"].startswith("change the gateway's settings in a hot restart")
        assert change["cause"] == (
            "processes 1 -> 2; access_log off -> 100% of the requests; limits.fields 100 -> 50; "
            "limits.connections_per_address 2000 -> 99"
        )
        assert config(cluster)["processes"] == 2
        assert config(cluster)["limits"]["connections_per_address"] == 99
        assert table(cluster).models["iris"].sticky == "cookie:session"
        assert table(cluster).models["iris"].shadow is None
        assert cluster.predict("iris") == 3.0
        log = cluster.state_dir / "logs" / "access.log"
        until("the request is in the access log", lambda: log.exists() and "iris" in log.read_text())

        made = self_signed(cluster.root)
        guarded = manifest(
            gateway={"auth": "required", "tls": {"certificate": made.certificate.name, "key": str(made.key)}}
        )
        cluster.apply(guarded)

        assert config(cluster)["auth"] == "required"
        assert config(cluster)["tls"] == {"certificate": str(made.certificate), "key": str(made.key)}
        url = cluster.get("/status")["gateway"]["url"]
        key = cluster.api("POST", "/keys", json={"name": "ci"}).json()["secret"]
        believed = ssl.create_default_context(cafile=made.certificate)
        with httpx.Client(base_url=url, verify=believed, trust_env=False, timeout=30) as client:
            path = "/v2/models/iris/infer"
            answers = [
                client.post(path, json=BODY, headers={"x-api-key": sent}).status_code for sent in (key, "stranger")
            ]
        assert url.startswith("https://")
        assert answers == [200, 401]
        assert replicas(cluster, "iris") == before

    def test_a_gateway_that_is_open_to_strangers_is_refused_at_its_line(self, cluster: Cluster) -> None:
        text = 'gateway:\n  host: "0.0.0.0"\nmodels: {}\n'

        answer = cluster.api("POST", "/apply", json=cluster.request(text))

        (found,) = answer.json()["diagnostics"]
        assert answer.status_code == 422
        assert (found["line"], found["column"], found["field"]) == (2, 9, "gateway.host")
        assert "`modelfleet keys create`" in found["message"]


class TestARevisionOfAnEarlierRelease:
    def test_with_a_gateway_open_to_strangers_is_not_gone_back_to(self, cluster: Cluster) -> None:
        cluster.write_model("m", 1.0)
        cluster.apply(fleet(iris="m"))
        cluster.write_model("m", 2.0)
        cluster.apply(fleet(iris="m"))
        text = json.dumps({"gateway": {"host": "0.0.0.0"}, **fleet(iris="m")})
        with contextlib.closing(sqlite3.connect(cluster.state_dir / "state.sqlite")) as store, store:
            store.execute("UPDATE revisions SET manifest = ? WHERE revision = 1", (text,))

        answer = cluster.api("POST", "/rollback", json={})
        ended = cluster.ended(answer.json()["id"])

        assert ended["state"] == "failed"
        assert [found["field"] for found in ended["diagnostics"]] == ["gateway.host"]
        assert cluster.predict("iris") == 2.0

    def test_that_left_the_gateway_open_is_taken_up_with_an_event_that_says_what_to_change(
        self, cluster: Cluster
    ) -> None:
        cluster.write_model("m", 1.0)
        cluster.apply(fleet(iris="m"))
        cluster.kill()
        text = json.dumps({"gateway": {"host": "0.0.0.0"}, **fleet(iris="m")})
        with contextlib.closing(sqlite3.connect(cluster.state_dir / "state.sqlite")) as store, store:
            store.execute("UPDATE revisions SET manifest = ?", (text,))

        cluster.start()

        (event,) = cluster.events("gateway_open")
        assert "`auth: required`" in event["message"]
        assert cluster.predict("iris") == 1.0
        cluster.apply({**fleet(iris="m"), "gateway": {"host": "127.0.0.1"}})
        until("the control plane has its gateway", lambda: not cluster.get("/status")["gateway"]["error"])


class TestEjected:
    def test_a_stopped_replica_is_ejected_probed_told_and_replaced_while_the_other_serves(
        self, cluster: Cluster
    ) -> None:
        """Native code that holds the interpreter leaves a process that lives, whose port accepts, and that answers
        nothing: no engine sees it."""
        hang = "if 666 in inputs['x']: __import__('ctypes').PyDLL(None).sleep(120)"
        cluster.write_model("m", 5.0, predict=hang)
        section = {"versions": {"1": {"source": "m"}}, "scaling": {"min": 2}, "request_timeout_ms": 1200}
        cluster.apply(fleet(iris=section))
        ids = [r["id"] for r in cluster.version("iris")["replicas"]]
        hung = cluster.server(ids[0])
        port = next(r["port"] for r in cluster.version("iris")["replicas"] if r["id"] == ids[0])
        direct = f"http://127.0.0.1:{port}/v2/models/iris/infer"
        poison = {"inputs": [{**BODY["inputs"][0], "data": [666.0]}]}

        with cluster.load("iris", connections=4) as load:
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(direct, json=poison, trust_env=False, timeout=0.5)
            event = until("it is told that it was ejected", lambda: cluster.events("replica_ejected"))[0]
            shown = cluster.version("iris")
            lost = until("it is given up", lambda: cluster.events("replica_failed"), within_s=30)[0]
            until("another takes its place", lambda: cluster.version("iris")["ready"] == 2, within_s=30)
            served = len(load.answers)
            until("requests are served", lambda: len(load.answers) > served + 50)

        assert (event["model"], event["version"], event["replica"]) == ("iris", "1", ids[0])
        assert event["message"].startswith("ejected by the gateway: ")
        assert {r["id"]: r["reason"] for r in shown["replicas"]}[ids[0]].startswith("ejected by the gateway: ")
        assert shown["reason"].startswith("1 of 2 replicas ejected by the gateway: ")
        assert lost["replica"] == ids[0]
        assert "nothing answers at its port any more" in lost["message"]
        assert ids[1] in [r["id"] for r in cluster.version("iris")["replicas"]]
        assert not os.path.exists(f"/proc/{hung.pid}")
