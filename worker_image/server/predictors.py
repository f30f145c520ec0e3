"""Which path asks the model for what: a request's bytes to tensors that fit the model, and its answer back to bytes.

One predictor a path, each a plain call: `app.py` decides when it runs, and what happens between the two halves. It
holds no format (see `codecs/`) and knows neither HTTP's framing nor the model itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from worker_image.server.batching.execute import Part
from worker_image.server.codecs import binary, tfs, v2
from worker_image.server.codecs.call import Call, Reply
from worker_image.server.errors import bad_request
from worker_image.server.tensors import NO_PARAMETERS, Parameters, Signature, Tensors, fit, rows_of


class Ask(NamedTuple):
    """What a request wants of the model, and how the answer becomes a reply. `encode` may raise `RequestError`."""

    part: Part
    encode: Callable[[Tensors], Reply]


Predictor = Callable[[Call], Ask]


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
        return routes

    def _infer(self, call: Call) -> Ask:
        if isinstance(call.body, bytes):
            request = v2.decode(call.body)
        else:
            request = v2.decode_binary(call.body, call.fields[binary.HEADER_LENGTH])
        wanted = v2.wanted_outputs(self.signature, request.outputs)

        def encode(answer: Tensors) -> Reply:
            return v2.encode(self._model, self._version, request, answer)

        part = self._part(
            request.inputs, wanted, request.parameters, is_finite=request.is_finite, missing=request.missing
        )
        return Ask(part, encode)

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


def _json_of(call: Call) -> bytes:
    if isinstance(call.body, bytes):
        return call.body
    raise bad_request("body: binary tensor data; /v1 reads JSON; send JSON, or ask /v2/models/…/infer")
