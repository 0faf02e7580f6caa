"""The site in a real browser, opened from disk: no error, tables sort and filter, captions with markup stay text."""

import shutil
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from benchmark.engine.pictures import STRIP, strip
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


def strip_of(*levels: int) -> bytes:
    """Return a strip of eight samples whose rows are grey, each as bright as given."""
    rows = {name: [np.full((64, 64, 3), level, np.uint8)] * 8 for name, level in zip(STRIP, levels, strict=True)}
    return bytes(cv2.imencode(".webp", strip(rows))[1])


def test_pictures_lie_beside_each_other_by_size_each_of_the_run_in_the_middle(tmp_path: Path) -> None:
    for pairs, first in ((1000, 0.6), (50, 0.3)):
        for seed in range(3):
            record = made_up(f"run-{pairs}-{seed}", first + (seed + 1) % 3 / 100, seed=seed, pairs=pairs)
            write_record(tmp_path, record, {".webp": strip_of(10, 40, 100 + pairs // 10 + 20 * seed, 70)})
    write_record(tmp_path, made_up("without", 0.5, method="controlnet_lite"))
    assert main(["--results", str(tmp_path)]) == 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for width in (1400, 390):
            page = browser.new_page(viewport={"width": width, "height": 844}, offline=True)
            page.goto(next((tmp_path / "site").glob("dataset-*.html")).as_uri())
            labels = page.locator(".pictures p").all_text_contents()
            assert [label.partition(":")[0].split(", ")[-1] for label in labels] == [
                *("condition", "reference", "50 pairs", "1000 pairs", "no control")
            ]
            assert [page.locator(".pictures a").nth(i).get_attribute("href") for i in range(2)] == [
                *("run-50-0.html", "run-1000-0.html")
            ]
            levels = []
            for image in page.locator(".pictures img").all():
                image.scroll_into_view_if_needed()
                expect(image).to_have_js_property("naturalWidth", 652)
                shot = np.asarray(Image.open(BytesIO(image.screenshot())).convert("L"))
                levels.append(int(shot[5:-5, 5:60].mean().round()))
                assert shot[5:-5, 5:60].std() < 3
            np.testing.assert_allclose(levels, [10, 40, 105, 200, 70], atol=3)
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
    expect(rows).to_have_count(4 + 12)


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
    expect(page.locator("table").nth(1).locator("tbody tr")).to_have_count(36)


@pytest.mark.parametrize("name", ["", "made-up", "dirty_data"])
def test_a_phone_scrolls_tables_not_the_page(page: Page, go: Callable[[str], None], name: str) -> None:
    if name:
        go(name)
    wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wider <= 1
