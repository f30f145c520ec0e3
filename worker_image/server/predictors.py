"""Which path asks the model for what: a request's bytes to tensors that fit the model, and its answer back to bytes.

One predictor a path, each a plain call: `app.py` decides when it runs, and what happens between the two halves. It
holds no format (see `codecs/`) and knows neither HTTP's framing nor the model itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from worker_image.server.batching.execute import Part
from worker_image.server.body import is_message
from worker_image.server.codecs import binary, generate, sse, tfs, v2, v2_message
from worker_image.server.codecs.call import Answers, Call, Events, Reply
from worker_image.server.errors import bad_request
from worker_image.server.tensors import NO_PARAMETERS, Parameters, Signature, Tensors, fit, rows_of


class Ask(NamedTuple):
    """What a request wants of the model, and how the answer becomes a reply. `encode` may raise `RequestError`."""

    part: Part
    encode: Callable[[Tensors], Reply]


class StreamAsk(NamedTuple):
    """As `Ask`, for an answer of many parts. `events` gives each as the bytes of one form of streams."""

    part: Part
    events: Callable[[Answers], Events]


Predictor = Callable[[Call], Ask]
StreamPredictor = Callable[[Call], StreamAsk | Ask]


EncodeMessage = Callable[[str, str, v2_message.Request, Tensors], Reply]


class Predictors:
    """Those of one model. All of them raise `RequestError` for what cannot be asked."""

    def __init__(self, model: str, version: str) -> None:
        self._model = model
        self._version = version
        self.signature = Signature("", (), ())

    def routes(self) -> dict[str, Predictor]:
        routes: dict[str, Predictor] = {}
        for base in (f"/models/{self._model}", f"/models/{self._model}/versions/{self._version}"):
            routes[f"/v2{base}/infer"] = self._infer
            routes[f"/v1{base}:predict"] = self._tfs_predict
            routes[f"/v1{base}:classify"] = self._tfs_classify
            routes[f"/v1{base}:regress"] = self._tfs_regress
            routes[f"/v2{base}/explain"] = self._v2_explain
            routes[f"/v1{base}:explain"] = self._v1_explain
            routes[f"/v2{base}/generate"] = self._generate
        return routes

    def stream_routes(self) -> dict[str, StreamPredictor]:
        routes: dict[str, StreamPredictor] = {}
        for base in (f"/models/{self._model}", f"/models/{self._model}/versions/{self._version}"):
            routes[f"/v2{base}/infer_stream"] = self._infer_stream
            routes[f"/v2{base}/generate_stream"] = self._generate_stream
        return routes

    def _infer(self, call: Call) -> Ask:
        if isinstance(call.body, memoryview) and is_message(call.fields):
            return self._infer_message(v2_message.decode(call.body), v2_message.encode)
        request = _decoded(call)
        wanted = v2.wanted_outputs(self.signature, request.outputs)

        def encode(answer: Tensors) -> Reply:
            return v2.encode(self._model, self._version, request, answer)

        part = self._part(
            request.inputs, wanted, request.parameters, is_finite=request.is_finite, missing=request.missing
        )
        return Ask(part, encode)

    def _infer_message(self, request: v2_message.Request, encode: EncodeMessage) -> Ask:
        decoded = request.decoded
        wanted = v2.wanted_outputs(self.signature, decoded.outputs)
        part = self._part(decoded.inputs, wanted, decoded.parameters)
        return Ask(part, lambda answer: encode(self._model, self._version, request, answer))

    def _tfs_predict(self, call: Call) -> Ask:
        request = tfs.decode_predict(_json_of(call), self.signature)

        def encode(answer: Tensors) -> Reply:
            return Reply(tfs.encode_predict(answer, is_row=request.is_row))

        return Ask(self._part(request.inputs, request.outputs), encode)

    def _tfs_classify(self, call: Call) -> Ask:
        scores = self.signature.scores
        if scores is None:
            raise bad_request(f":classify: model {self._model!r} gives no score for each class; ask with :predict")

        def encode(answer: Tensors) -> Reply:
            return Reply(tfs.encode_classify(self.signature, answer[scores]))

        return Ask(self._part(tfs.decode_examples(_json_of(call), self.signature), (scores,)), encode)

    def _tfs_regress(self, call: Call) -> Ask:
        value = self.signature.value
        if value is None:
            raise bad_request(f":regress: model {self._model!r} gives no single number for each row; ask with :predict")

        def encode(answer: Tensors) -> Reply:
            return Reply(tfs.encode_regress(answer[value]))

        return Ask(self._part(tfs.decode_examples(_json_of(call), self.signature), (value,)), encode)

    def _part(
        self,
        inputs: Tensors,
        outputs: tuple[str, ...],
        sent: Parameters = NO_PARAMETERS,
        *,
        is_finite: bool = False,
        missing: tuple[str, ...] = (),
    ) -> Part:
        """Parameters that the model does not take must not keep batches apart."""
        signature = self.signature
        fitted = fit(signature, inputs, missing, is_finite=is_finite)
        given = v2.of_the_model(sent) if sent and signature.takes_parameters else NO_PARAMETERS
        return Part(fitted, outputs, rows_of(fitted), given)

    def part_for_site(self, inputs: Tensors, outputs: tuple[str, ...], sent: Parameters) -> Part:
        """What a handler of the author's app asks."""
        return self._part(inputs, v2.wanted_outputs(self.signature, outputs), sent)

    # --- what only a model of somebody's own can do

    def _infer_stream(self, call: Call) -> StreamAsk | Ask:
        if isinstance(call.body, memoryview) and is_message(call.fields):
            return self._stream_message(v2_message.decode(call.body))
        self._check("stream", "/infer_stream", "/infer")
        # Events are lines of text: whatever a client says of binary outputs, they are JSON.
        request = msgspec.structs.replace(_decoded(call), binary=None)
        part = self._own_part(request.inputs, request.outputs, request.parameters)

        def encode(answer: Tensors) -> bytes:
            return v2.encode(self._model, self._version, request, answer).body

        return StreamAsk(part, lambda answers: sse.EventStream(answers, encode, names_events=True))

    def _stream_message(self, request: v2_message.Request) -> StreamAsk | Ask:
        """gRPC knows no model that streams from one that does not: the answer of the latter is a stream of one."""
        if "stream" not in self.signature.verbs:
            return self._infer_message(request, v2_message.encode_stream_of_one)
        decoded = request.decoded
        part = self._own_part(decoded.inputs, decoded.outputs, decoded.parameters)
        about = self._model, self._version, request
        return StreamAsk(part, lambda answers: v2_message.MessageStream(answers, *about))

    def _generate_stream(self, call: Call) -> StreamAsk:
        self._check("stream", "/generate_stream", "/generate")
        inputs, parameters = generate.decode(call.body, self.signature)
        part = self._own_part(inputs, (), parameters)
        return StreamAsk(part, lambda answers: sse.EventStream(answers, self._generated, names_events=False))

    def _generate(self, call: Call) -> Ask:
        if not self.signature.verbs & {"predict", "batch"}:
            self._check("predict", "/generate", "/generate_stream")
        inputs, parameters = generate.decode(call.body, self.signature)
        part = self._part(inputs, self.signature.default_outputs, parameters)
        return Ask(part, lambda answer: Reply(self._generated(answer)))

    def _v2_explain(self, call: Call) -> Ask:
        self._check("explain", "/explain", "/infer")
        request = _decoded(call)
        part = self._own_part(request.inputs, request.outputs, request.parameters)

        def encode(explained: Tensors) -> Reply:
            return v2.encode(self._model, self._version, request, explained)

        return Ask(part._replace(is_explained=True), encode)

    def _v1_explain(self, call: Call) -> Ask:
        self._check("explain", ":explain", "/infer")
        request = tfs.decode_predict(_json_of(call), self.signature)
        part = self._own_part(request.inputs, (), NO_PARAMETERS)

        def encode(explained: Tensors) -> Reply:
            return Reply(tfs.encode_explain(explained, part.inputs, is_row=request.is_row))

        return Ask(part._replace(is_explained=True), encode)

    def _generated(self, answer: Tensors) -> bytes:
        return generate.encode(self._model, self._version, answer)

    def _own_part(self, inputs: Tensors, outputs: tuple[str, ...], sent: Parameters) -> Part:
        """The function itself says whether it takes parameters: no batch is kept apart by them."""
        fitted = fit(self.signature, inputs)
        return Part(fitted, outputs, rows_of(fitted), v2.of_the_model(sent))

    def _check(self, verb: str, asked: str, instead: str) -> None:
        if verb not in self.signature.verbs:
            said = f"{asked}: model {self._model!r} has no {_FUNCTIONS[verb]}()"
            raise bad_request(f"{said}; ask with /v2/models/{self._model}{instead}, or add the function to its class")


_FUNCTIONS = {"predict": "predict", "explain": "explain", "stream": "predict_stream"}


def _decoded(call: Call) -> v2.Decoded:
    if isinstance(call.body, bytes):
        return v2.decode(call.body)
    return v2.decode_binary(call.body, call.fields[binary.HEADER_LENGTH])


def _json_of(call: Call) -> bytes:
    if isinstance(call.body, bytes):
        return call.body
    raise bad_request("body: binary tensor data; /v1 reads JSON; send JSON, or ask /v2/models/…/infer")
