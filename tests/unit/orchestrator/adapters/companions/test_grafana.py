"""What a managed Grafana runs with: the files are read as Grafana's documentation says, by tests/fakes/grafana.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.companions.grafana import GRAFANA, GrafanaSettings
from orchestrator.adapters.companions.kinds import CompanionFailed
from tests.fakes import grafana

SETTINGS = GrafanaSettings(port=3333, prometheus="http://127.0.0.1:9090")


def read(home: Path, settings: GrafanaSettings = SETTINGS) -> dict[str, Any]:
    """What a Grafana reads of a recipe."""
    recipe = settings.recipe(home)
    for name, content in recipe.files.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(content)
    for name in recipe.secrets:
        (home / name).write_text(f"the {name}")
    found = grafana.settings(home / "grafana.ini", recipe.environment)
    return {"settings": found, **grafana.provisioned(Path(found["paths"]["provisioning"]), recipe.environment)}


class TestAnonymousVisitors:
    def test_look_at_loopback_and_change_nothing(self, tmp_path: Path) -> None:
        found = read(tmp_path)["settings"]

        assert found["server"] == {"http_addr": "127.0.0.1", "http_port": "3333"}
        assert (found["auth.anonymous"]["enabled"], found["auth.anonymous"]["org_role"]) == ("true", "Viewer")
        assert found["users"] == {"allow_sign_up": "false", "allow_org_create": "false"}

    def test_do_not_have_it_call_home(self, tmp_path: Path) -> None:
        found = read(tmp_path)["settings"]

        assert set(found["analytics"].values()) == {"false"}
        assert found["news"]["news_feed_enabled"] == found["snapshots"]["external_enabled"] == "false"
        assert found["plugins"]["preinstall_disabled"] == "true"


class TestItsSecrets:
    def test_come_from_files_and_are_in_no_argument_and_no_variable(self, tmp_path: Path) -> None:
        recipe = SETTINGS.recipe(tmp_path)

        assert read(tmp_path)["settings"]["security"]["admin_password"] == "the admin_password"
        assert set(recipe.secrets) == {"admin_password", "secret_key"}
        words = [*recipe.arguments, *recipe.environment, *recipe.environment.values()]
        assert [word for word in words if "password" in word.lower() or "secret" in word.lower()] == []


class TestItsDataSource:
    def test_is_the_prometheus_of_the_manifest(self, tmp_path: Path) -> None:
        (source,) = read(tmp_path)["datasources"]

        assert (source["uid"], source["type"], source["url"]) == ("prometheus", "prometheus", "http://127.0.0.1:9090")
        assert source["isDefault"] is True
        assert source["editable"] is False

    def test_leads_from_the_point_of_a_latency_to_its_trace(self, tmp_path: Path) -> None:
        given = GrafanaSettings(3333, "http://127.0.0.1:9090", "http://127.0.0.1:16686/trace/{trace_id}?$uiTheme")

        (source,) = read(tmp_path, given)["datasources"]

        assert source["jsonData"]["exemplarTraceIdDestinations"] == [
            {
                "name": "trace_id",
                "url": "http://127.0.0.1:16686/trace/${__value.raw}?$uiTheme",
                "urlDisplayLabel": "Trace",
            }
        ]

    def test_gets_the_password_of_a_url_as_a_secret_whatever_is_in_it(self, tmp_path: Path) -> None:
        given = GrafanaSettings(3333, "https://anna:p%40$HOME%24@metrics.example:9090/prom")

        (source,) = read(tmp_path, given)["datasources"]

        assert source["url"] == "https://metrics.example:9090/prom"
        assert (source["basicAuth"], source["basicAuthUser"]) == (True, "anna")
        assert source["secureJsonData"] == {"basicAuthPassword": "p@$HOME$"}
        assert "p@" not in str(given.facts())


class TestItsDashboards:
    def test_are_in_a_folder_of_their_own_and_nobody_edits_them(self, tmp_path: Path) -> None:
        (provider,) = read(tmp_path)["providers"]

        assert (provider["folder"], provider["folderUid"], provider["type"]) == ("Modelfleet", "modelfleet", "file")
        assert provider["allowUiUpdates"] is False
        assert provider["options"]["path"] == str(tmp_path / "dashboards")

    def test_are_those_that_are_shipped_and_the_fleet_comes_first(self, tmp_path: Path) -> None:
        found = read(tmp_path)

        assert sorted(dashboard["uid"] for dashboard in found["dashboards"]) == [
            "modelfleet-control-plane", "modelfleet-fleet", "modelfleet-gateway", "modelfleet-model",
        ]  # fmt: skip
        first = Path(found["settings"]["dashboards"]["default_home_dashboard_path"])
        assert json.loads(first.read_text())["uid"] == "modelfleet-fleet"

    def test_ask_the_data_source_that_is_there(self, tmp_path: Path) -> None:
        found = read(tmp_path)

        (source,) = found["datasources"]
        chosen = {
            variable["current"]["value"]
            for dashboard in found["dashboards"]
            for variable in dashboard["templating"]["list"]
            if variable["type"] == "datasource"
        }
        assert chosen == {source["uid"]}


class TestTheProgram:
    def test_is_told_where_its_own_files_are(self, tmp_path: Path) -> None:
        (tmp_path / "bin").mkdir()
        (tmp_path / "conf").mkdir()
        (tmp_path / "conf" / "defaults.ini").write_text("")

        assert GRAFANA.words(str(tmp_path / "bin" / "grafana")) == ("server", f"--homepath={tmp_path}")
        assert GRAFANA.words(str(tmp_path / "bin" / "grafana-server")) == (f"--homepath={tmp_path}",)


def test_a_state_directory_that_an_ini_file_cannot_hold_is_said() -> None:
    with pytest.raises(CompanionFailed, match=r"grafana: state directory /a;b: ';' is in its path.*--state-dir"):
        SETTINGS.recipe(Path("/a;b"))
