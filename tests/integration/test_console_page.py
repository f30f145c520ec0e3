"""The web console as people have it: in a browser, on a real cluster, with predictions under way.

One cluster serves the module; tests that change it have one of their own in test_console_rollout.py. Pictures of every
view are kept in test-artifacts/console.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.integration.browsing import DRAWN, NARROW, WIDE, Visitor, busy_cluster, chromium
from tests.integration.cluster import Cluster, until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

VIEWS = {
    "fleet": "#/",
    "model": "#/models/iris",
    "failed-model": "#/models/broken",
    "manifest": "#/manifest",
    "diff": "#/manifest/2/1",
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with busy_cluster(tmp_path_factory.mktemp("page")) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def visit(browser: Browser, cluster: Cluster) -> Iterator[Callable[..., Visitor]]:
    """Makes visitors. Whatever they looked at, the browser had nothing to complain of."""
    made: list[Visitor] = []

    def make(**options: object) -> Visitor:
        made.append(Visitor(browser, cluster, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    complaints = [each for visitor in made for each in visitor.complaints()]
    for visitor in made:
        visitor.close()
    assert complaints == []


def cell(page: Page, model: str, column: str) -> str:
    row = page.locator(".long tbody tr", has=page.get_by_role("link", name=model, exact=True))
    return row.locator(f".c-{column}").inner_text()


def number(text: str) -> float:
    found = re.match(r"[\d,.]+", text)
    assert found, f"no number: {text!r}"
    return float(found[0].replace(",", ""))


def newest_reason(cluster: Cluster, model: str) -> str:
    """Why a model's first version has its count. It may be another a second later."""
    reason = cluster.get(f"/models/{model}/scaling")[0]["reason"]
    assert reason
    return str(reason)


class TestSigningIn:
    def test_a_link_signs_in_and_its_code_leaves_the_address(self, visit: Callable[..., Visitor]) -> None:
        page = visit().sign_in()

        expect(page).to_have_title("Fleet – Modelfleet")
        assert page.evaluate("location.hash") == "#/"

    def test_without_a_session_the_page_says_which_command_to_type(
        self, visit: Callable[..., Visitor], cluster: Cluster
    ) -> None:
        page = visit().page
        page.goto(f"{cluster.url}/console/#/models/iris")

        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        expect(page.get_by_label("Command")).to_have_text("modelfleet console")
        expect(page.get_by_label("Or paste the token")).to_be_focused()

    def test_the_token_opens_the_page_that_was_asked_for(self, visit: Callable[..., Visitor], cluster: Cluster) -> None:
        page = visit().page
        page.goto(f"{cluster.url}/console/#/models/iris")
        page.get_by_label("Or paste the token").fill((cluster.state_dir / "token").read_text().strip())
        page.keyboard.press("Enter")

        expect(page.get_by_role("heading", name="iris", level=1)).to_be_visible()
        expect(page).to_have_title("iris – Modelfleet")

    def test_a_wrong_token_is_answered_with_what_to_do(self, visit: Callable[..., Visitor], cluster: Cluster) -> None:
        page = visit().page
        page.goto(f"{cluster.url}/console/")
        page.get_by_label("Or paste the token").fill("wrong")
        page.keyboard.press("Enter")

        expect(page.get_by_role("alert")).to_contain_text("`modelfleet console` gives another")

    def test_who_signs_out_sees_nothing_more(self, visit: Callable[..., Visitor]) -> None:
        page = visit().sign_in()
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()

        page.reload()

        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


class TestTheFleet:
    def test_shows_what_is_measured(self, visit: Callable[..., Visitor]) -> None:
        page = visit().sign_in()

        until("requests are counted", lambda: cell(page, "iris", "rate_per_s") not in ("0/s", "–"))
        until("latency is known", lambda: cell(page, "iris", "p95_ms") != "–")

        assert number(cell(page, "iris", "rate_per_s")) > 5
        assert cell(page, "iris", "state") == "ready"
        assert cell(page, "iris", "replicas") == "2/2"
        assert cell(page, "iris", "slo") == "p95 50 ms"
        assert number(cell(page, "late", "p95_ms")) >= 30

    def test_marks_a_latency_above_its_objective_by_more_than_colour(self, visit: Callable[..., Visitor]) -> None:
        page = visit().sign_in()
        late = page.locator(".long tbody tr", has_text="late").locator(".c-p95_ms")

        expect(late).to_have_attribute("title", re.compile("above the objective of 10 ms"))
        assert int(late.evaluate("cell => getComputedStyle(cell).fontWeight")) >= 600

    def test_shows_what_is_unknown_as_a_dash_that_says_why(self, visit: Callable[..., Visitor]) -> None:
        page = visit().sign_in()
        nap = page.locator(".long tbody tr", has_text="nap")

        expect(nap.locator(".c-p95_ms")).to_have_text("–")
        expect(nap.locator(".c-p95_ms")).to_have_attribute("title", "no request was answered lately")
        expect(nap.locator(".c-slo")).to_have_text("–")
        expect(nap.locator(".c-slo")).to_have_attribute("title", re.compile("no `slo`"))
        expect(nap.locator(".c-queued")).to_have_text("0")

    def test_says_what_each_model_costs_and_all_together(self, visit: Callable[..., Visitor]) -> None:
        page = visit().sign_in()

        until("it is priced", lambda: cell(page, "iris", "cost") != "–")

        assert number(cell(page, "iris", "cost")) == pytest.approx(2 * number(cell(page, "late", "cost")), abs=0.011)
        expect(page.locator(".totals div", has_text="Cost").locator("dd")).to_have_text(re.compile(r"^0\.\d+/h$"))

    def test_says_why_a_model_failed(self, visit: Callable[..., Visitor]) -> None:
        page = visit().sign_in()
        broken = page.locator(".long tbody tr", has_text="broken")

        expect(broken.locator(".c-state")).to_have_text("failed")
        expect(broken.locator(".reason")).to_have_attribute("title", re.compile("the weights are of another model"))

    def test_is_filtered_and_sorted_by_keyboard_alone(self, visit: Callable[..., Visitor]) -> None:
        page = visit().sign_in()
        page.keyboard.press("/")
        expect(page.get_by_label("Filter models")).to_be_focused()

        page.keyboard.type("state:ready")
        expect(page.get_by_role("status").filter(has_text="2 of 4 models")).to_be_visible()
        page.get_by_role("button", name="p95").focus()
        page.keyboard.press("Enter")

        expect(page.get_by_role("columnheader", name="p95", exact=True)).to_have_attribute("aria-sort", "descending")
        expect(page.locator(".long tbody .c-name a").first).to_have_text("late")

    def test_keeps_the_elements_of_rows_while_their_numbers_change(self, visit: Callable[..., Visitor]) -> None:
        page = visit().sign_in()
        row = page.locator(".long tbody tr", has_text="iris")
        row.evaluate("row => { row.marked = true; row.querySelector('a').focus() }")
        before = cell(page, "iris", "rate_per_s")

        until("the rate changed", lambda: cell(page, "iris", "rate_per_s") != before)

        assert row.evaluate("row => row.marked && row.contains(document.activeElement)")


class TestNavigation:
    def test_a_row_leads_to_its_model_and_back_leads_back(self, visit: Callable[..., Visitor]) -> None:
        page = visit().sign_in()
        page.get_by_role("link", name="iris", exact=True).focus()
        page.keyboard.press("Enter")

        expect(page).to_have_title("iris – Modelfleet")
        expect(page.get_by_role("heading", name="iris", level=1)).to_be_focused()
        assert page.evaluate("location.hash") == "#/models/iris"

        page.go_back()

        expect(page).to_have_title("Fleet – Modelfleet")
        expect(page.get_by_role("table", name="Models")).to_be_visible()

    def test_a_model_that_is_not_there_is_said_to_be_missing(self, visit: Callable[..., Visitor]) -> None:
        page = visit().sign_in("#/models/none")

        expect(page.get_by_role("alert").filter(has_text="There is no model none now")).to_be_visible()

    def test_the_scheme_that_was_chosen_outlasts_the_page(self, visit: Callable[..., Visitor]) -> None:
        page = visit(scheme="light").sign_in()
        page.get_by_role("button", name="Colour scheme: Auto. Change it").click()
        page.get_by_role("button", name="Colour scheme: Light. Change it").click()

        page.reload()

        expect(page.get_by_role("button", name="Colour scheme: Dark. Change it")).to_be_visible()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(14, 17, 22)"


class TestAModel:
    def test_draws_latency_and_says_it_in_words_too(self, visit: Callable[..., Visitor]) -> None:
        page = visit().sign_in("#/models/iris")
        chart = page.get_by_role("figure", name="Latency")

        until(
            "the curves are drawn", lambda: chart.locator("canvas").count() and chart.locator("canvas").evaluate(DRAWN)
        )
        expect(chart.locator(".key", has_text="objective").locator("dd")).to_have_text("50 ms")
        until("p95 is known", lambda: chart.locator(".key", has_text="p95").locator("dd").inner_text() != "–")
        chart.get_by_text("As a table").click()
        expect(chart.get_by_role("columnheader", name="p95")).to_be_visible()
        assert "p99:" in (chart.locator("p.unseen").text_content() or "")

    def test_shows_the_canary_beside_the_stable_version(self, visit: Callable[..., Visitor]) -> None:
        page = visit().sign_in("#/models/iris")

        bar = page.get_by_role("img", name=re.compile("^Traffic: "))
        expect(bar).to_have_attribute("aria-label", "Traffic: 1 (stable) 90 percent, 2 (latest) 10 percent")
        rows = page.get_by_role("region", name="Versions", exact=True).locator("tbody tr")
        expect(rows).to_have_count(2)
        until("both are measured", lambda: all("–/s" not in text for text in rows.all_inner_texts()))
        widths = bar.locator("span").evaluate_all("parts => parts.map(part => part.getBoundingClientRect().width)")
        assert widths[0] == pytest.approx(9 * widths[1], rel=0.2)

    def test_says_what_memory_and_processor_each_version_uses(self, visit: Callable[..., Visitor]) -> None:
        page = visit().sign_in("#/models/iris")
        stable = page.get_by_role("region", name="Versions", exact=True).locator("tbody tr").first

        until("the engine has said it", lambda: "MiB" in stable.inner_text())

        assert re.search(r"\d+ MiB of \d+ MiB", stable.inner_text())

    def test_draws_replicas_as_stretches_of_time(self, visit: Callable[..., Visitor]) -> None:
        page = visit().sign_in("#/models/iris")
        lines = page.get_by_role("list", name="Replicas and their states").get_by_role("listitem")

        expect(lines).to_have_count(2)
        expect(lines.first).to_contain_text("version 1")
        expect(lines.first).to_contain_text("ready")
        assert lines.first.locator(".stretch[data-state=ready]").count() >= 1

    def test_says_why_there_are_so_many_replicas(self, visit: Callable[..., Visitor], cluster: Cluster) -> None:
        page = visit().sign_in("#/models/nap")
        reasons = page.get_by_role("list", name="Why there are so many replicas")

        expect(reasons.get_by_role("listitem")).to_contain_text("0 replicas (0 to 1)")
        until("the reason is the newest", lambda: newest_reason(cluster, "nap") in reasons.inner_text(), within_s=40)
        page.get_by_text("What it rests on").click()
        expect(reasons.locator(".inputs dt").first).to_be_visible()

    def test_says_that_nothing_waited_once_it_is_known(self, visit: Callable[..., Visitor]) -> None:
        page = visit().sign_in("#/models/iris")
        stable = page.get_by_role("region", name="Versions", exact=True).locator("tbody tr").first

        until("waits are read", lambda: "ms" in stable.locator("[data-label='Queue p95']").inner_text(), within_s=40)

    def test_tells_events_with_their_reasons(self, visit: Callable[..., Visitor]) -> None:
        page = visit().sign_in("#/models/broken")
        events = page.get_by_role("region", name="Events, newest first")

        expect(events).to_contain_text("the weights are of another model")
        expect(events.get_by_role("strong").or_(events.locator("strong")).first).to_have_text(
            re.compile("error|warning")
        )

    def test_follows_what_replicas_print_and_filters_it(self, visit: Callable[..., Visitor]) -> None:
        page = visit().sign_in("#/models/iris")
        lines = page.get_by_role("region", name="Log lines").locator(".line")
        until("lines are there", lambda: lines.count() > 5)
        before = lines.count()

        until("more come", lambda: lines.count() > before)
        page.get_by_label("Filter lines").fill("no such words")

        expect(page.get_by_text(re.compile(r"^0 lines of"))).to_be_visible()
        assert lines.locator("visible=true").count() == 0

    def test_predicts_by_hand_and_gives_the_same_as_a_command(self, visit: Callable[..., Visitor]) -> None:
        page = visit().sign_in("#/models/iris")
        form = page.get_by_role("region", name="Try it")
        form.get_by_label("Version").select_option("2")
        form.get_by_label(re.compile("^x FP64")).fill("[1, 2, 3]")
        form.get_by_role("button", name="Predict").click()

        expect(form.get_by_role("status")).to_contain_text("200")
        expect(form.get_by_role("status")).to_contain_text("version 2")
        answer = json.loads(form.get_by_label("Answer").inner_text())
        assert answer["outputs"][0]["data"] == [2.0, 2.0, 2.0]

        form.get_by_text("The same with curl").click()
        command = form.get_by_label("The same with curl").inner_text()
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
        assert '"y"' in done.stdout

        form.get_by_role("button", name="Copy").click()
        expect(form.get_by_role("button", name="Copied")).to_be_visible()
        assert page.evaluate("navigator.clipboard.readText()") == command

    def test_refuses_what_does_not_fit_before_it_is_sent(self, visit: Callable[..., Visitor]) -> None:
        page = visit().sign_in("#/models/iris")
        form = page.get_by_role("region", name="Try it")
        form.get_by_label(re.compile("^x FP64")).fill("[1, 2")
        form.get_by_role("button", name="Predict").click()

        expect(form.get_by_role("alert")).to_contain_text("x: this is not JSON")

    def test_without_the_chart_library_says_so_and_shows_the_numbers(self, visit: Callable[..., Visitor]) -> None:
        visitor = visit()
        visitor.page.route("**/vendor/*", missing)
        page = visitor.sign_in("#/models/iris")
        chart = page.get_by_role("figure", name="Latency")

        expect(chart).to_contain_text("run `make setup` where npm is installed")
        expect(chart.get_by_role("table")).to_be_visible()


def missing(route: Route) -> None:
    route.fulfill(status=404)


class TestTheManifest:
    def test_is_shown_as_it_was_applied(self, visit: Callable[..., Visitor]) -> None:
        page = visit().sign_in("#/manifest")

        expect(page.get_by_role("heading", name="Revision 2", level=1)).to_be_visible()
        expect(page.get_by_role("region", name="Manifest")).to_contain_text("source: broken")

    def test_is_compared_with_any_revision(self, visit: Callable[..., Visitor]) -> None:
        page = visit().sign_in("#/manifest")
        page.get_by_label("Compared with").select_option("1")

        expect(page).to_have_title("Revision 1 to 2 – Modelfleet")
        expect(page.locator(".code .added").first).to_contain_text("+")
        assert any("broken" in line for line in page.locator(".code .added").all_inner_texts())


class TestEverybody:
    @pytest.mark.parametrize("size", [WIDE, NARROW], ids=["1600", "360"])
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_can_use_every_view(self, visit: Callable[..., Visitor], scheme: str, size: tuple[int, int]) -> None:
        """No violation of accessibility rules, nothing wider than the screen, and a picture of each."""
        visitor = visit(size=size, scheme=scheme)
        page = visitor.sign_in()
        found: dict[str, list[str]] = {}
        for name, path in VIEWS.items():
            visitor.go(path)
            settle(page, name)
            visitor.picture(f"{name}-{size[0]}-{scheme}")
            found[name] = visitor.violations()
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} is too wide"
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        visitor.picture(f"sign-in-{size[0]}-{scheme}")
        found["sign-in"] = visitor.violations()

        assert found == {name: [] for name in found}

    def test_finds_landmarks_labels_and_the_content_first(self, visit: Callable[..., Visitor]) -> None:
        page = visit().sign_in()

        for landmark in ("banner", "navigation", "main"):
            expect(page.get_by_role(landmark)).to_have_count(1)  # type: ignore[arg-type]
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("main")).to_be_focused()


def settle(page: Page, view: str) -> None:
    """Waits for what a view loads after it is there."""
    if view in ("model", "failed-model"):
        page.get_by_role("figure", name="Latency").locator("canvas").wait_for()
        page.get_by_role("list", name="Why there are so many replicas").get_by_role("listitem").first.wait_for()
        page.get_by_role("list", name="Replicas and their states").get_by_role("listitem").first.wait_for()
        page.get_by_role("region", name="Events, newest first").get_by_role("listitem").first.wait_for()
        page.locator("#try .field:visible").first.wait_for()
    if view == "model":
        page.locator("#logs .line").first.wait_for()
    if view in ("manifest", "diff"):
        page.locator(".code pre").wait_for()
    if view == "fleet":
        page.get_by_role("link", name="iris", exact=True).wait_for()
