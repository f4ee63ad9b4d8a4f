"""The page of a run of some thousand images in Chromium: opened, ordered, searched and scrolled.

    python -m benchmarks.page [--images 5000]

Beside it a plain page of the same pictures, which a loop over their names would write: all in one
grid, loaded as they come near. Both are opened from the disk and scrolled by the same turns of a
mouse's wheel; a frame's time is from one to the next, as the browser draws them. Without a GPU it
draws by the processor. The run's densities are the tests' tiny model's.
"""

import argparse
import csv
import re
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect, sync_playwright

import gazecore
from benchmarks.environment import report
from benchmarks.photos import photo_paths
from tests.conftest import tiny_bundle
from tests.gazecore.test_pages_in_chromium import CHROMIUM

WIDTHS = (360, 1400)
TURNS = 200
"""Of the wheel, each of `TURN` pixels."""
TURN = 240
MOST_SECONDS = 3.0
"""Until a page can be used."""

FRAMES = """() => {
  window.frames = [];
  let last = performance.now();
  const frame = (now) => {
    window.frames.push(now - last);
    last = now;
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}"""
SEEN = """async () => {
  const seen = [...document.images].filter((one) => {
    const place = one.getBoundingClientRect();
    return place.bottom > 0 && place.top < innerHeight;
  });
  await Promise.all(seen.map((one) => one.decode()));
  await new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)));
  return seen.length;
}"""
"""Waits until all pictures are there that somebody sees."""


def make_page(folder: Path, images: int) -> Path:
    """The page of a run of so many images: the sample photographs again and again."""
    model, listed = folder / "tiny.safetensors", folder / "list.csv"
    model.write_bytes(tiny_bundle())
    with listed.open("w", newline="") as file:
        rows, paths = csv.writer(file), list(photo_paths().values())
        rows.writerow(["image_id", "uri"])
        rows.writerows((f"{n:05d}.jpg", paths[n % len(paths)]) for n in range(images))
    run = gazecore.score(listed, folder / "run", model=str(model))
    gazecore.report(run, folder / "page", images=images)
    return folder / "page" / "report.html"


def plain(page: Path) -> Path:
    """A page without a script beside another, of the same pictures."""
    names = sorted(path.name for path in (page.parent / "pictures").glob("*.jpg"))
    items = "".join(f'<li><img loading=lazy src="pictures/{n}" alt=""><br>{n}' for n in names)
    style = (
        "ul{display:grid;grid-template-columns:repeat(auto-fill,minmax(14rem,1fr))}img{width:100%}"
    )
    where = page.with_name("plain.html")
    where.write_text(f"<!doctype html><title>plain</title><style>{style}</style><ul>{items}</ul>")
    return where


def opened(tab: Page, page: Path) -> float:
    """Seconds until a page's first pictures are seen."""
    started = time.perf_counter()
    tab.goto(page.as_uri())
    tab.evaluate(SEEN)
    return time.perf_counter() - started


def scrolled(tab: Page) -> dict[str, float]:
    """How the frames follow each other while somebody turns the wheel."""
    client = tab.context.new_cdp_session(tab)
    client.send("Performance.enable")

    def busy() -> float:
        found = client.send("Performance.getMetrics")["metrics"]
        return float(next(one["value"] for one in found if one["name"] == "TaskDuration"))

    tab.mouse.move(180, 400)
    tab.evaluate(FRAMES)
    top, before, started = tab.evaluate("scrollY"), busy(), time.perf_counter()
    for _ in range(TURNS):
        tab.mouse.wheel(0, TURN)
        time.sleep(1 / 30)
    seconds, after = time.perf_counter() - started, busy()
    frames: list[float] = tab.evaluate("window.frames")
    return {
        "scrolled_share": round((tab.evaluate("scrollY") - top) / (TURNS * TURN), 2),
        "frame_ms_median": round(statistics.median(frames), 1),
        "frame_ms_95": round(statistics.quantiles(frames, n=20)[-1], 1),
        "frames_above_50_ms": round(sum(f > 50 for f in frames) / len(frames), 3),
        "main_thread": round((after - before) / seconds, 2),
    }


def used(tab: Page, images: int) -> dict[str, float]:
    """Seconds of a question to the page, to its answer."""
    wanted = sum("0123" in f"{number:05d}" for number in range(images))
    started = time.perf_counter()
    tab.select_option("#by", index=1)
    tab.evaluate(SEEN)
    ordered = time.perf_counter()
    tab.fill("#search", "0123")
    expect(tab.locator("#found")).to_have_text(re.compile(f"{wanted} of "))
    tab.evaluate(SEEN)
    return {
        "order_seconds": round(ordered - started, 2),
        "search_seconds": round(time.perf_counter() - ordered, 2),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000)
    arguments = parser.parse_args()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        page = make_page(Path(name), arguments.images)
        megabytes = sum(f.stat().st_size for f in page.parent.rglob("*") if f.is_file()) / 1e6
        pages = {"page": page, "plain": plain(page)}
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for width in WIDTHS:
            for title, path in pages.items():
                context = browser.new_context(
                    viewport={"width": width, "height": 900}, offline=True
                )
                tab = context.new_page()
                found = {"open_seconds": round(opened(tab, path), 2)}
                if title == "page":
                    found |= used(tab, arguments.images)
                    found["open_seconds_again"] = round(opened(tab, path), 2)
                    tab.evaluate("document.getElementById('browse').scrollIntoView()")
                figures[f"{title}_{width}"] = found | scrolled(tab)
                context.close()
        browser.close()
    slowest = max(found["open_seconds"] for key, found in figures.items() if "page" in key)
    report(
        "page", images=arguments.images, megabytes=round(megabytes), **figures,
        is_open_in_time=slowest < MOST_SECONDS,
    )  # fmt: skip
    raise SystemExit(slowest >= MOST_SECONDS)


if __name__ == "__main__":
    main()
