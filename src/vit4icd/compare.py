"""One picture against another: are they copies, and of which part; it keeps nothing."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from vit4icd.describer import OnnxDescriber, load_describer
from vit4icd.errors import ImageError
from vit4icd.images import MAX_PIXELS, Source, read_bytes, read_image
from vit4icd.matches import Match, refuse_plain
from vit4icd.overlap import OverlapConfig, find_overlap, local_features
from vit4icd.scale import Scale
from vit4icd.storage import name_fields

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

    The probability is that of the most alike of a hundred pairs, for two pictures are compared
    because they look alike. A picture without a path is called "query" or "reference".

    Raises:
        ImageError: a picture, named, that cannot be read, or is too plain to judge
            ("image_too_plain"), unless the two are the same.

    Example:
        >>> from importlib.resources import files
        >>> pictures = Path(str(files("vit4icd") / "demo"))
        >>> compare(pictures / "queries/q02.jpg", pictures / "photographs/brook.jpg").verdict
        'copy'
    """
    describer = describer or load_describer()
    scale = Scale(describer=describer, n_chances=1)
    names = _name(query, "query"), _name(reference, "reference")
    given = [_loaded(name, source) for name, source in zip(names, (query, reference), strict=True)]
    images = [_decoded(name, source, max_pixels) for name, source in zip(names, given, strict=True)]
    same_bytes = _same(given, images)
    for name, image in zip(names, images, strict=True) if not same_bytes else ():
        with _named(name):
            refuse_plain(image)
    vectors = describer.describe_images(images)
    similarity = float(vectors[0] @ vectors[1])
    score = similarity + float(scale.bias(vectors[:1])[0])
    return Match.judged(
        names[0],
        names[1],
        similarity=similarity,
        score=score,
        probability=scale.probability(score),
        overlap=find_overlap(local_features(images[0]), local_features(images[1]), config),
        verified=True,
        same_bytes=same_bytes,
        least_score=scale.auto,
    )


def _loaded(name: str, source: Source) -> Source:
    with _named(name):
        return read_bytes(Path(source)) if isinstance(source, str | Path) else source


def _decoded(name: str, source: Source, max_pixels: int) -> np.ndarray:
    with _named(name):
        return read_image(source, max_pixels=max_pixels)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Say of which picture an error is, where it does not say so itself."""
    try:
        yield
    except ImageError as error:
        shown, message = name_fields("name", name)["name"], str(error)
        told = message if shown in message else f"{shown}: {message}"
        raise ImageError(error.reason, told) from error


def _same(given: Sequence[Source], images: Sequence[np.ndarray]) -> bool:
    """Return whether two files have the same bytes, or pictures from memory the same pixels."""
    if all(isinstance(source, bytes) for source in given):
        return given[0] == given[1]
    return np.array_equal(images[0], images[1])


def _name(source: Source, otherwise: str) -> str:
    return str(source) if isinstance(source, str | Path) else otherwise
