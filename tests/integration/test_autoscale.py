"""Replicas that follow the load, as an operator sees it: real control plane, gateway and model servers (processes).

Each test streams predictions at a rate and waits for what the autoscaler says and does about it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import httpx
import pytest

from tests.integration.cluster import Cluster, fleet, pick_port, until
from tests.integration.scaled import SLOW, changes, decisions, newest, ready, scaled_model, used_to
from tests.integration.streams import streaming

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for the module; each test applies a manifest of its own."""
    found = Cluster(tmp_path_factory.mktemp("autoscale"), f"test-{secrets.token_hex(4)}", pick_port).start()
    try:
        yield found
    finally:
        found.close()


class TestAStep:
    def test_is_answered_within_three_seconds_and_no_request_is_lost(self, shared: Cluster) -> None:
        shared.write_model("stepped", predict=SLOW)
        shared.apply(fleet(stepped=scaled_model("stepped")))
        after = newest(shared)
        with streaming(shared.gateway_port, "stepped", 5) as stream:
            used_to(stream)
            assert decisions(shared, "stepped", after) == []

            stepped_at = stream.step(50)
            first = until("it scales", lambda: decisions(shared, "stepped", after), 20)[0]
            until("replicas are ready", lambda: ready(shared, "stepped") >= 3, 40)

        assert first["at"] - stepped_at < 3
        assert first["message"].startswith("1 -> ")
        assert "needed for p95 ≤ 0.25 s at 1 per replica; jump seen" in first["message"]
        assert stream.failures == []
        before = [r["spec"] for r in shared.version("stepped")["replicas"]]
        assert len(set(before)) == 1

    def test_leaves_what_was_applied_as_it_is(self, shared: Cluster) -> None:
        """A count that the autoscaler chose is no difference to the manifest."""
        shared.write_model("kept", predict=SLOW)
        manifest = fleet(kept=scaled_model("kept"))
        shared.apply(manifest)
        after = newest(shared)
        with streaming(shared.gateway_port, "kept", 5) as stream:
            used_to(stream)
            stream.step(50)
            until("it scales", lambda: decisions(shared, "kept", after), 20)

            plan = shared.api("POST", "/plan", json=shared.request(manifest)).json()

        assert plan["text"] == "nothing changes"


class TestAControlPlaneThatDies:
    def test_in_the_middle_of_scaling_up_leaves_a_count_that_the_next_goes_on_with(self, shared: Cluster) -> None:
        shared.write_model("orphan", predict=SLOW, load="time.sleep(1)")
        shared.apply(fleet(orphan=scaled_model("orphan")))
        after = newest(shared)
        with streaming(shared.gateway_port, "orphan", 5) as stream:
            used_to(stream)
            stream.step(50)
            target = until("it scales", lambda: decisions(shared, "orphan", after), 20)
            wanted = shared.version("orphan")["desired"]

            shared.kill()
            shared.start()
            until("the others are ready", lambda: ready(shared, "orphan") >= wanted, 40)

        assert wanted > 1
        assert len(target) == 1
        later = decisions(shared, "orphan", int(target[-1]["id"]))
        assert [(was, now) for was, now in changes(later) if now < was] == []
        assert stream.failures == []


class TestSchedules:
    def test_raise_the_minimum_without_any_load(self, shared: Cluster) -> None:
        shared.write_model("planned")
        manifest = fleet(planned=scaled_model("planned", scaling={"max": 3}))
        shared.apply(manifest)
        after = newest(shared)

        manifest["models"]["planned"]["scaling"]["schedule"] = [{"cron": "* * * * *", "min": 2}]
        plan = shared.api("POST", "/plan", json=shared.request(manifest)).json()
        shared.apply(manifest)
        until("both are ready", lambda: ready(shared, "planned") == 2, 20)

        assert plan["text"].splitlines() == [
            "~ planned@1  change settings, no restart  "
            "(scaling.schedule [] -> [{cron: * * * * *, minimum: 2, zone: UTC}])"
        ]
        assert "raised to 2 by min of schedule '* * * * *'" in decisions(shared, "planned", after)[0]["message"]


class TestByHand:
    def test_a_count_holds_for_its_time_and_ends_by_itself(self, shared: Cluster) -> None:
        shared.write_model("manual")
        shared.apply(fleet(manual="manual"))
        spec = shared.version("manual")["spec"]
        after = newest(shared)

        answer = shared.api("PUT", "/models/manual/versions/1/scale", json={"replicas": 2, "for_s": 4})
        until("both are ready", lambda: ready(shared, "manual") == 2, 20)
        found = shared.version("manual")["scaling"]
        until("it is over", lambda: shared.version("manual")["desired"] == 1, 20)
        until("one is ready", lambda: len(shared.version("manual")["replicas"]) == 1, 20)

        assert answer.status_code == 200, answer.text
        assert (found["chosen_by"], found["override"]["replicas"]) == ("hand", 2)
        assert shared.version("manual")["scaling"]["chosen_by"] == "manifest"
        assert shared.version("manual")["spec"] == spec
        told = [e["kind"] for e in shared.get("/events", after=after, model="manual")]
        assert [kind for kind in told if kind.startswith("scale")] == ["scale_set", "scaled", "scale_override_ended"]

    def test_a_count_holds_through_an_apply_and_a_restart_until_it_is_taken_back(self, shared: Cluster) -> None:
        shared.write_model("held")
        manifest = fleet(held="held")
        shared.apply(manifest)
        path = "/models/held/versions/1/scale"
        shared.api("PUT", path, json={"replicas": 2})
        until("both are ready", lambda: ready(shared, "held") == 2, 20)

        manifest["models"]["held"]["queue"] = {"max": 7}
        shared.apply(manifest)
        shared.kill()
        shared.start()
        until("it observed", lambda: ready(shared, "held") == 2, 20)
        assert shared.api("DELETE", path).status_code == 200
        until("one is left", lambda: len(shared.version("held")["replicas"]) == 1, 20)

        assert shared.api("DELETE", path).status_code == 404

    def test_nobody_goes_above_the_maximum_that_the_manifest_names(self, shared: Cluster) -> None:
        shared.write_model("capped")
        shared.apply(fleet(capped=scaled_model("capped", scaling={"max": 2})))

        answer = shared.api("PUT", "/models/capped/versions/1/scale", json={"replicas": 3})

        assert answer.status_code == 409
        assert "scaling.max is 2" in answer.json()["error"]
        assert shared.api("PUT", "/models/capped/versions/9/scale", json={"replicas": 1}).status_code == 404
        assert shared.api("PUT", "/models/capped/versions/1/scale", json={"replicas": -1}).status_code == 422


class TestExplanation:
    def test_says_what_a_count_rests_on_and_what_it_was_before(self, shared: Cluster) -> None:
        shared.write_model("told", predict=SLOW)
        shared.apply(fleet(told=scaled_model("told")))
        after = newest(shared)
        with streaming(shared.gateway_port, "told", 5) as stream:
            used_to(stream)
            stream.step(50)
            until("it scales", lambda: decisions(shared, "told", after), 20)
            (found,) = shared.get("/models/told/scaling")
            status = shared.get("/status")
            (changed,) = shared.get("/models/told/scaling/history", version="1")

        inputs = dict(found["inputs"])
        assert (found["chosen_by"], found["minimum"], found["maximum"]) == ("load", 1, 4)
        assert float(inputs["arrived"]) > 20
        assert inputs["slots per replica"] == "1"
        assert inputs["objective"] == "p95 ≤ 0.25 s"
        assert status["signals"]["active"] == "direct"
        assert status["signals"]["sources"][0]["age_s"] < 5
        assert (changed["before"], changed["target"]) == (1, found["replicas"])
        metrics = httpx.get(f"{shared.url}/metrics", trust_env=False).text
        assert 'modelfleet_scale_decisions_total{direction="up",model="told",version="1"} 1.0' in metrics
        assert f'modelfleet_replicas_desired{{model="told",version="1"}} {found["replicas"]}.0' in metrics
