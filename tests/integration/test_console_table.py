"""The console's table of a thousand models: only rows in sight exist, and nobody notices. Its rows are made up, as in the
benchmark of it, for a thousand models that change each second are more than a test machine can serve."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from benchmarks.console.browser import serving
from tests.integration.browsing import PATIENCE_MS, chromium
from tests.integration.cluster import until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

MODELS = 1000
IN_ORDER = """rows => rows.map(row => Number(row.getAttribute("aria-rowindex"))).every((n, i, all) => i === 0 || n > all[i - 1])"""


@pytest.fixture(scope="module")
def console() -> Iterator[tuple[object, str]]:
    with serving(MODELS) as url, chromium() as browser:
        yield browser, url


@pytest.fixture
def page(console: tuple[object, str]) -> Iterator[Page]:
    browser, url = console
    page = browser.new_page(viewport={"width": 1600, "height": 1000})  # type: ignore[attr-defined]
    page.set_default_timeout(PATIENCE_MS)
    page.goto(url)
    page.locator(".long tbody tr").first.wait_for()
    yield page
    page.close()


def scroll_to(page: Page, share: float) -> None:
    page.evaluate("share => scrollTo(0, share * document.documentElement.scrollHeight)", share)


def test_has_a_row_element_for_what_is_in_sight_alone(page: Page) -> None:
    rows = page.locator(".long tbody tr")

    assert rows.count() < 60
    expect(page.get_by_role("table", name="Models")).to_have_attribute("aria-rowcount", str(MODELS + 1))


def test_shows_the_last_row_at_the_end_and_takes_elements_for_others(page: Page) -> None:
    rows = page.locator(".long tbody tr")
    rows.evaluate_all("rows => rows.forEach(row => { row.marked = true })")

    scroll_to(page, 1)

    expect(page.get_by_role("link", name="model-999", exact=True)).to_be_visible()
    assert rows.count() < 60
    assert rows.evaluate_all("rows => rows.filter(row => row.marked).length") > 20
    until("the document is in the table's order", lambda: rows.evaluate_all(IN_ORDER))


def test_follows_the_tab_key_past_what_was_in_sight(page: Page) -> None:
    page.get_by_role("link", name="model-0", exact=True).focus()

    for row in range(1, 61):
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name=f"model-{row}", exact=True)).to_be_focused()


def test_keeps_the_row_in_focus_while_one_scrolls_away(page: Page) -> None:
    page.get_by_role("link", name="model-3", exact=True).focus()

    scroll_to(page, 0.5)
    expect(page.get_by_role("link", name="model-500", exact=True)).to_be_visible()

    expect(page.get_by_role("link", name="model-3", exact=True)).to_be_focused()


def test_sorts_by_a_number_and_filters(page: Page) -> None:
    page.get_by_role("button", name="p99", exact=True).click()
    first, second = (float(text.split()[0]) for text in page.locator(".long tbody .c-p99_ms").all_inner_texts()[:2])
    assert first >= second

    page.get_by_label("Filter models").fill("model-99")
    expect(page.get_by_role("status").filter(has_text="11 of 1000 models")).to_be_visible()
