"""The example models are trained wherever one stands: `make up` in a clone is not the only way to them."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.adapters.training import train_in_environment


@pytest.mark.timeout(300)
def test_trains_in_an_environment_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "models"
    out.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)

    train_in_environment(out, tmp_path / "state", print)

    assert sorted(path.name for path in out.iterdir()) == ["diabetes", "digits", "iris"]
