"""A projection that evens out what pictures have in common; it optimises nothing."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from vit4icd.datasets import ImageSource
from vit4icd.errors import DataError, ImageError
from vit4icd.images import read_image
from vit4icd.preprocessing import Preprocessing, prepare
from vit4icd.train.descriptor import DescriptorModel

__all__ = ["whiten", "wide_features"]

_BATCH = 32


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

    Raises:
        DataError: fewer pictures than the descriptor has dimensions.
    """
    if len(wide) <= model.dim:
        raise DataError(
            f"whitening to {model.dim} dimensions needs more pictures than that, not {len(wide)}"
        )
    mean = wide.mean(axis=0, dtype=np.float64)
    values, vectors = np.linalg.eigh(np.cov((wide - mean).T))
    largest = np.argsort(-values)[: model.dim]
    scale = np.maximum(values[largest], 1e-9 * values.max()) ** (-power / 2)
    matrix = np.zeros((model.dim, wide.shape[1]))
    matrix[: len(largest)] = (vectors[:, largest] * scale).T
    with torch.no_grad():
        model.projection.weight.copy_(torch.from_numpy(matrix))
        model.projection.bias.copy_(torch.from_numpy(-matrix @ mean))
    if isinstance(model.projection_norm, nn.BatchNorm1d):
        model.projection_norm.reset_parameters()  # the identity, in evaluation mode


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
        if good:
            yield np.stack(good), len(rows)
