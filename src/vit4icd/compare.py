"""One picture against another: are they copies, and of which part; it keeps nothing."""

from pathlib import Path

import numpy as np

from vit4icd.collection.scale import Scale
from vit4icd.describer import OnnxDescriber, load_describer
from vit4icd.errors import ImageError
from vit4icd.images import MAX_PIXELS, Source, read_bytes, read_image
from vit4icd.matches import Match, judge, too_plain, weigh
from vit4icd.overlap import OverlapConfig, find_overlap, local_features

__all__ = ["compare"]


def compare(
    query: Source,
    reference: Source,
    *,
    describer: OnnxDescriber | None = None,
    config: OverlapConfig | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Match:
    """Compare two pictures, given as paths, bytes, Pillow's pictures or arrays, and try a proof.

    The probability is that of a pair out of many, a fifth of which are copies. A picture without a
    path is called "query" or "reference".

    Raises:
        ImageError: a picture that cannot be read, or is too plain to judge ("image_too_plain").

    Example:
        >>> from importlib.resources import files
        >>> pictures = Path(str(files("vit4icd") / "demo"))
        >>> compare(pictures / "queries/q02.jpg", pictures / "photographs/brook.jpg").verdict
        'copy'
    """
    describer = describer or load_describer()
    scale = Scale(describer=describer, n_chances=1)
    given = [_bytes(source) for source in (query, reference)]
    images = [_readable(source, max_pixels) for source in given]
    vectors = describer.describe_images(images)
    similarity = float(vectors[0] @ vectors[1])
    score = similarity + float(scale.bias(vectors[:1])[0])
    probability = scale.probability(score)
    overlap = find_overlap(local_features(images[0]), local_features(images[1]), config)
    verdict = judge(
        same_bytes=_same(*given),
        score=score,
        probability=probability,
        overlap=overlap,
        verified=True,
        least_score=scale.threshold("auto") if _tells(describer) else None,
    )
    return Match(
        query=_name(query, "query"),
        reference=_name(reference, "reference"),
        similarity=similarity,
        score=score,
        probability=weigh(probability, overlap=overlap, verified=True),
        verdict=verdict,
        overlap=overlap,
        verified=True,
    )


def _bytes(source: Source) -> Source:
    return read_bytes(Path(source)) if isinstance(source, str | Path) else source


def _readable(source: Source, max_pixels: int) -> np.ndarray:
    image = read_image(source, max_pixels=max_pixels)
    if (reason := too_plain(image)) is not None:
        raise ImageError("image_too_plain", f"{reason}: it would match everything like it")
    return image


def _same(one: Source, other: Source) -> bool:
    if isinstance(one, bytes) and isinstance(other, bytes):
        return one == other
    return np.array_equal(read_image(one), read_image(other))


def _tells(describer: OnnxDescriber) -> bool:
    return describer.calibration is not None or "P90" in describer.card.thresholds


def _name(source: Source, otherwise: str) -> str:
    return str(source) if isinstance(source, str | Path) else otherwise
