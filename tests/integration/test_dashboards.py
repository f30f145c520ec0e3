"""Every query of every dashboard finds data: a managed Prometheus, a gateway, model servers, and traffic in which all happens.

The slow part is once a module: two versions with canary traffic and a shadow that differs, batches, a cache, streams, a
queue that overflows, failing requests, replicas that crash, one that sleeps and is woken, keys, prices.
"""

from __future__ import annotations

import http.client
import json
import secrets
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from scripts.dashboards.__main__ import DIRECTORY
from tests.integration.cluster import Cluster, fleet, pick_port, until
from tests.integration.grafana import Dashboard, PrometheusSource, Query, interpolated

pytestmark = [pytest.mark.prometheus, pytest.mark.timeout(420)]

NAMES = ["control-plane", "fleet", "gateway", "model"]
MODELS = ("iris", "slow", "sleepy", "cached", "streams", "crashy")
# Processes are held back by no CPU limit: the engine has nothing to say of it. `TestWhatOnlyContainersHave` asks these.
OF_CONTAINERS = {("Throttled", "A"), ("CPU by replica", "B")}

STREAMS = """
class Model:
    inputs = [{"name": "x", "datatype": "FP64", "shape": [-1]}]

    def load(self, path):
        pass

    def predict(self, inputs):
        return inputs["x"] * 2

    def predict_stream(self, inputs):
        for number in range(3):
            yield {"n": [number]}
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    found = Cluster(tmp_path_factory.mktemp("dashboards"), f"test-{secrets.token_hex(4)}", pick_port)
    try:
        found.start()
        yield found
    finally:
        found.close()


@pytest.fixture(scope="module")
def prometheus(cluster: Cluster) -> Iterator[PrometheusSource]:
    """Has seen the cluster at rest, and then everything that can happen to it."""
    port = pick_port()
    write_models(cluster)
    cluster.apply(manifest(port))
    source = PrometheusSource(f"http://127.0.0.1:{port}")
    with Traffic(cluster):
        # Counters start at zero: what happened before the first scrape is no increase.
        until("all is scraped", lambda: is_scraped(source), 120)
        crash(cluster, times=4)
        wake(cluster)
        cluster.apply(manifest(port, canary=30))
        for step in ("pause", "resume"):
            assert cluster.api("POST", f"/models/iris/rollout/{step}", json={}).status_code == 200
        yield source
    source.close()


def write_models(cluster: Cluster) -> None:
    fails = "if min(inputs['x']) < 0: raise RuntimeError('below zero')"
    cluster.write_model("stable", 1.0, predict=fails)
    cluster.write_model("canary", 2.0, predict="time.sleep(0.002)")
    cluster.write_model("shadow", 3.0, predict="if max(inputs['x']) > 100: raise RuntimeError('above a hundred')")
    cluster.write_model("slow", predict="time.sleep(0.15)")
    cluster.write_model("quick")
    cluster.write_model("crashy", predict="if 666 in inputs['x']: os._exit(3)")
    cluster.write_model("streams")
    (cluster.root / "streams" / "model.py").write_text(STREAMS)


def manifest(port: int, canary: int = 20) -> dict[str, Any]:
    iris = {
        "versions": {"1": {"source": "stable"}, "2": {"source": "canary"}, "3": {"source": "shadow"}},
        "traffic": {"1": 100 - canary, "2": canary},
        "shadow": {"version": "3", "queue_max": 2},
        "slo": {"latency_ms": 100, "percentile": 95},
        "batching": {"max_size": 8},
        "concurrency": 4,
        "rate_limit": {"requests_per_s": 200},
    }  # fmt: skip
    slow = {"versions": {"1": {"source": "slow"}}, "concurrency": 1, "queue": {"max": 2, "timeout_ms": 200}}
    asleep = {"min": 0, "max": 2, "standby": 1, "idle_after": "1s"}
    sleepy = {"versions": {"1": {"source": "quick"}}, "scaling": asleep, "queue": {"timeout_ms": 30_000}}
    cached = {"versions": {"1": {"source": "quick"}}, "cache": {"ttl": "1s", "max": "1Mi"}}
    models = fleet(
        iris=iris, slow=slow, sleepy=sleepy, cached=cached, streams="streams",
        crashy={"versions": {"1": {"source": "crashy"}}, "scaling": {"min": 2}},
    )  # fmt: skip
    return {
        **models,
        # Nobody listens there: what is counted is what is dropped.
        "observability": {"prometheus": "managed", "prometheus_port": port, "tracing": {"otlp": "http://127.0.0.1:9"}},
        "pricing": {"cpu_hour": 0.04, "memory_gib_hour": 0.005},
    }


def body(x: float) -> bytes:
    return json.dumps({"inputs": [{"name": "x", "datatype": "FP64", "shape": [1], "data": [x]}]}).encode()


class Traffic:
    """A few requests of every kind each tenth of a second, each kind on a connection of its own, until the block ends."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._ended = threading.Event()
        key = cluster.api("POST", "/keys", json={"name": "dashboards"}).json()["secret"]
        self._fields = {"content-type": "application/json", "x-api-key": key}
        kinds: list[tuple[str, float]] = [
            ("iris/infer", 1), ("iris/infer", 2), ("iris/infer", 3), ("iris/infer", 4), ("iris/infer", -1),
            ("iris/infer", 101), ("cached/infer", 1), ("crashy/infer", 1), ("crashy/infer", 1),
            *(("slow/infer", 1) for _ in range(5)), ("streams/infer_stream", 1), ("nobody/infer", 1),
        ]  # fmt: skip
        self._threads = [threading.Thread(target=self._work, args=kind, daemon=True) for kind in kinds]

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(30)

    def _work(self, path: str, x: float) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._cluster.gateway_port, timeout=20)
        while not self._ended.wait(0.1):
            try:
                connection.request("POST", f"/v2/models/{path}", body(x), self._fields)
                connection.getresponse().read()
            except (OSError, http.client.HTTPException):
                connection.close()
        connection.close()


def is_scraped(source: PrometheusSource) -> bool:
    """Both pages of counters, with every model."""
    gateway = source.values("label_values(modelfleet_requests_total, model)", "", {})
    control_plane = source.values("label_values(modelfleet_replica_failures_total, model)", "", {})
    replicas = source.values("label_values(modelfleet_batch_size_count, model)", "", {})
    return set(gateway) >= {"iris", "crashy"} and set(control_plane) == set(MODELS) and "crashy" in replicas


def crash(cluster: Cluster, times: int) -> None:
    """Ends a replica under load, again and again: requests are sent again, it is ejected, fails, and starts anew."""
    for n in range(1, times + 1):
        url = f"http://127.0.0.1:{cluster.gateway_port}/v2/models/crashy/infer"
        httpx.post(url, content=body(666), trust_env=False, timeout=20)
        until(f"failure {n} is known", lambda n=n: len(cluster.events("replica_failed")) >= n, 30)
        until("another takes its place", lambda: cluster.version("crashy")["ready"] == 2, 40)


def wake(cluster: Cluster) -> None:
    def stands_by() -> bool:
        found = cluster.version("sleepy")
        return found["state"] == "asleep" and [r["state"] for r in found["replicas"]] == ["standby"]

    until("it sleeps", stands_by, 60)
    cluster.predict("sleepy")


@pytest.mark.parametrize("name", NAMES)
def test_every_query_finds_data(name: str, cluster: Cluster, prometheus: PrometheusSource) -> None:
    dashboard = Dashboard(DIRECTORY / f"{name}.json")
    left = [query for query in dashboard.queries if (query.panel, query.name) not in OF_CONTAINERS]

    def all_found() -> bool:
        chosen = choices(dashboard, prometheus, cluster)
        left[:] = [query for query in left if not any(prometheus.has_data(query, each) for each in chosen)]
        return not left

    try:
        until("every query found data", all_found, 120)  # some rules are evaluated once a minute
    except AssertionError:
        pytest.fail("no data:\n" + "\n".join(map(str, left)), pytrace=False)


def choices(dashboard: Dashboard, source: PrometheusSource, cluster: Cluster) -> list[dict[str, str]]:
    """What somebody may have chosen: one model after the other, all of its versions, the first of what else is offered."""
    variables = list(dashboard.variables)
    if "model" not in {name for name, _, _ in variables}:
        return [{"cluster": cluster.name}]
    found = []
    for model in MODELS:
        chosen = {"cluster": cluster.name, "model": model, "version": ".*"}
        offered = {name: source.values(query, regex, chosen) for name, query, regex in variables if name not in chosen}
        found.append({**{name: values[0] if values else "" for name, values in offered.items()}, **chosen})
    return found


def test_variables_offer_what_there_is(cluster: Cluster, prometheus: PrometheusSource) -> None:
    chosen = {"cluster": cluster.name, "model": "iris"}

    offered = {
        name: prometheus.values(query, regex, chosen)
        for name, query, regex in Dashboard(DIRECTORY / "model.json").variables
    }

    assert offered == {
        "cluster": [cluster.name],
        "model": sorted(MODELS),
        "version": ["1", "2", "3"],
        "stable": ["1", "2"],
        "canary": ["2", "1"],
    }


class TestWhatOnlyContainersHave:
    """Series as the Docker engine's, by Prometheus' own tool."""

    @pytest.mark.parametrize(
        ("panel", "name", "expected"), [("Throttled", "A", {"r1": 0.5, "r2": 0}), ("CPU by replica", "B", {"1": 2})]
    )
    def test_is_found_by_its_query(self, tmp_path: Path, panel: str, name: str, expected: dict[str, float]) -> None:
        (query,) = [q for q in Dashboard(DIRECTORY / "model.json").queries if (q.panel, q.name) == (panel, name)]
        label = "replica" if "r1" in expected else "version"
        of = 'cluster="c",role="control_plane",model="iris",version="1",replica='
        series = {
            f'modelfleet_replica_cpu_throttled_seconds_total{{{of}"r1"}}': "0+5x12",
            f'modelfleet_replica_cpu_throttled_seconds_total{{{of}"r2"}}': "7+0x12",
            f'modelfleet_replica_cpu_limit_cores{{{of}"r1"}}': "2x12",
            f'modelfleet_replica_cpu_limit_cores{{{of}"r2"}}': "2x12",
        }
        asked = {
            "expr": interpolated(query.expr, {"cluster": "c", "model": "iris", "version": ".*"}),
            "eval_time": "2m",
            "exp_samples": [{"labels": f'{{{label}="{key}"}}', "value": value} for key, value in expected.items()],
        }
        fed = [{"series": each, "values": values} for each, values in series.items()]
        test = {"interval": "10s", "input_series": fed, "promql_expr_test": [asked]}
        (tmp_path / "test.json").write_text(json.dumps({"tests": [test]}))

        done = subprocess.run(
            ["promtool", "test", "rules", "test.json"], cwd=tmp_path, capture_output=True, text=True, check=False
        )

        assert done.returncode == 0, done.stdout + done.stderr


class TestHasData:
    """The judge itself: it must be able to say no."""

    @pytest.mark.parametrize(
        ("expr", "expected"),
        [("up == 1", True), ("0 * up", True), ("up == 7", False), ("0 * up / 0", False), ("no_such_series", False)],
    )
    def test_tells_data_from_none(self, prometheus: PrometheusSource, expr: str, expected: bool) -> None:
        found = [prometheus.has_data(Query("", "", expr, is_instant), {}) for is_instant in (True, False)]

        assert found == [expected, expected]

    def test_takes_no_broken_query_for_an_empty_one(self, prometheus: PrometheusSource) -> None:
        with pytest.raises(AssertionError, match="parse error"):
            prometheus.has_data(Query("", "", "sum by (", True), {})
