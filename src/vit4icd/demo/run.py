"""Runs the demo: keeps packaged photographs in a collection, searches it and shows the matches."""

import csv
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from vit4icd import report
from vit4icd.collection import Answer, Collection
from vit4icd.describer import OnnxDescriber
from vit4icd.errors import ConfigError
from vit4icd.images import read_image
from vit4icd.scale import Scale
from vit4icd.storage import official_id, write_json

__all__ = ["DemoResult", "DemoRow", "run_demo"]

_FOLDER = Path(__file__).parent
_NONE = "none"
_FALLBACK_THRESHOLD = 0.5  # for model folders that state none


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoRow:
    """The best reference of one query, the verdict on it, and whether that is right."""

    query: str
    reference: str
    verdict: str
    probability: float | None
    score: float
    shares: str
    """Shares of query and photograph that were proven to be the same; empty without a proof."""
    edit: str
    is_right: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoResult:
    """All rows, best scores first, a sentence on them, and where the page is."""

    rows: tuple[DemoRow, ...]
    headline: str
    report: Path


def run_demo(
    out: Path,
    describer: OnnxDescriber,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> DemoResult:
    """Keep the packaged photographs, ask for each query, and write ``out/report.html``.

    Beside the page, ``out`` gets the collection and result.json. Matches are proven by local
    features where that is possible.

    Raises:
        ConfigError: ``out`` holds a "collection" that no demo made.
    """
    out.mkdir(parents=True, exist_ok=True)
    collection = Collection.create(_cleared(out) / "collection", describer=describer)
    collection.add([_FOLDER / "photographs"], id_from="name")
    has_auto = Scale(describer=describer, n_chances=1).auto is not None
    answers = collection.ask(
        [_FOLDER / "queries"],
        k=1,
        verify=True,
        progress=progress,
        threshold="auto" if has_auto else _FALLBACK_THRESHOLD,
    )
    rows = _judged(answers)
    result = DemoResult(rows=rows, headline=_headline(rows), report=out / "report.html")
    write_json(out / "result.json", _to_json(result, describer.fingerprint))
    report.write_page(result.report, _page(result))
    return result


def _cleared(out: Path) -> Path:
    """Remove an earlier demo's collection, and nothing else of that name."""
    if (out / "collection").exists():
        if not ((out / "result.json").exists() and Collection.exists(out / "collection")):
            raise ConfigError(f"{out / 'collection'} is not of a demo; choose another --out")
        shutil.rmtree(out / "collection")
    return out


def _judged(answers: Iterable[Answer]) -> tuple[DemoRow, ...]:
    truth, edits = _column("truth.csv", "reference_id"), _column("edits.csv", "edits")
    rows = []
    for answer in answers:
        match, query = answer.nearest, official_id(answer.query)
        assert match is not None, "no packaged picture is too plain to search"
        reference, overlap = official_id(match.reference), match.overlap
        found = reference if match.is_copy else ""
        rows.append(
            DemoRow(
                query=query,
                reference=reference,
                verdict=match.verdict if match.is_copy else _NONE,
                probability=match.probability,
                score=match.score,
                shares=f"{overlap.query_share:.0%}, {overlap.reference_share:.0%}"
                if overlap
                else "",
                edit=edits[query],
                is_right=truth[query] == found,
            )
        )
    return tuple(sorted(rows, key=lambda row: (row.verdict == _NONE, -row.score)))


def _headline(rows: tuple[DemoRow, ...]) -> str:
    n_copies = sum(bool(reference) for reference in _column("truth.csv", "reference_id").values())
    n_found = sum(row.verdict != _NONE and row.is_right for row in rows)
    n_false = sum(row.verdict != _NONE and not row.is_right for row in rows)
    return (
        f"found {n_found} of {n_copies} copies among {len(rows)} pictures, {n_false} false "
        f"{'alarm' if n_false == 1 else 'alarms'}"
    )


def _page(result: DemoResult) -> str:
    cards = [_card(row) for row in result.rows]
    return report.page(
        "Which picture is a copy of which photograph?",
        [
            report.paragraph(
                f"vit4icd {result.headline}. Each card shows a picture beside the photograph that "
                "it is a copy of, or else the most similar one; best scores first."
            ),
            report.grid(cards),
            report.paragraph(
                "The photographs' authors and licences are listed in vit4icd/demo/LICENCES.md."
            ),
        ],
    )


def _card(row: DemoRow) -> str:
    says = "no copy of these" if row.verdict == _NONE else row.verdict
    verdict = report.badge(f"{says}, {'right' if row.is_right else 'wrong'}", good=row.is_right)
    return report.pair_card(
        read_image(_FOLDER / "queries" / f"{row.query}.jpg"),
        read_image(_FOLDER / "photographs" / f"{row.reference}.jpg"),
        [
            ("score", f"{row.score:.3f}"),
            ("proven", row.shares or "no"),
            ("edit", row.edit),
            ("query", row.query),
            ("nearest", row.reference),
        ],
        verdict=verdict,
    )


def _column(file: str, name: str) -> dict[str, str]:
    with (_FOLDER / file).open(newline="", encoding="utf-8") as lines:
        return {official_id(row["query_id"]): row[name] for row in csv.DictReader(lines)}


def _to_json(result: DemoResult, fingerprint: str) -> Mapping[str, object]:
    return {
        "format_version": 2,
        "fingerprint": fingerprint,
        "headline": result.headline,
        "rows": [asdict(row) for row in result.rows],
    }
