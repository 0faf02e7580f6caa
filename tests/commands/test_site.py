"""The site in a real browser, opened from disk: no error, tables sort and filter, captions with markup stay text."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from benchmark.engine.records import write_record
from benchmark.leaderboard import main
from tests.commands.test_leaderboard import made_up, with_probes

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

HOSTILE = "<img src=x onerror=document.title='taken'>"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sizes, two runs each, and a method whose name is markup."""
    results = tmp_path_factory.mktemp("results")
    for pairs, control in ((100, 0.2), (40, 0.1), (20, 0.05)):
        for seed in (0, 1):
            record = made_up(f"run-{pairs}-{seed}", control + seed / 100, seed=seed, pairs=pairs)
            with_probes(write_record(results, record), {100: control / 2, 200: control})
    write_record(results, made_up("hostile", 0.9, method=HOSTILE))
    assert main(["--results", str(results)]) == 0
    return results / "site"


@pytest.fixture(scope="module")
def page(site: Path) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 844}, offline=True)
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto((site / "index.html").as_uri())
        page.wait_for_selector("body[data-ready=tables]")
        yield page
        assert not [text for text in complaints if "ERR_FILE_NOT_FOUND" not in text]  # made-up records have no picture
        browser.close()


def test_a_click_on_a_heading_sorts_by_number(page: Page) -> None:
    heading = page.locator("table").nth(2).locator("thead th", has_text="pairs").first
    pairs = page.locator("table").nth(2).locator("tbody td:nth-child(4)")
    heading.locator(".dt-column-title").click()
    expect(pairs).to_have_text(["20", "40", "40", "100"])
    heading.locator(".dt-column-title").click()
    expect(pairs).to_have_text(["100", "40", "40", "20"])


def test_a_word_filters_rows(page: Page) -> None:
    search = page.locator("input[type=search]").nth(2)
    rows = page.locator("table").nth(2).locator("tbody tr")
    search.fill("onerror")
    expect(rows).to_have_count(1)
    search.fill("")
    expect(rows).to_have_count(4)


def test_names_with_markup_stay_text(page: Page) -> None:
    expect(page.locator("table").nth(2).get_by_text(HOSTILE)).to_have_count(1)
    assert page.title() == "ControlNet training robustness"
    assert page.locator("table img").count() == 0


def test_curves_are_drawn_for_sizes_and_training(page: Page) -> None:
    assert page.locator(".chart .js-plotly-plot").count() == 2
    assert page.locator(".chart .scatterlayer .trace").count() > 4


def test_a_phone_scrolls_tables_not_the_page(page: Page) -> None:
    wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wider <= 1
