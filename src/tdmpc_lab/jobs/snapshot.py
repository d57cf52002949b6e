"""The code of a project as it is now, kept for the jobs submitted now: `jobs/.snapshots/<hash>/`.

Jobs of one state of the code share one folder, named by its content. What is not kept (what git ignores, files
that are too large or look like secrets, pictures and pages that the tool drew) stays reachable there through links to
the project's own files.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import hashlib
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tdmpc_lab.errors import SnapshotError
from tdmpc_lab.jobs.find import raw_records
from tdmpc_lab.jobs.git import GitError, git
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.outputs import is_output
from tdmpc_lab.secret import holds_private_key, is_secret_name
from tdmpc_lab.sharing import make_folder

MOST_FILE = 8 << 20
"""Bytes of the largest file that is kept."""
MOST_TOTAL = 64 << 20
"""Bytes of all files together; the largest are left out first."""
MOST_FILES = 20_000

_OWN_FOLDERS = ("jobs", "notes", "mlruns")
# Ignored by git, and of no use to a job; the first also because a copy of jobs/ would follow links into them.
_NOT_LINKED = (
    ".venv", "venv", ".git", "__pycache__", "*.py[co]", "*.egg-info", "*_cache", ".coverage*", ".hypothesis", "build",
    "dist", "node_modules", ".idea", ".vscode", "*.sw[op]", "*~",
)  # fmt: skip
_MOST_LINKS = 2_000
_HALF_MADE_S = 3600.0  # no submit takes longer to make a snapshot and to record its job


@dataclass(frozen=True)
class Snapshot:
    """The code of one state of a project."""

    name: str
    """Hash of the content."""
    folder: Path
    top: Path
    """The top folder of the repository that it was made from."""
    place: PurePosixPath
    """Where in it the project's root is: `.`, unless the project is a part of its repository."""
    left_out: tuple[str, ...]
    """Files that were not copied, each with why. What git ignores is not named."""
    folders: frozenset[PurePosixPath]
    """The folders that hold files of it, from its top."""


@dataclass(frozen=True)
class _Entry:
    """One thing to keep: a file with its bytes, or a symbolic link with its target."""

    path: str
    data: bytes
    mode: str
    """`file`, `program` or `link`."""


def take_snapshot(project: Project, *, write: bool = True) -> Snapshot:
    """Keep the code of the project's git repository: what is tracked, and what is new and not ignored.

    Several processes may do so at once. The project's jobs/, notes/ and mlruns/ are never in it. Without `write`
    it is only told what would be kept.
    Raises SnapshotError where there is no repository or no git, and where it holds too many files; OSError when
    the snapshot can't be written.
    """
    top, place = repository_of(project)
    try:
        names = _listed(top, place)
        ignored = _ignored(top, place)
    except GitError as error:
        raise SnapshotError(str(error)) from None
    outputs = [name for name in names if is_output(top / name)]
    entries, left_out = _read(top, place, [name for name in names if name not in outputs])
    name = _hash(entries)
    folder = project.snapshots / name
    if write:
        _store(folder, entries)
        _link(folder, top, [*left_out, *outputs, *ignored])
    told = tuple(f"{path} ({why})" for path, why in left_out.items())
    holding = {above for entry in entries for above in PurePosixPath(entry.path).parents}
    return Snapshot(name, folder, top, place, told, frozenset(holding))


def repository_of(project: Project) -> tuple[Path, PurePosixPath]:
    """The top folder of the project's git repository, and where in it the project lies.

    Raises SnapshotError when there is none.
    """
    root = project.root.resolve()
    try:
        top = Path(git(root, "rev-parse", "--show-toplevel").rstrip("\n")).resolve()
    except GitError as error:
        raise SnapshotError(str(error)) from None
    return top, PurePosixPath(root.relative_to(top))


def unused_snapshots(project: Project) -> list[Path]:
    """The snapshots that no job of the project runs from, and half made ones; none younger than an hour.

    Raises OSError when a job's record can't be read: it may be the one that needs a snapshot.
    """
    try:
        found = sorted(project.snapshots.iterdir())
    except FileNotFoundError:
        return []
    records = b"\n".join(record for _, record in raw_records(project))
    now = time.time()
    return [
        folder
        for folder in found
        if folder.name.encode() not in records and now - folder.lstat().st_mtime > _HALF_MADE_S
    ]


def _listed(folder: Path, place: PurePosixPath) -> list[str]:
    """Paths of the files to keep, from the top of the repository. Raises GitError, SnapshotError."""
    names = list(_files(folder, ""))
    if not any(PurePosixPath(name).is_relative_to(place) for name in names):
        raise SnapshotError(f"{folder} is a git repository that holds no file of {folder / place}")
    kept = sorted({name for name in names if not _is_own(name, place)})
    if len(kept) > MOST_FILES:
        raise SnapshotError(
            f"the git repository {folder} holds {len(kept):,} files, and at most {MOST_FILES:,} are kept: have "
            "git ignore what is no code"
        )
    return kept


def _files(folder: Path, prefix: str) -> Iterator[str]:
    """Tracked and new files below `folder`, those of repositories inside it too."""
    for name in git(folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0"):
        inside = folder / name
        if name and not inside.is_symlink() and inside.is_dir():  # a submodule, or a repository not added
            if any(inside.iterdir()):
                yield from _files(inside, f"{prefix}{name.rstrip('/')}/")
        elif name:
            yield prefix + name


def _ignored(top: Path, place: PurePosixPath) -> list[str]:
    """What git ignores, whole folders as one, without what is of no use to a job."""
    listing = git(top, "ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--directory")
    names = [name.rstrip("/") for name in listing.split("\0") if name]
    return [
        name
        for name in names
        if not _is_own(name, place)
        and not any(fnmatch.fnmatchcase(PurePosixPath(name).name, pattern) for pattern in _NOT_LINKED)
        and not (top / name / "pyvenv.cfg").exists()
    ]


def _is_own(name: str, place: PurePosixPath) -> bool:
    """Whether this lies in a folder that the tool itself fills."""
    return any(PurePosixPath(name).is_relative_to(place / own) for own in _OWN_FOLDERS)


def _read(top: Path, place: PurePosixPath, names: Iterable[str]) -> tuple[list[_Entry], dict[str, str]]:
    """What is kept, and what is not with why. The bytes hashed are those written: a file may change any moment."""
    left_out: dict[str, str] = {}
    sizes: dict[str, int] = {}
    entries: list[_Entry] = []
    for name in names:
        try:
            status = (top / name).lstat()
        except FileNotFoundError:  # deleted, and still in git's index
            continue
        if stat.S_ISLNK(status.st_mode):
            target = _link_target(top, place, name)
            entries.append(_Entry(name, os.fsencode(target), "link"))
        elif not stat.S_ISREG(status.st_mode):
            continue
        elif is_secret_name(name):
            left_out[name] = "looks like a secret"
        elif status.st_size > MOST_FILE:
            left_out[name] = f"{_megabytes(status.st_size)}; at most {_megabytes(MOST_FILE)} are kept"
        else:
            sizes[name] = status.st_size
    total = 0
    for name in sorted(sizes, key=lambda name: (sizes[name], name)):
        total += sizes[name]
        if total > MOST_TOTAL:
            left_out[name] = f"{_megabytes(sizes[name])}; at most {_megabytes(MOST_TOTAL)} are kept in all"
            continue
        try:
            program = (top / name).stat().st_mode & stat.S_IXUSR
            data = (top / name).read_bytes()
        except FileNotFoundError:
            continue
        if holds_private_key(data):
            left_out[name] = "is a private key"
        else:
            entries.append(_Entry(name, data, "program" if program else "file"))
    return sorted(entries, key=lambda entry: entry.path), left_out


def _link_target(top: Path, place: PurePosixPath, name: str) -> str:
    """Where a link is to point from within the snapshot: to the same place if that is kept, else to the original."""
    target = (top / name).readlink()
    meant = Path(os.path.normpath((top / name).parent / target))
    if not target.is_absolute() and meant.is_relative_to(top):
        inside = str(meant.relative_to(top))
        if not _is_own(inside, place):
            return str(target)
    return str(meant)


def _hash(entries: Sequence[_Entry]) -> str:
    digest = hashlib.sha256()
    for entry in entries:
        for part in (entry.mode.encode(), os.fsencode(entry.path), hashlib.sha256(entry.data).digest()):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:16]


def _store(folder: Path, entries: Sequence[_Entry]) -> None:
    """Make the folder if it is not there, or not whole: where old files are swept away, some may be missing."""
    if _whole(folder, entries):
        with contextlib.suppress(PermissionError):  # another user's, who keeps it young
            os.utime(folder)
        return
    make_folder(folder.parent, exist_ok=True)
    mark = f"{os.getpid()}.{secrets.token_hex(4)}.tmp"
    new, old = folder.with_name(f".{folder.name}.new.{mark}"), folder.with_name(f".{folder.name}.old.{mark}")
    try:
        make_folder(new)
        for entry in entries:
            _write(new / entry.path, entry)
        with contextlib.suppress(FileNotFoundError):
            folder.rename(old)
        try:
            new.rename(folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # else another process was quicker
                raise
    finally:
        for left in (new, old):
            shutil.rmtree(left, ignore_errors=True)


def _write(path: Path, entry: _Entry) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if entry.mode == "link":
        path.symlink_to(os.fsdecode(entry.data))
        return
    path.write_bytes(entry.data)
    path.chmod(0o555 if entry.mode == "program" else 0o444)  # several jobs rely on it


def _whole(folder: Path, entries: Sequence[_Entry]) -> bool:
    for entry in entries:
        try:
            status = os.lstat(folder / entry.path)
        except OSError:
            return False
        if entry.mode != "link" and status.st_size != len(entry.data):
            return False
    return folder.is_dir()


def _link(folder: Path, top: Path, names: Sequence[str]) -> None:
    """Let what is not kept be found at its place, in the project's own state."""
    for name in names[:_MOST_LINKS]:
        link = folder / name
        if os.path.lexists(link):
            continue
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.parent.resolve().is_relative_to(folder.resolve()):  # within a folder that is linked as a whole
            continue
        with contextlib.suppress(FileExistsError):  # another process was quicker
            link.symlink_to(top / name)


def _megabytes(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"
