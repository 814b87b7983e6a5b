"""Self-contained HTML pages of figures, charts and pictures; it measures nothing.

A page needs no network and runs no script: styles are inside, charts are SVG, pictures are data.
Everything that comes from data is escaped.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np
import simplejpeg
from jaxtyping import UInt8

from vit4icd.images import resize
from vit4icd.storage import atomic_path

__all__ = [
    "badge",
    "columns",
    "figures",
    "grid",
    "histogram",
    "line_chart",
    "page",
    "pair_card",
    "paragraph",
    "picture",
    "picture_card",
    "section",
    "table",
    "write_page",
]

Picture = UInt8[np.ndarray, "_ _ 3"]

_THUMBNAIL = 360  # pixels of the long side
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 640, 300, 52, 44, 12  # of a chart, in SVG units
_STYLE = """
:root { color-scheme: light dark; --paper: #fbfbfa; --card: #fff; --ink: #1c1e21; --quiet: #666b73;
  --line: #e2e3e6; --first: #2563ae; --second: #c2571a; --good: #1d7a46; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181b; --card: #1f2226; --ink: #e9eaec;
  --quiet: #a0a6ae; --line: #363a40; --first: #7fb2ee; --second: #eda06a; --good: #6cc794;
  --bad: #f28b82; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1480px; margin: 0 auto; padding: 2rem clamp(1rem, 3vw, 3rem) 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 1.2rem; }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .8rem; }
p { max-width: 46rem; } .quiet { color: var(--quiet); }
.figures { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); }
.figures div, .card, .chart { background: var(--card); border: 1px solid var(--line);
  border-radius: .6rem; }
.figures div { padding: .9rem 1.1rem; }
.figures b { display: block; font-size: 1.6rem;
  font-variant-numeric: tabular-nums; line-height: 1.3; }
.figures span { color: var(--quiet); font-size: .86rem; display: block; }
.chart { margin: 1.2rem 0; padding: 1rem; max-width: 60rem; } .chart figcaption {
  font-weight: 600; margin-bottom: .4rem; }
.chart svg { width: 100%; height: auto; display: block; }
.chart text { fill: var(--quiet); font-size: 12px; } .axis { stroke: var(--line); }
.first { stroke: var(--first); } .second { stroke: var(--second); }
.bar.first { fill: var(--first); stroke: none; opacity: .75; }
.bar.second { fill: var(--second); stroke: none; opacity: .6; }
.curve { fill: none; stroke-width: 2; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; font-size: .86rem; }
.legend i { display: inline-block; width: .8rem; height: .8rem; border-radius: .2rem;
  margin-right: .4rem; vertical-align: -.05rem; }
.grid { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); }
.card { overflow: hidden; display: flex; flex-direction: column; }
.card .pictures { display: grid; grid-template-columns: 1fr 1fr; gap: 1px;
  background: var(--line); }
.card figure { margin: 0; background: var(--card); }
.card img { width: 100%; aspect-ratio: 4 / 3; object-fit: contain; display: block; }
.card .none { aspect-ratio: 4 / 3; display: grid; place-items: center; color: var(--quiet);
  font-size: .86rem; }
.card figcaption { font-size: .78rem; color: var(--quiet); padding: .3rem .7rem; }
.card dl { display: grid; grid-template-columns: auto 1fr; gap: .1rem .8rem; margin: 0;
  padding: .6rem .8rem .8rem; font-size: .88rem; }
.card dt { color: var(--quiet); } .card dd { margin: 0; overflow-wrap: anywhere; }
.columns { display: grid; gap: 0 1.6rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); }
.columns > .wide { grid-column: 1 / -1; }
.grid.small { gap: .6rem; grid-template-columns: repeat(auto-fill, minmax(9.4rem, 1fr)); }
.card.marked { border-color: var(--good); box-shadow: 0 0 0 1px var(--good); }
.card .lines { padding: .5rem .7rem .7rem; font-size: .84rem; line-height: 1.4; }
.card .lines p { margin: .15rem 0 0; overflow-wrap: anywhere; }
.badge { font-weight: 600; } .badge.good { color: var(--good); } .badge.bad { color: var(--bad); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
caption { text-align: left; color: var(--quiet); padding-bottom: .4rem; }
th, td { text-align: left; padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--line); }
"""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(title: str, sections: Iterable[str]) -> str:
    """Return a whole page from parts that the functions below give."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{escape(title)}</h1>\n" + "\n".join(sections) + "\n</main>\n</body>\n</html>\n"
    )


def write_page(path: Path, html: str) -> None:
    """Write a page; the file appears whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(html, "utf-8", errors="replace")


def section(heading: str, body: str, *, is_wide: bool = False) -> str:
    """Return a heading with what follows it; a wide one does not stand beside others."""
    style = ' class="wide"' if is_wide else ""
    return f"<section{style}>\n<h2>{escape(heading)}</h2>\n{body}\n</section>"


def columns(sections: Iterable[str]) -> str:
    """Return sections beside each other where there is room."""
    return '<div class="columns">' + "".join(sections) + "</div>"


def paragraph(text: str) -> str:
    """Return a paragraph of quiet text."""
    return f'<p class="quiet">{escape(text)}</p>'


def figures(rows: Sequence[tuple[str, str, str]]) -> str:
    """Return headline figures: label, value and a remark each."""
    cells = "".join(
        f"<div><span>{escape(label)}</span><b>{escape(value)}</b><span>{escape(remark)}</span></div>"
        for label, value, remark in rows
    )
    return f'<div class="figures">{cells}</div>'


def table(caption: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table with a caption."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return (
        f'<div class="scroll"><table><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def grid(cards: Iterable[str], *, small: bool = False) -> str:
    """Return cards side by side, as many as fit."""
    return f'<div class="grid{" small" if small else ""}">' + "".join(cards) + "</div>"


def badge(text: str, *, good: bool) -> str:
    """Return a short verdict in green or red."""
    return f'<span class="badge {"good" if good else "bad"}">{escape(text)}</span>'


def pair_card(
    query: Picture | None,
    reference: Picture | None,
    facts: Sequence[tuple[str, str]],
    *,
    verdict: str = "",
) -> str:
    """Return a query beside a reference with facts below; ``verdict`` is a :func:`badge`."""
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts)
    if verdict:
        rows = f"<dt>verdict</dt><dd>{verdict}</dd>{rows}"
    pictures = picture(query, "query") + picture(reference, "reference")
    return f'<article class="card"><div class="pictures">{pictures}</div><dl>{rows}</dl></article>'


def picture_card(
    image: Picture | None, name: str, lines: Sequence[str], *, verdict: str, is_marked: bool = False
) -> str:
    """Return a picture with its name and lines of text; ``verdict`` is a :func:`badge`."""
    text = "".join(f'<p class="quiet">{escape(line)}</p>' for line in lines)
    return (
        f'<article class="card{" marked" if is_marked else ""}">{picture(image, "", alt=name)}'
        f'<div class="lines">{verdict}<p>{escape(name)}</p>{text}</div></article>'
    )


def picture(image: Picture | None, caption: str, *, alt: str = "") -> str:
    """Return a thumbnail with its caption, or a blank where there is no picture."""
    label = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    if image is None:
        return f'<figure><div class="none">no picture</div>{label}</figure>'
    height, width = image.shape[:2]
    scale = min(1.0, _THUMBNAIL / max(height, width))
    small = resize(image, max(1, round(width * scale)), max(1, round(height * scale)))
    data = base64.b64encode(simplejpeg.encode_jpeg(np.ascontiguousarray(small), quality=82))
    source = f"data:image/jpeg;base64,{data.decode('ascii')}"
    return f'<figure><img src="{source}" alt="{escape(alt or caption)}">{label}</figure>'


def line_chart(
    title: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    x_label: str,
    y_label: str,
) -> str:
    """Return curves over the unit square."""
    lines = []
    for (_, points), style in zip(series.items(), ("first", "second"), strict=False):
        path = " ".join(f"{_x(x):.1f},{_y(y):.1f}" for x, y in points)
        lines.append(f'<polyline class="curve {style}" points="{path}"/>')
    ticks = [(value / 5, f"{value / 5:.1f}") for value in range(6)]
    return _chart(title, "".join(lines), list(series), ticks, ticks, x_label, y_label)


def histogram(
    title: str, series: Mapping[str, Sequence[float]], *, edges: Sequence[float], x_label: str
) -> str:
    """Return up to two histograms over the same bins, each scaled to its own largest bin."""
    if len(edges) < 2:
        return paragraph(f"{title}: no pairs")
    bars, n_bins = [], len(edges) - 1
    for (_, counts), style in zip(series.items(), ("first", "second"), strict=False):
        top = max(counts, default=0) or 1
        for index, count in enumerate(counts):
            left, right = _x(index / n_bins), _x((index + 1) / n_bins)
            y = _y(count / top)
            bars.append(
                f'<rect class="bar {style}" x="{left:.1f}" y="{y:.1f}" '
                f'width="{right - left:.1f}" height="{_y(0) - y:.1f}"/>'
            )
    low, high = edges[0], edges[-1]
    ticks = [(step / 4, f"{low + (high - low) * step / 4:.2f}") for step in range(5)]
    shares = [(0.0, "0"), (1.0, "most")]
    return _chart(title, "".join(bars), list(series), ticks, shares, x_label, "share")


def _chart(
    title: str,
    marks: str,
    names: Sequence[str],
    x_ticks: Sequence[tuple[float, str]],
    y_ticks: Sequence[tuple[float, str]],
    x_label: str,
    y_label: str,
) -> str:
    right, bottom = _x(1), _y(0)
    axes = "".join(
        f'<line class="axis" x1="{_x(at):.1f}" y1="{_TOP}" x2="{_x(at):.1f}" y2="{bottom}"/>'
        f'<text x="{_x(at):.1f}" y="{bottom + 16}" text-anchor="middle">{escape(text)}</text>'
        for at, text in x_ticks
    ) + "".join(
        f'<line class="axis" x1="{_LEFT}" y1="{_y(at):.1f}" x2="{right}" y2="{_y(at):.1f}"/>'
        f'<text x="{_LEFT - 8}" y="{_y(at) + 4:.1f}" text-anchor="end">{escape(text)}</text>'
        for at, text in y_ticks
    )
    labels = (
        f'<text x="{(_LEFT + right) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">'
        f'{escape(x_label)}</text><text x="14" y="{bottom / 2}" text-anchor="middle" '
        f'transform="rotate(-90 14 {bottom / 2})">{escape(y_label)}</text>'
    )
    legend = "".join(
        f'<span><i style="background: var(--{style})"></i>{escape(name)}</span>'
        for name, style in zip(names, ("first", "second"), strict=False)
    )
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"><title>{escape(title)}</title>'
        f'{axes}{marks}{labels}</svg><div class="legend">{legend}</div></figure>'
    )


def _x(share: float) -> float:
    return _LEFT + share * (_WIDTH - _LEFT - 14)


def _y(share: float) -> float:
    return _HEIGHT - _BOTTOM - share * (_HEIGHT - _BOTTOM - _TOP)
