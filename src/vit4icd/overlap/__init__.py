"""Proof of a copy: which part of a picture lies in another; it knows no descriptors or scores."""

from vit4icd.overlap.features import LocalFeatures, features_of, local_features
from vit4icd.overlap.proof import Overlap, OverlapConfig, find_overlap

__all__ = [
    "LocalFeatures",
    "Overlap",
    "OverlapConfig",
    "features_of",
    "find_overlap",
    "local_features",
]
