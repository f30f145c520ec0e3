"""Rollouts of one model on a real cluster under load: promote, pause, resume, roll back, and what others see of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator import manifest as manifests
from tests.integration.cluster import Cluster, until

MANIFEST = """\
defaults: {backend: python}
models:
  # What the shop lives on.
  iris:
    versions:
      "1": {source: one, scaling: {min: 2}}   # proven
      "2": {source: two}                # the canary
    traffic: {"1": 90, "2": 10}         # since Monday
  other: {versions: {"1": {source: one}}}
"""


@pytest.fixture
def running(tmp_path: Path, cluster: str, free_port: Callable[[], int]) -> Iterator[Cluster]:
    found = Cluster(tmp_path, cluster, free_port).start()
    try:
        found.write_model("one", 1.0)
        found.write_model("two", 2.0)
        found.write_model("three", 3.0)
        yield found
    finally:
        found.close()


def applied(cluster: Cluster, text: str) -> dict[str, Any]:
    answer = cluster.api("POST", "/apply", json=cluster.request(text))
    assert answer.status_code == 202, answer.text
    return succeeded(cluster, answer.json())


def succeeded(cluster: Cluster, operation: dict[str, Any]) -> dict[str, Any]:
    ended = cluster.ended(operation["id"])
    assert ended["state"] == "succeeded", ended
    return ended


def asked(cluster: Cluster, what: str, model: str = "iris", **body: Any) -> dict[str, Any]:
    answer = cluster.api("POST", f"/models/{model}/rollout/{what}", json=body)
    assert answer.status_code in (200, 202), answer.text
    return dict(answer.json())


def refused(cluster: Cluster, what: str, model: str = "iris", **body: Any) -> tuple[int, str]:
    answer = cluster.api("POST", f"/models/{model}/rollout/{what}", json=body)
    return answer.status_code, answer.json().get("error", "")


def replicas(cluster: Cluster, model: str = "iris") -> set[str]:
    versions = cluster.get(f"/models/{model}")["model"]["versions"]
    return {r["id"] for v in versions for r in v["replicas"] if r["state"] == "ready"}


def manifest_in_force(cluster: Cluster) -> str:
    revision = cluster.get("/status")["revision"]
    return str(cluster.get(f"/history/{revision}")["manifest"])


def counted(cluster: Cluster) -> dict[str, float]:
    page = httpx.get(f"{cluster.url}/metrics", trust_env=False).text
    lines = [line for line in page.splitlines() if line.startswith("modelfleet_rollouts_total") and "iris" in line]
    return {
        line.split('outcome="')[1].split('"')[0] + "@" + line.split('version="')[1].split('"')[0]: float(
            line.split()[-1]
        )
        for line in lines
        if float(line.split()[-1])
    }


class TestPromote:
    def test_moves_all_traffic_keeps_every_comment_and_touches_no_replica(self, running: Cluster) -> None:
        applied(running, MANIFEST)
        before = replicas(running)

        with running.load("iris") as load:
            operation = asked(running, "promote", version="2")
            succeeded(running, operation)
            until("all answers are the second's", lambda: load.answers[-20:] == [2.0] * 20)
        status = running.get("/models/iris/rollout")

        assert operation["kind"] == "promote"
        assert not load.failures
        assert replicas(running) == before
        assert manifest_in_force(running) == MANIFEST.replace('{"1": 90, "2": 10}', '{"1": 0, "2": 100}')
        assert (status["state"], [(v["share"], v["routed"]) for v in status["versions"]]) == (
            "settled",
            [(0, 0), (100, 100)],
        )
        (event,) = running.events("model_promoted")
        assert (event["model"], event["version"], event["revision"]) == ("iris", "2", 2)
        assert "1 90 %, 2 10 % before" in event["message"]
        assert counted(running) == {"promoted@2": 1}

    def test_refuses_what_is_done_already_or_not_there(self, running: Cluster) -> None:
        applied(running, MANIFEST)

        assert refused(running, "promote", version="9")[0] == 404
        assert refused(running, "promote", model="nobody", version="1")[0] == 404
        status, sentence = refused(running, "promote", model="other", version="1")

        assert (status, "already" in sentence) == (409, True)
        assert running.get("/status")["revision"] == 1

    def test_a_changed_source_is_not_taken_up_in_passing(self, running: Cluster) -> None:
        applied(running, MANIFEST)
        before = replicas(running)
        running.write_model("one", 7.0)

        succeeded(running, asked(running, "promote", version="1"))

        assert replicas(running) == before
        assert running.predict("iris") == 1.0


class TestPause:
    def test_what_is_applied_waits_until_it_is_resumed_and_over_a_restart(self, running: Cluster) -> None:
        applied(running, MANIFEST)
        before = replicas(running)
        status = asked(running, "pause", reason="first look at it")
        assert (status["state"], status["paused_reason"], status["waiting"]) == ("paused", "first look at it", False)

        changed = MANIFEST.replace("source: two", "source: three").replace('{"1": 90, "2": 10}', '{"2": 100}')
        planned = running.api("POST", "/plan", json=running.request(changed)).json()
        assert not planned["empty"]
        assert all(
            "once its rollout is resumed" in c["sentence"] for c in planned["changes"] if c["target"].startswith("iris")
        )
        applied(running, changed)
        running.kill()
        running.start()

        status = running.get("/models/iris/rollout")
        assert (status["state"], status["waiting"]) == ("paused", True)
        until("the world was observed", lambda: replicas(running) == before)
        assert [v["routed"] for v in status["versions"]] == [90, 10]
        described = running.get("/models/iris")["model"]
        assert described["paused_reason"] == "first look at it"
        assert all("rollout paused" in v["reason"] for v in described["versions"])

        asked(running, "resume")
        until("the new source serves", lambda: running.predict("iris") == 3.0, 40)
        assert running.get("/models/iris")["model"]["paused_at"] is None
        kinds = [e["kind"] for e in running.get("/events", limit=1000) if e["kind"].startswith("rollout_")]
        assert kinds == ["rollout_paused", "rollout_resumed"]
        assert "taken up" in running.events("rollout_resumed")[0]["message"]
        assert counted(running)["resumed@1"] == 1

    def test_what_dies_is_made_anew_as_it_was(self, running: Cluster) -> None:
        applied(running, MANIFEST)
        before = replicas(running)
        asked(running, "pause")
        applied(running, MANIFEST.replace("source: one, scaling", "source: three, scaling"))
        victim = min(before)

        running.server(victim).kill()
        until("another took its place", lambda: len(replicas(running) - {victim}) == 3, 40)

        assert before - {victim} < replicas(running)
        assert running.predict("iris", "/versions/1") == 1.0

    def test_a_paused_model_is_neither_promoted_nor_removed_nor_rolled_back_nor_paused_again(
        self, running: Cluster
    ) -> None:
        applied(running, MANIFEST)
        asked(running, "pause")

        answers = [
            refused(running, "promote", version="2"),
            refused(running, "rollback", revision=None),
            refused(running, "pause", reason=""),
        ]
        deleted = running.api("DELETE", "/models/iris")

        assert [status for status, _ in answers] == [409] * 3
        assert all("modelfleet rollout resume iris" in sentence for _, sentence in answers)
        assert deleted.status_code == 409
        asked(running, "resume")
        assert refused(running, "resume")[0] == 409

    def test_a_model_that_an_apply_leaves_out_serves_on_until_it_is_resumed(self, running: Cluster) -> None:
        applied(running, MANIFEST)
        asked(running, "pause")

        applied(running, MANIFEST[: MANIFEST.index("  # What")] + '  other: {versions: {"1": {source: one}}}\n')
        assert running.predict("iris", "/versions/2") == 2.0

        asked(running, "resume")
        until("it is gone", lambda: "iris" not in {m["name"] for m in running.get("/status")["models"]}, 40)


class TestRollBackOneModel:
    def test_goes_back_to_what_it_was_and_leaves_others_as_they_are(self, running: Cluster) -> None:
        applied(running, MANIFEST)
        applied(running, MANIFEST.replace("source: two", "source: three"))
        changed = MANIFEST.replace("source: two", "source: three").replace(
            '{"1": {source: one}}', '{"1": {source: two}}'
        )
        applied(running, changed)
        others = replicas(running, "other")

        operation = asked(running, "rollback", revision=None)
        succeeded(running, operation)

        assert operation["kind"] == "rollback"
        assert running.predict("iris", "/versions/2") == 2.0
        assert running.predict("other") == 2.0
        assert replicas(running, "other") == others
        assert manifest_in_force(running) == MANIFEST.replace('{"1": {source: one}}', '{"1": {source: two}}')
        (event,) = running.events("model_rolled_back")
        assert "revision 1" in event["message"]
        assert counted(running) == {"rolled_back@1": 1}

    def test_brings_back_a_model_that_was_deleted(self, running: Cluster) -> None:
        applied(running, MANIFEST)
        succeeded(running, running.api("DELETE", "/models/iris").json())
        assert running.send("iris").status_code == 404

        succeeded(running, asked(running, "rollback", revision=None))

        assert running.predict("iris", "/versions/2") == 2.0
        assert set(manifests.load(manifest_in_force(running), file="m", base_dir=running.root).models) == {
            "iris",
            "other",
        }

    def test_says_when_there_is_nothing_to_go_back_to(self, running: Cluster) -> None:
        applied(running, MANIFEST)
        applied(
            running,
            MANIFEST.replace('other: {versions: {"1": {source: one}}}', 'other: {versions: {"1": {source: two}}}'),
        )

        assert refused(running, "rollback", revision=None)[0] == 404
        assert refused(running, "rollback", revision=1)[0] == 409
        assert refused(running, "rollback", revision=7)[0] == 404
        assert refused(running, "rollback", model="nobody", revision=None)[0] == 404

    def test_refuses_where_what_it_inherits_has_changed(self, running: Cluster) -> None:
        applied(running, MANIFEST)
        applied(running, MANIFEST.replace("{backend: python}", "{backend: python, env: {A: b}}"))

        status, sentence = refused(running, "rollback", revision=1)

        assert status == 409
        assert "inherits" in sentence
