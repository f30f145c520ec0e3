"""API keys through a whole cluster: made at the admin API, wanted by the gateway, revoked at once."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.integration.cluster import BODY, REPOSITORY, Cluster, fleet, pick_port


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster whose gateway wants keys, with models `a` and `b`."""
    root = tmp_path_factory.mktemp("keys")
    found = Cluster(root, f"test-{secrets.token_hex(4)}", pick_port)
    found.write_model("a", 1.0)
    found.write_model("b", 2.0)
    found.start()
    try:
        found.apply({**fleet(a="a", b="b"), "gateway": {"auth": "required"}})
        yield found
    finally:
        found.close()


def ask(cluster: Cluster, key: str = "", model: str = "a") -> httpx.Response:
    url = f"http://127.0.0.1:{cluster.gateway_port}/v2/models/{model}/infer"
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return httpx.post(url, json=BODY, headers=headers, trust_env=False, timeout=30)


def create(cluster: Cluster, name: str, **settings: object) -> dict[str, object]:
    answer = cluster.api("POST", "/keys", json={"name": name, **settings})
    assert answer.status_code == 201, answer.text
    assert answer.headers["cache-control"] == "no-store"
    made: dict[str, object] = answer.json()
    assert made["in_force"], made
    return made


def run(cluster: Cluster, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """The command line, as in a script: piped."""
    command = [sys.executable, "-c", "from orchestrator.cli.main import main; main()", *arguments]
    variables = {**os.environ, "MODELFLEET_STATE_DIR": str(cluster.state_dir), **environ}
    return subprocess.run(
        command, cwd=REPOSITORY, env=variables, capture_output=True, text=True, timeout=60, check=False
    )


class TestKeys:
    def test_open_the_gateway_from_the_moment_they_are_made_until_they_are_revoked(self, locked: Cluster) -> None:
        assert ask(locked).status_code == 401

        made = create(locked, "one")
        assert ask(locked, str(made["secret"])).status_code == 200

        revoked = locked.api("DELETE", f"/keys/{made['key']['id']}")  # type: ignore[index]
        assert (revoked.status_code, revoked.json()["in_force"]) == (200, True)
        assert ask(locked, str(made["secret"])).status_code == 401

    def test_ask_for_their_models_alone(self, locked: Cluster) -> None:
        made = create(locked, "scoped", models=["b", "later"])

        assert made["warnings"] == ["there is no model 'later' yet"]
        assert [ask(locked, str(made["secret"]), model).status_code for model in ("a", "b")] == [403, 200]

    def test_are_held_to_their_rate(self, locked: Cluster) -> None:
        made = create(locked, "slow", requests_per_s=0.01, burst=2)

        assert [ask(locked, str(made["secret"])).status_code for _ in range(3)] == [200, 200, 429]

    def test_are_listed_without_their_text_and_leave_events(self, locked: Cluster) -> None:
        made = create(locked, "listed", expires_in_s=60)

        listed = {key["name"]: key for key in locked.get("/keys")}

        assert listed["listed"] == made["key"]
        assert abs(listed["listed"]["expires_at"] - time.time() - 60) < 5
        assert str(made["secret"]) not in json.dumps(list(listed.values()))
        assert any("listed" in event["message"] for event in locked.events("key_created"))
        assert files_with(str(made["secret"]), locked.root) == []

    def test_have_names_of_their_own(self, locked: Cluster) -> None:
        create(locked, "twice")

        answer = locked.api("POST", "/keys", json={"name": "twice"})

        assert (answer.status_code, answer.json()["code"]) == (409, "CONFLICT")

    def test_outlive_the_control_plane(self, locked: Cluster) -> None:
        made = create(locked, "lasting")

        locked.kill()
        assert ask(locked, str(made["secret"])).status_code == 200
        locked.start()

        assert ask(locked, str(made["secret"])).status_code == 200
        assert create(locked, "after")["in_force"]

    def test_work_from_the_command_line_alone(self, locked: Cluster) -> None:
        secret = run(locked, "keys", "create", "script", "-q").stdout.strip()
        data = json.dumps(BODY)

        refused = run(locked, "predict", "a", "--data", data)
        predicted = run(locked, "predict", "a", "--data", data, "-o", "json", MODELFLEET_API_KEY=secret)
        revoked = run(locked, "keys", "revoke", "script", "--yes")

        assert (refused.returncode, "modelfleet keys create NAME" in refused.stderr) == (1, True)
        assert json.loads(predicted.stdout)["outputs"][0]["data"] == [1.0], predicted.stderr
        assert revoked.returncode == 0
        assert run(locked, "predict", "a", "--data", data, MODELFLEET_API_KEY=secret).returncode == 1
        assert "was revoked" in run(locked, "events").stdout


def files_with(text: str, directory: Path) -> list[Path]:
    """The files below `directory` that hold `text`: logs, the store, the kept table."""
    files = [path for path in directory.rglob("*") if path.is_file() and "processes" not in path.parts]
    return [path for path in files if text.encode() in path.read_bytes()]
