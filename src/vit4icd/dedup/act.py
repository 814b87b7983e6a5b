"""What becomes of spare copies: moved, trashed or replaced by hard links; it deletes nothing.

Right before each deed the file, and the copy that is kept, are looked at and hashed again. What is
not as it was found, or cannot be moved, is left where it is, with the reason. A journal of JSON
lines says what was begun, what was done, and how to undo it.
"""

import errno
import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Literal

from send2trash import send2trash

import vit4icd
from vit4icd.dedup.files import PictureFile, stamp_of
from vit4icd.dedup.result import Duplicates, Group, Member
from vit4icd.errors import ConfigError
from vit4icd.storage import atomic_path, file_sha256, name_fields

__all__ = ["Action", "Deed", "carry_out", "planned", "require_target"]

Action = Literal["move", "trash", "hardlink"]

_FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Deed:
    """What is to be done, or was done, with one name of a spare copy."""

    path: str
    kept: str
    left_because: str | None = None
    """Why the file stays where it is; None where it does not."""
    to: str | None = None
    """Where it was moved."""

    @property
    def is_done(self) -> bool:
        """Whether the file is not left where it was."""
        return self.left_because is None


def planned(duplicates: Duplicates, action: Action) -> list[Deed]:
    """Return what :func:`carry_out` would do, as far as can be told without touching a file."""
    return [
        Deed(path=name, kept=kept.path, left_because=_unsuited(member, kept, action))
        for group in duplicates.groups
        for member, kept in _spares(group)
        for name in member.file.names
    ]


def carry_out(
    duplicates: Duplicates,
    action: Action,
    *,
    journal: Path,
    to: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Deed]:
    """Do it, and return what was done; one failure leaves one file where it is.

    "move" puts files below ``to``, under their whole paths; "trash" into the system's trash;
    "hardlink" replaces files of the same bytes by links to the kept one. All names of a file that
    were found share its fate. Lines are added to ``journal``.

    Raises:
        ConfigError: "move" without a target, or with one inside a folder that was searched.
    """
    require_target(duplicates.inputs, action, to)
    deeds: list[Deed] = []
    with _Journal(journal, duplicates, action) as book:
        run = _Run(action=action, to=to, book=book)
        for group in duplicates.groups:
            for member, kept in _spares(group):
                deeds += run.carry_out(member, kept)
                if progress is not None:
                    progress(len(deeds), duplicates.n_spare)
    return deeds


def require_target(inputs: Iterable[str | Path], action: Action, to: Path | None) -> None:
    """Refuse a target that could not be moved to; it can be asked before anything is searched.

    Raises:
        ConfigError: "move" without a target, or with one inside a folder that is searched.
    """
    if action != "move":
        return
    if to is None:
        raise ConfigError("moving needs a folder to move to: --to FOLDER")
    for name in inputs:
        if to.resolve().is_relative_to(Path(name).resolve()):
            raise ConfigError(f"{to} lies in {name}, which is searched; choose a folder outside")


def _spares(group: Group) -> Iterator[tuple[Member, PictureFile]]:
    """Yield the spare copies with the kept file that stands for each."""
    kept = [member.file for member in group.kept]
    for member in group.spare:
        match = member.match
        names = () if match is None else (match.query, match.reference)
        same = [file for file in kept if file.sha256 == member.file.sha256]
        paired = [file for file in kept if file.path in names]
        yield member, (same or paired or kept)[0]


def _unsuited(member: Member, kept: PictureFile, action: Action) -> str | None:
    """Say why a spare copy is left alone from the start, if it is."""
    if action != "hardlink":
        return "a symbolic link leads to it" if member.file.is_link_target else member.caution
    if member.file.sha256 != kept.sha256:
        return "it has other bytes than the kept one"
    if member.file.stamp.device != kept.stamp.device:
        return "it is on another disk than the kept one"
    return None


class _UnsafeError(Exception):
    """A deed that is not safe to do; the message says why."""


class _Run:
    """One run over all groups."""

    def __init__(self, *, action: Action, to: Path | None, book: "_Journal") -> None:
        self.action, self.to, self.book = action, to, book
        self._seen: set[str] = set()  # kept files whose bytes were read again

    def carry_out(self, member: Member, kept: PictureFile) -> list[Deed]:
        """Do what is to be done with a spare copy, name by name."""
        deeds = []
        for name in member.file.names:
            try:
                if (reason := _unsuited(member, kept, self.action)) is not None:
                    raise _UnsafeError(reason)
                self._require_kept(kept)
                _require_unchanged(name, member.file)
                deed = self._one(name, member.file, kept)
            except (OSError, _UnsafeError) as error:
                reason = error.strerror if isinstance(error, OSError) else None
                deed = Deed(path=name, kept=kept.path, left_because=reason or str(error))
            self.book.write("done" if deed.is_done else "left", deed, member.file)
            deeds.append(deed)
        return deeds

    def _one(self, name: str, file: PictureFile, kept: PictureFile) -> Deed:
        match self.action:
            case "move":
                assert self.to is not None
                target = _free_name(self.to, name)
                deed = Deed(path=name, kept=kept.path, to=str(target))
                self.book.write("begun", deed, file)
                _move(name, target, file.sha256)
            case "trash":
                deed = Deed(path=name, kept=kept.path)
                self.book.write("begun", deed, file)
                send2trash(name)
            case "hardlink":
                deed = Deed(path=name, kept=kept.path)
                self.book.write("begun", deed, file)
                _link(name, kept.path, file.sha256)
        return deed

    def _require_kept(self, kept: PictureFile) -> None:
        """Refuse unless the kept copy is there with the bytes it was found with."""
        if not _is_in_place(kept.path, kept):
            raise _UnsafeError("the kept one is not the file that was found any more")
        if kept.path not in self._seen:
            if file_sha256(Path(kept.path)) != kept.sha256:
                raise _UnsafeError("the kept one has other bytes than when it was found")
            self._seen.add(kept.path)


def _require_unchanged(name: str, file: PictureFile) -> None:
    if not _is_in_place(name, file) or file_sha256(Path(name)) != file.sha256:
        raise _UnsafeError("it changed after it was found")


def _is_in_place(name: str, file: PictureFile) -> bool:
    """Whether a name still leads to that file, not through a link, and it was not written to.

    The change time is no sign: it moves when a link to the file is made or one of its names goes.
    """
    stamp = stamp_of(name)
    return stamp is not None and replace(stamp, changed_ns=0) == replace(file.stamp, changed_ns=0)


def _free_name(folder: Path, name: str) -> Path:
    """Claim a name below a folder, under the file's whole path, by an empty file."""
    wanted = folder.joinpath(*Path(_absolute(name)).parts[1:])
    wanted.parent.mkdir(parents=True, exist_ok=True)
    for number in range(1, 10_000):
        target = wanted if number == 1 else wanted.with_stem(f"{wanted.stem} ({number})")
        with suppress(FileExistsError):
            target.touch(exist_ok=False)
            return target
    raise _UnsafeError(f"{wanted} is taken, and so are 10,000 names like it")


def _move(name: str, target: Path, sha256: str) -> None:
    """Move a file over the empty one that holds its place; across disks by a checked copy."""
    source = Path(name)
    try:
        try:
            source.replace(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            with atomic_path(target) as temporary:
                shutil.copy2(source, temporary)
                if file_sha256(temporary) != sha256:
                    raise _UnsafeError("its copy on the other disk differs") from error
            source.unlink()
    except BaseException:
        if source.exists():
            target.unlink(missing_ok=True)
        raise


def _link(name: str, kept: str, sha256: str) -> None:
    """Replace a file by a link to the kept one; it is set aside until the link is there."""
    place, aside = Path(name), Path(f"{name}.{os.getpid()}.aside")
    place.rename(aside)
    try:
        if file_sha256(aside) != sha256:
            raise _UnsafeError("it changed after it was found")
        os.link(kept, place)
    except BaseException:
        aside.replace(place)
        raise
    aside.unlink()


class _Journal:
    """Lines that say what is begun and done; each is on the disk before the next step."""

    def __init__(self, path: Path, duplicates: Duplicates, action: Action) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file, self._action = path.open("a", encoding="utf-8"), action
        self._line(
            {
                "format_version": _FORMAT_VERSION,
                "package_version": vit4icd.__version__,
                "fingerprint": duplicates.fingerprint,
                "threshold": duplicates.threshold,
                "strictness": duplicates.strictness,
                "verified": duplicates.verified,
                "action": action,
            }
        )

    def __enter__(self) -> "_Journal":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def write(self, state: Literal["begun", "done", "left"], deed: Deed, file: PictureFile) -> None:
        """Add a line; when it returns, the line survives a kill."""
        fields: dict[str, object] = {"state": state, "action": self._action}
        fields |= name_fields("path", _absolute(deed.path))
        fields |= name_fields("kept", _absolute(deed.kept))
        fields |= {"sha256": file.sha256, "modified_ns": file.stamp.modified_ns}
        if deed.left_because is not None:
            fields["because"] = deed.left_because
        else:
            fields |= name_fields("undo", _undo(self._action, deed))
        self._line(fields)

    def _line(self, fields: Mapping[str, object]) -> None:
        moment = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._file.write(json.dumps({"time": moment, **fields}) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def _undo(action: Action, deed: Deed) -> str:
    """Return the command that undoes a deed, in a POSIX shell."""
    path, kept, to = (
        shlex.quote(_absolute(name)) for name in (deed.path, deed.kept, deed.to or "")
    )
    match action:
        case "move":
            return f"mv -n -- {to} {path}"
        case "hardlink":
            return f"cp -p -- {kept} {path}.copy && mv -- {path}.copy {path}"
        case "trash":
            return f"restore {path} from the trash"


def _absolute(name: str) -> str:
    return os.path.abspath(name)  # noqa: PTH100  (links in it are not to be resolved)
