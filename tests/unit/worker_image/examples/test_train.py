"""The example models: trained, loaded by their backends, and asked with the sample requests that `configs/examples` shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from worker_image.examples.train import main
from worker_image.server.codecs import v2
from worker_image.server.loading import load
from worker_image.server.settings import Settings, Tuning
from worker_image.server.tensors import Tensors, fit

CONFIGS = Path(__file__).parents[4] / "configs"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models")
    assert main(["--out", str(directory)]) == 0
    return directory


def predict(directory: Path, backend: str, name: str) -> Tensors:
    loaded = load(Settings(name, "1", backend, directory, "", 1, 1, Tuning()), lambda _phase: None)
    request = v2.decode((CONFIGS / "examples" / f"{name}.json").read_bytes())
    return loaded.predict(fit(loaded.signature, request.inputs), loaded.signature.default_outputs)


class TestExamples:
    @pytest.mark.parametrize("version", ["1", "2"])
    def test_iris_names_the_species(self, trained: Path, version: str) -> None:
        assert predict(trained / "iris" / version, "sklearn", "iris")["predict"].tolist() == ["setosa", "virginica"]

    def test_digits_reads_the_three_of_the_sample(self, trained: Path) -> None:
        answer = predict(trained / "digits" / "1", "onnx", "digits")

        assert answer["label"].tolist() == [3]
        assert answer["probabilities"].shape == (1, 10)

    def test_diabetes_gives_a_plausible_number(self, trained: Path) -> None:
        assert 25 < predict(trained / "diabetes" / "1", "lightgbm", "diabetes")["predict"].item() < 350

    def test_digits_batched_equal_digits_alone(self, trained: Path) -> None:
        loaded = load(Settings("d", "1", "onnx", trained / "digits" / "1", "", 1, 1, Tuning()), lambda _phase: None)
        images = np.random.default_rng(0).integers(0, 17, (16, 64)).astype(np.float32)

        together = loaded.predict({"image": images}, ("label",))["label"]

        alone = [
            loaded.predict({"image": images[index : index + 1]}, ("label",))["label"].item() for index in range(16)
        ]
        assert together.tolist() == alone

    def test_training_again_leaves_what_is_there_alone(self, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
        before = (trained / "iris" / "1" / "model.joblib").stat().st_mtime_ns

        main(["--out", str(trained)])

        assert capsys.readouterr().out == ""
        assert (trained / "iris" / "1" / "model.joblib").stat().st_mtime_ns == before

    def test_leaves_no_scratch_behind_and_files_that_anybody_may_read(self, trained: Path) -> None:
        assert sorted(entry.name for entry in trained.iterdir()) == ["diabetes", "digits", "iris"]
        assert [entry.name for entry in (trained / "iris").iterdir() if entry.name.startswith(".")] == []
        assert (trained / "iris" / "1" / "model.joblib").stat().st_mode & 0o444 == 0o444
