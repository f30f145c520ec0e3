"""`modelfleet console` against a fake control plane. That the link signs in, tests/integration/test_console_access.py shows."""

from __future__ import annotations

import json

import pytest

from tests.fakes.admin_api import FakeAdminApi
from tests.unit.orchestrator.cli.conftest import Run


@pytest.fixture(autouse=True)
def _no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)


class TestConsole:
    @pytest.mark.parametrize("options", [(), ("--no-open",)])
    def test_prints_the_link_where_no_browser_can_be_opened(
        self, api: FakeAdminApi, run: Run, options: tuple[str, ...]
    ) -> None:
        result = run("console", *options)

        assert result.exit_code == 0
        assert result.stdout.splitlines()[0] == "http://127.0.0.1:7070/console/#code=once"
        assert "within 10 minutes" in result.stdout

    def test_quietly_it_is_the_link_alone(self, api: FakeAdminApi, run: Run) -> None:
        assert run("console", "-q").stdout == "http://127.0.0.1:7070/console/#code=once\n"

    def test_for_scripts_it_is_the_schema(self, api: FakeAdminApi, run: Run) -> None:
        assert json.loads(run("console", "-o", "json").stdout)["expires_in_s"] == 600

    def test_without_a_control_plane_it_says_so(self, run: Run) -> None:
        assert run("console").exit_code == 3
