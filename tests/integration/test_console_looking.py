"""What the console shows of before, and trying a model, on a real cluster with a gateway that wants keys."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.cluster import Cluster, fleet, pick_port, until

STRANGE = """
class Model:
    inputs = [{"name": "x", "datatype": "FP64", "shape": [-1]}]
    outputs = [{"name": "y", "datatype": "FP64", "shape": [-1]}]

    def load(self, path):
        pass

    def predict(self, inputs):
        if inputs["x"][0] == 13.0:
            raise ValueError("this number pleases me not")
        return inputs["x"]
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two models, one of which refuses a number, behind a gateway that wants a key; applied twice."""
    found = Cluster(tmp_path_factory.mktemp("looking"), f"test-{secrets.token_hex(4)}", pick_port)
    found.start()
    found.write_model("quick", 4.0)
    (found.root / "strange").mkdir()
    (found.root / "strange/model.py").write_text(STRANGE)
    manifest = {"gateway": {"auth": "required"}, **fleet(quick="quick", strange="strange")}
    try:
        found.apply(manifest)
        manifest["models"]["quick"]["versions"]["1"]["env"] = {"COLOUR": "blue"}
        found.apply(manifest)
        yield found
    finally:
        found.close()


@pytest.fixture(scope="module")
def key(shared: Cluster) -> str:
    made = shared.api("POST", "/keys", json={"name": "console"})
    assert made.status_code == 201, made.text
    return str(made.json()["secret"])


def attempt(cluster: Cluster, model: str, **request: Any) -> dict[str, Any]:
    answer = cluster.api("POST", f"/models/{model}/versions/1/try", json=request)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


class TestTrying:
    def test_the_form_is_made_of_the_models_metadata_and_its_example_works(self, shared: Cluster, key: str) -> None:
        form = shared.get("/models/quick/versions/1/try")

        assert form["inputs"] == [{"name": "x", "datatype": "FP64", "shape": [-1], "example": [0.0]}]
        assert (form["outputs"], form["note"]) == (["y"], "")
        found = attempt(shared, "quick", body=form["example"], key=key)
        assert found["status"] == 200
        assert json.loads(found["body"])["outputs"][0]["data"] == [4.0]
        assert found["headers"]["x-model-version"] == "1"
        assert found["headers"]["x-request-id"]
        assert "model;dur=" in found["headers"]["server-timing"]
        assert found["took_ms"] > 0

    def test_without_a_key_the_gateways_refusal_is_shown(self, shared: Cluster) -> None:
        found = attempt(shared, "quick", body="{}")

        assert found["status"] == 401
        assert json.loads(found["body"])["code"] == "UNAUTHENTICATED"

    def test_what_the_model_refuses_is_shown_as_it_is(self, shared: Cluster, key: str) -> None:
        form = shared.get("/models/strange/versions/1/try")

        found = attempt(shared, "strange", body=form["example"].replace('"data": [0.0]', '"data": [13.0]'), key=key)

        assert found["status"] >= 400
        assert "pleases me not" in found["body"]

    def test_a_body_that_is_no_request_is_refused_by_the_model(self, shared: Cluster, key: str) -> None:
        assert attempt(shared, "quick", body="{", key=key)["status"] == 400

    def test_a_key_of_a_form_is_told_to_nobody(self, shared: Cluster) -> None:
        attempt(shared, "quick", body="{}", key="mf_a-key-that-is-wrong")

        told = json.dumps(shared.get("/events", limit=1000)) + (shared.root / "control.log").read_text()
        assert "a-key-that-is-wrong" not in told

    @pytest.mark.parametrize("bad", [{"key": "a\r\nx-evil: 1"}, {"content_type": "a\nb"}, {"timeout_s": 1e9}])
    def test_fields_that_would_become_others_are_refused(self, shared: Cluster, bad: dict[str, Any]) -> None:
        answer = shared.api("POST", "/models/quick/versions/1/try", json={"body": "{}", **bad})

        assert answer.status_code == 422

    @pytest.mark.parametrize("path", ["/models/nobody/versions/1/try", "/models/quick/versions/9/try"])
    def test_a_version_that_is_not_there_is_named(self, shared: Cluster, path: str) -> None:
        answer = shared.api("GET", path)

        assert answer.status_code == 404
        assert "quick@1" in answer.json()["error"]


class TestLookingBack:
    def test_a_diff_shows_what_an_apply_changed(self, shared: Cluster) -> None:
        found = shared.get("/history/1/diff/2")

        changed = [line for line in found["lines"] if line[:1] in "+-" and line[:3] not in ("+++", "---")]
        assert [line[:1] for line in changed] == ["-", "+"]
        assert "COLOUR" in changed[1]
        assert shared.get("/history/2/diff/2")["lines"] == []
        assert shared.api("GET", "/history/1/diff/99").status_code == 404

    def test_the_timeline_has_the_replica_that_was_replaced(self, shared: Cluster) -> None:
        def settled() -> dict[str, Any] | None:
            found: dict[str, Any] = shared.get("/models/quick/replicas/history")
            return found if sum(span["until"] is None for span in found["spans"]) == 1 else None

        found = until("one replica is left", settled)

        lives: dict[str, list[str]] = {}
        for span in found["spans"]:
            lives.setdefault(span["replica"], []).append(span["state"])
            assert span["version"] == "1"
            assert span["since"] >= found["known_since"]
        assert sorted(lives.values()) == [["starting", "ready"], ["starting", "ready", "draining"]]

    def test_series_are_kept_of_all_roughly_and_of_one_in_full(self, shared: Cluster) -> None:
        def measured() -> dict[str, Any] | None:
            attempt(shared, "quick", body="{}")
            found: dict[str, Any] = shared.get("/series", model="quick")
            rates = found["models"].get("quick", {}).get("rate_per_s", [])
            return found if any(rate is not None for rate in rates) else None

        one, every = until("rates are known", measured), shared.get("/series")

        assert (one["step_s"], every["step_s"]) == (1, 15)
        assert len(one["at"]) == 900
        assert all(len(curve) == 900 for curve in one["models"]["quick"].values())
        assert one["models"]["quick"]["ready"][-1] == 1
        assert one["versions"]["1"] == one["models"]["quick"]
        assert set(every["models"]) == {"quick", "strange"}
        assert len(every["at"]) == len(every["models"]["quick"]["p95_ms"]) == 60
        assert shared.api("GET", "/series", params={"model": "nobody"}).status_code == 404
