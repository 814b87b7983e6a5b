"""Runs the demo: describes packaged pictures, matches them and shows what was found."""

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vit4icd import report
from vit4icd.describer import OnnxDescriber
from vit4icd.extract import describe
from vit4icd.images import read_image
from vit4icd.search import best_pairs
from vit4icd.storage import official_id, read_descriptors, write_json, write_pairs
from vit4icd.types import Pairs

__all__ = ["DemoResult", "DemoRow", "run_demo"]

_FOLDER = Path(__file__).parent
_FALLBACK_THRESHOLD = 0.5  # for model folders that state none


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoRow:
    """The best reference of one query, the verdict on it, and whether that is right."""

    query: str
    reference: str
    score: float
    verdict: str
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
    """Describe the packaged queries and photographs, match them, and write ``out/report.html``.

    Beside the page, ``out`` gets the descriptors, pairs.csv and result.json. A query's best
    reference is called a copy when its similarity reaches the model's threshold for 90 % precision.
    """
    out.mkdir(parents=True, exist_ok=True)
    files = {}
    for role in ("queries", "photographs"):
        files[role] = out / f"{role}.h5"
        describe(
            [_FOLDER / role],
            files[role],
            describer,
            progress=lambda state: progress(state.n_done, state.n_images) if progress else None,
        )
    pairs = best_pairs(
        read_descriptors(files["queries"]), read_descriptors(files["photographs"]), per_query=1
    )
    write_pairs(out / "pairs.csv", pairs)
    threshold = describer.card.thresholds.get("P90", _FALLBACK_THRESHOLD)
    rows = _judge(pairs, threshold)
    result = DemoResult(rows=rows, headline=_headline(rows, threshold), report=out / "report.html")
    write_json(out / "result.json", _to_json(result, describer.fingerprint, threshold))
    report.write_page(result.report, _page(result))
    return result


def _judge(pairs: Pairs, threshold: float) -> tuple[DemoRow, ...]:
    truth, edits = _column("truth.csv", "reference_id"), _column("edits.csv", "edits")
    rows = []
    for query, reference, score in zip(
        pairs.queries, pairs.references, pairs.scores.tolist(), strict=True
    ):
        is_copy = score >= threshold
        right = truth[query] == reference if is_copy else not truth[query]
        rows.append(
            DemoRow(
                query=query,
                reference=reference,
                score=score,
                verdict="copy" if is_copy else "none",
                edit=edits[query],
                is_right=right,
            )
        )
    return tuple(sorted(rows, key=lambda row: -row.score))


def _headline(rows: tuple[DemoRow, ...], threshold: float) -> str:
    n_copies = sum(bool(reference) for reference in _column("truth.csv", "reference_id").values())
    n_found = sum(row.verdict == "copy" and row.is_right for row in rows)
    n_false = sum(row.verdict == "copy" and not row.is_right for row in rows)
    return (
        f"found {n_found} of {n_copies} copies among {len(rows)} pictures, {n_false} false "
        f"{'alarm' if n_false == 1 else 'alarms'}, at threshold {threshold:.3f}"
    )


def _page(result: DemoResult) -> str:
    cards = [_card(row) for row in result.rows]
    return report.page(
        "Which picture is a copy of which photograph?",
        [
            report.paragraph(
                f"vit4icd {result.headline}. Each card shows a picture beside the most similar of "
                "the photographs; best scores first."
            ),
            report.grid(cards),
            report.paragraph(
                "The photographs' authors and licences are listed in vit4icd/demo/LICENCES.md."
            ),
        ],
    )


def _card(row: DemoRow) -> str:
    says = "copy" if row.verdict == "copy" else "no copy of these"
    verdict = report.badge(f"{says}, {'right' if row.is_right else 'wrong'}", good=row.is_right)
    return report.pair_card(
        read_image(_FOLDER / "queries" / f"{row.query}.jpg"),
        read_image(_FOLDER / "photographs" / f"{row.reference}.jpg"),
        [
            ("score", f"{row.score:.3f}"),
            ("edit", row.edit),
            ("query", row.query),
            ("nearest", row.reference),
        ],
        verdict=verdict,
    )


def _column(file: str, name: str) -> dict[str, str]:
    with (_FOLDER / file).open(newline="", encoding="utf-8") as lines:
        return {official_id(row["query_id"]): row[name] for row in csv.DictReader(lines)}


def _to_json(result: DemoResult, fingerprint: str, threshold: float) -> Mapping[str, object]:
    rows = [{name: getattr(row, name) for name in row.__slots__} for row in result.rows]
    return {
        "format_version": 1,
        "fingerprint": fingerprint,
        "threshold": threshold,
        "headline": result.headline,
        "rows": rows,
    }
