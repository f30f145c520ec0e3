"""An author's ASGI app below /models/NAME/: FastAPI, Starlette and bare ASGI in a real model server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest

from tests.fakes import models
from tests.fakes.replica import Replica, ready_replica

LIMIT = 100_000
FASTAPI = """
import asyncio, contextlib, pathlib
from fastapi import FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import JSONResponse, StreamingResponse

@contextlib.asynccontextmanager
async def lifespan(app):
    print("app started")
    yield {"greeting": "hello"}
    print("app stopped")

app = FastAPI(lifespan=lifespan)

class Model:
    inputs = [{"name": "x", "datatype": "FP64", "shape": [-1]}]

    def load(self, path):
        Model.go = pathlib.Path(path).parent / "go"

    def predict(self, inputs):
        if inputs["x"][0] < 0:
            raise ValueError("negative")
        return inputs["x"] * 2

    def unload(self):
        print("unloaded")

@app.get("/greet/{name}")
def greet(name: str, request: Request, times: int = 1):
    return {"said": f"{request.state.greeting} {name}" * times, "url": str(request.url_for("greet", name="x").path)}

@app.post("/echo")
async def echo(request: Request):
    return {"bytes": len(await request.body())}

@app.post("/json")
async def read_json(item: dict):
    return item

@app.get("/double/{n}")
async def double(n: float, request: Request):
    answer = await request.state.predict({"x": [n]})
    return {name: tensor.tolist() for name, tensor in answer.items()}

@app.get("/raise")
async def raise_(): raise KeyError("lost")

@app.get("/own500")
async def own500(): return JSONResponse({"mine": True}, 500)

@app.get("/teapot")
async def teapot(): raise HTTPException(418, "short and stout")

@app.get("/lines")
async def lines():
    async def body():
        for number in range(3):
            yield f"{number}\\n"
            while number == 1 and not Model.go.exists():
                await asyncio.sleep(0.005)
    return StreamingResponse(body(), media_type="text/plain")

@app.get("/wait")
async def wait(request: Request):
    print("waiting")
    while not Model.go.exists():
        if await request.is_disconnected():
            print("client left")
            return
        await asyncio.sleep(0.005)
    return "done"

@app.websocket("/ws")
async def ws(channel: WebSocket):
    await channel.accept()
    while (text := await channel.receive_text()) != "stop":
        if text == "raise":
            raise KeyError("lost")
        await channel.send_text(f"{channel.state.greeting} {text}")
    await channel.close()

@app.websocket("/ws/refused")
async def refused(channel: WebSocket): raise KeyError("lost")
"""


def site(directory: Path, source: str = FASTAPI) -> Path:
    return models.python(directory, source)


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    directory = site(tmp_path_factory.mktemp("models") / "site")
    settings = json.dumps({"max_body_bytes": LIMIT})
    with ready_replica(directory, backend="python", MODELFLEET_SETTINGS=settings) as running:
        yield running


def get(replica: Replica, path: str, **options: Any) -> httpx.Response:
    return httpx.get(f"{replica.url}/models/iris{path}", timeout=30, **options)


def post(replica: Replica, path: str, **options: Any) -> httpx.Response:
    return httpx.post(f"{replica.url}/models/iris{path}", timeout=30, **options)


class TestHttp:
    def test_is_mounted_below_the_models_name(self, replica: Replica) -> None:
        answer = get(replica, "/greet/you", params={"times": 2})

        assert answer.json() == {"said": "hello youhello you", "url": "/models/iris/greet/x"}
        assert get(replica, "/openapi.json").json()["servers"] == [{"url": "/models/iris"}]
        assert get(replica, "/nothing").json() == {"detail": "Not Found"}

    def test_leaves_predictions_and_pages_alone(self, replica: Replica) -> None:
        tensor = {"name": "x", "datatype": "FP64", "shape": [1], "data": [4.0]}

        assert replica.infer(tensor).json()["outputs"][0]["data"] == [8.0]
        assert httpx.get(f"{replica.url}/v2/models/iris").status_code == 200

    def test_a_handler_predicts_with_the_model_and_its_batches(self, replica: Replica) -> None:
        assert get(replica, "/double/4").json() == {"output": [8.0]}
        refused = get(replica, "/double/-1")
        assert (refused.status_code, refused.json()["code"]) == (400, "BAD_REQUEST")
        assert "negative" in refused.json()["error"]

    def test_what_it_raises_becomes_an_error_with_the_requests_id(self, replica: Replica) -> None:
        answer = get(replica, "/raise", headers={"x-request-id": "r-9"})

        assert (answer.status_code, answer.json()["code"], answer.json()["request_id"]) == (500, "MODEL_FAILED", "r-9")
        assert "KeyError: 'lost' (model.py:" in answer.json()["error"]
        failed = [event for event in replica.events() if event["event"] == "app failed"]
        assert failed[-1]["request_id"] == "r-9"
        assert "in raise_" in failed[-1]["stack"]

    def test_its_own_errors_stay_its_own(self, replica: Replica) -> None:
        own, teapot = get(replica, "/own500"), get(replica, "/teapot")

        assert (own.status_code, own.json()) == (500, {"mine": True})
        assert (teapot.status_code, teapot.json()) == (418, {"detail": "short and stout"})

    def test_bodies_have_the_limit_of_predictions(self, replica: Replica) -> None:
        large = b"x" * (LIMIT + 1)
        refused = [
            post(replica, "/echo", content=large),
            post(replica, "/echo", content=iter([large[:1000], large])),
            post(
                replica, "/json", content=iter([b'{"a": "', large, b'"}']), headers={"content-type": "application/json"}
            ),
        ]

        assert post(replica, "/echo", content=large[1:]).json() == {"bytes": LIMIT}
        assert [(answer.status_code, answer.json()["code"]) for answer in refused] == [(413, "TOO_LARGE")] * 3

    def test_streams_as_it_likes(self, tmp_path: Path) -> None:
        with (
            ready_replica(site(tmp_path / "site"), backend="python") as replica,
            httpx.stream("GET", f"{replica.url}/models/iris/lines", timeout=30) as answer,
        ):
            lines = answer.iter_lines()
            assert [next(lines), next(lines)] == ["0", "1"]
            (tmp_path / "go").touch()
            assert next(lines) == "2"

    def test_is_told_when_its_client_left(self, replica: Replica) -> None:
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(f"{replica.url}/models/iris/wait", timeout=0.3)

        replica.wait_for_line("client left")

    def test_is_counted(self, replica: Replica) -> None:
        get(replica, "/teapot")

        assert 'responses_total{model="iris",version="1",code="418"}' in httpx.get(f"{replica.url}/metrics").text


class TestWebSockets:
    async def test_are_carried(self, replica: Replica) -> None:
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{replica.url}/models/iris/ws") as channel:
            await channel.send_str("you")
            assert await channel.receive_str() == "hello you"
            await channel.send_str("stop")
            assert (await channel.receive()).type == aiohttp.WSMsgType.CLOSE

    async def test_are_closed_with_the_reason_when_the_app_raises(self, replica: Replica) -> None:
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{replica.url}/models/iris/ws") as channel:
            await channel.send_str("raise")
            message = await channel.receive()

        assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1011)
        assert "KeyError" in str(message.extra)

    async def test_are_refused_with_an_error_before_they_are_open(self, replica: Replica) -> None:
        async with aiohttp.ClientSession() as session:
            for path, status in (("/models/iris/ws/refused", 500), ("/v2/models/iris/infer", 404)):
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    await session.ws_connect(replica.url + path)
                assert refused.value.status == status

    async def test_as_many_are_open_as_the_gateway_lets_in(self, replica: Replica) -> None:
        """The replica is not told the version's `concurrency`, so it must not hold the gateway to less."""
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            url = f"{replica.url}/models/iris/ws"
            channels = await asyncio.gather(*(session.ws_connect(url) for _ in range(200)))
            for number, channel in enumerate(channels):
                await channel.send_str(str(number))
            assert [await channel.receive_str() for channel in channels] == [f"hello {n}" for n in range(200)]
            await asyncio.gather(*(channel.close() for channel in channels))

    async def test_an_open_one_is_waited_for(self, tmp_path: Path) -> None:
        with ready_replica(site(tmp_path / "site"), backend="python") as replica:
            async with aiohttp.ClientSession() as session, session.ws_connect(f"{replica.url}/models/iris/ws") as one:
                await one.send_str("you")
                await one.receive_str()
                replica.terminate()
                await asyncio.to_thread(replica.wait_until_closed)

                await one.send_str("still")
                assert await one.receive_str() == "hello still"
                await one.send_str("stop")
                await one.receive()
            assert await asyncio.to_thread(replica.exit_code) == 0


class TestLife:
    def test_startup_comes_before_ready_and_shutdown_before_the_end(self, tmp_path: Path) -> None:
        with ready_replica(site(tmp_path / "site"), backend="python") as replica:
            assert "app started" in replica.log
            replica.terminate()

            assert replica.exit_code() == 0
            assert replica.log.index("drained") < replica.log.index("app stopped") < replica.log.index("unloaded")

    def test_a_startup_that_fails_is_a_model_that_failed(self, tmp_path: Path) -> None:
        source = FASTAPI.replace('print("app started")', 'raise OSError("no database")')
        with Replica(site(tmp_path / "site", source), backend="python") as replica:
            assert replica.exit_code() == 70
            last = json.loads(replica.log.splitlines()[-1])

        assert last["code"] == "MODEL_RAISED"
        assert last["reason"].startswith("app: its startup raised OSError: no database (model.py:")

    def test_a_startup_that_hangs_ends_at_the_load_timeout(self, tmp_path: Path) -> None:
        source = FASTAPI.replace('print("app started")', "await asyncio.sleep(100)")
        settings = json.dumps({"load_timeout_s": 3})
        with Replica(site(tmp_path / "site", source), backend="python", MODELFLEET_SETTINGS=settings) as replica:
            assert replica.exit_code() == 71

    def test_requests_are_finished_before_the_process_ends(self, tmp_path: Path) -> None:
        with ready_replica(site(tmp_path / "site"), backend="python") as replica:
            with httpx.stream("GET", f"{replica.url}/models/iris/lines", timeout=30) as answer:
                lines = answer.iter_lines()
                next(lines)
                replica.terminate()
                replica.wait_until_closed()
                (tmp_path / "go").touch()
                assert list(lines) == ["1", "2"]
            assert replica.exit_code() == 0


STARLETTE = """
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

class Model:
    def load(self, path):
        async def shown(request):
            return PlainTextResponse(self.weights)

        self.weights = "w1 w2"
        self.app = Starlette(routes=[Route("/weights", shown)])
"""
BARE = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    if scope["path"].endswith("/silent"):
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["root_path"].encode(), "more_body": True})
    if scope["path"].endswith("/cut"):
        raise RuntimeError("in the middle")
    await send({"type": "http.response.body", "body": b" end"})
"""


class TestOtherApps:
    def test_one_that_load_made(self, tmp_path: Path) -> None:
        with ready_replica(models.python(tmp_path / "site", STARLETTE), backend="python") as replica:
            assert get(replica, "/weights").text == "w1 w2"
            assert get(replica, "/other").status_code == 404
            tensor = {"name": "x", "datatype": "FP64", "shape": [1], "data": [4.0]}
            refused = replica.infer(tensor)

        assert refused.status_code == 400
        assert "this model has no predict(); it answers its own paths below /models/" in refused.json()["error"]

    def test_bare_asgi_without_a_class_or_a_lifespan(self, tmp_path: Path) -> None:
        with ready_replica(models.python(tmp_path / "site", BARE), backend="python") as replica:
            assert get(replica, "/x").text == "/models/iris end"
            silent = get(replica, "/silent")
            assert (silent.status_code, silent.json()["code"]) == (500, "MODEL_FAILED")
            with pytest.raises(httpx.RemoteProtocolError):
                get(replica, "/cut")
            assert get(replica, "/x").status_code == 200

    def test_a_model_without_one_has_no_such_paths(self, tmp_path: Path) -> None:
        with ready_replica(models.iris(tmp_path / "iris")) as replica:
            answer = get(replica, "/x")

        assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")
        assert "has no app of its own" in answer.json()["error"]

    def test_several_processes_are_refused(self, tmp_path: Path) -> None:
        settings = json.dumps({"instances": 2})
        directory = models.python(tmp_path / "site", BARE)
        with Replica(directory, backend="python", MODELFLEET_SETTINGS=settings) as replica:
            assert replica.exit_code() == 64
            assert "the model has an ASGI app" in replica.log
