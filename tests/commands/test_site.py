"""The site in a real browser, opened from disk: no error, tables sort and filter, captions with markup stay text."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from benchmark.engine.records import write_record
from benchmark.leaderboard import main
from benchmark.study import read_design
from tests.commands.test_leaderboard import invalidate, made_up, with_probes
from tests.engine.test_studies import records_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

HOSTILE = "<img src=x onerror=document.title='taken'>"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sizes, two runs each, a method whose name is markup, a run struck out for markup, and a study."""
    results = tmp_path_factory.mktemp("results")
    for pairs, control in ((100, 0.2), (40, 0.1), (20, 0.05)):
        for seed in (0, 1):
            record = made_up(f"run-{pairs}-{seed}", control + seed / 100, seed=seed, pairs=pairs)
            with_probes(write_record(results, record), {100: control / 2, 200: control})
    write_record(results, made_up("hostile", 0.9, method=HOSTILE))
    write_record(results, made_up("wrong", 0.99, seed=7))
    invalidate(results, "wrong", HOSTILE)
    design = read_design("dirty_data", Path("elsewhere"))
    for form, record in records_of(design, lambda form, _: 0.5 - 0.1 * len(form.corrupt) + form.seed / 100):
        with_probes(write_record(results, record), {0: 0.0, 100 * (1 + form.seed): 0.4})
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


@pytest.fixture
def go(page: Page, site: Path) -> Iterator[Callable[[str], None]]:
    """Follow a link of the index to a page with tables, and come back."""

    def follow(text: str) -> None:
        page.get_by_role("link", name=text, exact=True).click()
        page.wait_for_selector("body[data-ready=tables]")

    yield follow
    page.goto((site / "index.html").as_uri())
    page.wait_for_selector("body[data-ready=tables]")


CELLS = 2  # the third table of the index


def test_a_click_on_a_heading_sorts_by_number(page: Page) -> None:
    heading = page.locator("table").nth(CELLS).locator("thead th", has_text="pairs").first
    pairs = page.locator("table").nth(CELLS).locator("tbody td:nth-child(4)")
    page.locator("input[type=search]").nth(CELLS).fill("made-up")
    heading.locator(".dt-column-title").click()
    expect(pairs).to_have_text(["20", "40", "40", "100"])
    heading.locator(".dt-column-title").click()
    expect(pairs).to_have_text(["100", "40", "40", "20"])
    page.locator("input[type=search]").nth(CELLS).fill("")


def test_a_word_filters_rows(page: Page) -> None:
    search = page.locator("input[type=search]").nth(CELLS)
    rows = page.locator("table").nth(CELLS).locator("tbody tr")
    search.fill("onerror")
    expect(rows).to_have_count(1)
    search.fill("")
    expect(rows).to_have_count(4 + 8)


def test_names_with_markup_stay_text(page: Page) -> None:
    expect(page.locator("table").nth(CELLS).get_by_text(HOSTILE)).to_have_count(1)
    assert page.title() == "ControlNet training robustness"
    assert page.locator("table img").count() == 0


def test_the_page_of_a_dataset_has_its_runs_and_curves(page: Page, go: Callable[[str], None]) -> None:
    go("made-up")
    assert page.title() == "made-up"
    assert page.locator(".chart .js-plotly-plot").count() == 2
    assert page.locator(".chart .scatterlayer .trace").count() > 4
    struck = page.locator("tr.struck")
    expect(struck).to_have_count(1)
    expect(struck.locator("td").nth(1)).to_have_text(f"wrong: {HOSTILE} (somebody)")
    assert "line-through" in str(struck.locator("td").first.evaluate("e => getComputedStyle(e).textDecoration"))
    assert page.locator("table img").count() == 0
    page.get_by_role("link", name="run-40-0", exact=True).click()
    expect(page.locator("h1")).to_have_text("controlnet on made-up, seg")
    page.get_by_role("link", name="made-up", exact=True).click()
    assert page.title() == "made-up"


def test_the_page_of_a_study_has_its_command_its_runs_and_what_they_say(page: Page, go: Callable[[str], None]) -> None:
    go("dirty_data")
    expect(page.locator("pre")).to_have_text("python -m benchmark.study run dirty_data")
    expect(page.get_by_text("python -m benchmark.build --cond seg --size 4000")).to_have_count(1)
    headings = page.locator("h3").all_text_contents()
    assert headings == [
        "Share of runs above a level",
        "Control over dirt",
        "Control over training",
        "When control began",
        "Degradation",
    ]
    assert page.locator(".chart .js-plotly-plot").count() == 4
    expect(page.locator("table").nth(1).locator("tbody tr")).to_have_count(24)


@pytest.mark.parametrize("name", ["", "made-up", "dirty_data"])
def test_a_phone_scrolls_tables_not_the_page(page: Page, go: Callable[[str], None], name: str) -> None:
    if name:
        go(name)
    wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wider <= 1
