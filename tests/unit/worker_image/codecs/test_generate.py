"""Triton's generate extension: which fields are tensors, which parameters, and how outputs become fields."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from worker_image.server.codecs.generate import decode, encode
from worker_image.server.errors import RequestError
from worker_image.server.tensors import Signature, TensorSpec

PROMPT = TensorSpec("prompt", "BYTES", (-1,))
COUNT = TensorSpec("count", "INT64", (-1, 1))


def signature(*inputs: TensorSpec) -> Signature:
    return Signature("python", inputs, ())


class TestDecode:
    @pytest.mark.parametrize(
        ("inputs", "body", "tensors", "parameters"),
        [
            ((), {"text_input": "a"}, {"text_input": ["a"]}, {}),
            ((), {"text_input": "a", "top": 3, "parameters": {"top": 4}}, {"text_input": ["a"]}, {"top": 4}),
            ((PROMPT,), {"text_input": "a", "parameters": None}, {"prompt": ["a"]}, {}),
            ((PROMPT, COUNT), {"text_input": "a", "count": 3}, {"prompt": ["a"], "count": [[3]]}, {}),
            ((PROMPT, COUNT), {"text_input": "a", "count": [3]}, {"prompt": ["a"], "count": [[3]]}, {}),
        ],
    )
    def test_makes_tensors_of_inputs_and_parameters_of_the_rest(
        self, inputs: tuple[TensorSpec, ...], body: Any, tensors: dict[str, Any], parameters: dict[str, Any]
    ) -> None:
        got, given = decode(json.dumps(body).encode(), signature(*inputs))

        assert {name: tensor.tolist() for name, tensor in got.items()} == tensors
        assert given == parameters

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            (b"[", "it is a JSON object"),
            (b"[1]", "no text under 'text_input'"),
            (b'{"text_input": 3}', "no text under 'text_input'"),
            (b'{"text_input": "\xff"}', "it is a JSON object"),
            (b'{"text_input": "a", "parameters": 3}', "parameters: 3; it is an object"),
            (b'{"text_input": "a", "count": "x"}', "count"),
            (b'{"text_input": "a", "count": 1.5}', "count"),
            (b'{"text_input": "a", "count": 1e400}', "out of range"),
        ],
    )
    def test_says_what_is_wrong(self, body: bytes, words: str) -> None:
        with pytest.raises(RequestError) as refused:
            decode(body, signature(PROMPT, COUNT))

        assert refused.value.status == 400
        assert words in refused.value.sentence


class TestEncode:
    @pytest.mark.parametrize(
        ("outputs", "fields"),
        [
            ({"text_output": ["a"]}, {"text_output": "a"}),
            ({"words": ["a"], "n": [1]}, {"text_output": "a", "n": 1}),
            ({"words": ["a", "b"]}, {"text_output": ["a", "b"]}),
            ({"one": ["a"], "two": ["b"]}, {"one": "a", "two": "b"}),
        ],
    )
    def test_takes_the_only_text_for_the_answer(self, outputs: dict[str, Any], fields: dict[str, Any]) -> None:
        got = json.loads(encode("m", "1", {name: np.array(values) for name, values in outputs.items()}))

        assert got == {"model_name": "m", "model_version": "1", **fields}

    def test_refuses_what_json_cannot_carry(self) -> None:
        with pytest.raises(RequestError) as refused:
            encode("m", "1", {"n": np.array([np.nan])})

        assert refused.value.code == "NOT_FINITE"
