"""A projection learnt on edited copies, the network before it as it is; it writes no file."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float16
from torch import Tensor

from vit4icd.copies import first_readable
from vit4icd.datasets import ImageSource
from vit4icd.edits import EditConfig, edited_copy
from vit4icd.errors import DataError, ImageError
from vit4icd.images import read_image
from vit4icd.preprocessing import Preprocessing, prepare
from vit4icd.train.descriptor import DescriptorModel
from vit4icd.train.losses import info_nce_entropy
from vit4icd.train.whitening import (
    even_levels,
    principal_directions,
    require_enough,
    set_projection,
)

__all__ = ["FitConfig", "features_of_copies", "fit_projection"]

_KEPT = 2  # directions that are learnt from, times the numbers of a descriptor; at most one for two
# pictures, for directions in which plain pictures hardly vary would be blown up in their copies
_PASSES, _LEAST_STEPS = 70, 400  # decision 14
_AHEAD = 8  # pictures whose copies are made while the network describes as many


@dataclass(frozen=True, kw_only=True, slots=True)
class FitConfig:
    """How a projection is learnt; the weight of the entropy term is that of SSCD."""

    n_steps: int | None = None
    """None: as many as show each picture 70 times, but no fewer than 400."""
    n_pictures: int = 1024
    """Pictures in a step, two copies of each: far more than a network could be trained on."""
    learning_rate: float = 3e-4
    """Adam's, falling linearly to 0."""
    temperature: float = 0.05
    entropy: float = 30.0
    seed: int = 0


def fit_projection(
    model: DescriptorModel,
    copies: Float16[np.ndarray, "picture copy wide"],
    *,
    config: FitConfig | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Replace a model's projection by one that tells copies of a picture from those of others.

    ``copies[:, 0]`` are the wide features of the plain pictures, the others those of edited copies.
    Starts from the whitened plain pictures (every level evened out with power 1, their common
    principal directions) and minimises InfoNCE with an entropy term over two copies of each picture
    of a batch. As nothing before the projection changes, features are computed once and batches can
    hold a thousand pictures. The numbers of a raw descriptor have a variance of 1 in the mean, so
    that a training can go on from here. Source: Pizzi et al. 2022 (SSCD), eqs. 2, 3; decision 14.

    Raises:
        DataError: fewer pictures than the descriptor has dimensions, or no edited copies.
    """
    config = config or FitConfig()
    n_pictures, n_copies = copies.shape[:2]
    require_enough(model, n_pictures)
    if n_copies < 2:
        raise DataError("a projection is learnt on edited copies, but there are none")
    plain = copies[:, 0].astype(np.float64)
    mean = plain.mean(axis=0)
    n_kept = min(_KEPT * model.dim // len(model.wide_parts), n_pictures // 2)
    basis = even_levels(plain - mean, model.wide_parts, n_kept, 1.0)
    del plain
    features = (copies - mean.astype(np.float32)) @ basis.T.astype(np.float32)
    start = principal_directions(features[:, 0], model.dim, 0.0).astype(np.float32)
    weight = _learnt(torch.from_numpy(features), torch.from_numpy(start), config, progress).numpy()
    deviation = np.sqrt((features[:, 0] @ weight.T).var(axis=0).mean())
    set_projection(model, weight.astype(np.float64) / deviation @ basis, mean)


def features_of_copies(
    model: DescriptorModel,
    pictures: ImageSource,
    preprocessing: Preprocessing,
    *,
    n_copies: int,
    edits: EditConfig,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Float16[np.ndarray, "picture copy wide"]:
    """Return the wide features of every readable picture and of ``n_copies`` edited copies.

    The copies of a picture depend on (seed, its place among the pictures) alone.
    """
    found = [np.empty((0, 1 + n_copies, model.wide_dim), np.float16)]
    job = _Copies(pictures, preprocessing, n_copies, edits, seed)
    for n_done, pixels in job.batches():
        if len(pixels):
            with torch.inference_mode():
                wide = model(torch.from_numpy(pixels))[0].half().numpy()
            found.append(wide.reshape(-1, 1 + n_copies, model.wide_dim))
        if progress is not None:
            progress(n_done, len(pictures))
    return np.concatenate(found)


def _learnt(
    features: Float[Tensor, "picture copy feature"],
    start: Float[Tensor, "dim feature"],
    config: FitConfig,
    progress: Callable[[int, int], None] | None,
) -> Float[Tensor, "dim feature"]:
    weight = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([weight], lr=config.learning_rate)
    generator = torch.Generator().manual_seed(config.seed)
    n_pictures, n_copies = features.shape[:2]
    size = min(config.n_pictures, n_pictures)
    n_steps = config.n_steps or max(_LEAST_STEPS, _PASSES * n_pictures // size)
    labels = torch.arange(size).repeat(2)
    for step in range(n_steps):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * (1 - step / n_steps)
        rows = torch.randperm(n_pictures, generator=generator)[:size]
        one = torch.randint(n_copies, (size,), generator=generator)
        other = (one + 1 + torch.randint(n_copies - 1, (size,), generator=generator)) % n_copies
        batch = torch.cat([features[rows, one], features[rows, other]])
        loss = info_nce_entropy(
            batch @ weight.t(),
            labels,
            temperature=config.temperature,
            entropy_weight=config.entropy,
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if progress is not None:
            progress(step + 1, n_steps)
    return weight.detach()


@dataclass(frozen=True, slots=True)
class _Copies:
    """Pictures with their edited copies, made by threads ahead of the network."""

    pictures: ImageSource
    preprocessing: Preprocessing
    n_copies: int
    edits: EditConfig
    seed: int

    def batches(self) -> Iterator[tuple[int, Float[np.ndarray, "image 3 size size"]]]:
        """Yield how many pictures are done, and the pixels of those of them that can be read."""
        n_threads = max(1, torch.get_num_threads())
        with ThreadPoolExecutor(n_threads, "copies") as threads:
            rows = range(len(self.pictures))
            ahead = threads.map(self._picture_and_copies, rows[:_AHEAD])
            for first in rows[::_AHEAD]:
                now = [views for views in ahead if views is not None]
                end = min(first + _AHEAD, len(rows))
                ahead = threads.map(self._picture_and_copies, rows[end : end + _AHEAD])
                yield end, np.concatenate(now) if now else np.empty((0, 3, 1, 1), np.float32)

    def _picture_and_copies(self, row: int) -> Float[np.ndarray, "copy 3 size size"] | None:
        try:
            image = read_image(self.pictures.read(row), at_least=self.preprocessing.at_least)
        except ImageError:
            return None
        edit_rng = np.random.default_rng((self.seed, row))
        edited = [
            edited_copy(
                image,
                edit_rng=edit_rng,
                config=self.edits,
                donors=self._donor,
                size=self.preprocessing.image_size,
            )
            for _ in range(self.n_copies)
        ]
        return np.stack([prepare(each, self.preprocessing) for each in (image, *edited)])

    def _donor(self, number: int) -> np.ndarray:
        return first_readable(self.pictures, number, at_least=self.preprocessing.at_least)
