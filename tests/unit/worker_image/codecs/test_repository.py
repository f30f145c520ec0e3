"""The index of one model server says of its phase what a repository's client can read."""

from __future__ import annotations

import pytest

from worker_image.server.codecs.repository import index
from worker_image.server.phase import Phase


@pytest.mark.parametrize(
    ("phase", "error", "state", "is_ready"),
    [
        ("importing", "", "LOADING", False),
        ("warming", "", "LOADING", False),
        ("ready", "", "READY", True),
        ("draining", "", "UNLOADING", False),
        ("loading", "model.joblib: truncated", "UNAVAILABLE", False),
    ],
)
def test_says_what_the_phase_means(phase: str, error: str, state: str, is_ready: bool) -> None:
    now = Phase(0.0)
    now.begin(phase)
    now.error = error

    assert index("m", "1", now) == [{"name": "m", "version": "1", "state": state, "reason": error}]
    assert bool(index("m", "1", now, only_ready=True)) == is_ready
