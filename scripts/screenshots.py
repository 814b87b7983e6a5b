"""Take the pictures of the review page anew: python scripts/screenshots.py [--out docs]

It serves the packaged photographs and looks at them with Chromium, found on the path.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from vit4icd.images import read_image, resize, write_image

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "src" / "vit4icd" / "demo"
WIDE, PHONE, WALL = (1360, 900), (360, 760), (2560, 1440)


def main() -> None:
    """Serve, look, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with served() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        with opened(browser, address, WIDE, "light") as page:
            search(page, "q08", "q01")
            shoot(page, out / "service-search.jpg")
        with opened(browser, address, WIDE, "dark") as page:
            search(page, "q08")
            compare(page, "o")
            shoot(page, out / "service-overlay-dark.jpg")
        with opened(browser, address, WIDE, "light") as page:
            duplicates(page)
            shoot(page, out / "service-duplicates.jpg")
        with opened(browser, address, PHONE, "light") as page:
            search(page, "q08")
            compare(page, "l")
            shoot(page, out / "service-phone.jpg")
        with opened(browser, address, WALL, "dark") as page:
            duplicates(page)
            compare_keys(page, "b")
            shoot(page, out / "service-wall.jpg")
        browser.close()


@contextmanager
def served() -> Iterator[str]:
    """Serve the packaged photographs, with copies of two of them as for the web."""
    with tempfile.TemporaryDirectory() as name:
        pictures = Path(name) / "my-pictures"
        shutil.copytree(DEMO / "photographs", pictures)
        for photograph, quality in (("nuthatch", 40), ("wine", 60)):
            image = read_image(pictures / f"{photograph}.jpg")
            smaller = resize(image, image.shape[1] * 2 // 3, image.shape[0] * 2 // 3)
            write_image(pictures / f"{photograph}-web.jpg", smaller, suffix=".jpg", quality=quality)
        run = [sys.executable, "-m", "vit4icd"]
        add = ["index", "add", "photographs", "my-pictures", "--id-from", "name", "--quiet"]
        subprocess.run([*run, *add], check=True, cwd=name)
        serve = ["serve", "photographs", "--pictures", "my-pictures", "--port", "0"]
        process = subprocess.Popen([*run, *serve], stderr=subprocess.PIPE, text=True, cwd=name)
        assert process.stderr is not None
        try:
            yield process.stderr.readline().split()[-1]
        finally:
            process.terminate()
            process.wait(60)


@contextmanager
def opened(browser: Browser, address: str, size: tuple[int, int], scheme: str) -> Iterator[Page]:
    """Open the page once everything is loaded."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if scheme == "dark" else "light",
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("html[data-ready=yes]")
    while not page.request.get(f"{address}readyz").ok:
        page.wait_for_timeout(100)
    yield page
    context.close()


def search(page: Page, *queries: str) -> None:
    """Search for pictures, one after another; the last one's matches stay."""
    for query in queries:
        page.set_input_files("#file", DEMO / "queries" / f"{query}.jpg")
        page.locator("#query-name", has_text=f"{query}.jpg").wait_for()
    page.wait_for_load_state("networkidle")


def compare(page: Page, mode: str) -> None:
    """Open the first match in a mode of comparison."""
    page.locator(".card").first.click()
    page.wait_for_selector(".stage polygon")
    compare_keys(page, mode)


def compare_keys(page: Page, mode: str) -> None:
    """Change the mode of comparison."""
    page.keyboard.press(mode)
    page.wait_for_load_state("networkidle")


def duplicates(page: Page) -> None:
    """Look for duplicates and show the first pair."""
    page.locator("nav a[data-view=queue]").click()
    page.get_by_role("button", name="Find duplicates").click()
    page.locator("#live", has_text="to judge").wait_for()
    page.wait_for_selector(".stage polygon")
    page.wait_for_load_state("networkidle")


def shoot(page: Page, path: Path) -> None:
    """Write what is to be seen."""
    page.mouse.move(0, 0)
    page.screenshot(path=path, type="jpeg", quality=82)


if __name__ == "__main__":
    main()
