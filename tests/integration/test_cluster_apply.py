"""Applies, rollbacks and deletes on a whole cluster: what a user asked for answers, and no request is lost meanwhile."""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cluster import Cluster, fleet, pick_port, until


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for the module; each test applies a manifest of its own to it."""
    found = Cluster(tmp_path_factory.mktemp("apply"), f"test-{secrets.token_hex(4)}", pick_port)
    found.start()
    yield found
    found.close()


class TestApply:
    def test_an_applied_model_answers_through_the_gateway(self, shared: Cluster) -> None:
        shared.write_model("first", 7.0)

        ended = shared.apply(fleet(first="first"))

        assert shared.predict("first") == 7.0
        assert ended["revision"] == shared.get("/status")["revision"]
        assert [(v["model"], v["state"], v["ready"]) for v in ended["versions"]] == [("first", "ready", 1)]

    def test_an_unchanged_manifest_is_an_empty_plan_and_restarts_nothing(self, shared: Cluster) -> None:
        shared.write_model("same")
        shared.apply(fleet(same="same"))
        before = [r["id"] for r in shared.version("same")["replicas"]]

        plan = shared.api("POST", "/plan", json=shared.request(fleet(same="same"))).json()
        shared.apply(fleet(same="same"))

        assert plan["empty"]
        assert plan["text"] == "nothing changes"
        assert [r["id"] for r in shared.version("same")["replicas"]] == before

    def test_a_changed_source_is_replaced_without_a_failed_request(self, shared: Cluster) -> None:
        shared.write_model("changing", 1.0)
        shared.apply(fleet(changing="changing"))
        first = {r["id"] for r in shared.version("changing")["replicas"]}

        with shared.load("changing") as load:
            shared.write_model("changing", 2.0)
            shared.apply(fleet(changing="changing"))
            until("the new source answers", lambda: load.answers[-1] == 2.0)

        assert load.failures == []
        assert set(load.answers) == {1.0, 2.0}
        kinds = [e["kind"] for e in shared.get("/events", model="changing")]
        assert kinds.index("replica_draining") > len(kinds) - 1 - kinds[::-1].index("replica_ready")
        assert not first & {r["id"] for r in shared.version("changing")["replicas"]}

    def test_a_rollback_brings_the_earlier_source_back_without_a_failed_request(self, shared: Cluster) -> None:
        shared.write_model("returning", 1.0)
        earlier = shared.apply(fleet(returning="returning"))["revision"]
        shared.write_model("returning", 2.0)
        shared.apply(fleet(returning="returning"))

        with shared.load("returning") as load:
            answer = shared.api("POST", "/rollback", json={})
            ended = shared.ended(answer.json()["id"])
            until("the earlier source answers", lambda: load.answers[-1] == 1.0)

        assert answer.status_code == 202
        assert (ended["state"], ended["kind"]) == ("succeeded", "rollback")
        assert load.failures == []
        assert shared.get(f"/history/{ended['revision']}")["summary"] == f"rolled back to revision {earlier}"

    def test_a_rollback_to_what_was_never_applied_is_refused(self, shared: Cluster) -> None:
        answer = shared.api("POST", "/rollback", json={"revision": 4711})

        assert answer.status_code == 404
        assert "4711" in answer.json()["error"]

    def test_a_deleted_model_is_unknown_to_the_gateway_and_the_others_stay(self, shared: Cluster) -> None:
        shared.write_model("stays", 1.0)
        shared.write_model("goes", 2.0)
        shared.apply(fleet(stays="stays", goes="goes"))
        kept = [r["id"] for r in shared.version("stays")["replicas"]]

        with shared.load("stays", connections=2) as load:
            answer = shared.api("DELETE", "/models/goes")
            ended = shared.ended(answer.json()["id"])

        assert (ended["state"], ended["kind"]) == ("succeeded", "delete")
        assert shared.send("goes").status_code == 404
        assert [m["name"] for m in shared.get("/status")["models"]] == ["stays"]
        assert [r["id"] for r in shared.version("stays")["replicas"]] == kept
        assert load.failures == []
        assert shared.api("DELETE", "/models/goes").status_code == 404

    def test_a_request_in_a_removed_version_is_finished(self, shared: Cluster) -> None:
        gate = shared.root / "gate"
        arrived = gate.with_suffix(".in")
        slow = f"open({str(arrived)!r}, 'w').close()\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)"
        gate.touch()
        shared.write_model("drained", 5.0, predict=slow)
        shared.apply(fleet(drained="drained"))
        gate.unlink()
        arrived.unlink()
        answers: list[float] = []
        caller = threading.Thread(target=lambda: answers.append(shared.predict("drained")))
        caller.start()
        until("the request is in the model", arrived.exists)

        operation = shared.api("DELETE", "/models/drained").json()["id"]
        until("the replica drains", lambda: [e for e in shared.events("replica_draining") if e["model"] == "drained"])
        still = shared.get(f"/operations/{operation}")["state"]
        gate.touch()
        caller.join(10)

        assert still == "converging"
        assert answers == [5.0]
        assert shared.ended(operation)["state"] == "succeeded"


class TestTraffic:
    def test_a_new_version_gets_traffic_only_when_it_is_ready(self, shared: Cluster) -> None:
        gate = shared.root / "ready-gate"
        shared.write_model("old", 1.0)
        shared.write_model("new", 2.0, load=f"while not os.path.exists({str(gate)!r}): time.sleep(0.01)")
        shared.apply(fleet(moving={"1": "old"}))

        operation = shared.begin(fleet(moving={"1": "old", "2": "new"}))
        until("the new version loads", lambda: _state(shared, "moving", "2") == "loading")
        before = {shared.predict("moving") for _ in range(10)}
        gate.touch()
        ended = shared.ended(operation)

        assert before == {1.0}
        assert ended["state"] == "succeeded"
        assert {shared.predict("moving") for _ in range(10)} == {2.0}

    def test_weights_labels_and_versions_route(self, shared: Cluster) -> None:
        shared.write_model("one", 1.0)
        shared.write_model("two", 2.0)
        versions = {"1": {"source": "one"}, "2": {"source": "two"}}
        section = {"versions": versions, "traffic": {"1": 50, "2": 50}, "labels": {"stable": "1"}}

        shared.apply(fleet(split=section))

        assert {shared.predict("split") for _ in range(40)} == {1.0, 2.0}
        assert {shared.predict("split", "/versions/2") for _ in range(5)} == {2.0}
        assert {shared.predict("split", "/versions/1") for _ in range(5)} == {1.0}


FAILURES: dict[str, tuple[str, dict[str, Any], str]] = {
    "raises": ("raise RuntimeError('the weights are cursed')", {}, "the weights are cursed"),
    "exits": ("os._exit(9)", {}, "9"),
    "hangs": ("time.sleep(3600)", {"startup_timeout_s": 2}, "2 s"),
}


class TestFailedApply:
    def test_the_old_versions_serve_on_and_each_reason_is_told(self, shared: Cluster) -> None:
        """One apply of all ways to fail, because each takes three tries with a growing pause between them."""
        for name in FAILURES:
            shared.write_model(name, 1.0)
        shared.apply(fleet(**{name: name for name in FAILURES}))
        for name, (load, _, _) in FAILURES.items():
            shared.write_model(name, 2.0, load=load)
        (shared.root / "wrong").mkdir()
        (shared.root / "wrong" / "notes.txt").write_text("not a model")
        broken = {name: {"1": {"source": name, **extra}} for name, (_, extra, _) in FAILURES.items()}

        with shared.load("raises", connections=2) as traffic:
            ended = shared.ended(shared.begin(fleet(**broken, wrong="wrong")))

        assert ended["state"] == "failed"
        assert traffic.failures == []
        assert set(traffic.answers) == {1.0}
        for name, (_, _, words) in FAILURES.items():
            assert words in shared.version(name)["reason"]
            assert f"{name}@1" in ended["error"]
            assert words in ended["error"]
            assert any(
                words in e["message"] for e in shared.get("/events", model=name) if e["kind"] == "replica_failed"
            )
            assert shared.predict(name) == 1.0
        assert "model.py" in shared.version("wrong")["reason"]
        assert shared.send("wrong").status_code == 503
        assert shared.get("/status")["state"] == "degraded"
        assert [c["ok"] for c in shared.get("/doctor") if c["name"] == "versions"] == [False]

    def test_after_a_failure_a_mended_source_is_applied(self, shared: Cluster) -> None:
        shared.write_model("mended", 1.0, load="raise RuntimeError('not yet')")
        shared.begin(fleet(mended="mended"))
        until("it failed once", lambda: "not yet" in _reason(shared, "mended"))
        shared.write_model("mended", 3.0)

        shared.apply(fleet(mended="mended"))

        assert shared.predict("mended") == 3.0


class TestRefusedApply:
    def test_an_invalid_manifest_is_told_with_places_and_changes_nothing(self, shared: Cluster) -> None:
        before = shared.get("/status")["revision"]
        text = "models:\n  a:\n    versions:\n      '1': {source: nowhere, bakend: python}\n"

        for verb in ("plan", "apply"):
            answer = shared.api("POST", f"/{verb}", json=shared.request(text))

            assert answer.status_code == 422
            found = answer.json()["diagnostics"]
            assert {(d["file"], d["line"]) for d in found} == {("models.yaml", 4)}
            assert any("bakend" in f"{d['field']} {d['message']}" for d in found)
        assert shared.get("/status")["revision"] == before

    def test_a_port_in_use_is_told_at_its_field(
        self, tmp_path: Path, cluster: str, free_port: Callable[[], int]
    ) -> None:
        """The ports of the environment would hide the manifest's, so this cluster is given none."""
        mine = Cluster(tmp_path, cluster, free_port)
        mine.write_model("m")
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            mine.gateway_port = taken.getsockname()[1]
            mine.start()
            try:
                ended = mine.ended(mine.begin(fleet(m="m")))
                status = mine.get("/status")
            finally:
                mine.close()

        assert ended["state"] == "failed"
        assert ended["diagnostics"][0]["field"] == "gateway.port"
        assert str(mine.gateway_port) in ended["error"]
        assert status["revision"] == 0
        assert str(mine.gateway_port) in status["gateway"]["error"]

    def test_a_plan_that_is_no_longer_true_is_not_applied(self, shared: Cluster) -> None:
        shared.write_model("stale", 1.0)
        shown = shared.api("POST", "/plan", json=shared.request(fleet(stale="stale"))).json()
        shared.apply(fleet(stale="stale"))
        shared.write_model("stale", 2.0)

        answer = shared.api("POST", "/apply", json={**shared.request(fleet(stale="stale")), "plan": shown["digest"]})

        assert answer.status_code == 409
        assert "read the new plan" in answer.json()["error"]
        assert shared.predict("stale") == 1.0


def _reason(cluster: Cluster, model: str) -> str:
    models = {m["name"]: m for m in cluster.get("/status")["models"]}
    return str(models[model]["versions"][0]["reason"]) if model in models else ""


def _state(cluster: Cluster, model: str, version: str) -> str:
    models = {m["name"]: m for m in cluster.get("/status")["models"]}
    versions = {v["version"]: v for v in models[model]["versions"]}
    replicas = versions[version]["replicas"] if version in versions else []
    return str(replicas[0]["state"]) if replicas else ""
