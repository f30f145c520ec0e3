"""The example models: trained once, where serving happens, next to the example manifest.

scikit-learn's files load only in the version that wrote them, so training runs in a container of the `examples` image
or, with the process engine, in an environment of the same locked packages. Owns `<manifest dir>/models/`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from orchestrator.adapters.training import train_in_container, train_in_environment

TRAINED = ("iris/1", "iris/2", "digits/1", "diabetes/1")


def ensure(
    manifest_dir: Path, engine: str, *, state_dir: Path, base_image: str | None, say: Callable[[str], None]
) -> None:
    """Trains what is not there yet; instant when all is. Raises `FleetError`."""
    out = manifest_dir.absolute() / "models"
    if all((out / each).is_dir() for each in TRAINED):
        return
    out.mkdir(parents=True, exist_ok=True)
    if engine == "process":
        train_in_environment(out, state_dir, say)
    else:
        train_in_container(out, state_dir, base_image, say)
