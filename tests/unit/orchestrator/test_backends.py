"""Every backend of the manifest has its image, its lock and its file in the model server."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.backends import BACKENDS
from worker_image.server import loading

WORKER = Path(__file__).parents[3] / "worker_image"


def test_control_plane_and_model_server_name_the_same() -> None:
    assert sorted(BACKENDS) == sorted(loading.BACKENDS)
    assert set(loading.BACKENDS) >= loading.RELEASES_GIL


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_can_be_built_and_loaded(backend: str) -> None:
    dockerfile = (WORKER / "Dockerfile").read_text()

    assert f" AS {backend}\n" in dockerfile
    assert f"ENV MODELFLEET_BACKEND={backend}" in dockerfile
    assert (WORKER / "requirements" / f"{backend}.lock").is_file()
    assert (WORKER / "server" / "backends" / f"{backend}.py").is_file()
