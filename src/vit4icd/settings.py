"""Settings that need not be said each time, and where each comes from; it acts on none.

A flag beats the environment (``VIT4ICD_MODEL``), which beats ``vit4icd.toml`` in the working
folder, which beats the user's own file. Both files hold the same few keys.
"""

import os
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vit4icd.errors import ConfigError

__all__ = ["FILE_NAME", "KNOWN", "Known", "Setting", "effective", "user_file"]

FILE_NAME = "vit4icd.toml"
"""The file in the working folder."""

Value = str | int | None


@dataclass(frozen=True, slots=True)
class Known:
    """A setting that there is: its default, and how its text is read."""

    default: Value
    read: Callable[[str], Value]
    meaning: str


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting as it is in effect."""

    name: str
    value: Value
    origin: str
    """"default", "--threads", "VIT4ICD_THREADS", or the file."""


def _device(text: str) -> str:
    if text not in ("auto", "cpu", "cuda"):
        raise ValueError("one of auto, cpu, cuda")
    return text


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError("a whole number from 1 on")
    return int(text)


KNOWN: Mapping[str, Known] = {
    "model": Known(None, str, "model folder; the packaged one by default"),
    "device": Known("auto", _device, "where the model runs: auto, cpu or cuda"),
    "threads": Known(None, _count, "processors to use; all this process may use by default"),
    "threshold": Known("auto", str, "from where on a pair counts: auto, P99, or a score"),
}
"""All settings, by name."""


def effective(
    flags: Mapping[str, Value] | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> dict[str, Setting]:
    """Return every setting with its origin; a flag that is None was not given.

    ``environment`` and ``folder`` default to those of this process.

    Raises:
        ConfigError: a value that is none, an unknown key, or a file that is not TOML.
    """
    environment = os.environ if environment is None else environment
    folder = folder or Path()
    found = {name: Setting(name, known.default, "default") for name, known in KNOWN.items()}
    for path in (user_file(environment), folder / FILE_NAME):
        found |= _from_file(path)
    for name in KNOWN:
        variable = f"VIT4ICD_{name.upper()}"
        if environment.get(variable):
            found[name] = _setting(name, environment[variable], variable)
    for name, value in (flags or {}).items():
        if value is not None:
            found[name] = _setting(name, str(value), f"--{name}")
    return found


def user_file(environment: Mapping[str, str] | None = None) -> Path:
    """Return where the user's own settings stand, whether or not the file exists."""
    environment = os.environ if environment is None else environment
    home = Path(environment.get("HOME") or environment.get("USERPROFILE") or _home())
    if sys.platform == "win32":
        base = Path(environment.get("APPDATA") or home / "AppData" / "Roaming")
    elif sys.platform == "darwin":
        base = home / "Library" / "Application Support"
    else:
        base = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    return base / "vit4icd" / "config.toml"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # a user that the system does not know, as in some containers
        return Path("/nonexistent")


def _from_file(path: Path) -> dict[str, Setting]:
    try:
        fields = tomllib.loads(path.read_text("utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except PermissionError as error:
        if not os.access(path.parent, os.X_OK):  # another user's home, as in some containers
            return {}
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}") from error
    unknown = sorted(fields.keys() - KNOWN.keys())
    if unknown:
        raise ConfigError(f"{path} sets {unknown[0]!r}; there are only {', '.join(KNOWN)}")
    if isinstance(model := fields.get("model"), str):
        fields["model"] = str(path.parent / model)
    return {name: _setting(name, str(value), str(path)) for name, value in fields.items()}


def _setting(name: str, text: str, origin: str) -> Setting:
    try:
        return Setting(name, KNOWN[name].read(text), origin)
    except ValueError as error:
        raise ConfigError(f"{origin} sets {name} to {text!r}; it is {error}") from error
