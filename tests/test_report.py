"""Pages: whole, escaped, without anything from the network."""

import re
from pathlib import Path

import numpy as np

from vit4icd import report


def test_is_one_whole_page_that_asks_the_network_for_nothing(tmp_path: Path) -> None:
    chart = report.line_chart("C", {"s": [(0.0, 1.0), (1.0, 0.0)]}, x_label="x", y_label="y")
    bars = report.histogram(
        "H", {"a": (1.0, 2.0), "b": (0.0, 3.0)}, edges=(0.0, 0.5, 1.0), x_label="x"
    )
    html = report.page("Title & more", [chart, bars, report.table("t", ["a"], [["1"]])])
    report.write_page(tmp_path / "page.html", html)
    text = (tmp_path / "page.html").read_text()
    assert text == html
    assert "Title &amp; more" in text
    assert not re.search(r"https?://|<script|src=\"(?!data:)", text)
    assert "Content-Security-Policy" in text


def test_escapes_whatever_comes_from_data() -> None:
    nasty = '"><img src=x onerror=alert(1)>'
    parts = [
        report.paragraph(nasty),
        report.figures([(nasty, nasty, nasty)]),
        report.table(nasty, [nasty], [[nasty]]),
        report.section(nasty, ""),
        report.badge(nasty, good=True),
        report.pair_card(None, None, [(nasty, nasty)]),
        report.picture_card(None, nasty, [nasty], verdict=""),
        report.picture(np.zeros((8, 8, 3), np.uint8), "", alt=nasty),
    ]
    assert all("<img src=x" not in part for part in parts)


def test_marks_a_card_and_sets_sections_side_by_side() -> None:
    card = report.picture_card(None, "a.jpg", ["one", "two"], verdict="", is_marked=True)
    assert 'class="card marked"' in card
    assert "<figcaption>" not in card
    plain, wide = report.section("one", card), report.section("two", card, is_wide=True)
    assert report.columns([plain, wide]).count('<section class="wide">') == 1
    assert 'class="grid small"' in report.grid([card], small=True)


def test_shrinks_pictures_to_thumbnails() -> None:
    big = np.zeros((1000, 2000, 3), np.uint8)
    assert len(report.picture(big, "big")) < 10_000
    assert "no picture" in report.picture(None, "gone")


def test_says_so_when_there_is_nothing_to_draw() -> None:
    assert "no pairs" in report.histogram("H", {"a": ()}, edges=(), x_label="x")
