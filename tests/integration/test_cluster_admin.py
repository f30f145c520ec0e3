"""The admin API of a running control plane: who may ask, what it tells, and what it never tells."""

from __future__ import annotations

import hashlib
import json
import secrets
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.integration.cluster import Cluster, fleet, pick_port, until

SECRET = secrets.token_hex(16)
PASSWORD = secrets.token_hex(16)
# The model refuses to load unless it was given both.
LOADS = f"""
given = os.environ['KEY'] + os.environ['PASSWORD']
assert hashlib.sha256(given.encode()).hexdigest() == '{hashlib.sha256((SECRET + PASSWORD).encode()).hexdigest()}'
print('loaded with both', flush=True)
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for the module, with one model that prints and holds two secrets."""
    root = tmp_path_factory.mktemp("admin")
    found = Cluster(root, f"test-{secrets.token_hex(4)}", pick_port)
    found.environ["TEST_API_KEY"] = SECRET
    (root / "password.txt").write_text(f"{PASSWORD}\n")
    found.write_model("told", 1.0, load=LOADS, predict="print('asked', flush=True)")
    found.start()
    section = {"source": "told", "secrets": {"KEY": {"env": "TEST_API_KEY"}, "PASSWORD": {"file": "password.txt"}}}
    try:
        found.apply(fleet(told={"1": section}))
        yield found
    finally:
        found.close()


class TestWhoMayAsk:
    @pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}, {"authorization": "Basic eA=="}])
    @pytest.mark.parametrize("path", ["/api/v1/status", "/internal/v1/table"])
    def test_without_the_token_nothing_is_told(self, shared: Cluster, path: str, headers: dict[str, str]) -> None:
        answer = httpx.get(f"{shared.url}{path}", headers=headers, trust_env=False)

        assert answer.status_code == 401
        assert answer.json()["code"] == "UNAUTHENTICATED"
        assert "token" in answer.json()["error"]

    @pytest.mark.parametrize("host", ["evil.example", "evil.example:7070", "127.0.0.1.evil.example", ""])
    def test_a_foreign_host_name_is_refused(self, shared: Cluster, host: str) -> None:
        assert shared.api("GET", "/status").status_code == 200

        answer = httpx.get(f"{shared.url}/healthz", headers={"host": host}, trust_env=False)

        assert answer.status_code == 403

    def test_a_body_that_is_too_large_is_refused(self, shared: Cluster) -> None:
        answer = shared.api("POST", "/plan", content=b" " * (2 * 1024 * 1024 + 1))

        assert answer.status_code == 413

    def test_a_body_without_a_length_is_refused(self, shared: Cluster) -> None:
        answer = shared.api("POST", "/plan", content=iter([b"{}"]))

        assert answer.status_code == 413

    def test_a_body_of_another_shape_is_told_by_its_fields(self, shared: Cluster) -> None:
        answer = shared.api("POST", "/plan", json={"text": "", "fiel": "x"})

        assert answer.status_code == 422
        assert "body.file" in answer.json()["error"]

    def test_health_needs_no_token_and_says_whose_it_is(self, shared: Cluster) -> None:
        assert shared.process is not None

        answer = httpx.get(f"{shared.url}/healthz", trust_env=False)

        assert (answer.json()["cluster"], answer.json()["pid"]) == (shared.name, shared.process.pid)


class TestSecrets:
    def test_values_reach_the_model_and_stand_nowhere_else(self, shared: Cluster) -> None:
        values = [SECRET, PASSWORD]

        found = [p for p in [*shared.state_dir.glob("state.sqlite*"), *shared.state_dir.glob("logs/*"),
                             shared.state_dir / "control.json", *shared.state_dir.glob("gateway/*"),
                             *shared.state_dir.glob("processes/*/*/launch.json"), shared.root / "control.log"]
                 if any(v.encode() in p.read_bytes() for v in values)]  # fmt: skip
        told = json.dumps([shared.get(path) for path in ("/status", "/events", "/history/1", "/models/told")])
        arguments = " ".join(word for p in shared.processes() for word in p.cmdline())

        assert shared.predict("told") == 1.0
        assert found == []
        assert not any(v in told or v in arguments for v in values)

    def test_the_state_directory_is_its_owners_alone(self, shared: Cluster) -> None:
        private = [
            "token",
            "key",
            "control.json",
            "state.sqlite",
            *(f"secrets/{p.name}" for p in _secret_files(shared)),
        ]

        assert _mode(shared, "") == _mode(shared, "secrets") == 0o700
        assert len(private) == 6
        assert {name: _mode(shared, name) for name in private} == dict.fromkeys(private, 0o600)


class TestWhatItTells:
    def test_events_carry_reasons(self, shared: Cluster) -> None:
        events = shared.get("/events", model="told")

        kinds = [e["kind"] for e in events]
        assert [k for k in kinds if k in ("replica_started", "replica_ready")] == ["replica_started", "replica_ready"]
        assert all(e["message"] for e in events)
        assert [e["id"] for e in events] == sorted(e["id"] for e in events)

    def test_a_long_poll_for_events_answers_as_soon_as_there_is_one(self, shared: Cluster) -> None:
        last = shared.get("/events", limit=1)[-1]["id"]
        answers: list[float] = []

        def poll() -> None:
            found = shared.get("/events", after=last, wait_s=20)
            answers.append(time.monotonic())
            assert found[0]["id"] > last

        waiting = threading.Thread(target=poll)
        waiting.start()
        began = time.monotonic()
        (replica,) = shared.version("told")["replicas"]
        shared.server(replica["id"]).kill()
        waiting.join(25)

        assert answers
        assert answers[0] - began < 10
        until("it is ready again", lambda: shared.version("told")["state"] == "ready")

    def test_a_long_poll_without_news_answers_after_its_time(self, shared: Cluster) -> None:
        last = shared.get("/events", limit=1)[-1]["id"]
        began = time.monotonic()

        found = shared.get("/events", after=last, model="nobody", wait_s=0.5)

        assert found == []
        assert time.monotonic() - began >= 0.5

    def test_logs_are_told_with_their_replica(self, shared: Cluster) -> None:
        (replica,) = [r["id"] for r in shared.version("told")["replicas"]]

        answer = shared.api("GET", "/models/told/logs")

        lines = [json.loads(line) for line in answer.text.splitlines()]
        assert any(line["text"] == "loaded with both" and line["replica"] == replica for line in lines)
        assert shared.api("GET", "/models/nobody/logs").status_code == 404

    def test_logs_are_followed(self, shared: Cluster) -> None:
        token = (shared.state_dir / "token").read_text().strip()
        headers = {"authorization": f"Bearer {token}"}
        url, parameters = f"{shared.url}/api/v1/models/told/logs", {"follow": "true", "tail": "0"}

        got: list[str] = []
        asking = threading.Thread(target=lambda: until("a line came", lambda: got or _ask(shared)))
        client = httpx.Client(trust_env=False, timeout=20, headers=headers)
        with client, client.stream("GET", url, params=parameters) as stream:
            asking.start()
            for line in stream.iter_lines():
                got.append(json.loads(line)["text"])
                if "asked" in got:
                    break
        asking.join(20)

        assert "asked" in got

    def test_doctor_finds_nothing_wrong_with_a_healthy_cluster_but_the_engines_own_word(self, shared: Cluster) -> None:
        until("the gateway has the table", lambda: shared.get("/status")["gateway"]["table_current"])

        checks = {c["name"]: c for c in shared.get("/doctor")}

        assert set(checks) == {"engine", "gateway", "disk", "sources", "signals", "versions"}
        assert checks["gateway"]["ok"]
        assert checks["versions"]["ok"]
        assert all(c["remedy"] for c in checks.values() if not c["ok"])

    def test_describe_has_the_manifest_as_it_was_written(self, shared: Cluster) -> None:
        found = shared.get("/models/told")

        assert "TEST_API_KEY" in found["manifest"]
        assert found["urls"]["v2"] == f"http://127.0.0.1:{shared.gateway_port}/v2/models/told/infer"
        assert shared.api("GET", "/models/nobody").status_code == 404

    def test_what_is_not_known_is_404_with_a_way_on(self, shared: Cluster) -> None:
        for path in ("/operations/nope", "/history/99"):
            answer = shared.api("GET", path)

            assert answer.status_code == 404
            assert "modelfleet history" in answer.json()["error"]

    def test_at_rest_it_is_small(self, shared: Cluster) -> None:
        assert shared.process is not None

        assert psutil.Process(shared.process.pid).memory_info().rss < 150 * 1024**2


def _ask(cluster: Cluster) -> list[str]:
    """Makes the model print; nothing was seen of it yet."""
    cluster.predict("told")
    return []


def _secret_files(cluster: Cluster) -> list[Path]:
    return sorted((cluster.state_dir / "secrets").iterdir())


def _mode(cluster: Cluster, name: str) -> int:
    return stat.S_IMODE((cluster.state_dir / name).stat().st_mode)
