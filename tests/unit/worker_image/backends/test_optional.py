"""Modules that are hidden while a framework is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

from worker_image.server.backends.optional import hidden


class TestHidden:
    def test_a_module_is_not_there_meanwhile_and_is_afterwards(self) -> None:
        name = "colorsys"
        sys.modules.pop(name, None)

        with hidden(name), pytest.raises(ModuleNotFoundError):
            __import__(name)

        assert __import__(name)

    def test_one_that_was_imported_before_stays(self) -> None:
        with hidden("json"):
            assert __import__("json")

    def test_one_with_some_classes_has_no_others(self) -> None:
        name = "colorsys"
        sys.modules.pop(name, None)

        with hidden(name, "Red"):
            module = __import__(name)
            assert not isinstance(1, module.Red)
            assert not hasattr(module, "rgb_to_hsv")

        assert hasattr(__import__(name), "rgb_to_hsv")

    @pytest.mark.parametrize("backend", ["sklearn", "lightgbm", "xgboost", "catboost"])
    def test_no_backend_imports_pandas_by_itself(self, backend: str) -> None:
        code = f"import sys, worker_image.server.backends.{backend}; sys.exit('pandas' in sys.modules)"

        assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == 0
