"""The shipped rules and configuration, held by Prometheus' own tool: each alert fires when it should and not otherwise."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
CONFIGS = REPOSITORY / "configs" / "prometheus"
CASES = sorted((Path(__file__).parent / "prometheus_rules").glob("*.yml"))


def promtool(*arguments: str) -> None:
    found = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.prometheus
def test_the_configuration_and_its_rules_are_valid() -> None:
    promtool("check", "config", "--lint=all", "--lint-fatal", str(CONFIGS / "prometheus.yml"))


@pytest.mark.prometheus
@pytest.mark.parametrize("cases", CASES, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should_and_not_otherwise(cases: Path) -> None:
    promtool("test", "rules", str(cases))


def test_every_alert_has_a_case_in_which_it_fires_and_says_what_to_do() -> None:
    fires = set(re.findall(r'alertname="(\w+)"', "".join(path.read_text() for path in CASES)))
    groups = yaml.safe_load((CONFIGS / "rules" / "alerts.yml").read_text())["groups"]
    alerts = {rule["alert"]: rule for group in groups for rule in group["rules"]}

    assert alerts.keys() == fires
    for name, rule in alerts.items():
        assert rule["labels"]["severity"] in ("page", "ticket", "info"), name
        assert rule["annotations"].keys() == {"summary", "description"}, name
