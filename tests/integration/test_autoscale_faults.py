"""The autoscaler when something is wrong: with its sources of signals, and with the replicas that it asks for.

Real control plane, gateway and model servers (processes), and a real Prometheus that scrapes each two seconds.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from tests.integration.cluster import Cluster, fleet, pick_port, until
from tests.integration.prometheus_server import PrometheusServer
from tests.integration.scaled import SLOW, changes, decisions, newest, ready, scaled_model, used_to
from tests.integration.streams import streaming

pytestmark = pytest.mark.timeout(180)
AHEAD_S = 120.0


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for the module; each test applies a manifest of its own."""
    found = Cluster(tmp_path_factory.mktemp("faults"), f"test-{secrets.token_hex(4)}", pick_port).start()
    try:
        yield found
    finally:
        found.close()


@pytest.fixture(scope="module")
def prometheus(shared: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    root = tmp_path_factory.mktemp("prometheus")
    found = PrometheusServer(root, pick_port(), shared.metrics_port).start()
    yield found
    found.kill()


def manifest(model: str, source: str, url: str, **section: Any) -> dict[str, Any]:
    """One scaled model, and where its signals come from."""
    return {**fleet(**{model: scaled_model(model, **section)}), "autoscaler": {"source": source, "prometheus": url}}


def signals(cluster: Cluster) -> dict[str, Any]:
    found: dict[str, Any] = cluster.get("/status")["signals"]
    return found


def source(cluster: Cluster, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in signals(cluster)["sources"] if each["name"] == name)
    return found


def reads_from(cluster: Cluster, name: str) -> None:
    """Waits until that source counts and is fresh."""
    until(
        f"signals come from {name}",
        lambda: signals(cluster)["active"] == name and not source(cluster, name)["trouble"],
    )


@contextmanager
def clock_ahead(server: PrometheusServer) -> Iterator[str]:
    """The address of that server as if its clock were `AHEAD_S` ahead: every time in its answers is."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = self.rfile.read(int(self.headers["content-length"]))
            fields = {"content-type": self.headers["content-type"]}
            answer = httpx.post(f"{server.url}{self.path}", content=form, headers=fields, trust_env=False).json()
            for sample in answer["data"]["result"]:
                sample["value"][0] += AHEAD_S
                if sample["metric"].get("modelfleet_says") == "scraped at":
                    sample["value"][1] = str(float(sample["value"][1]) + AHEAD_S)
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{proxy.server_port}"
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join(5)


@pytest.mark.prometheus
class TestPrometheusAlone:
    def test_answers_a_step_within_six_seconds_and_lowers_nothing_once_it_is_gone(
        self, shared: Cluster, prometheus: PrometheusServer
    ) -> None:
        shared.write_model("asked", predict=SLOW)
        shared.apply(manifest("asked", "prometheus", prometheus.url))
        after = newest(shared)
        with streaming(shared.gateway_port, "asked", 5) as stream:
            reads_from(shared, "prometheus")
            used_to(stream)
            stepped_at = stream.step(50)
            first = until("it scales", lambda: decisions(shared, "asked", after), 20)[0]
            prometheus.kill()

        try:
            lost = until("it says so", lambda: told_of(shared, after, "cannot be asked"), 20)[-1]
            (found,) = until("signals are old", lambda: held(shared, "asked"), 40)
        finally:
            prometheus.start()
        assert first["at"] - stepped_at < 6
        assert lost["message"].endswith("counts go up on what is known, and none goes down")
        assert "the newest signals are" in dict(found["inputs"])["may go down"]
        assert [(was, now) for was, now in changes(decisions(shared, "asked", after)) if now < was] == []

    def test_answers_a_step_though_its_clock_is_two_minutes_ahead(
        self, shared: Cluster, prometheus: PrometheusServer
    ) -> None:
        shared.write_model("skewed", predict=SLOW)
        with clock_ahead(prometheus) as url:
            shared.apply(manifest("skewed", "prometheus", url))
            after = newest(shared)
            with streaming(shared.gateway_port, "skewed", 5) as stream:
                reads_from(shared, "prometheus")
                used_to(stream)
                stepped_at = stream.step(50)
                first = until("it scales", lambda: decisions(shared, "skewed", after), 20)[0]

            note = source(shared, "prometheus")["note"]

        assert first["at"] - stepped_at < 6
        assert note.startswith("its clock is 120.0 s ahead") or note.startswith("its clock is 119.")


def told_of(cluster: Cluster, after: int, words: str) -> list[dict[str, Any]]:
    return [event for event in cluster.events("signals_lost", after) if words in event["message"]]


def held(cluster: Cluster, model: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cluster.get(f"/models/{model}/scaling")
    return found if any("newest signals are" in value for _, value in found[0]["inputs"]) else []


@pytest.mark.prometheus
class TestPrometheusBesideTheGateway:
    def test_killed_and_revived_under_load_it_is_missed_by_nobody(
        self, shared: Cluster, prometheus: PrometheusServer
    ) -> None:
        shared.write_model("both", predict=SLOW)
        shared.apply(manifest("both", "auto", prometheus.url))
        after = newest(shared)
        with streaming(shared.gateway_port, "both", 5) as stream:
            until("both are read", lambda: not any(each["trouble"] for each in signals(shared)["sources"]))
            used_to(stream)

            prometheus.kill()
            lost = until("it says so", lambda: shared.events("signals_lost", after), 20)
            stepped_at = stream.step(50)
            first = until("it scales", lambda: decisions(shared, "both", after), 20)[0]
            prometheus.start()
            back = until("it says so", lambda: shared.events("signals_back", after), 30)

        assert lost[0]["message"].startswith("prometheus: Prometheus at http://127.0.0.1:")
        assert lost[0]["message"].endswith("; goes on with direct")
        assert first["at"] - stepped_at < 3
        assert back[0]["message"] == "prometheus: its numbers are fresh and whole again"
        assert stream.failures == []


class TestStarts:
    def test_of_which_each_second_one_fails_are_made_up_for(self, shared: Cluster) -> None:
        count = shared.root / "starts"
        count.mkdir()
        load = (
            f"n = len(os.listdir({str(count)!r}))\n"
            f"open(os.path.join({str(count)!r}, str(os.getpid())), 'w').close()\n"
            "if n % 2:\n    raise RuntimeError('each second start fails')"
        )
        shared.write_model("flaky", predict=SLOW, load=load)
        shared.apply(fleet(flaky=scaled_model("flaky", scaling={"max": 3})))
        after = newest(shared)
        with streaming(shared.gateway_port, "flaky", 5) as stream:
            used_to(stream)
            stream.step(50)
            until("all are ready", lambda: ready(shared, "flaky") == 3, 60)

        found = changes(decisions(shared, "flaky", after))
        assert found[-1][1] == 3
        assert [(was, now) for was, now in found if now < was] == []
        assert len(list(count.iterdir())) > 3
        assert stream.failures == []

    def test_that_take_long_are_waited_for_and_not_asked_for_twice(self, shared: Cluster) -> None:
        gate = shared.root / "go"
        gate.touch()
        waiting = f"while not os.path.exists({str(gate)!r}):\n    time.sleep(0.01)"
        shared.write_model("late", predict=SLOW, load=waiting)
        shared.apply(fleet(late=scaled_model("late", scaling={"max": 3})))
        gate.unlink()
        with streaming(shared.gateway_port, "late", 5) as stream:
            used_to(stream)
            stream.step(50)
            until("it scales to its most", lambda: shared.version("late")["desired"] == 3, 20)
            stream.step(5)
            # While they load nothing is known of what they will do: many turns must change nothing.
            answered = stream.answered
            until("it goes on", lambda: stream.answered > answered + 50, 40)
            (found,) = shared.get("/models/late/scaling")
            starting = [r["state"] for r in shared.version("late")["replicas"]].count("loading")
            gate.touch()
            until("all are ready", lambda: ready(shared, "late") == 3, 40)

        assert starting == 2
        assert found["replicas"] == 3
        assert len(list(shared.version("late")["replicas"])) == 3


class TestSleep:
    def test_comes_by_itself_and_a_request_ends_it(self, shared: Cluster) -> None:
        """What the fast tests cannot show: that a whole silence leads to sleep, and one request to no second one."""
        shared.write_model("sleepy", 7.0)
        section = {"scaling": {"min": 0, "standby": 1, "idle_after": "3s"}, "versions": {"1": {"source": "sleepy"}}}
        shared.apply(fleet(sleepy=section))
        after = newest(shared)

        until("it sleeps", lambda: shared.version("sleepy")["state"] == "asleep", 90)
        answer = shared.predict("sleepy")
        awake = shared.version("sleepy")["desired"]
        until("it sleeps again", lambda: shared.version("sleepy")["state"] == "asleep", 30)

        assert (answer, awake) == (7.0, 1)
        assert changes(decisions(shared, "sleepy", after)) == [(1, 0), (1, 0)]
        assert len(shared.events("version_woken", after)) == 1
