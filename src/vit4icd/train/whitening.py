"""A projection that evens out what pictures have in common; it optimises nothing."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from vit4icd.datasets import ImageSource
from vit4icd.errors import DataError, ImageError
from vit4icd.images import read_image
from vit4icd.preprocessing import Preprocessing, prepare
from vit4icd.train.descriptor import DescriptorModel

__all__ = [
    "even_levels",
    "principal_directions",
    "require_enough",
    "set_projection",
    "whiten",
    "wide_features",
]

_BATCH = 32
_TINY = 1e-30  # what stands for the variance of features that are all the same


def whiten(
    model: DescriptorModel, wide: Float[np.ndarray, "image wide"], *, power: float = 0.75
) -> None:
    """Replace a model's projection by one onto the principal directions of wide features.

    With their mean m, and the ``dim`` largest eigenvalues l of their covariance, eigenvectors V::

        raw = diag(l^(-power / 2)) V^T (wide - m)

    so that directions in which all pictures vary much (power 0) do not drown those that tell
    pictures apart; power 1 makes all directions equal. Where wide features have fewer numbers than
    descriptors, the rest of a descriptor is zero. Source: Jégou and Chum, Negative evidences
    and co-occurrences in image retrieval, 2012; the default power is measured (decision 5).

    Features of several levels are whitened each on its own and given the same variance; raw is
    then the ``dim`` principal directions of them all, which are those that levels agree on
    (decision 14).

    Raises:
        DataError: fewer pictures than the descriptor has dimensions.
    """
    require_enough(model, len(wide))
    mean = wide.mean(axis=0, dtype=np.float64)
    centred = wide - mean
    if len(model.wide_parts) == 1:
        directions = principal_directions(centred, model.dim, power)
    else:
        even = even_levels(centred, model.wide_parts, model.dim, power)
        directions = principal_directions(centred @ even.T, model.dim, 0.0) @ even
    set_projection(model, directions, mean)


def require_enough(model: DescriptorModel, n_pictures: int) -> None:
    """Refuse too few pictures to find as many directions in as a descriptor has numbers.

    Raises:
        DataError: fewer pictures than the descriptor has dimensions.
    """
    if n_pictures <= model.dim:
        raise DataError(
            f"whitening to {model.dim} dimensions needs more pictures than that, not {n_pictures}"
        )


def set_projection(
    model: DescriptorModel,
    directions: Float[np.ndarray, "direction wide"],
    mean: Float[np.ndarray, " wide"],
) -> None:
    """Make a descriptor the directions' products with wide - mean; numbers that are over are 0."""
    matrix = np.zeros((model.dim, len(mean)))
    matrix[: len(directions)] = directions
    with torch.no_grad():
        model.projection.weight.copy_(torch.from_numpy(matrix))
        model.projection.bias.copy_(torch.from_numpy(-matrix @ mean))
    if isinstance(model.projection_norm, nn.BatchNorm1d):
        model.projection_norm.reset_parameters()  # the identity, in evaluation mode


def even_levels(
    centred: Float[np.ndarray, "image wide"], parts: Sequence[int], n_largest: int, power: float
) -> Float[np.ndarray, "direction wide"]:
    """Return the principal directions of every level alone, with a variance of 1 for each level."""
    rows, end = [], 0
    for n_features in parts:
        level = slice(end, end := end + n_features)
        directions = principal_directions(centred[:, level], n_largest, power)
        variance = max((centred[:, level] @ directions.T).var(axis=0).sum(), _TINY)
        wide = np.zeros((len(directions), centred.shape[1]))
        wide[:, level] = directions / np.sqrt(variance)
        rows.append(wide)
    return np.concatenate(rows)


def principal_directions(
    centred: Float[np.ndarray, "image feature"], n_largest: int, power: float
) -> Float[np.ndarray, "direction feature"]:
    """Return the principal directions, each divided by its deviation to the power."""
    values, vectors = np.linalg.eigh(np.cov(centred.T))
    largest = np.argsort(-values)[:n_largest]
    scale = np.maximum(values[largest], max(1e-9 * values.max(), _TINY)) ** (-power / 2)
    directions: Float[np.ndarray, "direction feature"] = (vectors[:, largest] * scale).T
    return directions


def wide_features(
    model: DescriptorModel,
    pictures: ImageSource,
    preprocessing: Preprocessing,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Float[np.ndarray, "image wide"]:
    """Return the model's wide features of all pictures that can be read."""
    features = [np.empty((0, model.wide_dim), np.float32)]
    n_done = 0
    for pixels, n_read in _batches(pictures, preprocessing):
        if len(pixels):
            with torch.inference_mode():
                features.append(model(torch.from_numpy(pixels))[0].float().numpy())
        n_done += n_read
        if progress is not None:
            progress(n_done, len(pictures))
    return np.concatenate(features)


def _batches(
    pictures: ImageSource, preprocessing: Preprocessing
) -> Iterator[tuple[Float[np.ndarray, "image 3 size size"], int]]:
    """Yield prepared pictures and how many files they took."""
    for first in range(0, len(pictures), _BATCH):
        rows, good = range(first, min(first + _BATCH, len(pictures))), []
        for row in rows:
            try:
                image = read_image(pictures.read(row), at_least=preprocessing.at_least)
            except ImageError:
                continue
            good.append(prepare(image, preprocessing))
        yield np.stack(good) if good else np.empty((0, 3, 1, 1), np.float32), len(rows)
