"""What a managed Grafana runs with: `configs/grafana/`, its data source and dashboards as provisioning files.

The words are those of Grafana's documentation (*Configure Grafana*, *Provision Grafana*). What depends on where it runs
comes as `GF_SECTION_KEY` in its environment, which outweighs the image's own; a secret never does.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

from orchestrator.adapters.companions.kinds import CompanionFailed, Kind, Recipe, shipped

DATA_SOURCE = "prometheus"
FOLDER = "Modelfleet"
# The longest time between two scrapes of one target: `$__rate_interval` is four of them at least.
SCRAPED_EVERY = "10s"
# The gateway's exemplars name a trace by it.
EXEMPLAR_LABEL = "trace_id"
# Whoever comes to its address sees this one.
FIRST = "fleet.json"
# What ends a value in its ini file, or begins something else there.
_NOT_IN_INI = frozenset(';#`"$%{}\n\r')


def _words(program: str) -> tuple[str, ...]:
    """`grafana server`, or `grafana-server` of releases before 10, with the directory that has its own files."""
    verb = () if Path(program).name == "grafana-server" else ("server",)
    real = Path(program).resolve()
    places = (real.parents[1], real.parents[1] / "share" / "grafana", Path("/usr/share/grafana"))
    home = next((place for place in places if (place / "conf" / "defaults.ini").is_file()), None)
    return (*verb, *([f"--homepath={home}"] if home else []))


GRAFANA = Kind(
    name="grafana",
    title="Grafana",
    image="grafana/grafana:12.3.1",
    entrypoint=("grafana", "server", "--homepath=/usr/share/grafana"),
    programs=("grafana", "grafana-server"),
    words=_words,
    advice="from grafana.com/grafana/download",
    health="/api/health",
    memory_bytes=1024**3,
)


@dataclass(frozen=True, slots=True)
class GrafanaSettings:
    """`prometheus` is the URL that it asks, which may have a user and a password in it.

    `trace_url` has `{trace_id}` in it, and is where a trace is looked at; "" where nobody said.
    """

    port: int
    prometheus: str
    trace_url: str = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def facts(self) -> dict[str, str]:
        return {
            "grafana_port": str(self.port),
            "prometheus": _without_user(self.prometheus),
            "trace_url": self.trace_url or "none",
        }

    def recipe(self, home: Path) -> Recipe:
        """Raises `CompanionFailed`."""
        if odd := _NOT_IN_INI & set(str(home)):
            raise CompanionFailed(
                f"grafana: state directory {home}: {''.join(sorted(odd))!r} is in its path, which Grafana's "
                f"configuration cannot hold; name another with --state-dir"
            )
        dashboards = {file.name: file.read_bytes() for file in sorted(shipped("grafana/dashboards").glob("*.json"))}
        return Recipe(
            arguments=(f"--config={home}/grafana.ini",),
            files={
                "grafana.ini": shipped("grafana/grafana.ini").read_text().replace("HOME", str(home)).encode(),
                "provisioning/datasources/modelfleet.yaml": _yaml(datasources=[self._data_source()]),
                "provisioning/dashboards/modelfleet.yaml": _yaml(providers=[_provider(home / "dashboards")]),
                # It complains of a directory that is not there.
                "provisioning/alerting/modelfleet.yaml": _yaml(),
                "provisioning/plugins/modelfleet.yaml": _yaml(),
                **{f"dashboards/{name}": content for name, content in dashboards.items()},
            },
            environment={
                "GF_SERVER_HTTP_PORT": str(self.port),
                "GF_PATHS_DATA": f"{home}/data",
                "GF_PATHS_LOGS": f"{home}/data/log",
                "GF_PATHS_PLUGINS": f"{home}/data/plugins",
                "GF_PATHS_PROVISIONING": f"{home}/provisioning",
                "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": f"{home}/dashboards/{FIRST}",
            },
            secrets=("admin_password", "secret_key"),
        )

    def _data_source(self) -> dict[str, Any]:
        source: dict[str, Any] = {
            "name": "Prometheus",
            "uid": DATA_SOURCE,
            "type": "prometheus",
            "access": "proxy",
            "orgId": 1,
            "url": _literal(_without_user(self.prometheus)),
            "isDefault": True,
            "editable": False,
            "jsonData": {"httpMethod": "POST", "timeInterval": SCRAPED_EVERY},
        }
        if self.trace_url:
            to = _literal(self.trace_url.replace("{trace_id}", "${__value.raw}"))
            link = {"name": EXEMPLAR_LABEL, "url": to, "urlDisplayLabel": "Trace"}
            source["jsonData"]["exemplarTraceIdDestinations"] = [link]
        parts = urlsplit(self.prometheus)
        if parts.username is not None:
            source["basicAuth"] = True
            source["basicAuthUser"] = _literal(unquote(parts.username))
            source["secureJsonData"] = {"basicAuthPassword": _literal(unquote(parts.password or ""))}
        return source


def _provider(directory: Path) -> dict[str, Any]:
    return {
        "name": FOLDER,
        "orgId": 1,
        "folder": FOLDER,
        "folderUid": "modelfleet",
        "type": "file",
        "disableDeletion": True,
        "allowUiUpdates": False,
        "updateIntervalSeconds": 30,
        "options": {"path": str(directory), "foldersFromFilesStructure": False},
    }


def _yaml(**sections: Any) -> bytes:
    return yaml.safe_dump({"apiVersion": 1, **sections}, sort_keys=False).encode()


def _literal(text: str) -> str:
    """In a provisioning file `$NAME` is a variable of the environment, and `$$` a dollar."""
    return text.replace("$", "$$")


def _without_user(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
