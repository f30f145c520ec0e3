"""Sleep on a whole cluster: falling asleep when nobody asks, waking when somebody does, and whatever goes wrong meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.cluster import BODY, Cluster, fleet, until

# A model that says so when two requests are inside at once, which `concurrency: 1` forbids.
ONE_AT_A_TIME = """
with open(os.path.join(os.environ["INSIDE"], str(os.getpid())), "x"):
    time.sleep(0.005)
os.remove(os.path.join(os.environ["INSIDE"], str(os.getpid())))
"""


@pytest.fixture
def cluster(
    tmp_path: Path, cluster: str, free_port: Callable[[], int], request: pytest.FixtureRequest
) -> Iterator[Cluster]:
    """On processes; on Docker where a test says so."""
    found = Cluster(tmp_path, cluster, free_port, getattr(request, "param", "process"))
    found.start()
    yield found
    found.close()
    assert found.containers() == []


either_engine = pytest.mark.parametrize(
    "cluster", ["process", pytest.param("docker", marks=pytest.mark.docker)], indirect=True
)


def sleepy(standby: int = 1, **settings: Any) -> dict[str, Any]:
    scaling = {"min": 0, "max": 3, "standby": standby, "idle_after": "1s"}
    return {"versions": {"1": {"source": "m"}}, "scaling": scaling, "queue": {"timeout_ms": 30_000}, **settings}


def put_to_sleep(cluster: Cluster, standby: int = 1) -> list[str]:
    """Waits until it sleeps as deep as it should; returns the replicas in standby."""

    def ask() -> list[str] | None:
        found = cluster.version("iris")
        ids = [r["id"] for r in found["replicas"]]
        is_deep = len(ids) == standby and all(r["state"] == "standby" for r in found["replicas"])
        return [*ids, "asleep"] if found["state"] == "asleep" and is_deep else None

    return until("it sleeps", ask, within_s=40)[:-1]


class TestFallingAsleep:
    @either_engine
    def test_without_requests_it_sleeps_and_a_request_wakes_what_stands_by(self, cluster: Cluster) -> None:
        cluster.write_model("m", 5.0)
        cluster.apply(fleet(iris=sleepy()))
        assert cluster.predict("iris") == 5.0

        (standby,) = put_to_sleep(cluster)
        asleep = cluster.version("iris")
        assert cluster.predict("iris") == 5.0

        assert asleep["reason"] == "a request wakes it; 1 replica in standby"
        (woken,) = cluster.events("version_woken")
        assert woken["message"] == "0 -> 1: 1 request waits"
        assert standby in [e["replica"] for e in cluster.events("replica_woken")]
        assert any(e["replica"] == standby and "awake again" in e["message"] for e in cluster.events("replica_ready"))

    def test_who_watches_its_readiness_neither_wakes_it_nor_keeps_it_awake(self, cluster: Cluster) -> None:
        cluster.write_model("m", 5.0)
        cluster.apply(fleet(iris=sleepy(standby=0)))
        url = f"http://127.0.0.1:{cluster.gateway_port}/v2/models/iris/ready"
        statuses: list[int] = []

        def is_asleep() -> bool:
            statuses.append(httpx.get(url, trust_env=False).status_code)
            return cluster.version("iris")["state"] == "asleep"

        until("it sleeps while it is watched", is_asleep, within_s=40)
        statuses.append(httpx.get(url, trust_env=False).status_code)

        assert set(statuses) == {200}
        assert cluster.events("version_woken") == []

    def test_it_is_woken_from_nothing_too(self, cluster: Cluster) -> None:
        cluster.write_model("m", 5.0)
        cluster.apply(fleet(iris=sleepy(standby=0)))
        put_to_sleep(cluster, standby=0)

        assert cluster.predict("iris") == 5.0

        assert cluster.version("iris")["ready"] == 1

    def test_after_a_longer_silence_its_standby_is_gone_too(self, cluster: Cluster) -> None:
        cluster.write_model("m", 5.0)
        section = sleepy()
        section["scaling"]["gone_after"] = "1s"
        cluster.apply(fleet(iris=section))

        put_to_sleep(cluster, standby=0)
        assert cluster.predict("iris") == 5.0

        assert cluster.version("iris")["ready"] == 1

    def test_it_sleeps_and_wakes_again_and_again(self, cluster: Cluster) -> None:
        cluster.write_model("m", 5.0)
        cluster.apply(fleet(iris=sleepy()))

        for _ in range(3):
            put_to_sleep(cluster)
            assert cluster.predict("iris") == 5.0

        assert cluster.events("replica_failed") == []


class TestPlan:
    def test_warns_where_callers_would_give_up_before_a_start(self, cluster: Cluster) -> None:
        cluster.write_model("m", 5.0)
        hasty = {"queue": {"timeout_ms": 5000}}
        manifest = fleet(hasty=sleepy(standby=0, **hasty), kept=sleepy(standby=1, **hasty), patient=sleepy(standby=0))

        plan = cluster.api("POST", "/plan", json=cluster.request(manifest)).json()

        assert plan["warnings"] == [
            "models.hasty: version 1 may sleep with no replica kept, and a request that wakes one waits at most 5000 ms "
            "(queue.timeout_ms) for its start; allow more than a start takes, or keep standby: 1"
        ]


class TestBurst:
    def test_of_500_requests_gets_500_answers_and_no_replica_more_than_it_holds(self, cluster: Cluster) -> None:
        inside = cluster.root / "inside"
        inside.mkdir()
        cluster.write_model("m", 5.0, predict=ONE_AT_A_TIME)
        version = {"source": "m", "env": {"INSIDE": str(inside)}}
        cluster.apply(fleet(iris={**sleepy(), "versions": {"1": version}, "concurrency": 1}))
        put_to_sleep(cluster)

        statuses = asyncio.run(burst(cluster, 500))

        assert statuses == {200: 500}
        (woken,) = cluster.events("version_woken")
        # Decided from the burst: more replicas than one request would have got.
        assert cluster.events("scaled") or not woken["message"].startswith("0 -> 1:")
        assert len({e["replica"] for e in cluster.events("replica_ready")}) > 2

    def test_at_two_processes_of_the_gateway_loses_none_either(self, cluster: Cluster) -> None:
        cluster.write_model("m", 5.0)
        cluster.apply({**fleet(iris=sleepy()), "gateway": {"processes": 2}})
        put_to_sleep(cluster)

        assert asyncio.run(burst(cluster, 100)) == {200: 100}

        assert len(cluster.events("version_woken")) == 1


async def burst(cluster: Cluster, count: int) -> Counter[int]:
    """So many requests at once, each on a connection of its own."""
    url = f"http://127.0.0.1:{cluster.gateway_port}/v2/models/iris/infer"
    limits = httpx.Limits(max_connections=count, max_keepalive_connections=0)
    async with httpx.AsyncClient(trust_env=False, timeout=60, limits=limits) as client:
        answers = await asyncio.gather(*(client.post(url, json=BODY) for _ in range(count)))
    return Counter(answer.status_code for answer in answers)


class TestWhatGoesWrong:
    def test_one_that_cannot_start_any_more_is_said_so_long_before_the_deadline(self, cluster: Cluster) -> None:
        flag = cluster.root / "cursed"
        load = f"if os.path.exists({str(flag)!r}): raise RuntimeError('the weights are cursed')"
        cluster.write_model("m", 5.0, load=load)
        cluster.apply(fleet(iris=sleepy(standby=0)))
        put_to_sleep(cluster, standby=0)
        flag.touch()
        began = time.monotonic()

        answer = cluster.send("iris")

        took_s = time.monotonic() - began
        assert (answer.status_code, answer.json()["code"]) == (503, "NOT_READY")
        assert "the weights are cursed" in answer.json()["error"]
        assert int(answer.headers["retry-after"]) > 0
        assert took_s < 15
        flag.unlink()
        until("it is tried again and serves", lambda: cluster.send("iris").status_code == 200)

    def test_a_request_for_a_sleeping_model_waits_for_a_control_plane_that_was_killed(self, cluster: Cluster) -> None:
        cluster.write_model("m", 5.0)
        cluster.apply(fleet(iris=sleepy()))
        (standby,) = put_to_sleep(cluster)
        cluster.kill()

        with ThreadPoolExecutor() as pool:
            waiting: Future[float] = pool.submit(cluster.predict, "iris")
            until("it waits in the gateway", lambda: report(cluster)["queued"] == {"iris/1": 1})
            cluster.start()

            assert waiting.result(30) == 5.0
        assert standby in [e["replica"] for e in cluster.events("replica_woken")]

    def test_a_killed_control_plane_finds_the_standby_again(self, cluster: Cluster) -> None:
        cluster.write_model("m", 5.0)
        cluster.apply(fleet(iris=sleepy()))
        before = put_to_sleep(cluster)
        cluster.kill()

        cluster.start()

        assert put_to_sleep(cluster) == before

    @either_engine
    def test_all_replicas_paused_by_hand_are_noticed_and_woken(self, cluster: Cluster) -> None:
        cluster.write_model("m", 5.0)
        cluster.apply(fleet(iris={"versions": {"1": {"source": "m"}}, "scaling": {"min": 2}}))
        ids = [r["id"] for r in cluster.version("iris")["replicas"]]

        for id_ in ids:
            pause_by_hand(cluster, id_)

        until("both are noticed", lambda: {e["replica"] for e in cluster.events("replica_found_paused")} == {*ids})
        until("both serve again", lambda: cluster.version("iris")["ready"] == 2)
        assert cluster.predict("iris") == 5.0
        assert sorted(r["id"] for r in cluster.version("iris")["replicas"]) == sorted(ids)

    def test_a_standby_that_wakes_dead_is_replaced(self, cluster: Cluster) -> None:
        cluster.write_model("m", 5.0)
        cluster.apply(fleet(iris=sleepy()))
        (standby,) = put_to_sleep(cluster)
        cluster.server(standby).kill()

        assert cluster.predict("iris") == 5.0

        until("it is removed", lambda: standby not in [r["id"] for r in cluster.version("iris")["replicas"]])

    def test_a_single_failed_start_loses_no_request(self, cluster: Cluster) -> None:
        """Each second start fails: what is known to load is tried once more before anybody is told."""
        counter = cluster.root / "starts"
        counter.write_text("")
        load = (
            f"with open({str(counter)!r}, 'a') as file: file.write('x')\n"
            f"if os.path.getsize({str(counter)!r}) == 2: raise RuntimeError('out of luck')"
        )
        cluster.write_model("m", 5.0, load=load)
        cluster.apply(fleet(iris=sleepy(standby=0)))
        put_to_sleep(cluster, standby=0)

        assert cluster.predict("iris") == 5.0

        (failed,) = cluster.events("replica_failed")
        assert "out of luck" in failed["message"]


class TestScaledByHand:
    def test_nobody_wakes_what_somebody_scaled_to_zero(self, cluster: Cluster) -> None:
        cluster.write_model("m", 5.0)
        cluster.apply(fleet(iris=sleepy()))
        put_to_sleep(cluster)
        path = "/models/iris/versions/1/scale"

        assert cluster.api("PUT", path, json={"replicas": 0}).status_code == 200
        until("the gateway knows", lambda: cluster.send("iris").status_code == 503)
        refused = cluster.send("iris").json()
        assert cluster.api("DELETE", path).status_code == 200
        until("the gateway knows again", lambda: cluster.send("iris").status_code == 200)

        assert refused["code"] == "NOT_READY"
        assert "scaled to 0 by hand; `modelfleet scale` ends that" in refused["error"]


class TestChangedWhileAsleep:
    def test_an_upgrade_reaches_the_standby_without_waking_anybody(self, cluster: Cluster) -> None:
        cluster.write_model("m", 5.0)
        cluster.apply(fleet(iris=sleepy()))
        (old,) = put_to_sleep(cluster)

        cluster.write_model("m", 6.0)
        cluster.apply(fleet(iris=sleepy()))
        (new,) = put_to_sleep(cluster)

        assert new != old
        assert cluster.events("version_woken") == []
        assert cluster.predict("iris") == 6.0

    def test_a_broken_upgrade_fails_the_apply_and_the_old_standby_serves_on(self, cluster: Cluster) -> None:
        cluster.write_model("m", 5.0)
        cluster.apply(fleet(iris=sleepy()))
        put_to_sleep(cluster)

        cluster.write_model("m", 6.0, load="raise RuntimeError('the weights are cursed')")
        ended = cluster.ended(cluster.begin(fleet(iris=sleepy())))

        assert ended["state"] == "failed"
        assert "the weights are cursed" in ended["error"]
        assert cluster.predict("iris") == 5.0

    @either_engine
    def test_a_sleeping_model_is_deleted_with_its_standby(self, cluster: Cluster) -> None:
        cluster.write_model("m", 5.0)
        cluster.apply(fleet(iris=sleepy(), other={"1": "m"}))
        put_to_sleep(cluster)

        answer = cluster.api("DELETE", "/models/iris")
        assert cluster.ended(answer.json()["id"])["state"] == "succeeded"

        until("nothing of it is left", lambda: [m["name"] for m in cluster.get("/status")["models"]] == ["other"])
        assert cluster.send("iris").status_code == 404


def report(cluster: Cluster) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"http://127.0.0.1:{cluster.metrics_port}/report", trust_env=False).json()
    return found


def pause_by_hand(cluster: Cluster, replica: str) -> None:
    if cluster.engine == "process":
        os.kill(cluster.server(replica).pid, signal.SIGSTOP)
        return
    listed = ["docker", "ps", "-q", "--filter", f"label=modelfleet.replica={replica}"]
    container = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.strip()
    subprocess.run(["docker", "pause", container], check=True, capture_output=True)
