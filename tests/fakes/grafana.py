"""A Grafana's server as its documentation has it: reads its ini file, environment and provisioning files, and answers.

It is strict where Grafana is silent: a section, key or field that is not documented ends it with a sentence, and so does
a file that is not there. `install` puts it on a PATH; `/seen` says all that it read, for tests.

    python grafana.py server [--homepath=DIR] --config=FILE
"""

from __future__ import annotations

import configparser
import json
import os
import re
import stat
import sys
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

# The keys of conf/defaults.ini that we use.
KNOWN = {
    "server": {"http_addr", "http_port"},
    "paths": {"data", "logs", "plugins", "provisioning"},
    "auth.anonymous": {"enabled", "org_name", "org_role", "hide_version"},
    "security": {"admin_user", "admin_password", "secret_key", "cookie_samesite", "disable_gravatar"},
    "users": {"allow_sign_up", "allow_org_create"},
    "analytics": {"reporting_enabled", "check_for_updates", "check_for_plugin_updates", "feedback_links_enabled"},
    "news": {"news_feed_enabled"},
    "snapshots": {"external_enabled"},
    "plugins": {
        "preinstall_disabled", "preinstall_auto_update", "plugin_admin_enabled", "public_key_retrieval_disabled",
    },
    "log": {"mode", "level"},
    "dashboards": {"default_home_dashboard_path"},
}  # fmt: skip
DATA_SOURCE = {
    "name", "type", "access", "orgId", "uid", "url", "user", "database", "basicAuth", "basicAuthUser", "withCredentials",
    "isDefault", "jsonData", "secureJsonData", "version", "editable",
}  # fmt: skip
JSON_DATA = {"httpMethod", "timeInterval", "exemplarTraceIdDestinations"}
PROVIDER = {
    "name", "orgId", "folder", "folderUid", "type", "disableDeletion", "updateIntervalSeconds", "allowUiUpdates",
    "options",
}  # fmt: skip


def install(directory: Path) -> Path:
    """A directory for the PATH with `grafana` in it."""
    program = directory / "grafana"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).resolve()} "$@"\n')
    program.chmod(0o755)
    return directory


def settings(config: Path, environ: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """What the file says, with `GF_SECTION_KEY` over it and `$__file{}` replaced."""
    parser = configparser.ConfigParser(interpolation=None)
    if not parser.read(config):
        sys.exit(f"no configuration at {config}")
    found = {section: dict(parser[section]) for section in parser.sections()}
    for name, value in environ.items():
        # Two are not settings: the official image's own script turns them into options.
        if name not in ("GF_PATHS_CONFIG", "GF_PATHS_HOME") and (match := re.fullmatch(r"GF_([A-Z]+)_([A-Z_]+)", name)):
            found.setdefault(match[1].lower(), {})[match[2].lower()] = value
    for section, keys in found.items():
        if unknown := keys.keys() - KNOWN.get(section, set()):
            sys.exit(f"[{section}]: unknown: {', '.join(sorted(unknown))}")
        found[section] = {key: _expanded(value) for key, value in keys.items()}
    return found


def provisioned(directory: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    sources, providers = [], []
    for file in sorted((directory / "datasources").glob("*.yaml")):
        sources += _section(file, "datasources", DATA_SOURCE, environ)
    for file in sorted((directory / "dashboards").glob("*.yaml")):
        providers += _section(file, "providers", PROVIDER, environ)
    for part in ("alerting", "plugins"):
        for file in (directory / part).glob("*.yaml"):
            _section(file, part, set(), environ)
    for source in sources:
        if unknown := source["jsonData"].keys() - JSON_DATA:
            sys.exit(f"jsonData: unknown: {', '.join(sorted(unknown))}")
    dashboards = [
        {"folder": provider["folder"], **json.loads(file.read_text())}
        for provider in providers
        for file in sorted(Path(provider["options"]["path"]).rglob("*.json"))
    ]
    return {"datasources": sources, "providers": providers, "dashboards": dashboards}


def _section(file: Path, name: str, known: set[str], environ: Mapping[str, str]) -> list[dict[str, Any]]:
    document = yaml.safe_load(file.read_text())
    if document.pop("apiVersion") != 1:
        sys.exit(f"{file}: apiVersion must be 1")
    entries: list[dict[str, Any]] = document.pop(name, [])
    if document or any(entry.keys() - known for entry in entries):
        sys.exit(f"{file}: unknown fields")
    return [_interpolated(entry, environ) for entry in entries]


def _interpolated(value: Any, environ: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _interpolated(each, environ) for key, each in value.items()}
    if isinstance(value, list):
        return [_interpolated(each, environ) for each in value]
    if not isinstance(value, str):
        return value
    names = r"\$\$|\$(\w+)|\$\{(\w+)\}"
    return re.sub(names, lambda m: "$" if m[0] == "$$" else environ.get(m[1] or m[2], ""), value)


def _expanded(value: str) -> str:
    match = re.fullmatch(r"\$__file\{(.+)\}", value)
    return Path(match[1]).read_text().strip() if match else value


def main(arguments: list[str]) -> None:
    if arguments[0] != "server":
        sys.exit(f"{arguments[0]}: no such command")
    options = dict(argument.removeprefix("--").split("=", 1) for argument in arguments[1:])
    config = Path(options["config"])
    found = settings(config, os.environ)
    paths = found["paths"]
    seen = {"settings": found, **provisioned(Path(paths["provisioning"]), os.environ)}
    # What it keeps: a database that has the password of the first start.
    database = Path(paths["data"], "grafana.db")
    if not database.exists():
        database.write_text(found["security"]["admin_password"])
    seen["environment"], seen["arguments"] = dict(os.environ), sys.argv
    seen["modes"] = {file.name: stat.S_IMODE(file.stat().st_mode) for file in config.parent.iterdir()}
    if found["auth.anonymous"]["enabled"] != "true":
        sys.exit("the stand-in knows anonymous users alone")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            pages = {"/api/health": {"database": "ok", "version": "12.3.1"}, "/seen": seen}
            body = json.dumps(pages.get(self.path, {"message": "Not found"})).encode()
            self.send_response(200 if self.path in pages else 404)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Silent."""

    server = found["server"]
    ThreadingHTTPServer((server["http_addr"], int(server["http_port"])), Handler).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
