"""What the console does and bears: rollouts by its buttons, and a control plane that goes away and comes back."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.integration.browsing import Visitor, begin, chromium, manifest, write_models
from tests.integration.cluster import Cluster, until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
LONG_MS = 30_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def cluster(tmp_path: Path, cluster: str, free_port: Callable[[], int]) -> Iterator[Cluster]:
    """Two revisions: iris without its canary, then with it."""
    found = Cluster(tmp_path, cluster, free_port).start()
    try:
        write_models(found)
        found.apply({**manifest(), "models": {"iris": {"versions": {"1": {"source": "iris-1"}}}}})
        wanted = manifest()
        assert (
            found.ended(begin(found, {**wanted, "models": {"iris": wanted["models"]["iris"]}}))["state"] == "succeeded"
        )
        yield found
    finally:
        found.close()


@pytest.fixture
def visitor(browser: Browser, cluster: Cluster) -> Iterator[Visitor]:
    found = Visitor(browser, cluster)
    yield found
    complaints = found.complaints()
    found.close()
    assert complaints == []


def see(page: Page, *, is_hidden: bool) -> None:
    """What a browser tells a page whose tab is left, or come back to: one without a screen has no tabs."""
    page.evaluate(
        """isHidden => {
          Object.defineProperty(document, "hidden", { value: isHidden, configurable: true });
          document.dispatchEvent(new Event("visibilitychange"));
        }""",
        is_hidden,
    )


def say_yes(visitor: Visitor, action: str, heading: str) -> str:
    """Presses a button, reads what it would do, and agrees."""
    visitor.page.get_by_role("button", name=action, exact=True).click()
    dialog = visitor.page.get_by_role("dialog", name=re.compile(heading))
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    assert visitor.violations() == []
    visitor.picture(f"dialog-{action.lower().replace(' ', '-')}")
    said = dialog.inner_text()
    dialog.get_by_role("button", name=action, exact=True).click()
    return said


class TestTheStream:
    def test_lost_leaves_the_numbers_with_their_age_and_found_again_says_so(
        self, visitor: Visitor, cluster: Cluster
    ) -> None:
        page = visitor.sign_in()
        expect(page.get_by_role("link", name="iris", exact=True)).to_be_visible()

        cluster.kill()

        banner = page.get_by_role("region", name="Trouble")
        expect(banner).to_contain_text("The control plane does not answer", timeout=LONG_MS)
        expect(banner).to_contain_text(re.compile(r"numbers below are [\d.]+ s old"))
        expect(page.locator("html[data-old]")).to_have_count(1)
        expect(page.get_by_role("link", name="iris", exact=True)).to_be_visible()
        visitor.picture("lost-1600-light")
        assert visitor.violations() == []

        cluster.start()

        expect(page.locator("html[data-old]")).to_have_count(0, timeout=LONG_MS)
        expect(banner).to_be_hidden()
        expect(page.locator("#announcer")).to_have_text("The control plane is back. Numbers are fresh.")

    def test_rests_in_a_tab_that_nobody_sees_and_goes_on_when_it_is_seen_again(
        self, visitor: Visitor, cluster: Cluster
    ) -> None:
        """A browser has six connections to a server: three tabs that follow two things each would leave none."""
        page = visitor.sign_in("#/models/iris")
        page.locator("#logs .line").first.wait_for()

        see(page, is_hidden=True)
        page.wait_for_function(
            "import('/console/static/js/live.js').then(({ live }) => live.isResting)", timeout=LONG_MS
        )
        begin(cluster, manifest())
        until("it is applied", lambda: cluster.get("/history")[0]["revision"] == 3)
        see(page, is_hidden=False)

        expect(page.get_by_role("region", name="Operation")).to_contain_text("apply to revision 3")
        expect(page.locator("html[data-old]")).to_have_count(0)
        page.locator("#logs .line").first.wait_for()

    def test_shows_what_another_person_applies(self, visitor: Visitor, cluster: Cluster) -> None:
        page = visitor.sign_in()
        expect(page.get_by_role("link", name="iris", exact=True)).to_be_visible()

        begin(cluster, manifest())

        expect(page.get_by_role("region", name="Operation")).to_contain_text("apply to revision 3")
        expect(page.get_by_role("link", name="late", exact=True)).to_be_visible(timeout=LONG_MS)


class TestLogs:
    def test_go_on_with_the_replica_that_replaces_another(self, visitor: Visitor, cluster: Cluster) -> None:
        page = visitor.sign_in("#/models/iris")
        lines = page.get_by_role("region", name="Log lines")
        expect(lines).to_contain_text("asked for 1")  # what warmed it up

        cluster.write_model("iris-1", 5.0, predict="print('the new one was asked', flush=True)")
        wanted = manifest()
        begin(cluster, {**wanted, "models": {"iris": wanted["models"]["iris"]}})
        until("the new one answers", lambda: cluster.predict("iris", "/versions/1") == 5.0, within_s=40)

        expect(lines).to_contain_text("the new one was asked", timeout=LONG_MS)
        expect(lines).to_contain_text("asked for 1")


class TestRollingBack:
    def test_to_a_revision_shows_what_changes_and_does_it(self, visitor: Visitor, cluster: Cluster) -> None:
        page = visitor.sign_in("#/manifest/1")

        page.get_by_role("button", name="Roll back to this").click()
        dialog = page.get_by_role("dialog", name=re.compile("Roll back to revision 1"))
        expect(dialog.locator(".removed").first).to_contain_text("-")
        dialog.get_by_role("button", name="Cancel").click()
        expect(page.get_by_role("button", name="Roll back to this")).to_be_focused()
        assert len(cluster.get("/history")) == 2

        page.get_by_role("button", name="Roll back to this").click()
        page.get_by_role("dialog").get_by_role("button", name="Roll back", exact=True).click()

        until("a third revision is in force", lambda: cluster.get("/history")[0]["revision"] == 3)
        expect(page.get_by_role("link", name="Revision 3")).to_be_visible()


class TestRolloutButtons:
    def test_promote_says_what_moves_and_moves_all_traffic(self, visitor: Visitor, cluster: Cluster) -> None:
        page = visitor.sign_in("#/models/iris")
        page.get_by_label("Version to promote").select_option("2")

        said = say_yes(visitor, "Promote", "Promote iris@2")

        assert "it has 10 % of them now" in said
        assert "Version 1 gets none of them any more" in said
        bar = page.get_by_role("img", name=re.compile("^Traffic: "))
        expect(bar).to_have_attribute("aria-label", re.compile(r"^Traffic: 2[^,]* 100 percent$"), timeout=LONG_MS)
        assert cluster.predict("iris") == 2.0

    def test_pause_holds_what_is_applied_until_it_is_resumed(self, visitor: Visitor, cluster: Cluster) -> None:
        page = visitor.sign_in("#/models/iris")

        say_yes(visitor, "Pause", "Pause the rollout")
        expect(page.locator(".head .state")).to_have_text("ready, paused")
        wanted = manifest()
        wanted["models"]["iris"]["traffic"] = {"1": 0, "2": 100}
        begin(cluster, wanted)
        until("it is applied", lambda: cluster.get("/history")[0]["revision"] == 3)
        assert cluster.predict("iris", "/versions/1") == 1.0

        say_yes(visitor, "Resume", "Go on with the rollout")

        bar = page.get_by_role("img", name=re.compile("^Traffic: "))
        expect(bar).to_have_attribute("aria-label", re.compile(r"^Traffic: 2[^,]* 100 percent$"), timeout=LONG_MS)
        expect(page.locator(".head .state")).to_have_text("ready")

    def test_roll_back_brings_the_model_as_it_was_before(self, visitor: Visitor, cluster: Cluster) -> None:
        page = visitor.sign_in("#/models/iris")

        said = say_yes(visitor, "Roll back", "Roll back iris")

        assert "Other models stay as they are" in said
        until("version 2 is gone", lambda: len(page.locator("#versions tbody tr").all()) == 1, within_s=30)
