"""The losses, pure functions of tensors; which stage adds which is another room's."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from vit4icd.errors import DataError

__all__ = [
    "CosFace",
    "compatibility_loss",
    "cosface_logits",
    "cosface_loss",
    "info_nce_entropy",
    "nearest_push",
    "pair_pull",
]

_SAME_PICTURE = 1e6  # added to the squared distance of equal names, so that they are never nearest


def cosface_logits(
    features: Float[Tensor, "image dim"],
    weight: Float[Tensor, "class dim"],
    labels: Int64[Tensor, " image"],
    *,
    scale: float,
    margin: float,
) -> Float[Tensor, "image class"]:
    """Return s (cos(x_i, w_j) - m [j = y_i]), cosines with norms' product clamped at 1e-8.

    Source: Wang et al. 2018 (CosFace), as ViT4ICD computes it.
    """
    norms = features.norm(dim=1, keepdim=True) * weight.norm(dim=1)
    cosines = features @ weight.t() / norms.clamp(min=1e-8)
    margins = torch.zeros_like(cosines).scatter_(1, labels[:, None], margin)
    return scale * (cosines - margins)


def cosface_loss(
    features: Float[Tensor, "image dim"],
    weight: Float[Tensor, "class dim"],
    labels: Int64[Tensor, " image"],
    *,
    scale: float,
    margin: float,
) -> Float[Tensor, ""]:
    """Return the mean softmax cross-entropy of the CosFace logits."""
    return F.cross_entropy(
        cosface_logits(features, weight, labels, scale=scale, margin=margin), labels
    )


class CosFace(nn.Module):
    """A classification head: one weight vector per class, Xavier-uniform, no bias."""

    def __init__(self, n_classes: int, dim: int, *, scale: float, margin: float) -> None:
        super().__init__()
        self.scale, self.margin = scale, margin
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(n_classes, dim)))

    def forward(
        self, features: Float[Tensor, "image dim"], labels: Int64[Tensor, " image"]
    ) -> Float[Tensor, ""]:
        """Return :func:`cosface_loss` with this head's weights."""
        return cosface_loss(features, self.weight, labels, scale=self.scale, margin=self.margin)


def compatibility_loss(
    student: Float[Tensor, "image dim"], teacher: Float[Tensor, "image dim"]
) -> Float[Tensor, ""]:
    """Return the mean squared distance of normalised descriptors, 2 - 2 cos (ViT4ICD, L_sp)."""
    return (F.normalize(student) - F.normalize(teacher)).square().sum(1).mean()


def pair_pull(
    queries: Float[Tensor, "pair dim"], references: Float[Tensor, "pair dim"]
) -> Float[Tensor, ""]:
    """Return the mean squared distance of each query to its reference (ViT4ICD, L_gt)."""
    return compatibility_loss(queries, references)


def nearest_push(
    raw: Float[Tensor, "image dim"], names: Int64[Tensor, " image"]
) -> Float[Tensor, ""]:
    """Return the mean squared distance to the nearest image with another name (half of L_ng).

    Gradients flow through both ends of the nearest pair.

    Raises:
        DataError: all names are equal, so that there is no other image.
    """
    if bool((names == names[0]).all()):
        raise DataError(
            f"all {len(names)} labelled pairs of a batch show the same picture; shuffle the pairs "
            "or give more of them"
        )
    unit = F.normalize(raw)
    distances = 2.0 - 2.0 * (unit @ unit.t())
    same = (names[:, None] == names[None, :]).to(distances.dtype)
    return (distances + _SAME_PICTURE * same).min(dim=1).values.mean()


def info_nce_entropy(
    raw: Float[Tensor, "image dim"],
    labels: Int64[Tensor, " image"],
    *,
    temperature: float,
    entropy_weight: float,
    others: Float[Tensor, "other dim"] | None = None,
    other_labels: Int64[Tensor, " other"] | None = None,
) -> Float[Tensor, ""]:
    """Return InfoNCE over images of the same class plus w times the negative entropy.

    With unit descriptors z, s_ij = <z_i, z_j> and the positives P_i of image i::

        -mean_i mean_{p in P_i} log softmax_{j != i}(s_ij / T)[p]
        - w mean_i log min_{j: y_j != y_i} |z_i - z_j|

    j also runs over ``others`` of another class, descriptors of earlier batches (Wang et al. 2020,
    cross-batch memory). Images without a positive only take part as negatives. Source: Pizzi et
    al. 2022 (SSCD), eqs. 2 and 3.
    """
    unit = F.normalize(raw)
    n_images = len(unit)
    if others is not None and other_labels is not None:
        columns = torch.cat([unit, others])
        column_labels = torch.cat([labels, other_labels])
    else:
        columns, column_labels = unit, labels
    similarity = unit @ columns.t()
    same = labels[:, None] == column_labels[None, :]
    positives = same.clone()
    positives[:, n_images:] = False
    positives.fill_diagonal_(False)
    log_shares = (similarity / temperature).masked_fill(same & ~positives, -torch.inf)
    log_shares = log_shares.log_softmax(dim=1)
    has_positive = positives.any(dim=1)
    per_image = -log_shares.masked_fill(~positives, 0.0).sum(1) / positives.sum(1).clamp(min=1)
    contrast = per_image[has_positive].mean() if bool(has_positive.any()) else similarity.sum() * 0
    nearest = similarity.masked_fill(same, -1.0).max(dim=1).values
    distance = (2.0 - 2.0 * nearest).clamp(min=1e-6).sqrt()
    return contrast - entropy_weight * distance.log().mean()
