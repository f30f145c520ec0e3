"""Whatever is killed: the control plane takes up what it left, replicas and the gateway come back, requests go on."""

from __future__ import annotations

import secrets
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil
import pytest

from tests.integration.cluster import Cluster, fleet, pick_port, until


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for the module: starting a whole one takes longer than most of what is tested here."""
    found = Cluster(tmp_path_factory.mktemp("crash"), f"test-{secrets.token_hex(4)}", pick_port)
    yield found
    found.close()


@pytest.fixture
def mine(lasting: Cluster) -> Cluster:
    """The cluster with a control plane that runs. Each test applies a manifest of its own to it."""
    if lasting.process is None or lasting.process.poll() is not None:
        lasting.start()
    return lasting


class SlowSource:
    """A web server with one model in it, whose answers wait while `hold` is set. `waiting`: one waits now."""

    def __init__(self, content: bytes) -> None:
        self.free = 0
        self.waiting = threading.Event()
        self.released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler(content))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/model.py"

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(self, content: bytes) -> type[BaseHTTPRequestHandler]:
        source = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self._head()

            def do_GET(self) -> None:
                source.pass_or_wait()
                self._head()
                self.wfile.write(content)

            def _head(self) -> None:
                self.send_response(200)
                self.send_header("content-length", str(len(content)))
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing on standard error."""

        return Handler

    def pass_or_wait(self) -> None:
        if self.free > 0:
            self.free -= 1
            return
        self.waiting.set()
        self.released.wait(30)


class TestControlPlane:
    def test_killed_while_it_prepares_an_apply_it_completes_it_at_the_next_start(self, mine: Cluster) -> None:
        mine.write_model("m", 1.0)
        mine.apply(fleet(m="m"))
        replica = mine.version("m")["replicas"][0]["id"]
        mine.write_model("m", 2.0)
        source = SlowSource((mine.root / "m" / "model.py").read_bytes())
        source.free = 1_000_000
        mine.api("POST", "/plan", json=mine.request(fleet(m=source.url)))
        source.free = 1_000_000 - source.free  # an apply plans once more, then fetches

        with mine.load("m") as load:
            operation = mine.begin(fleet(m=source.url))
            until("the source is being fetched", source.waiting.is_set)
            assert mine.get(f"/operations/{operation}")["state"] == "preparing"
            mine.kill()
            answered = len(load.answers)
            until("requests go on without a control plane", lambda: len(load.answers) > answered + 50)
            source.released.set()
            mine.start()
            ended = mine.ended(operation)
            until("the new source answers", lambda: load.answers[-1] == 2.0)
        source.close()

        assert ended["state"] == "succeeded"
        assert load.failures == []
        assert replica not in [r["id"] for r in mine.version("m")["replicas"]]
        assert mine.events("operation_resumed")

    def test_killed_while_it_converges_it_adopts_what_runs_and_leaves_no_orphan(self, mine: Cluster) -> None:
        gate = mine.root / "gate"
        mine.write_model("m", 1.0)
        mine.write_model("other", 5.0)
        mine.apply(fleet(m="m", other="other"))
        other = mine.version("other")["replicas"][0]["id"]
        mine.write_model("m", 2.0, load=f"while not os.path.exists({str(gate)!r}): time.sleep(0.01)")

        with mine.load("m") as load:
            operation = mine.begin(fleet(m="m", other="other"))
            until("the new replica loads", lambda: len(_replicas(mine, "m")) == 2)
            loading = {r for r, state in _replicas(mine, "m").items() if state == "loading" or state == "starting"}
            mine.kill()
            gate.touch()
            mine.start()
            ended = mine.ended(operation)
            until("the new source answers", lambda: load.answers[-1] == 2.0)

        assert ended["state"] == "succeeded"
        assert load.failures == []
        assert set(_replicas(mine, "m")) == loading
        assert list(_replicas(mine, "other")) == [other]
        assert "adopted" in mine.events("replicas_adopted")[-1]["message"]
        servers = [p for p in mine.processes() if "worker_image.server" in p.cmdline()]
        assert len(servers) == 2

    def test_ended_by_a_signal_it_leaves_the_rest_running(self, mine: Cluster) -> None:
        mine.write_model("m", 1.0)
        mine.apply(fleet(m="m"))
        before = _replicas(mine, "m"), mine.get("/status")["gateway"]["pid"]
        assert mine.process is not None

        mine.process.terminate()
        code = mine.process.wait(10)
        served = mine.predict("m")
        gone = not (mine.state_dir / "control.json").exists()
        mine.start()
        until("it adopted the gateway", lambda: mine.get("/status")["gateway"]["pid"])
        until("it observed", lambda: mine.get("/status")["state"] == "converged")

        assert code == 0
        assert served == 1.0
        assert gone
        assert (_replicas(mine, "m"), mine.get("/status")["gateway"]["pid"]) == before

    def test_a_second_one_refuses_and_names_the_first(self, mine: Cluster) -> None:
        assert mine.process is not None

        second = mine.spawn(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        _, said = second.communicate(timeout=20)

        assert second.returncode == 2
        assert f"process id {mine.process.pid}" in said
        assert "Traceback" not in said
        assert mine.get("/status")["pid"] == mine.process.pid


class TestReplica:
    def test_a_killed_one_is_replaced_within_three_seconds_and_its_load(self, mine: Cluster) -> None:
        mine.write_model("m", 1.0)
        mine.apply(fleet(m="m"))
        (victim,) = _replicas(mine, "m")
        killed_at = time.time()

        mine.server(victim).kill()
        until("another replica is ready", lambda: "ready" in (_replicas(mine, "m").keys() - {victim} and _states(mine)))

        (replica,) = _replicas(mine, "m")
        started = next(e for e in mine.events("replica_started") if e["replica"] == replica)
        assert started["at"] - killed_at < 3
        assert mine.predict("m") == 1.0
        ended = next(e for e in mine.events("replica_failed") if e["replica"] == victim)
        assert "killed" in ended["message"] or "137" in ended["message"]

    def test_one_of_two_is_killed_and_hardly_a_request_is_lost(self, mine: Cluster) -> None:
        """Only requests that were inside the killed process may fail, and predictions are tried again elsewhere."""
        mine.write_model("m", 1.0)
        mine.apply(fleet(m={"versions": {"1": {"source": "m"}}, "scaling": {"min": 2}}))
        victim = next(iter(_replicas(mine, "m")))

        with mine.load("m") as load:
            mine.server(victim).kill()
            until("two are ready again", lambda: victim not in _replicas(mine, "m") and _states(mine) == ["ready"] * 2)
            answered = len(load.answers)
            until("requests go on", lambda: len(load.answers) > answered + 50)

        assert len(load.failures) <= 8


class TestGateway:
    def test_a_killed_one_is_started_again(self, mine: Cluster) -> None:
        mine.write_model("m", 1.0)
        mine.apply(fleet(m="m"))
        first = mine.get("/status")["gateway"]["pid"]
        starts = len(mine.events("gateway_started"))

        psutil.Process(first).kill()
        until("another gateway serves", lambda: mine.get("/status")["gateway"]["pid"] not in (first, None))

        until("it has the table", lambda: mine.get("/status")["gateway"]["table_current"])
        assert mine.predict("m") == 1.0
        assert len(mine.events("gateway_started")) == starts + 1

    def test_a_control_plane_at_another_address_gets_a_gateway_that_knows_it(self, mine: Cluster) -> None:
        mine.write_model("m", 1.0)
        mine.apply(fleet(m="m"))
        first = mine.get("/status")["gateway"]["pid"]

        with mine.load("m") as load:
            mine.kill()
            mine.api_port = pick_port()
            mine.start()
            until("the gateway has the table", lambda: mine.get("/status")["gateway"]["table_current"])

        # It took over the new address in a hot restart.
        assert load.failures == []
        assert mine.get("/status")["gateway"]["pid"] == first

    def test_one_that_a_killed_control_plane_left_half_started_is_not_left_behind(self, mine: Cluster) -> None:
        first = until("a gateway runs", lambda: mine.get("/status")["gateway"]["pid"])
        mine.kill()
        (mine.state_dir / "gateway" / "process.json").unlink()

        mine.start()
        until("another gateway serves", lambda: mine.get("/status")["gateway"]["pid"])

        gateways = [p for p in mine.processes() if "router" in p.cmdline()]
        assert [p.pid for p in gateways] == [mine.get("/status")["gateway"]["pid"]]
        assert gateways[0].pid != first


class TestDown:
    def test_in_the_moment_of_a_start_it_leaves_no_gateway(self, mine: Cluster) -> None:
        mine.down()

        mine.start().down()

        assert mine.processes() == []

    def test_nothing_is_left(self, mine: Cluster) -> None:
        mine.write_model("m", 1.0)
        mine.apply(fleet(m="m"))
        assert len(mine.processes()) >= 3

        mine.down()

        assert mine.processes() == []
        assert not (mine.state_dir / "control.json").exists()

    def test_what_was_applied_comes_back_at_the_next_start(self, mine: Cluster) -> None:
        mine.write_model("m", 4.0)
        mine.apply(fleet(m="m"))
        mine.down()

        mine.start()
        until("it converged", lambda: mine.get("/status")["state"] == "converged")

        assert mine.predict("m") == 4.0

    def test_the_control_plane_alone_ends_when_replicas_are_to_be_kept(self, mine: Cluster) -> None:
        mine.write_model("m", 1.0)
        mine.apply(fleet(m="m"))
        assert mine.process is not None

        mine.api("POST", "/down", json={"keep_replicas": True})

        assert mine.process.wait(10) == 0
        assert mine.predict("m") == 1.0


def _replicas(cluster: Cluster, model: str) -> dict[str, str]:
    """State by id of a model's only version."""
    return {r["id"]: r["state"] for r in cluster.version(model)["replicas"]}


def _states(cluster: Cluster) -> list[str]:
    return sorted(_replicas(cluster, "m").values())
