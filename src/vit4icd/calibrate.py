"""Measures what a model's scores mean: copies are made, described and scored; nothing is trained.

The result goes into the model's folder: a background set for score normalisation and the
calibration, so that both work out of the box.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from vit4icd.calibration import (
    Calibration,
    fit_calibration,
    require_enough,
    write_calibration,
)
from vit4icd.datasets import ImageSource
from vit4icd.describer import OnnxDescriber
from vit4icd.edits import EDITS, edited_copy, robust_config
from vit4icd.errors import DataError, ImageError
from vit4icd.images import read_image
from vit4icd.report import figures, histogram, line_chart, page, paragraph, section, table
from vit4icd.scores import ScoreNormalisation, normalise
from vit4icd.storage import write_descriptors
from vit4icd.types import DescriptorSet, require_same_model

__all__ = ["CalibrationReport", "calibrate", "calibration_page", "threshold_rows"]

_BINS = 10
Vectors = Float32[np.ndarray, "_ dim"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationReport:
    """A calibration, and how it did on pictures that it was not fitted on."""

    calibration: Calibration
    reliability: list[tuple[float, float, int]]
    """Per bin of probability: its mean, the share that were copies, how many queries."""
    copies: np.ndarray
    """Scores of copies against their originals, of the pictures held back."""
    unrelated: np.ndarray
    """Best score of each query whose original is not there."""
    n_pictures: int
    n_references: int
    n_skipped: int


def calibrate(
    describer: OnnxDescriber,
    pictures: ImageSource,
    *,
    background: DescriptorSet,
    unrelated: DescriptorSet,
    folder: Path | None = None,
    n_copies: int = 8,
    seed: int = 0,
    source: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> CalibrationReport:
    """Fit score -> probability on generated copies, and store it with the background in ``folder``.

    Each picture gets ``n_copies`` copies with 1 to 4 edits of all kinds, those never trained on
    included. Copies of every second picture give the fit, those of the others check it: half of the
    latter search a collection that lacks their original. Pictures should be new to the model.

    Raises:
        DataError: too few readable pictures, of the background, or unrelated ones.
        MismatchError: background or unrelated descriptors of another model.
    """
    normalisation = ScoreNormalisation(factor=1.0, neighbours=10)
    no_queries = _set_of(describer, np.empty((0, describer.dim), np.float32))
    require_same_model(no_queries, unrelated, called="the unrelated pictures")
    normalise(no_queries, background, config=normalisation)  # refused, if it is, before the work
    n_fitted = (len(pictures) + 1) // 2 * n_copies  # at most
    require_enough(n_fitted, n_fitted * len(unrelated))
    originals, copies, owners, n_skipped = _describe(
        describer, pictures, n_copies=n_copies, seed=seed, progress=progress
    )
    if len(originals) < 8:
        raise DataError(f"calibration needs more pictures; {len(originals)} could be read")
    bias = normalise(_set_of(describer, copies), background, config=normalisation).bias
    own = (copies * originals[owners]).sum(axis=1) + bias
    others = copies @ np.asarray(unrelated.vectors).T + bias[:, None]
    fits = owners % 2 == 0
    calibration = fit_calibration(
        own[fits].astype(np.float64),
        others[fits].ravel().astype(np.float64),
        fingerprint=describer.fingerprint,
        factor=normalisation.factor,
        neighbours=normalisation.neighbours,
        source=source,
    )
    held_own, held_best_other = own[~fits], others[~fits].max(axis=1)
    present = np.arange(len(held_own)) % 2 == 0
    if folder is not None:
        _store(folder, calibration, background)
    return CalibrationReport(
        calibration=calibration,
        reliability=_reliability(
            calibration, held_own, held_best_other, present=present, n_references=len(unrelated)
        ),
        copies=held_own,
        unrelated=held_best_other[~present],
        n_pictures=len(originals),
        n_references=len(unrelated),
        n_skipped=n_skipped,
    )


def threshold_rows(calibration: Calibration) -> list[tuple[str, str, str, str]]:
    """Return the stated thresholds as people read them: references, precision, score, recall."""
    return [
        (
            f"{int(row['n_references']):,}",
            f"{100 * row['precision']:g} %",
            f"{row['score']:.3f}",
            f"{100 * row['recall']:.1f} %",
        )
        for row in calibration.thresholds()
    ]


def calibration_page(report: CalibrationReport) -> str:
    """Return a page with the reliability diagram, the scores and the thresholds."""
    calibration = report.calibration
    edges = np.linspace(-0.5, 1.0, 61)
    counts = {
        "copies, against their original": np.histogram(report.copies, edges)[0].tolist(),
        "no original there: best match": np.histogram(report.unrelated, edges)[0].tolist(),
    }
    curves = {
        "this model": [(mean, share) for mean, share, _ in report.reliability],
        "ideal": [(0.0, 0.0), (1.0, 1.0)],
    }
    bins = [
        (f"{mean:.3f}", f"{share:.3f}", str(count)) for mean, share, count in report.reliability
    ]
    return page(
        "What a score means",
        [
            figures(
                [
                    ("pictures", str(report.n_pictures), "new to the model; half fit, half check"),
                    ("copies in the fit", f"{calibration.n_copies:,}", "1 to 4 edits each"),
                    ("unrelated pairs in the fit", f"{calibration.n_unrelated:,}", ""),
                    ("model", calibration.fingerprint[:8], calibration.source),
                ]
            ),
            line_chart(
                f"Reliability, {report.n_references:,} references, half of the queries copies",
                curves,
                x_label="probability told",
                y_label="share that were copies",
            ),
            section("Bins", table("Best match of each query", ("told", "true", "queries"), bins)),
            histogram("Normalised scores", counts, edges=edges.tolist(), x_label="score"),
            section(
                "Thresholds",
                table(
                    "Score from which on so many reported pairs are copies, a fifth of queries "
                    "being copies, and the share of copies found",
                    ("references", "precision", "score", "recall"),
                    threshold_rows(calibration),
                ),
            ),
            paragraph(
                "Unrelated pairs are of random photographs. Look-alikes (series of one scene, "
                "logos, templates) score higher; fit your own pictures with vit4icd calibrate."
            ),
        ],
    )


def _reliability(
    calibration: Calibration,
    own: np.ndarray,
    best_other: np.ndarray,
    *,
    present: np.ndarray,
    n_references: int,
) -> list[tuple[float, float, int]]:
    """Take each query's best match, its original where that is present; bin what is told of it."""
    score = np.where(present, np.maximum(own, best_other), best_other)
    right = present & (own > best_other)
    told = calibration.probability(score, n_references=n_references, copy_share=0.5)
    bins = np.minimum((told * _BINS).astype(int), _BINS - 1)
    return [
        (float(told[bins == b].mean()), float(right[bins == b].mean()), int((bins == b).sum()))
        for b in range(_BINS)
        if (bins == b).any()
    ]


def _describe(
    describer: OnnxDescriber,
    pictures: ImageSource,
    *,
    n_copies: int,
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[Vectors, Vectors, np.ndarray, int]:
    """Return originals, copies, the row of each copy's original, and how many were skipped."""
    size = describer.preprocessing.image_size
    config = replace(robust_config(), names=tuple(EDITS))
    readable = _readable(pictures)

    def donor(number: int) -> UInt8[np.ndarray, "_ _ 3"]:
        return read_image(pictures.read(readable[number % len(readable)]), at_least=size)

    originals: list[np.ndarray] = []
    copies: list[np.ndarray] = []
    for done, row in enumerate(readable):
        image = read_image(pictures.read(row))
        made = [
            edited_copy(
                image,
                edit_rng=np.random.default_rng((seed, row, number)),
                config=config,
                donors=donor,
                size=size,
            )
            for number in range(n_copies)
        ]
        described = describer.describe_images([image, *made])
        originals.append(described[:1])
        copies.append(described[1:])
        if progress is not None:
            progress(done + 1, len(readable))
    if not originals:
        raise DataError("no picture can be read")
    owners = np.repeat(np.arange(len(originals)), n_copies)
    n_skipped = len(pictures) - len(readable)
    return np.concatenate(originals), np.concatenate(copies), owners, n_skipped


def _set_of(describer: OnnxDescriber, vectors: Vectors) -> DescriptorSet:
    ids = [str(row) for row in range(len(vectors))]
    return DescriptorSet(ids=ids, vectors=vectors, fingerprint=describer.fingerprint)


def _readable(pictures: ImageSource) -> list[int]:
    rows = []
    for row in range(len(pictures)):
        try:
            read_image(pictures.read(row))
        except ImageError:
            continue
        rows.append(row)
    return rows


def _store(folder: Path, calibration: Calibration, background: DescriptorSet) -> None:
    """Write both, nameless and under the model's name; no kill leaves two that do not belong."""
    ids = [f"B{row:05d}" for row in range(len(background))]
    own = replace(background, ids=ids, fingerprint=calibration.fingerprint)
    (folder / "calibration.json").unlink(missing_ok=True)
    write_descriptors(folder / "background.h5", own, half=True)
    write_calibration(folder, calibration)
