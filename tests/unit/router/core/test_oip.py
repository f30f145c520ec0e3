from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from router.core import oip
from router.core.errors import ProtocolError
from router.core.oip import Asked, FrameReader


class TestMessages:
    def test_are_those_of_the_protocol(self) -> None:
        index = service_pb2.RepositoryIndexResponse.FromString(
            oip.index(
                b'[{"name":"m","version":"1","state":"READY","reason":""},'
                b'{"name":"m","version":"2","state":"LOADING","reason":"starting"}]'
            )
        )
        about = service_pb2.ServerMetadataResponse.FromString(oip.server_metadata("n", "1.0", ["a", "b"]))
        error = service_pb2.ModelStreamInferResponse.FromString(oip.stream_error("why", Asked("m", "", "7")))

        assert service_pb2.ServerLiveResponse.FromString(oip.live(True)).live is True
        assert service_pb2.ModelReadyResponse.FromString(oip.live(False)).ready is False
        assert [(e.name, e.version, e.state, e.reason) for e in index.models] == [
            ("m", "1", "READY", ""), ("m", "2", "LOADING", "starting"),
        ]  # fmt: skip
        assert (about.name, about.version, list(about.extensions)) == ("n", "1.0", ["a", "b"])
        assert (error.error_message, error.infer_response.id, error.infer_response.model_name) == ("why", "7", "m")

    def test_metadata_are_those_that_the_replica_gives_as_json(self) -> None:
        tensor = {"name": "x", "datatype": "FP32", "shape": [-1, 4]}
        body = {"name": "m", "versions": ["1"], "platform": "p", "inputs": [tensor], "outputs": [], "parameters": {}}

        read = service_pb2.ModelMetadataResponse.FromString(oip.model_metadata(json.dumps(body).encode()))

        assert (read.name, list(read.versions), read.platform, len(read.outputs)) == ("m", ["1"], "p", 0)
        assert (read.inputs[0].name, read.inputs[0].datatype, list(read.inputs[0].shape)) == ("x", "FP32", [-1, 4])

    @pytest.mark.parametrize("body", [b"", b"[]", b'{"name": 1}', b'{"name":"m","inputs":[{"name":"x"}]}', b"\xff"])
    def test_metadata_that_are_none_are_refused(self, body: bytes) -> None:
        with pytest.raises(ProtocolError, match="its metadata is not the Open Inference Protocol's"):
            oip.model_metadata(body)

    def test_a_request_without_a_model_is_refused(self) -> None:
        with pytest.raises(ProtocolError, match="model_name: it is empty"):
            oip.read_infer(service_pb2.ModelInferRequest(id="1").SerializeToString())

    @pytest.mark.parametrize(("service", "answer"), [("", b"\x08\x01"), (oip.SERVICE, b"\x08\x01"), ("other", None)])
    def test_health_is_that_of_a_known_service(self, service: str, answer: bytes | None) -> None:
        message = service_pb2.ModelReadyRequest(name=service).SerializeToString()  # its first field is a string too

        assert oip.health(message, True) == answer


class TestStatusOf:
    @pytest.mark.parametrize(
        ("http", "status"),
        [
            (400, oip.INVALID_ARGUMENT), (401, oip.UNAUTHENTICATED), (403, oip.PERMISSION_DENIED),
            (404, oip.NOT_FOUND), (413, oip.RESOURCE_EXHAUSTED), (418, oip.INVALID_ARGUMENT),
            (429, oip.RESOURCE_EXHAUSTED), (500, oip.INTERNAL), (501, oip.UNIMPLEMENTED), (502, oip.UNAVAILABLE),
            (503, oip.UNAVAILABLE), (504, oip.DEADLINE_EXCEEDED), (599, oip.UNKNOWN),
        ],
    )  # fmt: skip
    def test_is_that_of_the_same_answer_over_http(self, http: int, status: int) -> None:
        assert oip.status_of(http) == status


class TestRefusalIn:
    def test_is_what_a_model_server_of_ours_says(self) -> None:
        refusal = oip.refusal_in(400, b"application/json", b'{"error":"no","code":"BAD_REQUEST"}', "m", "1")

        assert (refusal.status, refusal.code, refusal.text) == (400, "BAD_REQUEST", "no")

    @pytest.mark.parametrize(
        ("status", "body", "expected"),
        [
            (200, b'{"outputs":[]}', (415, "NOT_SUPPORTED")),
            (404, b"<html>", (415, "NOT_SUPPORTED")),
            (422, b'{"detail":"no JSON"}', (400, "NOT_SUPPORTED")),
            (500, b"oh", (500, "REPLICA_FAILED")),
        ],
    )
    def test_names_an_image_that_takes_no_protobuf(self, status: int, body: bytes, expected: tuple[int, str]) -> None:
        refusal = oip.refusal_in(status, b"text/html", body, "m", "1")

        assert (refusal.status, refusal.code) == expected
        assert refusal.text.startswith(f"model 'm' version '1': its replica answered {status} (text/html)")


class TestFrameReader:
    @given(st.lists(st.binary(max_size=40), max_size=8), st.lists(st.integers(1, 20), max_size=60))
    def test_cuts_messages_wherever_the_pieces_end(self, messages: list[bytes], cuts: list[int]) -> None:
        data = b"".join(len(message).to_bytes(4, "big") + message for message in messages)
        reader, found = FrameReader(1000), []

        for cut in [*cuts, len(data)]:
            found += reader.feed(data[:cut])
            data = data[cut:]

        assert found == messages
        assert reader.is_between

    def test_refuses_a_message_that_is_too_long(self) -> None:
        with pytest.raises(ProtocolError, match="1001 bytes; at most 1000 are taken"):
            FrameReader(1000).feed((1001).to_bytes(4, "big"))
