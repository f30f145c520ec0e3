"""The release that wrote a pickle, read without running it."""

from __future__ import annotations

import pickle
from pathlib import Path

import joblib
import pytest
import sklearn

from tests.fakes import models
from worker_image.server.backends.pickles import pickled_version


class TestPickledVersion:
    @pytest.mark.parametrize("protocol", [2, 3, 4, 5])
    def test_is_found_in_every_protocol(self, tmp_path: Path, protocol: int) -> None:
        (tmp_path / "m.pkl").write_bytes(pickle.dumps(models.iris_estimator(), protocol=protocol))

        assert pickled_version(tmp_path / "m.pkl") == sklearn.__version__

    def test_is_found_in_a_compressed_joblib_file(self, tmp_path: Path) -> None:
        joblib.dump(models.iris_estimator(), tmp_path / "m.joblib", compress=3)

        assert pickled_version(tmp_path / "m.joblib") == sklearn.__version__

    def test_is_none_for_what_is_no_scikit_learn_pickle(self, tmp_path: Path) -> None:
        (tmp_path / "m.pkl").write_bytes(pickle.dumps([1, 2]))

        assert pickled_version(tmp_path / "m.pkl") is None
