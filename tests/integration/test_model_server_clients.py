"""A client that we did not write: tritonclient over HTTP, with JSON tensors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tests.fakes import models
from tests.fakes.replica import Replica, ready_replica

triton = pytest.importorskip("tritonclient.http")


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    with ready_replica(models.iris(tmp_path_factory.mktemp("models") / "iris")) as running:
        yield running


class TestTritonClient:
    def test_reads_health_and_metadata(self, replica: Replica) -> None:
        with triton.InferenceServerClient(f"127.0.0.1:{replica.port}") as client:
            assert client.is_server_live()
            assert client.is_server_ready()
            assert client.is_model_ready("iris")
            assert client.get_server_metadata()["name"] == "modelfleet"
            assert client.get_model_metadata("iris")["inputs"][0]["shape"] == [-1, 4]

    def test_predicts_with_json_tensors(self, replica: Replica) -> None:
        rows = np.random.default_rng(0).uniform(0, 8, (5, 4))
        tensor = triton.InferInput("x", list(rows.shape), "FP64")
        tensor.set_data_from_numpy(rows, binary_data=False)
        wanted = [triton.InferRequestedOutput(name, binary_data=False) for name in ("predict", "predict_proba")]

        with triton.InferenceServerClient(f"127.0.0.1:{replica.port}") as client:
            answer = client.infer("iris", [tensor], outputs=wanted, request_id="7")

        direct = models.iris_estimator()
        assert answer.get_response()["id"] == "7"
        np.testing.assert_array_equal(answer.as_numpy("predict"), direct.predict(rows))
        np.testing.assert_array_equal(answer.as_numpy("predict_proba"), direct.predict_proba(rows))

    def test_is_told_in_words_that_binary_tensors_are_not_read(self, replica: Replica) -> None:
        tensor = triton.InferInput("x", [1, 4], "FP64")
        tensor.set_data_from_numpy(np.zeros((1, 4)))

        with (
            triton.InferenceServerClient(f"127.0.0.1:{replica.port}") as client,
            pytest.raises(Exception, match="binary_data=False"),
        ):
            client.infer("iris", [tensor])
