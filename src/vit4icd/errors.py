"""The errors this package raises on purpose; anything else that escapes is a bug.

::

    Vit4icdError
    ├── ImageError       a file that is not a readable, acceptable picture (has a short ``reason``)
    ├── FormatError      a file of ours or of the original tools that is malformed, or too new
    ├── MismatchError    artefacts that do not belong together: ids, dimensions, fingerprints
    ├── DataError        values that break a stated rule: duplicates, NaN, too few neighbours
    ├── ConfigError      options or recipe fields that contradict each other
    ├── StoreError       a collection that cannot be reached, read or written
    ├── WeightsError     a weights file with missing, extra or misshapen tensors
    └── MissingExtraError   an optional dependency that is not installed

Every message says what was wrong, the value, and what to do.
"""

__all__ = [
    "ConfigError",
    "DataError",
    "FormatError",
    "ImageError",
    "MismatchError",
    "MissingExtraError",
    "StoreError",
    "Vit4icdError",
    "WeightsError",
]


class Vit4icdError(Exception):
    """Base of every error that this package raises on purpose."""


class ImageError(Vit4icdError):
    """A file that is not a readable, acceptable picture; ``reason`` is a short stable code."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class FormatError(Vit4icdError):
    """A file that is malformed, truncated, or written by a newer version."""


class MismatchError(Vit4icdError):
    """Artefacts that do not belong together: ids, dimensions or fingerprints differ."""


class DataError(Vit4icdError):
    """Values that break a stated rule, such as duplicate predictions or too few neighbours."""


class ConfigError(Vit4icdError):
    """Options or recipe fields that are out of range or contradict each other."""


class StoreError(Vit4icdError):
    """A collection that cannot be reached, read or written: no access, no space, lost files."""


class WeightsError(Vit4icdError):
    """A weights file with missing, extra or misshapen tensors."""


class MissingExtraError(Vit4icdError):
    """An optional dependency is not installed; the message names the pip command."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"{package} is not installed; this command needs it: pip install 'vit4icd[{extra}]'"
        )
