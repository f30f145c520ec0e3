from __future__ import annotations

import contextlib

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from router.core import protobuf
from router.core.errors import ProtocolError

TEXTS = st.text(max_size=30)


class TestTexts:
    @given(TEXTS, TEXTS, TEXTS, st.binary(max_size=2000), st.integers(0, 3))
    def test_are_what_a_real_writer_wrote(self, model: str, version: str, id_: str, raw: bytes, inputs: int) -> None:
        message = service_pb2.ModelInferRequest(model_name=model, model_version=version, id=id_)
        for number in range(inputs):
            message.inputs.add(name=str(number), datatype="FP32", shape=[-1, 2]).parameters["x"].int64_param = -5
            message.raw_input_contents.append(raw)

        assert protobuf.texts(message.SerializeToString(), 3) == [model, version, id_]

    @given(st.binary(max_size=60))
    @settings(max_examples=500)
    def test_agree_with_a_real_reader_on_whatever_both_take(self, data: bytes) -> None:
        try:
            texts = protobuf.texts(data, 3)
        except ProtocolError:
            return
        with contextlib.suppress(DecodeError):  # inside of what we do not look into
            read = service_pb2.ModelInferRequest.FromString(data)
            assert texts == [read.model_name, read.model_version, read.id]

    @given(st.lists(st.tuples(st.integers(1, 3), TEXTS), max_size=6))
    def test_the_last_of_several_counts_wherever_it_stands(self, parts: list[tuple[int, str]]) -> None:
        """A reader of the first would check another model's key than the one that is asked."""
        data = b"".join(protobuf.message(number, text.encode()) for number, text in parts)

        read = service_pb2.ModelInferRequest.FromString(data)

        assert protobuf.texts(data, 3) == [read.model_name, read.model_version, read.id]

    @pytest.mark.parametrize(
        ("data", "what"),
        [
            (b"\x0a", "a number is cut off"),
            (b"\x0a\x05ab", "field 1 is longer than the message"),
            (b"\x0a\x02\xff\xfe", "field 1 is no text"),
            (b"\x0b", "field 1 is of wire type 3"),
            (b"\x02\x00", "field number 0 is not allowed"),
            (b"\x80" * 11, "a number is cut off or too long"),
            (b"\x0d\x00", "field 1 is longer than the message"),
            (b"\x0a\xff\xff\xff\xff\x0f" + b"x", "field 1 is longer than the message"),
            (b"\x20\x01" * 10_001, "more than 10000 fields"),
        ],
    )
    def test_say_what_is_wrong(self, data: bytes, what: str) -> None:
        with pytest.raises(ProtocolError, match=what):
            protobuf.texts(data, 3)

    def test_do_not_hold_a_name_of_megabytes(self) -> None:
        with pytest.raises(ProtocolError, match="at most 8192 bytes"):
            protobuf.texts(protobuf.message(1, b"x" * 10_000), 3)


class TestWriting:
    @given(TEXTS, TEXTS, st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5))
    def test_a_real_reader_reads_it(self, name: str, datatype: str, shape: list[int]) -> None:
        tensor = protobuf.text(1, name) + protobuf.text(2, datatype) + protobuf.integers(3, shape)
        data = protobuf.text(1, name) + protobuf.message(4, tensor)

        read = service_pb2.ModelMetadataResponse.FromString(data)

        assert read.name == name
        assert (read.inputs[0].name, read.inputs[0].datatype, list(read.inputs[0].shape)) == (name, datatype, shape)
