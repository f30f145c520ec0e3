"""Functions of the web console's modules, run by Node as the browser runs them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

MODULES = Path(__file__).parents[4] / "orchestrator/console/static/js"


def answers(module: str, function: str, *calls: list[Any]) -> list[Any]:
    """What a function answers to each list of arguments; {"error": sentence} where it throws."""
    script = f"""
        const {{ {function}: asked }} = await import({json.dumps((MODULES / module).as_uri())});
        const answer = (call) => {{ try {{ return asked(...call) }} catch ({{ message }}) {{ return {{ error: message }} }} }};
        console.log(JSON.stringify({json.dumps(calls)}.map(answer)));
    """
    done = subprocess.run(["node", "--input-type=module", "-e", script], capture_output=True, text=True, check=True)
    found: list[Any] = json.loads(done.stdout)
    return found
