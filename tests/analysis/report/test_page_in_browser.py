"""report.html in a real browser, opened from the file system."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.analysis.report.conftest import HOSTILE, MARKED_UP, Written

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("hostile report"),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium"),
]

OFFLINE = (
    "--no-sandbox", "--disable-quic", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run",
)  # fmt: skip


SMALLEST_LETTERS = """(() => { const letters = document.querySelectorAll("#figure-hero svg text");
  return Math.min(...[...letters].map((one) => one.getBoundingClientRect().height)); })()"""
PROSE = """(() => { const hidden = document.querySelectorAll("svg, table");
  hidden.forEach((one) => { one.style.display = "none"; });
  return document.body.innerText; })()"""
TOO_WIDE = """[...document.querySelectorAll(".scroll, #answers > div")].filter((one) => one.checkVisibility())
  .filter((one) => one.scrollWidth > one.clientWidth + 1).map((one) => one.ariaLabel)"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """A page with its console messages and requests."""

    page: Page
    said: list[str]
    asked: list[str]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(OFFLINE))
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Browser, hostile: Written) -> Iterator[Opened]:
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    found = Opened(page=page, said=[], asked=[])
    page.on("console", lambda message: found.said.append(message.text))
    page.on("pageerror", lambda error: found.said.append(str(error)))
    page.on("request", lambda request: found.asked.append(request.url))
    page.on("dialog", lambda dialog: found.said.append(dialog.message))
    page.goto(hostile.page.as_uri())
    yield found
    page.close()


def column(page: Page, name: str) -> list[str]:
    """Return the texts of a column of the visible trials."""
    texts: list[str] = page.eval_on_selector(
        "#trials",
        """(table, name) => {
          const heads = [...table.tHead.rows[0].cells].map((head) => head.textContent.trim());
          const shown = [...table.tBodies[0].rows].filter((row) => !row.hidden);
          return shown.map((row) => row.cells[heads.indexOf(name)].textContent);
        }""",
        name,
    )
    return texts


def test_the_page_opens_without_an_error_and_requests_nothing_else(opened: Opened, hostile: Written) -> None:
    opened.page.wait_for_load_state("load")
    assert opened.said == []
    assert {url.partition("#")[0] for url in opened.asked if not url.startswith("data:")} == {
        hostile.page.as_uri()
    }


def test_markup_in_captions_names_and_declaration_is_text(opened: Opened) -> None:
    page = opened.page
    assert page.locator("h1").inner_text() == HOSTILE
    assert page.locator("script").count() == 1
    assert HOSTILE in page.locator("#declaration").text_content()  # type: ignore[operator]
    assert HOSTILE in page.locator("#table-missing").text_content()  # type: ignore[operator]
    assert MARKED_UP in column(page, "Architecture")
    marks = page.locator("circle").evaluate_all("marks => marks.map((mark) => mark.dataset.text)")
    assert any(MARKED_UP in text for text in marks)
    assert opened.said == []


@pytest.mark.parametrize("size", [(1280, 800), (390, 844)])
def test_the_first_screen_has_the_answer_the_budgets_and_the_figure(
    opened: Opened, size: tuple[int, int]
) -> None:
    page = opened.page
    page.set_viewport_size({"width": size[0], "height": size[1]})
    for name in ("#answer", "#budgets", "#figure-hero svg"):
        place = page.locator(name).bounding_box()
        assert place is not None
        assert place["y"] + place["height"] <= size[1], name
        assert place["x"] >= 0
        assert place["x"] + place["width"] <= size[0], name
    assert page.evaluate(SMALLEST_LETTERS) >= 8, "pixels of the smallest letters of the figure"
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert page.locator("#answer").inner_text().startswith("At 3.6 TFLOP: ConvNeXt-C, CLIP, ")
    row = page.locator("#budgets tbody tr").first
    assert "ConvNeXt-C, CLIP" in row.inner_text()
    assert "clear" in row.inner_text()
    assert "not run: " not in row.inner_text()
    row.locator("summary").click()
    assert "not run: " in row.inner_text()
    assert "156" in page.locator("#cost").inner_text()


def test_the_opened_page_is_short_and_its_tables_fit(opened: Opened) -> None:
    page = opened.page
    page.set_viewport_size({"width": 1280, "height": 800})
    assert page.locator("figure:visible").count() <= 6
    assert page.locator("#tables table:visible").count() == 4
    assert len(page.evaluate(PROSE).split()) <= 2000
    assert page.evaluate(TOO_WIDE) == []


def test_a_legend_hides_a_series_in_every_figure(opened: Opened) -> None:
    page = opened.page
    toggle = page.locator('.toggle[data-series="SLIP"]')
    assert toggle.count() >= 2
    mine = page.locator('[data-series="SLIP"]:not(.toggle)')
    assert mine.first.is_visible()
    toggle.first.click()
    assert mine.evaluate_all("all => all.every((one) => getComputedStyle(one).display === 'none')")
    assert {each.get_attribute("aria-pressed") for each in toggle.all()} == {"false"}
    toggle.last.focus()
    page.keyboard.press("Enter")
    assert mine.evaluate_all("all => all.every((one) => getComputedStyle(one).display !== 'none')")


def test_the_error_stays_in_view_when_the_trials_scroll_sideways(opened: Opened) -> None:
    page = opened.page
    page.set_viewport_size({"width": 390, "height": 844})
    page.locator("#all-trials > summary").click()
    region = page.locator("#all-trials .scroll")
    region.evaluate("region => { region.scrollLeft = 400; }")
    error = page.locator("#trials tbody tr td").first.bounding_box()
    frame = region.bounding_box()
    assert error is not None
    assert frame is not None
    assert abs(error["x"] - frame["x"]) < 2


def test_the_printed_page_leaves_out_controls_and_what_is_closed(opened: Opened) -> None:
    page = opened.page
    page.emulate_media(media="print")
    for name in ("nav", "#more-tables", "#all-trials", "#declaration"):
        assert not page.locator(name).is_visible(), name
    assert page.locator("#budgets").is_visible()
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", page.pdf(format="A4"))) <= 10


def test_a_filter_and_a_search_narrow_the_trials(opened: Opened) -> None:
    page = opened.page
    page.locator("#all-trials > summary").click()
    page.get_by_role("combobox", name="Strategy").select_option("SLIP")
    assert set(column(page, "Strategy")) == {"SLIP"}
    page.get_by_role("searchbox", name="Search").fill("3.6 tflop")
    assert column(page, "Budget") == ["3.6 TFLOP"] * 3
    assert page.locator("#count").inner_text() == "3 of 98"
    page.get_by_role("combobox", name="Strategy").select_option("all")
    assert len(column(page, "Budget")) > 3


def test_a_column_sorts_by_its_numbers_both_ways_by_the_keyboard(opened: Opened) -> None:
    page = opened.page
    trials = page.locator("#all-trials")
    trials.locator("> summary").click()
    head = trials.get_by_role("columnheader", name="Budget")
    trials.get_by_role("button", name="Error (%)").focus()
    page.keyboard.press("Enter")
    errors = [float(text) for text in column(page, "Error (%)")]
    assert errors == sorted(errors)
    trials.get_by_role("button", name="Budget").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Space")
    assert head.get_attribute("aria-sort") == "descending"
    assert trials.locator("th[aria-sort=ascending]").count() == 0
    assert column(page, "Budget")[0] == "3.6 TFLOP"
    assert column(page, "Budget")[-1] == "200 GFLOP"


def test_the_tab_key_reaches_every_control(opened: Opened) -> None:
    page = opened.page
    wanted = page.locator("main :is(button, input, select, summary, .drawing):visible").count()
    reached = set()
    for _ in range(400):
        page.keyboard.press("Tab")
        here = page.evaluate(
            """(() => { const on = document.activeElement;
              if (!on.matches("main :is(button, input, select, summary, .drawing)")) return on.tagName;
              on.dataset.reached = "yes"; return "" })()"""
        )
        if here == "BODY":
            break
        reached.add(here)
    assert page.locator("[data-reached]").count() == wanted


def test_a_mark_says_what_it_is_to_a_pointer_and_to_the_arrow_keys(opened: Opened) -> None:
    page = opened.page
    drawing = page.locator(".drawing").first
    drawing.locator("circle").last.hover()
    tip = page.locator("#tip")
    assert ", 3.6 TFLOP, seed " in tip.inner_text()
    drawing.focus()
    page.keyboard.press("ArrowRight")
    first = tip.inner_text()
    page.keyboard.press("ArrowRight")
    assert "%" in first
    assert tip.inner_text() != first
    page.keyboard.press("Escape")
    assert tip.is_hidden()


def test_a_mark_lies_where_it_is_drawn(opened: Opened) -> None:
    off = opened.page.evaluate(
        """(() => { const drawing = document.querySelector(".drawing");
          const middle = (one) => {
            const at = one.getBoundingClientRect();
            return [at.x + at.width / 2, at.y + at.height / 2]; };
          const drawn = [...drawing.querySelectorAll("use")].map(middle);
          return Math.max(...[...drawing.querySelectorAll("circle")].map(middle).map(
            ([x, y]) => Math.min(...drawn.map(([u, v]) => Math.hypot(u - x, v - y))))); })()"""
    )
    assert off < 2.0


def test_the_page_fits_a_phone_without_horizontal_scrolling(opened: Opened) -> None:
    page = opened.page
    page.set_viewport_size({"width": 360, "height": 740})
    page.locator("details").evaluate_all("all => all.forEach((one) => { one.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_the_contrast_that_wcag_asks_for(opened: Opened, scheme: Literal["light", "dark"]) -> None:
    opened.page.emulate_media(color_scheme=scheme)
    poor = opened.page.evaluate(
        """(() => {
          const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
          const linear = (share) => share <= .04045 ? share / 12.92 : ((share + .055) / 1.055) ** 2.4;
          const light = (colour) => {
            const [r, g, b] = numbers(colour).map((part) => linear(part / 255));
            return .2126 * r + .7152 * g + .0722 * b; };
          const ground = (one) => { while (one) { const found = getComputedStyle(one).backgroundColor;
            const parts = numbers(found);
            if (parts.length < 4 || parts[3] > 0) return found;
            one = one.parentElement; }
            return "rgb(255, 255, 255)"; };
          const poor = [];
          for (const one of document.querySelectorAll("body :not(svg *):not(script)")) {
            if (![...one.childNodes].some((part) => part.nodeType === 3 && part.data.trim())) continue;
            const [a, b] = [light(getComputedStyle(one).color), light(ground(one))];
            const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
            if (ratio < 4.5) poor.push(`${one.tagName}.${one.className}: ${ratio.toFixed(2)}`);
          }
          return poor; })()"""
    )
    assert poor == []
