"""The HTTP face of the model server: a raw ASGI application.

Owns paths, body limits, statuses and the form of errors. One model in one version means that all paths are known
beforehand, so routing is one dictionary look-up. It holds no format (see `codecs/`) and calls no model (see
`batching/runner.py`). The life of the process is `lifecycle.py`'s, which opens the app when the model is ready.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec

from worker_image.server import body, log, trace
from worker_image.server.batching.execute import Part
from worker_image.server.batching.runner import Runner
from worker_image.server.cache import Cache
from worker_image.server.codecs import binary, repository, tfs, v2
from worker_image.server.codecs.call import TEXT, Call, Field, Reply
from worker_image.server.connection import TASK, request_id
from worker_image.server.custom import Custom
from worker_image.server.errors import RequestError, bad_request, unanswerable
from worker_image.server.memory import BINARY_COPIES, COPIES, LARGE_BYTES, Room
from worker_image.server.metrics import Metrics
from worker_image.server.phase import Phase
from worker_image.server.prediction import CLIENT_LEFT, Prediction
from worker_image.server.predictors import Ask, Predictor, Predictors
from worker_image.server.settings import Settings
from worker_image.server.site import Site
from worker_image.server.streaming import Streams
from worker_image.server.tensors import Parameters, Signature, Tensors
from worker_image.server.watchdog import Rest

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Page = Callable[[], Reply]

# The gateway keeps to the version's `concurrency`, of which the replica is mostly not told: a change of it is to
# restart nothing. Several gateways, or a client without one, may overshoot it. Beyond this many requests waiting costs
# memory and helps nobody.
OVERSHOOT = 4
MOST_INSIDE = 4096
PAUSE_PATH = "/v2/health/pause"
# No number that a header field may say has more.
_MOST_DIGITS = 18


class App:
    def __init__(self, settings: Settings, phase: Phase, metrics: Metrics) -> None:
        self._model = settings.model
        self._version = settings.version
        self._max_body_bytes = settings.tuning.max_body_bytes
        self._max_in_flight = max(settings.tuning.concurrency * OVERSHOOT, MOST_INSIDE)
        caching = settings.tuning.cache
        self._cache = None if caching is None else Cache(caching.ttl_s, caching.max_bytes)
        metrics.cache = self._cache
        self._room = Room(settings.memory_bytes)
        self._phase = phase
        self._metrics = metrics
        self._predictors = Predictors(settings.model, settings.version)
        self._runner: Runner | None = None
        self._custom = Custom(settings.model, metrics, self, self._predictors.stream_routes())
        self._pages = self._page_routes()
        self._routes = self._predictors.routes()
        self.rest = Rest()
        # False once the server is to end: each answer is then the last on its connection.
        self.keeps_connections = True
        # As they stand in a request line. Others, with a query or escapes, take the longer way.
        self.prompt_paths: dict[bytes, str] = {path.encode(): path for path in self._routes}

    def open(
        self, signature: Signature, runner: Runner, streams: Streams | None = None, site: Site | None = None
    ) -> None:
        """From here on requests are predicted."""
        self._predictors.signature = signature
        self._runner = runner
        self._custom.open(streams, site)
        self._room.settle()

    async def __call__(self, scope: Scope, receive: body.Receive, send: Send) -> None:
        path = scope["path"]
        predictor = self._routes.get(path)
        if predictor is None or scope.get("method") != "POST":
            if self._custom.finds(scope):
                await self._custom(scope, receive, send)
                return
            await self._answer_page(scope, receive, send, path, is_predictor=predictor is not None)
            return
        metrics = self._metrics
        started = time.perf_counter()
        metrics.in_flight += 1
        scope[TASK] = asyncio.current_task()
        try:
            reply = await self._answer_prediction(predictor, scope, receive)
            status = reply.status
            await self._send(send, reply)
        except asyncio.CancelledError:
            # `connection.py` cancels the task of a client that left; nobody awaits this one, so it ends here.
            status = CLIENT_LEFT
        finally:
            # Only now: a drain that saw zero earlier would end the process with an answer unsent.
            metrics.in_flight -= 1
        metrics.observe_response(status, time.perf_counter() - started)

    # --- predictions

    def begin(
        self, path: str, fields: dict[bytes, bytes], parts: list[bytes], answer: Callable[[Reply], None]
    ) -> Prediction:
        """Predicts for a request whose body is here whole, and calls `answer` with the reply, now or later."""
        told = trace.Trace() if trace.FIELD in fields else None
        if told is not None:
            answer = told.telling(answer)
        prediction = Prediction(self._metrics, answer, lambda exc: self.refuse(fields.items(), exc))
        try:
            self.admit()
            _check_encoding(fields)
            time_left_s = _time_left_s(fields)
            content = body.of_parts(parts, fields)
            ask = self._routes[path](Call(content, fields, time_left_s))
            if told is not None:
                ask = told.following(ask)
            prediction.encode_with(ask.encode)
            self._submit(ask, time_left_s, prediction, fields, told)
        except RequestError as exc:
            prediction.set_exception(exc)
        return prediction

    def _submit(
        self, ask: Ask, time_left_s: float | None, prediction: Prediction, fields: dict[bytes, bytes],
        told: trace.Trace | None,
    ) -> None:  # fmt: skip
        assert self._runner is not None
        if self._cache is None or ask.part.is_explained:
            waiting = prediction.waiting = self._runner.submit(ask.part, time_left_s, prediction, fields)
            if told is not None and waiting is not None:
                waiting.payload.trace = told
        if prediction.waiting is None:
            task = self._predict_for(ask, time_left_s, prediction, fields, told)
            prediction.task = asyncio.create_task(task, name="prediction")

    async def _predict_for(
        self, ask: Ask, time_left_s: float | None, prediction: Prediction, fields: dict[bytes, bytes],
        told: trace.Trace | None,
    ) -> None:  # fmt: skip
        """For what is not one entry of the queue: several parts, or an answer from the cache."""
        log.asking.set((fields,))
        trace.current.set(told)
        try:
            answer = await self.predict(ask.part, time_left_s)
        except Exception as exc:
            prediction.set_exception(exc)
        else:
            prediction.set_result(answer)

    async def predict_for_site(
        self, inputs: Tensors, outputs: tuple[str, ...], time_left_s: float | None, parameters: Parameters
    ) -> Tensors:
        """For handlers of the author's app: as a client's prediction."""
        return await self.predict(self._predictors.part_for_site(inputs, outputs, parameters), time_left_s)

    async def read_call(self, scope: Scope, receive: body.Receive) -> Call:
        """The whole request, within its limits. Its body is not decoded yet."""
        fields = dict(scope["headers"])
        self.admit()
        _check_encoding(fields)
        copies = BINARY_COPIES if body.is_binary(fields) else COPIES
        with self._room.take(int(fields.get(b"content-length", b"0")), copies=copies):
            content = await body.read(receive, fields, min(self._max_body_bytes, self._room.most_bytes(copies)))
        return Call(content, fields, _time_left_s(fields))

    async def _answer_prediction(self, predictor: Predictor, scope: Scope, receive: body.Receive) -> Reply:
        # The request has a task of its own, whose context this is.
        fields = dict(scope["headers"])
        log.asking.set((fields,))
        told = trace.asked(fields)
        trace.current.set(told)
        reply = await self._answer_asked(predictor, fields, scope, receive)
        return reply if told is None else told.tell(reply)

    async def _answer_asked(
        self, predictor: Predictor, fields: dict[bytes, bytes], scope: Scope, receive: body.Receive
    ) -> Reply:
        try:
            self.admit()
            _check_encoding(fields)
            length = fields.get(b"content-length")
            # A body of unknown length may be a large one.
            if length is None or int(length) >= LARGE_BYTES:
                return await self._predict_large(predictor, fields, receive)
            content = await body.read(receive, fields, self._max_body_bytes)
            return await self._predict_call(predictor, Call(content, fields, _time_left_s(fields)))
        except Exception as exc:
            return self.refuse(scope["headers"], unanswerable(exc))

    async def _predict_large(self, predictor: Predictor, fields: dict[bytes, bytes], receive: body.Receive) -> Reply:
        """Refused before it is read, or before it is decoded, when the memory would not hold it."""
        copies = BINARY_COPIES if binary.HEADER_LENGTH in fields else COPIES
        with self._room.take(int(fields.get(b"content-length", b"0")), copies=copies):
            content = await body.read(receive, fields, min(self._max_body_bytes, self._room.most_bytes(copies)))
        with self._room.take(len(content), body.objects_in(content, fields), copies):
            return await self._predict_call(predictor, Call(content, fields, _time_left_s(fields)))

    async def _predict_call(self, predictor: Predictor, call: Call) -> Reply:
        told = trace.current.get()
        if told is not None:
            told.read()
        ask = predictor(call)
        if told is not None:
            ask = told.following(ask)
        return ask.encode(await self.predict(ask.part, call.time_left_s))

    async def predict(self, part: Part, time_left_s: float | None) -> Tensors:
        runner, cache = self._runner, self._cache
        assert runner is not None
        if cache is None or part.is_explained:
            return await runner.predict(part, time_left_s)
        return await cache.answer(part.inputs, part.outputs, lambda: runner.predict(part, time_left_s), part.parameters)

    def admit(self) -> None:
        if not self._phase.takes_requests:
            raise RequestError(
                "NOT_READY", f"model {self._model!r}: {self._phase.name}; not ready to predict; try again later"
            )
        if self._metrics.in_flight > self._max_in_flight:
            raise RequestError(
                "OVERLOADED", f"replica: {self._max_in_flight} requests are inside; it takes no more; try again later"
            )

    def refuse(self, headers: Iterable[Field], exc: RequestError) -> Reply:
        """With the request's id, made up when the gateway gave none; a failure of the model is logged under it."""
        own_id = request_id(headers)
        if exc.status == 500:
            told = {"reason": exc.sentence, "stack": _stack(exc), **log.trace_of(headers)}
            log.event("predict failed", level="error", request_id=own_id, **told)
        return Reply(exc.body(own_id), exc.status)

    # --- everything else

    async def _answer_page(
        self, scope: Scope, receive: body.Receive, send: Send, path: str, *, is_predictor: bool
    ) -> None:
        method = scope["method"]
        page = self._pages.get(path)
        if path == repository.PATH and method == "POST":
            await self._send(send, await self._index(scope, receive))
            return
        if path == PAUSE_PATH and method == "POST":
            await self._send(send, self._before_pause())
            return
        if page is not None and method in ("GET", "HEAD"):
            await self._send(send, page())
            return
        is_predictor = is_predictor or self._custom.knows(path)
        exc = self._refusal(method, path, is_known=is_predictor or page is not None)
        allow = [(b"allow", b"POST" if is_predictor else b"GET, HEAD")] if exc.status == 405 else []
        await self._send(send, Reply(exc.body(request_id(scope["headers"])), exc.status, fields=allow))

    def _page_routes(self) -> dict[str, Page]:
        routes: dict[str, Page] = {
            "/v2": lambda: _json(v2.server_metadata(_own_version())),
            "/v2/health/live": lambda: Reply(b'{"live":true}'),
            "/v2/health/ready": self._health,
            repository.PATH: lambda: _json(repository.index(self._model, self._version, self._phase)),
            "/metrics": lambda: Reply(self._metrics.render(), content_type=TEXT),
        }
        for base in (f"/models/{self._model}", f"/models/{self._model}/versions/{self._version}"):
            routes[f"/v2{base}"] = self._v2_metadata
            routes[f"/v2{base}/ready"] = self._readiness
            routes[f"/v1{base}"] = self._tfs_status
            routes[f"/v1{base}/metadata"] = self._tfs_metadata
        return routes

    async def _index(self, scope: Scope, receive: body.Receive) -> Reply:
        try:
            content = await body.read(receive, {}, repository.BODY_BYTES)
            only_ready = repository.wants_ready(content)
        except RequestError as exc:
            return self.refuse(scope["headers"], exc)
        return _json(repository.index(self._model, self._version, self._phase, only_ready=only_ready))

    def _health(self) -> Reply:
        """For the control plane, which is told more than the protocol asks for."""
        phase = self._phase
        if not phase.is_ready:
            return self._readiness()
        phases = {name: round(seconds, 3) for name, seconds in phase.lengths.items()}
        return _json({"ready": True, "ready_at": round(phase.ready_at, 3), "phases": phases})

    def _before_pause(self) -> Reply:
        """The control plane is about to pause this process; with a request inside it must not."""
        inside = self._metrics.in_flight
        if not inside:
            self.rest.begin()
        return _json({"inside": inside}, status=409 if inside else 200)

    def _readiness(self) -> Reply:
        phase = self._phase
        if phase.is_ready:
            return _json({"name": self._model, "ready": True})
        return _json({"phase": phase.name, "seconds": round(phase.seconds, 3), "error": phase.error}, status=503)

    def _v2_metadata(self) -> Reply:
        signature = self._predictors.signature
        return self._when_known(
            lambda: v2.model_metadata(
                self._model, self._version, signature, {**dict(signature.facts), "batching": self._batching()}
            )
        )

    def _batching(self) -> dict[str, Any]:
        """What is set and what was learned: rows of a batch, and the rows/s that each size reached."""
        sizing = self._metrics.sizing
        if sizing is None or self._runner is None or not self._runner.can_batch:
            return {"max_size": 1}
        learned = {str(2**level): round(rate, 1) for level, rate in sorted(sizing.costs.rates.items())}
        return {"max_size": sizing.fixed or "auto", "limit": sizing.limit, "rows_per_second": learned}

    def _tfs_metadata(self) -> Reply:
        return self._when_known(lambda: tfs.metadata(self._model, self._version, self._predictors.signature))

    def _when_known(self, page: Callable[[], dict[str, Any]]) -> Reply:
        """What a model takes is known once it is loaded."""
        return self._readiness() if self._runner is None else _json(page())

    def _tfs_status(self) -> Reply:
        return _json(tfs.status(self._version, is_ready=self._phase.is_ready, problem=self._phase.error))

    async def _send(self, send: Send, reply: Reply) -> None:
        parts = reply.parts
        length = len(reply.body) + sum(map(len, parts)) if parts else len(reply.body)
        headers = [(b"content-type", reply.content_type), (b"content-length", b"%d" % length), *reply.header_fields]
        if not self.keeps_connections:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        for part in (reply.body, *parts)[:-1]:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": parts[-1] if parts else reply.body})

    def _refusal(self, method: str, path: str, *, is_known: bool) -> RequestError:
        if is_known:
            return RequestError("METHOD_NOT_ALLOWED", f"{method} {path}: this path takes another method; see `allow`")
        _, _, rest = path.partition("/models/")
        name, _, after = rest.partition("/")
        name = name.partition(":")[0]
        if rest and name != self._model:
            return RequestError(
                "MODEL_NOT_FOUND", f"model {name!r}: not here; this replica serves {self._model!r}; correct the path"
            )
        asked, _, _ = after.removeprefix("versions/").partition("/")
        asked = asked.partition(":")[0]
        if after.startswith("versions/") and asked != self._version:
            sentence = f"version {asked!r}: not here; this replica serves version {self._version!r} of {self._model!r}"
            return RequestError("VERSION_NOT_FOUND", sentence)
        return RequestError(
            "NOT_FOUND", f"{method} {path}: no such path; predictions go to /v2/models/{self._model}/infer"
        )


def _check_encoding(fields: dict[bytes, bytes]) -> None:
    encoding = fields.get(b"content-encoding", b"identity")
    if encoding != b"identity":
        sentence = f"content-encoding: {encoding.decode('latin-1')!r}; bodies are read uncompressed; send identity"
        raise RequestError("UNSUPPORTED_ENCODING", sentence)


def _time_left_s(fields: dict[bytes, bytes]) -> float | None:
    text = fields.get(b"x-request-timeout-ms")
    if text is None:
        return None
    if not text.isdigit() or len(text) > _MOST_DIGITS:
        raise bad_request(
            f"x-request-timeout-ms: {text.decode('latin-1')!r}; it is a whole number of milliseconds; correct it"
        )
    return int(text) / 1000


def _stack(exc: RequestError) -> str:
    import traceback

    return "".join(traceback.format_exception(exc.__cause__)) if exc.__cause__ else ""


def _own_version() -> str:
    try:
        return version("modelfleet")
    except PackageNotFoundError:
        return "0"


def _json(obj: Any, status: int = 200) -> Reply:
    return Reply(msgspec.json.encode(obj), status)
