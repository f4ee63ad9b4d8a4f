"""The pages in a real browser, from the disk: at three widths, in light and dark, by keyboard, and
as axe sees them."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import gazecore
from gazecore.evaluation.densities import Densities
from gazecore.evaluation.outputs import describe, evaluate_densities, write_evaluation
from gazecore.results.overview import Shown
from gazecore.results.times import add_times
from gazecore.shards.clock import PHASES, Times
from gazecore.storage import Location
from gazecore.view.run import EMBEDDED, write_report
from tests.gazecore import test_comparison, test_evaluation
from tests.pages import HOSTILE, page_run

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)

pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium here: apt-get install chromium"),
    pytest.mark.skipif(
        not (find_spec("playwright") and find_spec("axe_playwright_python")),
        reason="no Playwright here: pip install playwright axe-playwright-python",
    ),
]

PAGES = ("run", "evaluation", "comparison")
WIDTHS = (360, 800, 1400)

CUT = """() => [...document.querySelectorAll("body *")].filter((one) => {
  if (one.closest("dialog:not([open]), .hidden, [hidden], .stack, svg")) return false;
  const box = one.getBoundingClientRect();
  if (!box.width) return false;
  const hides = getComputedStyle(one).overflowX !== "visible";
  const isCut = hides && one.scrollWidth > one.clientWidth + 1;
  return isCut || box.left < -1 || box.right > innerWidth + 1;
}).map((one) => one.outerHTML.slice(0, 200))"""
"""What reaches beyond the window, or hides a part of itself."""

TEXT = """() => [...document.querySelectorAll("svg.chart text")].filter((one) => {
  const box = one.getBoundingClientRect();
  return box.height < 10 || box.left < 0 || box.right > innerWidth;
}).length"""
"""Words in charts that are too small to read, or cut."""


@dataclass
class Opened:
    """A page in the browser, and what it said that it should not have."""

    tab: Any
    errors: list[str] = field(default_factory=list)

    def axe(self) -> list[str]:
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.tab).response["violations"]
        return [f"{v['id']}: {v['nodes'][0]['html'][:200]}" for v in found]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    names = [*HOSTILE, *(f"photo-{n}.jpg" for n in range(45))]
    small = page_run(folder / "run", names, folder / "images", [HOSTILE[1], "photo-7.jpg"])
    add_times(small, Times(dict.fromkeys(PHASES, 2.0), 4.0, dict.fromkeys(PHASES, 4.0), 10**6))
    (folder / "images" / "9.jpg").unlink()
    write_report(small, Location(str(folder / "small")), command="gazecore report run --out small")
    large = page_run(
        folder / "large-run", [f"{n}.jpg" for n in range(EMBEDDED + 1)], folder / "more"
    )
    write_report(large, Location(str(folder / "large page")))
    (folder / "corpus").mkdir()
    corpus = test_evaluation.make_corpus(folder / "corpus")
    judged = test_evaluation.make_run(folder / "judged", corpus, [0, 1, 2, 3, 4])
    densities = Densities(corpus, corpus.image_ids[:5], judged.location.uri, "centerbias")
    asked = {"images": None, "limit": None}
    about = describe(corpus, densities, "model", None, {}, "centerbias", asked)
    found = evaluate_densities(corpus, densities, test_evaluation.CONFIG, about)
    write_evaluation(Location(str(folder / "evaluation")), found, corpus, densities, "gazecore x")
    one, other = (
        test_comparison.made_up(
            folder / name,
            {n: test_comparison.at(x + 0.05 * i, 0.5) for i, n in enumerate(HOSTILE)},
        )
        for name, x in (("one-run", 0.2), ("another-run", 0.4))
    )
    gazecore.compare(one, other, folder / "comparison")
    return {
        "run": folder / "small" / "report.html",
        "large": folder / "large page" / "report.html",
        "evaluation": folder / "evaluation" / "report.html",
        "comparison": folder / "comparison" / "report.html",
    }


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(browser: Any) -> Iterator[Any]:
    """Opens a page from the disk, without a network."""
    contexts = []

    def open_page(path: Path, width: int = 1400, scheme: str = "light", **options: Any) -> Opened:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True, **options
        )
        contexts.append(context)
        page = Opened(context.new_page())
        page.tab.on("console", lambda said: page.errors.append(said.text))
        page.tab.on("pageerror", lambda error: page.errors.append(str(error)))
        page.tab.on("requestfailed", lambda failed: page.errors.append(failed.url[:200]))
        page.tab.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_and_everybody_can_use_it(
    pages: dict[str, Path], opened: Any, name: str, width: int, scheme: str
) -> None:
    page = opened(pages[name], width, scheme)
    tab = page.tab
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate(CUT) == []
    assert tab.evaluate(TEXT) == 0
    dark = tab.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")
    assert page.axe() == []
    tab.locator(".tile").first.click()
    assert tab.locator("dialog").is_visible()
    assert tab.evaluate(CUT) == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert page.axe() == []
    assert tab.evaluate("window.hacked") is None
    assert page.errors == []


def shown_layers(tab: Any) -> dict[str, bool]:
    """Which layers of the enlarged picture there are, and whether each is seen."""
    found: dict[str, bool] = tab.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll("#viewer-stack > *")].map(
             (one) => [one.dataset.layer, getComputedStyle(one).visibility === "visible"]))"""
    )
    return found


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("run", ["image", "density", "contours", "peaks"]),
        ("large", ["image", "density", "contours", "peaks"]),
        ("evaluation", ["image", "density", "contours", "fixations"]),
        ("comparison", ["density", "contours", "peaks"]),
    ],
)
def test_layers_are_switched(
    pages: dict[str, Path], opened: Any, name: str, layers: list[str]
) -> None:
    tab = opened(pages[name]).tab
    tab.locator(".tile").first.click()
    assert list(shown_layers(tab)) == layers
    assert shown_layers(tab)["density"] == ("image" not in layers)  # alone, or not at first
    pictures = "[...document.querySelectorAll('#viewer-stack img')]"
    tab.evaluate(f"Promise.all({pictures}.map((picture) => picture.decode()))")
    for layer in layers:
        before = shown_layers(tab)
        tab.get_by_role("checkbox", name=layer).click()
        assert shown_layers(tab) == {**before, layer: not before[layer]}
    assert tab.locator("#viewer-stack .peak").count() == (name != "evaluation")
    # What was chosen stays for the next picture.
    after = shown_layers(tab)
    tab.get_by_role("button", name="Next").click()
    if "image" in layers:
        assert shown_layers(tab) == after


def test_by_keyboard_alone(pages: dict[str, Path], opened: Any) -> None:
    tab = opened(pages["run"]).tab
    name = "document.getElementById('viewer-name').textContent"
    tab.locator(".tile").first.focus()
    first = tab.evaluate("document.activeElement.dataset.name")
    tab.keyboard.press("Enter")
    assert tab.evaluate(name) == first
    tab.keyboard.press("ArrowRight")
    assert tab.evaluate(name) != first
    tab.keyboard.press("ArrowLeft")
    assert tab.evaluate(name) == first
    reached = set()
    for _ in range(12):  # what is behind the dialog is not reached
        tab.keyboard.press("Tab")
        reached.add(tab.evaluate("document.activeElement.name || document.activeElement.innerText"))
    assert {"Close", "density", "contours", "peaks", "Next"} <= reached
    assert not tab.evaluate("document.activeElement.matches('.tile')")
    tab.keyboard.press("Escape")
    assert not tab.locator("dialog").is_visible()
    assert tab.evaluate("document.activeElement.dataset.name") == first
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    tab.keyboard.press("Tab")
    assert tab.evaluate(outline) == "solid"


def names_in(tab: Any) -> list[str]:
    found: list[str] = tab.locator("#images .name").all_text_contents()
    return found


def values_in(tab: Any) -> list[float]:
    """The values that stand below the tiles, in percent."""
    texts = tab.locator("#images .tile .text").all_text_contents()
    return [float(re.findall(r"(\d+\.\d) %", text)[0]) for text in texts]


def test_images_are_searched_ordered_and_filtered(pages: dict[str, Path], opened: Any) -> None:
    from playwright.sync_api import expect

    page = opened(pages["run"])
    tab = page.tab
    found = tab.get_by_role("status")
    assert found.inner_text() == "50 of 50 images"
    search = tab.get_by_label("Search by name or error")
    search.fill("Photo-1")
    expect(found).to_have_text("11 of 50 images")
    assert names_in(tab) == ["photo-1.jpg", *(f"photo-{n}.jpg" for n in range(10, 20))]
    search.fill("decode_error")
    expect(found).to_have_text("2 of 50 images")
    assert HOSTILE[1] in names_in(tab)
    search.fill("")
    expect(found).to_have_text("50 of 50 images")
    tab.get_by_label("Which").select_option("failed")
    assert len(names_in(tab)) == 2
    tab.get_by_label("Which").select_option("missing")
    assert names_in(tab) == ["photo-4.jpg"]
    assert "density alone" in tab.locator("#images .text").text_content()
    tab.get_by_label("Which").select_option("")
    assert tab.get_by_label("Value from").is_disabled()
    tab.get_by_label("Order by").select_option("area_50")
    shares = values_in(tab)
    assert shares == sorted(shares, reverse=True)
    tab.get_by_label("Direction").select_option("up")
    least = names_in(tab)[0]
    assert least == HOSTILE[0]  # whose bump is the narrowest
    tab.get_by_label("Value from").fill("5")
    tab.get_by_label("to", exact=True).fill("10")
    expect(found).not_to_have_text("50 of 50 images")
    shares = values_in(tab)
    assert shares
    assert all(5 <= share <= 10 for share in shares)
    assert page.errors == []


def test_a_name_is_shown_as_it_is(pages: dict[str, Path], opened: Any) -> None:
    page = opened(pages["run"])
    shown = page.tab.evaluate("[...document.querySelectorAll('.name')].map((n) => n.textContent)")
    assert set(HOSTILE) <= set(shown)
    assert page.tab.evaluate("window.hacked") is None
    assert page.tab.evaluate("document.querySelectorAll('img[onerror], main b b').length") == 0


def test_nothing_but_the_pages_own_script_runs(pages: dict[str, Path], opened: Any) -> None:
    tab = opened(pages["run"]).tab
    tab.evaluate(
        """() => {
          const script = document.createElement("script");
          script.textContent = "window.hacked = 1";
          document.body.append(script);
          document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.hacked = 1'>");
        }"""
    )
    tab.wait_for_timeout(200)
    assert tab.evaluate("window.hacked") is None


def test_without_scripts_names_and_numbers_are_there(pages: dict[str, Path], opened: Any) -> None:
    tab = opened(pages["run"], java_script_enabled=False).tab
    assert tab.locator("noscript p").is_visible()
    assert tab.get_by_text("no image: photo-7.jpg").is_visible()
    assert tab.locator("#extremes ~ ul .name").count() >= 8


@pytest.mark.slow
def test_of_many_images_those_are_drawn_that_one_scrolls_to(tmp_path: Path, opened: Any) -> None:
    run = page_run(tmp_path / "run", [f"photo-{n:04d}.jpg" for n in range(1200)])
    write_report(run, Location(str(tmp_path / "out")), Shown(), densities_only=True)
    page = opened(tmp_path / "out" / "report.html")
    tab = page.tab
    tab.wait_for_selector("#images .tile")
    drawn = tab.locator("#images > li").count()
    assert drawn < 200
    assert tab.get_by_role("status").inner_text() == "1,200 of 1,200 images"
    tab.evaluate("document.getElementById('browse').scrollIntoView()")
    for _ in range(8):
        tab.mouse.wheel(0, 1500)
        tab.wait_for_timeout(100)
    assert drawn < tab.locator("#images > li").count() < 1000
    tab.get_by_label("Order by").select_option("information_bits")
    last = "document.querySelector('#images > li:last-child')"
    tab.evaluate(f"{last}.scrollIntoView()")
    tab.evaluate(f"{last}.querySelector('img').decode()")
    assert page.errors == []
