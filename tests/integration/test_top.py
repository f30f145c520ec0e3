"""`modelfleet top` on a terminal, with a real control plane that is killed and comes back (process engine)."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cluster import REPOSITORY, Cluster, fleet, pick_port, until
from tests.unit.orchestrator.cli.terminal import Terminal

pytestmark = pytest.mark.timeout(240)


def test_shows_live_traffic_and_outlives_a_kill_of_the_control_plane(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, f"test-{secrets.token_hex(4)}", pick_port)
    try:
        cluster.start()
        cluster.write_model("iris")
        prices = {"cpu_hour": 1.0}
        cluster.apply({**fleet(iris={"versions": {"1": {"source": "iris"}}}), "pricing": prices})
        environment = {"MODELFLEET_STATE_DIR": str(cluster.state_dir)}
        with cluster.load("iris", connections=2), Terminal(["top"], columns=120, environment=environment) as terminal:
            terminal.wait_for("cost 1.00/h")
            terminal.type("\r")
            (replica,) = cluster.version("iris")["replicas"]
            terminal.wait_for(replica["id"])
            cluster.kill()
            terminal.wait_for("control plane lost for")
            cluster.start()
            terminal.forget()
            terminal.wait_for(replica["id"])
            terminal.type("q")
            assert terminal.end() == 0

        command = [
            sys.executable,
            "-c",
            "from orchestrator.cli.main import main; main()",
            "top",
            "--once",
            "-o",
            "json",
        ]
        command += ["--state-dir", str(cluster.state_dir)]

        def row() -> dict[str, Any] | None:
            told = subprocess.run(
                command, cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=60
            ).stdout
            (found,) = json.loads(told)["models"]
            return found if found["cost_per_hour"] is not None else None

        found = until("the cost is known again", row)
        assert (found["name"], found["ready"], found["cost_per_hour"]) == ("iris", 1, 1.0)
    finally:
        cluster.close()
