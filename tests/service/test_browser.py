"""The review page in a real browser: search, compare, judge, undo, and find it all again."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from tests.service.conftest import until
from vit4icd.images import read_image, write_image
from vit4icd.service.previews import shrink

CHROMIUM = (
    os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
)
DEMO = Path(__file__).parents[2] / "src" / "vit4icd" / "demo"
QUERY = DEMO / "queries" / "q08.jpg"  # a part of nuthatch.jpg, sharpened
FLAGS = [
    "--no-sandbox",  # for containers, where it cannot be set up
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-sync",
    "--no-first-run",
]
SECONDS = 30_000.0  # milliseconds that a step may take on a busy machine
NASTY = "<img src=x onerror=document.title=1>&'<script>document.title=2<.jpg"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five photographs as a collection: one is there twice, one has a nasty name."""
    folder = tmp_path_factory.mktemp("library")
    photographs = folder / "photographs"
    photographs.mkdir()
    for name in ("astronaut.jpg", "brook.jpg", "nuthatch.jpg"):
        shutil.copy(DEMO / "photographs" / name, photographs)
    shutil.copy(DEMO / "photographs" / "wine.jpg", photographs / "<b>wine.jpg")
    again = read_image(DEMO / "photographs" / "nuthatch.jpg")
    write_image(photographs / "again.jpg", again, suffix=".jpg", quality=40)
    words = ["index", "add", folder / "demo", photographs, "--id-from", "name", "--threads", "1"]
    subprocess.run([sys.executable, "-m", "vit4icd", *map(str, words), "--quiet"], check=True)
    return folder


Starter = Callable[..., str]


@pytest.fixture
def start(library: Path, tmp_path: Path) -> Iterator[Starter]:
    """Starts ``vit4icd serve``, in place of the one that ran before; returns its address."""
    running: list[subprocess.Popen[str]] = []

    def stop() -> None:
        for process in running:
            process.terminate()
            assert process.wait(60) == 0
            assert process.stderr is not None
            process.stderr.close()
        running.clear()

    def begin(*words: str) -> str:
        stop()
        options = ["--port", "0", "--threads", "1", "--data", str(tmp_path / "data")]
        place = str(library / "demo")
        command = [sys.executable, "-m", "vit4icd", "serve", place, *options, *words]
        pictures = ["--pictures", str(library / "photographs")]
        process = subprocess.Popen(command + pictures, stderr=subprocess.PIPE, text=True)
        running.append(process)
        assert process.stderr is not None
        line = process.stderr.readline()
        assert "serving on" in line, line
        return line.split()[-1]

    yield begin
    stop()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that fails on any error of a script, and on any request to elsewhere."""
    context = browser.new_context(viewport={"width": 1280, "height": 860}, reduced_motion="reduce")
    opened = context.new_page()
    opened.set_default_timeout(SECONDS)
    expect.set_options(timeout=SECONDS)
    wrong: list[str] = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on(
        "console", lambda line: wrong.append(line.text) if "Security Policy" in line.text else None
    )
    opened.on(
        "request",
        lambda request: (
            None
            if request.url.startswith(("http://127.0.0.1:", "blob:http://127.0.0.1:"))
            else wrong.append(request.url)
        ),
    )
    yield opened
    context.close()
    assert wrong == []


def _open(page: Page, address: str) -> None:
    page.goto(address)
    page.wait_for_selector("html[data-ready=yes]")
    until(lambda: page.request.get(f"{address}readyz").ok)


def _search(page: Page, picture: Path | dict[str, object], title: str) -> None:
    page.set_input_files("#file", picture)  # type: ignore[arg-type]
    expect(page.locator("#result-title")).to_have_text(title)


def _held_back(page: Page, path: str) -> list[Route]:
    """Hold requests back; they are in the list once they are made."""
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route(path, hold)
    return held


def _wait_for(page: Page, held: list[Route]) -> None:
    """Wait until a request is held back; the page goes on meanwhile."""

    def is_there() -> bool:
        page.wait_for_timeout(50)
        return len(held) == 1

    until(is_there)


def _see_both(page: Page) -> None:
    """Wait until the pictures are there: before that, nothing is decided of them."""
    expect(page.locator(".stage img")).to_have_count(2)


def _address(page: Page) -> str:
    return page.url.partition("#")[0]


def _named(name: str, path: Path) -> dict[str, object]:
    return {"name": name, "mimeType": "image/jpeg", "buffer": path.read_bytes()}


def test_searches_compares_and_judges(start: Starter, page: Page) -> None:
    address = start()
    _open(page, address)
    assert page.title() == "Review · vit4icd"
    _search(page, QUERY, "2 matches")
    expect(page.locator(".cards")).to_contain_text("nuthatch.jpg")
    expect(page.locator(".card").first).to_contain_text("copy")
    expect(page.locator(".card").first).to_contain_text("of the reference")
    page.locator(".card").first.click()
    expect(page.locator("#queue-title")).to_have_text("Matches of q08.jpg")
    _compare_in_every_mode(page)
    _judge(page)
    address = start()  # again, on the same data
    _open(page, address)
    expect(page.locator("#queue-count")).to_be_hidden()
    _search(page, QUERY, "One match")
    expect(page.locator("#result-note")).to_have_text("1 held back: rejected before.")
    expect(page.locator(".card .accepted")).to_have_text("accepted")
    page.get_by_role("link", name="Decisions").click()
    expect(page.locator("#decided li")).to_have_count(2)
    page.locator("#decided li", has_text="reject").get_by_role("button").click()
    expect(page.locator("#decided li")).to_have_count(1)
    expect(page.locator("#decided li").get_by_role("button")).to_be_focused()
    expect(page.locator("#queue-count")).to_have_text("1")
    page.locator("nav a[data-view=search]").click()
    _search(page, QUERY, "2 matches")


def _compare_in_every_mode(page: Page) -> None:
    """Look at what each mode draws, not only at its button."""
    stage = page.locator(".stage")
    expect(stage.locator("polygon:not(.under)")).to_have_count(2)  # one on each picture
    page.keyboard.press("l")
    expect(stage.locator(".divider")).to_be_visible()
    box = stage.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
    clip = stage.locator(".pane > div:has(img) >> nth=1").evaluate("it => it.style.clipPath")
    assert float(clip.split()[-1].rstrip("px)")) == pytest.approx(box["width"] / 4, abs=2)
    page.keyboard.press("d")
    blend = stage.locator(".blend")
    assert blend.evaluate("it => getComputedStyle(it).mixBlendMode") == "difference"
    assert "matrix3d" in blend.locator("img").evaluate("it => it.style.transform")
    page.keyboard.press("f")
    tag = stage.locator(".tag")
    for _ in range(2):  # it goes on by itself
        expect(tag).to_have_text("query")
        expect(tag).to_have_text("reference")
    page.keyboard.press("o")
    expect(stage.locator("polygon:not(.under)")).to_have_count(1)
    page.locator("#knob").fill("30")
    veil = stage.locator(".pane > div:has(img) >> nth=1")
    assert veil.evaluate("it => it.style.opacity") == "0.3"
    page.keyboard.press("b")
    page.keyboard.press("1")
    expect(page.locator(".tools .end span")).to_have_text("100 %")
    scales = page.evaluate(
        "() => [...document.querySelectorAll('.stage .plane')].map("
        "it => Number(it.style.transform.match(/scale\\(([^)]+)\\)/)[1]))"
    )
    assert scales[0] == pytest.approx(1.0, abs=1e-6)
    page.keyboard.press("0")
    expect(page.locator(".tools .end span")).to_have_text("fit")


def _judge(page: Page) -> None:
    rows = page.locator("#list button")
    expect(rows).to_have_count(2)
    page.keyboard.press("j")
    expect(rows.nth(1)).to_have_attribute("aria-current", "true")
    page.keyboard.press("k")
    page.keyboard.press("a")
    expect(rows.nth(0)).to_contain_text("accepted")
    expect(rows.nth(1)).to_have_attribute("aria-current", "true")
    page.keyboard.press("r")
    expect(rows.nth(1)).to_contain_text("rejected")
    page.keyboard.press("u")
    expect(rows.nth(1)).not_to_contain_text("rejected")
    expect(page.locator("#status")).to_contain_text("undone")
    page.locator("[data-act=reject]").click()
    expect(rows.nth(1)).to_contain_text("rejected")


PLANES = """() => [...document.querySelectorAll(".stage .plane")].map((it) => {
  const [x, y, scale] = it.style.transform.match(/-?[0-9.e+-]+(?=px|\\))/g).map(Number);
  const pane = it.closest(".pane"), image = it.querySelector("img");
  return { scale, x: (pane.clientWidth / 2 - x) / scale, y: (pane.clientHeight / 2 - y) / scale,
           width: image.naturalWidth, height: image.naturalHeight };
})"""  # of both pictures: the scale, and the pixel in the middle of the pane


def _projected(matrix: list[list[float]], x: float, y: float) -> np.ndarray:
    place = np.array(matrix, float) @ np.array([x, y, 1.0])
    return np.asarray(place[:2] / place[2])


def _same_places(page: Page, matrix: list[list[float]]) -> list[dict[str, float]]:
    """Require that both panes show one place at one size, and return the two."""
    one, other = page.evaluate(PLANES)
    there = _projected(matrix, other["x"] / other["width"], other["y"] / other["height"])
    at = there * (one["width"], one["height"])
    assert at.tolist() == pytest.approx([one["x"], one["y"]], abs=1.5)
    right = _projected(matrix, (other["x"] + 1) / other["width"], other["y"] / other["height"])
    below = _projected(matrix, other["x"] / other["width"], (other["y"] + 1) / other["height"])
    area = np.linalg.det([right - there, below - there]) * one["width"] * one["height"]
    assert other["scale"] / one["scale"] == pytest.approx(np.sqrt(abs(area)), rel=0.02)
    return [one, other]


def test_shows_the_same_place_of_both_pictures_however_it_is_moved(
    start: Starter, page: Page
) -> None:
    _open(page, start())
    with page.expect_response("**/search?*") as answered:
        _search(page, QUERY, "2 matches")
    (overlap,) = [
        match["overlap"]
        for match in answered.value.json()["matches"]
        if match["reference"] == "nuthatch.jpg"
    ]
    page.locator(".card", has_text="nuthatch.jpg").click()
    stage, zoom = page.locator(".stage"), page.locator(".tools .end span")
    expect(stage.locator("img")).to_have_count(2)
    expect(stage.get_by_role("img", name="query q08.jpg")).to_be_visible()
    expect(stage.get_by_role("img", name="reference nuthatch.jpg")).to_be_visible()
    box = stage.bounding_box()
    assert box is not None
    left = box["x"] + box["width"] / 4, box["y"] + box["height"] / 2
    right = left[0] + box["width"] / 2, left[1]
    expect(zoom).to_have_text("fit")
    for _ in range(3):
        page.keyboard.press("+")
    keyed = _same_places(page, overlap["matrix"])[0]["scale"]
    page.mouse.move(*left)
    page.mouse.wheel(0, -200)
    seen = _same_places(page, overlap["matrix"])
    assert seen[0]["scale"] == pytest.approx(keyed * np.exp(0.5), rel=1e-6)
    for pane, begin in enumerate((left, right)):
        page.mouse.move(*begin)
        page.mouse.down()
        page.mouse.move(begin[0] + 30, begin[1] - 20, steps=3)
        page.mouse.up()
        before, seen = seen[pane], _same_places(page, overlap["matrix"])
        moved = [(before[axis] - seen[pane][axis]) * before["scale"] for axis in "xy"]
        assert moved == pytest.approx([30, -20], abs=1)
    stage.focus()
    page.keyboard.press("ArrowRight")
    before, seen = seen[0], _same_places(page, overlap["matrix"])
    moved = [(seen[0][axis] - before[axis]) * before["scale"] for axis in "xy"]
    assert moved == pytest.approx([60, 0], abs=1e-3)
    page.keyboard.press("-")
    scale = _same_places(page, overlap["matrix"])[0]["scale"]
    assert scale == pytest.approx(before["scale"] / 1.4)
    page.keyboard.press("o")
    corners = stage.locator(".pane > div:has(img) img").last.evaluate(
        """(it, polygon) => {
          const warp = new DOMMatrix(it.style.transform), box = it.closest(".plane > div");
          return polygon.map(([x, y]) => {
            const at = warp.transformPoint(new DOMPoint(x * it.naturalWidth, y * it.naturalHeight));
            return [at.x / at.w / box.clientWidth, at.y / at.w / box.clientHeight];
          });
        }""",
        overlap["reference_polygon"],
    )
    assert np.abs(np.array(corners) - overlap["query_polygon"]).max() < 0.005


def test_tells_of_each_match_what_was_answered(start: Starter, page: Page, library: Path) -> None:
    _open(page, start())
    with page.expect_response("**/search?*") as answered:
        _search(page, QUERY, "2 matches")
    found = answered.value.json()["matches"]
    for number, match in enumerate(found):
        card = page.locator(".card").nth(number)
        share = round(100 * match["overlap"]["reference_share"])
        image = match["image"]
        assert image["source"] == str(library / "photographs" / match["reference"])
        for text in (
            ">\u00a099\u00a0%", match["verdict"], f"score {match['score']:.3f}", match["reference"],
            f"{image['width']} × {image['height']}", f"{share}\u00a0% of the reference",
            image["source"],
        ):  # fmt: skip
            expect(card).to_contain_text(text)
        expect(card.get_by_role("img", name="query")).to_be_visible()
        until(lambda: page.locator("#query-image").evaluate("it => it.naturalWidth > 0"))
    page.locator(".card").first.click()
    first, facts = found[0], page.locator(".facts-list")
    for name, value in (
        ("Verdict", first["verdict"]), ("Probability", ">\u00a099\u00a0%"),
        ("Score", f"{first['score']:.3f}"), ("Query", "q08.jpg"), ("Reference", first["reference"]),
        ("Path", first["image"]["source"]),
    ):  # fmt: skip
        row = facts.locator("div").filter(has=page.locator("dt", has_text=name))
        expect(row.locator("dd")).to_contain_text(value)
    row = page.locator("#list button").first
    assert (row.get_attribute("aria-label") or "").startswith(f"q08.jpg and {first['reference']}")
    page.locator("nav a[data-view=queue]").click()
    queue = page.request.get(f"{_address(page)}v1/matches").json()
    assert sum(one["level"] for one in queue["findings"]) / queue["n_all"] > 0.995
    expect(page.locator("#live")).to_have_text("2 of 2 pairs, >\u00a099\u00a0% of them copies")


def test_says_when_less_than_the_picture_is_shown(
    start: Starter, page: Page, tmp_path: Path
) -> None:
    whole = read_image(DEMO / "photographs" / "brook.jpg")
    height, width = whole.shape[:2]
    large = np.kron(whole, np.ones((4, 4, 1), np.uint8))
    write_image(tmp_path / "large.jpg", large, suffix=".jpg")
    _open(page, start())
    _search(page, tmp_path / "large.jpg", "One match")
    page.locator(".card").click()
    facts = page.locator(".facts-list")
    shown = shrink(large, 1_024).shape
    size = f"{4 * width} × {4 * height}, shown at {shown[1]} × {shown[0]}"
    expect(facts).to_contain_text(f"large.jpg · {size}")
    expect(facts).to_contain_text(f"brook.jpg · {width} × {height}")
    expect(facts.locator("dd", has_text="brook.jpg ·")).not_to_contain_text("shown at")


def test_says_which_parts_were_found(start: Starter, page: Page, tmp_path: Path) -> None:
    photograph = read_image(DEMO / "photographs" / "brook.jpg")
    height, width = photograph.shape[:2]
    collage = np.full((2 * height, 2 * width, 3), 255, np.uint8)
    collage[height:, width:] = photograph
    Image.fromarray(collage).save(tmp_path / "collage.tif")  # which no browser shows
    _open(page, start())
    page.locator("#regions").check()
    for query, found in (
        (tmp_path / "collage.tif", "query: bottom right part; reference: whole"),
        (DEMO / "photographs" / "brook.jpg", None),
    ):
        page.set_input_files("#file", query)
        expect(page.locator("#query-name")).to_have_text(query.name)
        until(lambda: page.locator("#query-image").evaluate("it => it.naturalWidth > 0"))
        card, facts = page.locator(".card", has_text="brook.jpg"), page.locator(".facts-list")
        expect(card).to_have_count(1)
        words = [card.inner_text()]
        card.click()
        expect(facts).to_contain_text("brook.jpg")
        words.append(facts.inner_text())
        assert all(found in text if found else "part" not in text for text in words)
        page.locator("nav a[data-view=search]").click()


def test_goes_through_the_queue_by_keys_and_threshold(start: Starter, page: Page) -> None:
    _open(page, start())
    _search(page, QUERY, "2 matches")
    _search(page, DEMO / "queries" / "q01.jpg", "One match")
    _search(page, DEMO / "photographs" / "nuthatch.jpg", "2 matches")
    page.locator("nav a[data-view=queue]").click()
    rows = page.locator("#list button")
    expect(rows).to_have_count(5)
    expect(page.locator("#live")).to_contain_text("5 of 5 pairs")
    for least in ("50", "99"):
        page.locator("#least").fill(least)
        shown = rows.count()
        expect(page.locator("#live")).to_contain_text(f"{shown} of 5 pairs")
    page.locator("#least").evaluate("it => { it.max = 200; }")
    page.locator("#least").fill("150")
    expect(page.locator("#none-left")).to_have_text("None at this threshold.")
    expect(page.locator("#why-none")).to_be_hidden()
    page.locator("#least").fill("0")
    page.keyboard.press("?")
    expect(page.locator("#legend")).to_be_visible()
    page.keyboard.press("a")  # means nothing while the legend is open
    page.keyboard.press("Escape")
    expect(page.locator("#queue-count")).to_have_text("5")
    page.keyboard.press("s")
    expect(rows.nth(1)).to_have_attribute("aria-current", "true")
    rows.filter(has_text="again.jpg").first.click()
    page.locator("[data-act=never]").click()
    expect(page.locator("#list .never")).to_have_count(2)  # of both queries
    expect(page.locator("#queue-count")).to_have_text("3")
    expect(page.locator("#live")).to_contain_text("3 of 3 pairs")
    page.locator("nav a[data-view=decisions]").click()
    expect(page.locator("#negatives li")).to_have_count(1)
    with page.expect_download() as download:
        page.get_by_role("link", name="Export CSV").click()
    assert "never" in download.value.path().read_text()


def test_judges_one_pair_by_keys_in_a_hurry(start: Starter, page: Page) -> None:
    _open(page, start())
    _search(page, QUERY, "2 matches")
    page.locator(".card").first.click()
    held = _held_back(page, "**/v1/decisions")
    _see_both(page)
    page.keyboard.press("a")
    page.keyboard.press("r")  # before the first is answered, so before the next pair is shown
    page.keyboard.down("a")
    page.keyboard.down("a")  # as a key that is held repeats
    _wait_for(page, held)
    expect(page.locator("#status")).to_contain_text("still on its way")
    held[0].continue_()
    page.unroute("**/v1/decisions")
    expect(page.locator("#list .accepted")).to_have_count(1)
    expect(page.locator("#list button").nth(1)).to_have_attribute("aria-current", "true")
    page.keyboard.down("a")  # still held
    page.keyboard.up("a")
    assert page.request.get(f"{_address(page)}v1/decisions").json()["decisions"][1:] == []
    page.keyboard.press("u")
    expect(page.locator("#list .accepted")).to_have_count(0)
    expect(page.locator("#list button").nth(0)).to_have_attribute("aria-current", "true")


def _decisions(page: Page) -> list[str]:
    found = page.request.get(f"{_address(page)}v1/decisions").json()["decisions"]
    return [one["decision"] for one in found]


def _open_first(page: Page) -> None:
    _search(page, QUERY, "2 matches")
    page.locator(".card").first.click()
    _see_both(page)


def test_decides_only_what_was_seen(start: Starter, page: Page) -> None:
    _open(page, start())
    pictures = "**/thumbnail?size=full"
    _search(page, QUERY, "2 matches")
    page.route(pictures, lambda route: route.abort())
    page.locator(".card").first.click()
    expect(page.locator(".compare")).to_contain_text("could not be loaded")
    page.keyboard.press("r")
    expect(page.locator("#toast")).to_contain_text("nothing was decided")
    page.unroute(pictures)
    page.get_by_role("button", name="Try again").click()
    _see_both(page)
    page.locator("[data-act=accept]").dblclick()
    expect(page.locator("#list .accepted")).to_have_count(1)
    _see_both(page)
    assert _decisions(page) == ["accept"]
    page.keyboard.press("r")
    expect(page.locator("#toast")).to_have_text("All of these are judged.")
    assert _decisions(page) == ["accept", "reject"]


def test_undoes_to_what_was_decided_before(start: Starter, page: Page) -> None:
    _open(page, start())
    _open_first(page)
    first = page.locator("#list button").first
    for key, verdict in (("a", "accepted"), ("r", "rejected")):
        first.click()
        _see_both(page)
        page.keyboard.press(key)
        expect(first).to_contain_text(verdict)
    page.keyboard.press("u")
    expect(page.locator("#toast")).to_contain_text("accepted again")
    expect(first).to_contain_text("accepted")
    page.keyboard.press("u")
    expect(page.locator("#list .accepted")).to_have_count(0)
    page.keyboard.press("u")
    expect(page.locator("#toast")).to_have_text("There is nothing to undo.")
    assert _decisions(page) == ["accept", "reject", "accept", "undo"]


def test_overrules_nobody_who_decided_meanwhile(start: Starter, page: Page) -> None:
    _open(page, start())
    _open_first(page)
    match = page.request.get(f"{_address(page)}v1/matches").json()["findings"][0]["id"]
    first = page.locator("#list button").first
    made = page.request.post(
        f"{_address(page)}v1/decisions", data={"decision": "reject", "match": match}
    )
    assert made.status == 201
    page.keyboard.press("a")
    expect(page.locator("#problem")).to_contain_text("decided meanwhile: it is rejected now")
    expect(first).to_contain_text("rejected")
    page.keyboard.press("u")
    expect(page.locator("#toast")).to_have_text("There is nothing to undo.")
    assert _decisions(page) == ["reject"]
    page.keyboard.press("a")  # knowing that
    expect(first).to_contain_text("accepted")
    page.locator("nav a[data-view=decisions]").click()
    expect(page.locator("#decided li")).to_have_count(1)
    page.request.post(f"{_address(page)}v1/decisions", data={"decision": "reject", "match": match})
    page.locator("#decided li button").click()
    expect(page.locator("#problem")).to_contain_text("it is rejected now")
    assert _decisions(page) == ["reject", "accept", "reject"]


def test_does_without_single_keys_where_somebody_wants_that(start: Starter, page: Page) -> None:
    address = start()
    _open(page, address)
    page.keyboard.press("?")
    page.get_by_label("use these keys").uncheck()
    page.get_by_role("button", name="Close").click()
    page.reload()
    page.wait_for_selector("html[data-ready=yes]")
    _open_first(page)
    page.keyboard.press("r")
    page.locator("[data-act=accept]").click()
    expect(page.locator("#list .accepted")).to_have_count(1)
    assert _decisions(page) == ["accept"]
    page.keyboard.press("?")
    page.get_by_label("use these keys").check()
    page.keyboard.press("Escape")
    _see_both(page)
    page.keyboard.press("R")  # with the shift key, or locked capitals
    expect(page.locator("#list .rejected")).to_have_count(1)


def test_keeps_place_and_focus(start: Starter, page: Page) -> None:
    _open(page, start())
    page.set_viewport_size({"width": 360, "height": 740})
    _open_first(page)
    skip = page.locator("[data-act=skip]")
    skip.scroll_into_view_if_needed()
    before = skip.bounding_box()
    skip.click()
    expect(page.locator("#list button").nth(1)).to_have_attribute("aria-current", "true")
    _see_both(page)
    after = skip.bounding_box()
    assert before is not None
    assert after is not None
    assert after["y"] == pytest.approx(before["y"], abs=30)  # a line of facts more or less
    page.go_back()
    expect(page.locator(".card").nth(1)).to_be_focused()
    page.go_forward()
    expect(page.locator("#queue-title")).to_be_focused()
    page.locator("nav a[data-view=queue]").click()
    button = page.get_by_role("button", name="Find duplicates")
    button.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#live")).to_contain_text("1 group")
    expect(button).to_be_focused()


def test_stays_with_the_matches_of_a_search_while_duplicates_are_looked_for(
    start: Starter, page: Page
) -> None:
    _open(page, start())
    _search(page, QUERY, "2 matches")
    page.locator("nav a[data-view=queue]").click()
    held = _held_back(page, "**/groups")
    page.get_by_role("button", name="Find duplicates").click()
    _wait_for(page, held)
    page.locator("nav a[data-view=search]").click()
    page.locator(".card").nth(1).click()
    shown = page.locator("#queue-title").text_content()
    held[0].continue_()
    page.unroute("**/groups")
    expect(page.locator("#status")).to_contain_text("1 group")
    expect(page.locator("#queue-title")).to_have_text(shown or "")
    expect(page.locator("#list button").nth(1)).to_have_attribute("aria-current", "true")
    page.locator("nav a[data-view=decisions]").click()
    page.go_back()
    expect(page.locator("#view-decisions")).to_be_hidden()
    expect(page.locator("#queue-title")).to_have_text(shown or "")


def test_judges_duplicates_in_the_same_queue(start: Starter, page: Page) -> None:
    _open(page, start())
    page.locator("nav a[data-view=queue]").click()
    expect(page.locator("#queue-empty")).to_be_visible()
    proofs = _held_back(page, "**/proof")
    page.get_by_role("button", name="Find duplicates").click()
    expect(page.locator(".facts-list")).to_contain_text("being looked for")
    expect(page.locator(".stage img")).to_have_count(2)
    _wait_for(page, proofs)
    proofs[0].continue_()
    page.unroute("**/proof")
    rows = page.locator("#list button")
    expect(rows).to_have_count(1)  # again.jpg and nuthatch.jpg
    expect(page.locator("#live")).to_have_text("1 group, 1 to judge.")
    expect(page.locator("#kind")).to_have_value("group")
    expect(rows).to_contain_text("one of 2 copies")
    expect(page.locator(".facts-list")).to_contain_text("of the largest")
    for key, polygons in (("o", 1), ("b", 2)):
        page.keyboard.press(key)
        expect(page.locator(".stage polygon:not(.under)")).to_have_count(polygons)
    page.keyboard.press("r")
    expect(page.locator("#queue-count")).to_be_hidden()
    expect(rows).to_contain_text("rejected")
    page.get_by_role("button", name="Find duplicates").click()
    expect(page.locator("#live")).to_contain_text("No duplicates among 5 pictures")
    expect(page.locator("#queue-empty")).to_be_visible()


def test_shows_nasty_names_as_text(start: Starter, page: Page, tmp_path: Path) -> None:
    _open(page, start())
    small = shrink(read_image(DEMO / "photographs" / "wine.jpg"), 200)
    write_image(tmp_path / "small.png", small, suffix=".png")
    _search(page, _named(NASTY, tmp_path / "small.png"), "One match")
    expect(page.locator("#query-name")).to_have_text(NASTY)
    expect(page.locator(".card")).to_contain_text("<b>wine.jpg")
    page.locator(".card").click()
    expect(page.locator("#queue-title")).to_contain_text(NASTY)
    expect(page.locator(".stage img")).to_have_count(2)
    page.keyboard.press("1")
    expect(page.locator(".tools .end span")).to_have_text("100 %")
    page.keyboard.press("a")
    expect(page.locator("#list .accepted")).to_have_count(1)
    page.locator("nav a[data-view=decisions]").click()
    expect(page.locator("#decided li")).to_contain_text(NASTY)
    assert page.title() == "Review · vit4icd"
    assert page.locator("main img[src=x], main script").count() == 0


def test_says_what_is_wrong_with_a_picture(start: Starter, page: Page) -> None:
    _open(page, start())
    file = {"name": "x.jpg", "mimeType": "image/jpeg", "buffer": b"no picture"}
    page.set_input_files("#file", file)  # type: ignore[arg-type]
    expect(page.locator("#problem")).to_contain_text("not a picture")
    page.reload()
    page.wait_for_selector("html[data-ready=yes]")
    page.evaluate("document.querySelector('meta[name=max-bytes]').content = '9'")
    page.set_input_files("#file", file)  # type: ignore[arg-type]
    page.wait_for_timeout(200)  # for the address to follow
    expect(page.locator("#problem")).to_contain_text("are the most")
    page.evaluate("document.querySelector('meta[name=max-bytes]').content = '33554432'")
    _search(page, QUERY, "2 matches")
    expect(page.locator("#problem")).to_be_hidden()


def test_takes_pictures_that_are_dropped_or_pasted(start: Starter, page: Page) -> None:
    _open(page, start())
    data = list((DEMO / "queries" / "q01.jpg").read_bytes())
    for event in ("drop", "paste"):
        page.evaluate(
            """([event, data]) => {
              const transfer = new DataTransfer();
              const bytes = new Uint8Array(data);
              transfer.items.add(new File([bytes], `${event}.jpg`, {type: "image/jpeg"}));
              const options = {bubbles: true, dataTransfer: transfer, clipboardData: transfer};
              document.dispatchEvent(event === "drop"
                ? new DragEvent(event, options) : new ClipboardEvent(event, options));
            }""",
            [event, data],
        )
        expect(page.locator("#query-name")).to_have_text(f"{event}.jpg")
        expect(page.locator("#result-title")).to_have_text("One match")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_every_screen(start: Starter, browser: Browser, scheme: str) -> None:
    context = browser.new_context(color_scheme="dark" if scheme == "dark" else "light")
    page = context.new_page()
    page.set_default_timeout(SECONDS)
    _open(page, start())
    _search(page, _named(f"{'x' * 180}.jpg", QUERY), "2 matches")
    for act in ("nothing", "open", "decisions"):
        if act == "open":
            page.locator(".card").first.click()
            page.wait_for_selector(".stage polygon")
        elif act == "decisions":
            page.locator("nav a[data-view=decisions]").click()
        for width in (360, 768, 1280, 2560):
            page.set_viewport_size({"width": width, "height": 800})
            found = page.evaluate("document.documentElement.scrollWidth")
            assert found <= width, act
            assert page.evaluate(_CONTRAST) == [], (act, width)
    context.close()


# Text whose contrast with what lies behind it is below 4.5 : 1 (WCAG 2.2, 1.4.3).
_CONTRAST = """() => {
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((value) => value / 255)
      .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const opaque = (node) => {
    for (let it = node; it; it = it.parentElement) {
      const colour = getComputedStyle(it).backgroundColor;
      if (!/, 0\\)$/.test(colour)) return colour.startsWith("rgba") ? null : colour;
    }
    return "rgb(255, 255, 255)";
  };
  const bad = [];
  for (const node of document.querySelectorAll("body *")) {
    const text = [...node.childNodes].some((it) => it.nodeType === 3 && it.data.trim());
    const isExempt = node.disabled || node.closest(".stage, .skip-link");
    if (!text || !node.checkVisibility() || isExempt) continue;
    const behind = opaque(node);
    if (behind === null) continue;
    const [a, b] = [light(getComputedStyle(node).color), light(behind)].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) bad.push(`${node.className} ${node.textContent}`);
  }
  return bad;
}"""


def test_can_be_used_by_keyboard_and_read_aloud(start: Starter, page: Page) -> None:
    _open(page, start())
    page.keyboard.press("Tab")
    expect(page.locator(".skip-link")).to_be_focused()
    for role in ("banner", "navigation", "main"):
        expect(page.get_by_role(role)).to_have_count(1)
    _search(page, QUERY, "2 matches")
    page.locator(".card").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#view-queue")).to_be_visible()
    expect(page.locator("#queue-title")).to_be_focused()
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, a")].filter((it) =>
          it.checkVisibility() && it.type !== "hidden" && !it.innerText
          && !it.getAttribute("aria-label") && !(it.labels && it.labels.length)
        ).map((it) => it.outerHTML)"""
    )
    assert nameless == []
    assert page.locator("img:not([alt])").count() == 0
    expect(page.locator("#status")).to_contain_text("Match 1 of 2")
    for name in ("main", "constructor"):  # the skip link's, and what every object has
        page.goto(f"{_address(page)}#{name}")
        page.reload()
        expect(page.locator("#view-search")).to_be_visible()


def test_logs_in_with_a_key(start: Starter, page: Page, tmp_path: Path) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "vit4icd", "serve", "--make-key", "read"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    (tmp_path / "keys.txt").write_text(made.stdout)
    key = made.stderr.split()[-1]
    page.goto(start("--keys", str(tmp_path / "keys.txt")))
    page.get_by_label("Key").fill("v4i_wrong")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_have_text("This key is not known.")
    page.get_by_label("Key").fill(key)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_selector("html[data-ready=yes]")
    _search(page, QUERY, "2 matches")
    page.locator(".card").first.click()
    expect(page.locator("[data-act=accept]")).to_be_disabled()  # the key only reads
    page.route("**/logout", lambda route: route.abort())
    page.get_by_role("button", name="Log out").click()
    expect(page.locator("#problem")).to_contain_text("still logged in")
    page.unroute("**/logout")
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("heading")).to_have_text("Log in")
