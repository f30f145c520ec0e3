"""The web console in a browser: Debian's Chromium, driven by Playwright, on a cluster with models that do all there is to see.

Every page that is opened here notes what the browser complains of; `complaints` are its errors, and what the content
security policy had to stop.
"""

from __future__ import annotations

import contextlib
import functools
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from playwright.sync_api import Browser, Page, sync_playwright

from tests.integration.cluster import REPOSITORY, Cluster, Load, fleet, pick_port, until

ARTIFACTS = REPOSITORY / "test-artifacts" / "console"
AXE = REPOSITORY / "orchestrator/console/node_modules/axe-core/axe.min.js"
NARROW, WIDE = (360, 760), (1600, 1000)
# A page waits for a machine that does other things too.
PATIENCE_MS = 20_000
# Whether anything is on a canvas: an empty one has only pixels that are transparent.
DRAWN = """canvas => new Uint32Array(
  canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.buffer).some(Boolean)"""
NOTE_VIOLATIONS = """
globalThis.stopped = [];
addEventListener("securitypolicyviolation", (event) => stopped.push(`${event.violatedDirective}: ${event.blockedURI}`));
"""


class Visitor:
    """Somebody with a browser of their own: no cookie is shared with another."""

    def __init__(self, browser: Browser, cluster: Cluster, size: tuple[int, int] = WIDE, scheme: str = "light") -> None:
        self.cluster = cluster
        self.errors: list[str] = []
        options: dict[str, Any] = {"color_scheme": scheme, "viewport": {"width": size[0], "height": size[1]}}
        self._context = browser.new_context(**options, permissions=["clipboard-read", "clipboard-write"])
        self._context.add_init_script(NOTE_VIOLATIONS)
        self.page = self._context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def sign_in(self, path: str = "#/") -> Page:
        """Opens the console by a fresh link, and goes to a page of it."""
        answer = self.cluster.api("POST", "/console/links")
        assert answer.status_code == 200, answer.text
        self.page.goto(answer.json()["url"])
        self.page.locator(".totals dd").first.wait_for()
        return self.go(path) if path != "#/" else self.page

    def go(self, path: str) -> Page:
        self.page.evaluate("path => { location.hash = path }", path)
        return self.page

    def complaints(self) -> list[str]:
        stopped: list[str] = self.page.evaluate("stopped")
        return self.errors + stopped

    def violations(self) -> list[str]:
        """What axe finds on the page as it is."""
        self.page.evaluate(axe_source())
        found = self.page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
        return [
            f"{v['id']}: {node['target']}: {node['failureSummary']}" for v in found["violations"] for node in v["nodes"]
        ]

    def picture(self, name: str) -> Path:
        """A screenshot of the whole page, kept with the run's artefacts."""
        ARTIFACTS.mkdir(parents=True, exist_ok=True)
        path = ARTIFACTS / f"{name}.png"
        self.page.screenshot(path=path, full_page=True)
        return path

    def close(self) -> None:
        self._context.close()


@functools.cache
def axe_source() -> str:
    return AXE.read_text()


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    executable = shutil.which("chromium-headless-shell")
    assert executable is not None
    with sync_playwright() as playwright:
        # CI runs as root, for whom Chromium has no sandbox. It sees this machine's own pages alone.
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


def write_models(cluster: Cluster) -> None:
    """A canary that prints, one that is too slow for its objective, one that sleeps, and one that cannot load."""
    cluster.write_model("iris-1", 1.0, predict="print('asked for', inputs['x'].size, flush=True)")
    cluster.write_model("iris-2", 2.0)
    cluster.write_model("late", 3.0, predict="time.sleep(0.03)")
    cluster.write_model("nap", 4.0)
    cluster.write_model("broken", load="raise ValueError('the weights are of another model')")


def manifest(**models: Any) -> dict[str, Any]:
    """The fleet that tests look at; `models` come on top."""
    canary = {
        "versions": {"1": {"source": "iris-1"}, "2": {"source": "iris-2"}},
        "traffic": {"1": 90, "2": 10},
        "labels": {"stable": "1", "latest": "2"},
        "slo": {"latency_ms": 50, "percentile": 95},
    }
    late = {"versions": {"1": {"source": "late"}}, "slo": {"latency_ms": 10, "percentile": 95}}
    nap = {"versions": {"1": {"source": "nap"}}, "scaling": {"min": 0, "max": 1, "idle_after": "1s"}}
    priced = {"pricing": {"cpu_hour": 0.04, "memory_gib_hour": 0.005}}
    return priced | fleet(**{"iris": canary, "late": late, "nap": nap, **models})


def state_of(cluster: Cluster, model: str) -> str:
    """A model's state, "" while there is no such model."""
    return next((m["state"] for m in cluster.get("/status")["models"] if m["name"] == model), "")


def begin(cluster: Cluster, wanted: dict[str, Any]) -> str:
    """Begins an apply of a manifest as people write one, in lines; returns the operation's id."""
    answer = cluster.api("POST", "/apply", json=cluster.request(yaml.safe_dump(wanted, sort_keys=False)))
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


@contextlib.contextmanager
def busy_cluster(root: Path, pick: Callable[[], int] = pick_port) -> Iterator[Cluster]:
    """The fleet above, with predictions on two models for as long as the block runs, and a second revision."""
    cluster = Cluster(root, f"test-{secrets.token_hex(4)}", pick)
    cluster.start()
    loads: list[Load] = []
    try:
        write_models(cluster)
        assert cluster.ended(begin(cluster, manifest()))["state"] == "succeeded"
        begin(cluster, manifest(broken={"1": "broken"}))
        for model, connections in (("iris", 2), ("late", 1)):
            loads.append(Load(cluster.gateway_port, model, connections))
            loads[-1].start()
        until("the broken one failed", lambda: state_of(cluster, "broken") == "failed", within_s=60)
        until("the unused one sleeps", lambda: state_of(cluster, "nap") == "asleep", within_s=60)
        yield cluster
    finally:
        for load in loads:
            load.stop()
        cluster.close()
