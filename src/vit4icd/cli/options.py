"""What options come to, once the environment, the settings files and lists of paths are read."""

import errno
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from vit4icd.cli.arguments import Device, Format
from vit4icd.cli.terminal import shown
from vit4icd.errors import ConfigError, DataError, StoreError
from vit4icd.settings import effective

if TYPE_CHECKING:
    from vit4icd.collection import Collection, Pictures
    from vit4icd.describer import OnnxDescriber

__all__ = [
    "Options",
    "file_of",
    "format_of",
    "most_pixels",
    "open_collection",
    "open_describer",
    "paths_of",
    "pictures_in",
    "require_counts",
    "require_no_folder",
    "require_outputs",
    "require_printable",
    "require_seed",
    "require_there",
    "settled",
]

_ENDINGS: Mapping[str, Format] = {
    ".json": "json", ".jsonl": "jsonl", ".csv": "csv", ".parquet": "parquet",
}  # fmt: skip
_THREAD_COUNTS = (
    "OMP_NUM_THREADS",  # faiss, Arrow
    "OPENBLAS_NUM_THREADS",  # NumPy
    "OPENCV_FOR_THREADS_NUM",
    "LANCE_CPU_THREADS",
)


@dataclass(frozen=True, slots=True)
class Options:
    """The settings in effect."""

    model: Path | None
    device: Device
    threads: int | None
    threshold: str


def settled(
    model: Path | None = None,
    device: Device | None = None,
    threads: int | None = None,
    threshold: str | None = None,
) -> Options:
    """Return the options as given, or else as set; what is None was not given.

    Verbs call it before they import the rooms that they need: libraries that start threads of their
    own learn from the environment, once, how many.
    """
    flags = {
        "model": None if model is None else str(model),
        "device": device,
        "threads": threads,
        "threshold": threshold,
    }
    value = {name: setting.value for name, setting in effective(flags).items()}
    if value["threads"] is not None:
        os.environ.update(dict.fromkeys(_THREAD_COUNTS, str(value["threads"])))
    return Options(
        model=None if value["model"] is None else Path(str(value["model"])),
        device=cast("Device", value["device"]),
        threads=cast("int | None", value["threads"]),
        threshold=str(value["threshold"]),
    )


def open_describer(options: Options) -> "OnnxDescriber":
    """Open the model."""
    from vit4icd.describer import load_describer

    return load_describer(options.model, device=options.device, n_threads=options.threads)


def open_collection(
    collection: str, options: Options | None = None, *, make: bool = False
) -> "Collection":
    """Open a collection, with its model if options say which; make one if that is asked for."""
    from vit4icd.collection import Collection

    describer = None if options is None else open_describer(options)
    if make and not Collection.exists(collection):
        try:
            return Collection.create(collection, describer=describer)
        except (ConfigError, StoreError):
            if not Collection.exists(collection):
                raise  # else another process has made it meanwhile
    return Collection.open(collection, describer=describer)


def require_counts(**counts: int | None) -> None:
    """Refuse a count below 1; each is named as its option is.

    Raises:
        ConfigError: there is one.

    Example:
        >>> require_counts(limit=0)
        Traceback (most recent call last):
        ...
        vit4icd.errors.ConfigError: --limit must be at least 1, not 0
    """
    for name, count in counts.items():
        if count is not None and count < 1:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, not {count}")


def most_pixels(asked: int | None) -> int:
    """Return the pixels that a picture may have: as asked, or the packaged limit."""
    from vit4icd.images import MAX_PIXELS

    require_counts(max_pixels=asked)
    return MAX_PIXELS if asked is None else asked


def file_of(out: Path | None) -> Path | None:
    """Return the file that answers go to, once it is known that they can; None: stdout, also as -.

    Raises:
        OSError: as :func:`require_outputs`.
    """
    if str(out) == "-":
        return None
    require_outputs(out)
    return out


def format_of(file: Path | None) -> Format:
    """Return the format that a file's name ends in; of stdout and other names, a table.

    Example:
        >>> format_of(Path("answers.CSV")), format_of(Path("answers.txt")), format_of(None)
        ('csv', 'table', 'table')
    """
    return "table" if file is None else _ENDINGS.get(file.suffix.lower(), "table")


def require_outputs(*files: Path | None, folder: Path | None = None) -> None:
    """Refuse, before any work, files that no folder could hold, and a folder that is a file.

    Raises:
        OSError: as writing there would, with the path that the user gave.
    """
    for file in files:
        if file is not None and not file.parent.is_dir():
            said = "there is no such folder; make it first"
            raise FileNotFoundError(errno.ENOENT, said, str(file.parent))
        if file is not None:
            require_no_folder(file)
    if folder is not None and folder.exists() and not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "a file; name a folder", str(folder))


def require_no_folder(file: Path) -> None:
    """Refuse, before any work, a folder where a file is to be written.

    Raises:
        IsADirectoryError: as writing there would, with the path that the user gave.
    """
    if file.is_dir():
        raise IsADirectoryError(errno.EISDIR, "a folder; name a file", str(file))


def require_printable(format_: str, out: Path | None) -> None:
    """Refuse, before any work, to send a terminal what none can show.

    Raises:
        ConfigError: Parquet for a terminal.
    """
    if format_ == "parquet" and out is None and sys.stdout.isatty():
        raise ConfigError("Parquet is no text: name a file with --out, or send it into a pipe")


def require_seed(seed: int) -> None:
    """Refuse a negative seed.

    Raises:
        ConfigError: it is one.
    """
    if seed < 0:
        raise ConfigError(f"--seed must be at least 0, not {seed}")


def require_there(paths: Iterable[Path]) -> None:
    """Refuse, before any work, a path that does not exist.

    Raises:
        DataError: there is one.
    """
    for path in paths:
        if not path.exists() and not path.is_symlink():
            advice = "look at its spelling"
            if "\n" in str(path):
                advice = "a list of paths ends each by a NUL byte, as find -print0 does"
            raise DataError(f"there is no file or folder {shown(str(path))}; {advice}")


def pictures_in(paths: Sequence[Path]) -> "Pictures":
    """Look the pictures up that paths, folders and shards hold, each once.

    Raises:
        DataError: a path that does not exist, or there is none.
    """
    from vit4icd.collection import Pictures

    require_there(paths)
    found = Pictures(paths, once=True)
    if not len(found):
        raise DataError(f"there is no picture in {shown(', '.join(map(str, paths)))}")
    return found


def paths_of(inputs: Sequence[Path], from_file0: Path | None) -> list[Path]:
    """Return the inputs and those that a NUL-separated list names, each once; - is stdin."""
    paths = list(inputs)
    if from_file0 is not None:
        try:
            from_stdin = str(from_file0) == "-"
            data = sys.stdin.buffer.read() if from_stdin else from_file0.read_bytes()
        except OSError as error:
            raise ConfigError(f"{from_file0} cannot be read: {error.strerror}") from error
        paths += [Path(os.fsdecode(part)) for part in data.split(b"\0") if part]
    if not paths:
        raise ConfigError("name at least one folder or picture, or a list with --from-file0")
    return list(dict.fromkeys(paths))
