"""Which stages of a Dockerfile a target needs."""

from __future__ import annotations

import pytest

from orchestrator.adapters._build_context import worker_package
from orchestrator.adapters._stages import needed
from orchestrator.backends import BACKENDS

DOCKERFILE = """\
ARG BASE=python
FROM ${BASE} AS build
RUN a
FROM build AS build-x
RUN b
FROM ${BASE} AS server
FROM server AS x
COPY --from=build-x /opt /opt
FROM server AS y
COPY --from=build /opt /opt
"""


def names(dockerfile: str) -> list[str]:
    return [line.split()[-1] for line in dockerfile.splitlines() if line.startswith("FROM ")]


class TestNeeded:
    def test_keeps_parents_and_what_is_copied_from_in_their_order(self) -> None:
        assert names(needed(DOCKERFILE, "x")) == ["build", "build-x", "server", "x"]
        assert names(needed(DOCKERFILE, "y")) == ["build", "server", "y"]

    def test_keeps_the_lines_above_the_first_stage(self) -> None:
        assert needed(DOCKERFILE, "y").startswith("ARG BASE=python\nFROM ${BASE} AS build\nRUN a\nFROM")

    def test_leaves_a_file_without_such_a_target_alone(self) -> None:
        assert needed(DOCKERFILE, "z") == DOCKERFILE

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_every_image_needs_its_own_stages_alone(self, backend: str) -> None:
        found = names(needed((worker_package() / "Dockerfile").read_text(), backend))

        assert found[-1] == backend
        assert {"build", "code", "server"} < set(found)
        assert not (set(found) & set(BACKENDS)) - {backend}
