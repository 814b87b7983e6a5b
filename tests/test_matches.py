"""Verdicts: what a pair is called, and what a proof does to its probability."""

import json
import os
from dataclasses import replace

import cv2
import numpy as np
import pytest

from vit4icd.images import read_image, resize
from vit4icd.matches import Match, Verdict, judge, rank_key, too_plain, weigh, what_differs
from vit4icd.overlap import Overlap, find_overlap, local_features
from vit4icd.storage import read_name

PHOTOGRAPHS = "src/vit4icd/demo/photographs"


@pytest.fixture(scope="module")
def whole() -> Overlap:
    features = local_features(read_image(f"{PHOTOGRAPHS}/cat.jpg"))
    overlap = find_overlap(features, features)
    assert overlap is not None
    return overlap


def _judged(probability: float | None, overlap: Overlap | None = None, **options: bool) -> Verdict:
    verified = options.get("verified", overlap is not None)
    return judge(
        same_bytes=options.get("same_bytes", False),
        score=0.4,
        probability=probability,
        overlap=overlap,
        verified=verified,
    )


def test_calls_the_same_bytes_exact() -> None:
    assert _judged(0.0, same_bytes=True) == "exact"


def test_calls_a_picture_that_is_whole_in_the_other_exact(whole: Overlap) -> None:
    assert _judged(0.5, whole) == "exact"


@pytest.mark.parametrize(
    "change",
    [
        {"query_share": 0.5},
        {"reference_share": 0.5},
        {"flipped": True},
        {"rotation": 90.0},
        {"agreement": 0.7},
        {"alteration": 60.0},
    ],
    ids=lambda change: next(iter(change)),
)
def test_calls_a_proven_part_a_copy(whole: Overlap, change: dict[str, float]) -> None:
    assert _judged(0.001, replace(whole, **change)) == "copy"  # type: ignore[arg-type]


def _copied(edit: str, image: np.ndarray) -> np.ndarray:
    altered = image.copy()
    height, width = image.shape[:2]
    if edit == "covered":
        altered[height // 2 :, width // 2 :][: width // 12, : width // 12] = 0
    elif edit == "written on":
        place, size = (width // 4, height // 2), width / 500
        cv2.putText(altered, "FAKE NEWS", place, cv2.FONT_HERSHEY_SIMPLEX, size, (255, 255, 255), 2)
    elif edit == "half":
        altered = resize(image, width // 2, height // 2)
    else:
        suffix, quality = edit.split()
        _, data = cv2.imencode(suffix, image, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])
        altered = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
    return altered


@pytest.mark.parametrize("name", ["cat", "brook", "wine"])
@pytest.mark.parametrize(
    ("edit", "difference"),
    [
        (".jpg 92", None),
        (".jpg 80", None),
        (".png 0", None),
        ("half", None),
        ("covered", "their pixels differ visibly"),
        ("written on", "their pixels differ visibly"),
    ],
)
def test_tells_the_same_picture_from_one_that_was_altered(
    name: str, edit: str, difference: str | None
) -> None:
    image = read_image(f"{PHOTOGRAPHS}/{name}.jpg")
    overlap = find_overlap(local_features(_copied(edit, image)), local_features(image))
    assert overlap is not None
    assert what_differs(overlap) == difference
    assert _judged(0.9, overlap) == ("copy" if difference else "exact")


def test_believes_a_high_probability_where_no_proof_was_tried() -> None:
    assert _judged(0.95) == "copy"
    assert _judged(0.5) == "similar"
    assert _judged(0.95, verified=True) == "similar"


def test_calls_none_only_what_is_improbable() -> None:
    shared = {"same_bytes": False, "score": -0.1, "overlap": None, "verified": True}
    assert judge(probability=0.9, **shared) == "similar"  # type: ignore[arg-type]
    assert judge(probability=0.3, **shared) == "none"  # type: ignore[arg-type]


def test_goes_by_the_score_without_a_calibration() -> None:
    shared = {"same_bytes": False, "probability": None, "overlap": None, "least_score": 0.5}
    assert judge(score=0.6, verified=False, **shared) == "copy"  # type: ignore[arg-type]
    assert judge(score=0.4, verified=False, **shared) == "similar"  # type: ignore[arg-type]
    assert judge(score=0.6, verified=True, **shared) == "similar"  # type: ignore[arg-type]
    assert judge(score=-0.1, verified=False, **shared) == "none"  # type: ignore[arg-type]
    shared["least_score"] = -0.2
    assert judge(score=-0.1, verified=True, **shared) == "similar"  # type: ignore[arg-type]


def test_weighs_the_proof_and_its_absence(whole: Overlap) -> None:
    before = 0.5
    proven = weigh(before, overlap=whole, verified=True)
    unproven = weigh(before, overlap=None, verified=True)
    assert proven is not None
    assert unproven is not None
    assert unproven < before < proven
    assert weigh(before, overlap=None, verified=False) == before
    assert weigh(None, overlap=whole, verified=True) is None
    assert weigh(1.0, overlap=None, verified=True) == 1.0
    assert weigh(0.0, overlap=whole, verified=True) == 0.0


def test_weighs_a_certain_proof_more(whole: Overlap) -> None:
    weighed = [
        weigh(0.01, overlap=replace(whole, agreement=agreement, consensus=0.7), verified=True)
        for agreement in (0.4, 0.6, 0.8, 1.0)
    ]
    assert weighed == sorted(weighed)  # type: ignore[type-var]
    for found, log_ratio in ((weighed[0], 2), (weighed[-1], 8)):  # certainties of .55 and .85
        assert found == pytest.approx(1 / (1 + 99 * np.exp(-log_ratio)))


def test_does_not_believe_a_faint_proof_of_the_improbable(whole: Overlap) -> None:
    faint = replace(whole, agreement=0.5, consensus=0.6)
    assert _judged(0.5, faint) == "copy"
    assert _judged(0.001, faint) == "similar"
    assert _judged(0.001, replace(faint, agreement=0.95, consensus=0.95)) == "copy"
    assert _judged(None, faint) == "copy"


def test_ranks_proofs_first_and_certain_ones_before_high_scores(whole: Overlap) -> None:
    def match(reference: str, score: float, agreement: float | None) -> Match:
        overlap = None if agreement is None else replace(whole, agreement=agreement, consensus=0.7)
        return Match(
            query="q", reference=reference, similarity=score, score=score, probability=None,
            verdict="similar", overlap=overlap, verified=True,
        )  # fmt: skip

    matches = [
        match("unproven", 0.9, None),
        match("look-alike", 0.3, 0.4),
        match("copy", 0.2, 0.9),
        match("tied copy", 0.2, 0.9),
    ]
    ranked = [one.reference for one in sorted(matches, key=rank_key)]
    assert ranked == ["copy", "tied copy", "look-alike", "unproven"]
    same = replace(match("same", 0.6, None), verdict="exact")
    assert min([*matches, same], key=rank_key) is same


def test_writes_a_match_as_json(whole: Overlap) -> None:
    match = Match(
        query="q.jpg", reference="r.jpg", similarity=0.9, score=0.4, probability=0.99,
        verdict="copy", overlap=whole, verified=True, metadata={"owner": "me"},
    )  # fmt: skip
    fields = json.loads(json.dumps(match.to_json()))
    assert match.is_copy
    assert fields["metadata"] == {"owner": "me"}
    assert (fields["orientation"], fields["query_part"]) == ("upright", "whole")
    part = replace(match, orientation="flipped and rotated 90, top left")
    assert part.query_part == part.to_json()["query_part"] == "top left"
    assert fields["same_bytes"] is False
    assert fields["overlap"]["flipped"] is False
    assert replace(match, overlap=None).to_json()["overlap"] is None


def test_refuses_plain_pictures(rng: np.random.Generator) -> None:
    blank = np.full((90, 120, 3), 200, np.uint8)
    grainy = (blank + rng.normal(0, 4, blank.shape)).clip(0, 255).astype(np.uint8)
    ramp = np.repeat(np.linspace(90, 110, 120)[None, :, None], 90, axis=0)
    dotted = blank.copy()
    dotted[40:45, 50:55] = 0
    assert too_plain(blank) == "the picture is one colour"
    assert too_plain(grainy) == "the picture is one colour"
    assert "hardly any structure" in str(too_plain(np.repeat(ramp, 3, axis=2).astype(np.uint8)))
    assert "hardly any structure" in str(too_plain(dotted))
    strip = rng.integers(0, 255, (40, 70_000, 3)).astype(np.uint8)
    assert "fine grain" in str(too_plain(strip))
    assert too_plain(np.full((1, 1, 3), 7, np.uint8)) is not None


def test_judges_every_packaged_photograph() -> None:
    from pathlib import Path

    for path in sorted(Path(PHOTOGRAPHS).iterdir()):
        assert too_plain(read_image(path)) is None, path


def test_keeps_names_that_are_not_utf_8() -> None:
    match = Match(
        query=os.fsdecode(b"\xe9.jpg"),
        reference="b.jpg",
        similarity=0.5,
        score=0.4,
        probability=None,
        verdict="similar",
        overlap=None,
        verified=False,
    )
    fields = json.loads(json.dumps(match.to_json(), ensure_ascii=False).encode("utf-8"))
    assert read_name("query", fields) == match.query
    assert fields["reference"] == "b.jpg"
