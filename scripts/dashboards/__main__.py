"""`python -m scripts.dashboards`: writes configs/grafana/dashboards/*.json anew. `make dashboards` runs it."""

from __future__ import annotations

from pathlib import Path

from scripts.dashboards import control_plane, fleet, gateway, model
from scripts.dashboards.frame import render

DIRECTORY = Path(__file__).parents[2] / "configs" / "grafana" / "dashboards"
BUILDERS = {"fleet": fleet, "model": model, "gateway": gateway, "control-plane": control_plane}


def files() -> dict[Path, str]:
    """The text of each file."""
    return {DIRECTORY / f"{name}.json": render(module.board()) for name, module in BUILDERS.items()}


def main() -> None:
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for path, text in files().items():
        path.write_text(text)
        print(f"dashboards: wrote {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")


if __name__ == "__main__":
    main()
