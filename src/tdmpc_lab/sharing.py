"""A project that several users share: what is in it belongs to the group of its folder, and the group may do with it
what its owner may. Users outside the group see nothing.

Whether a project is shared is read off its folder: the setgid bit (what is made inside gets the folder's group) and
write permission for the group. In such a project every process of the tool makes files for the group, whatever the
user's own umask is (`share_new_files`). `share` sets all that up, `not_shared` finds what is not as it should be.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tdmpc_lab.secret import is_secret_name

_GROUPS_UMASK = 0o007  # the group gets what the owner gets, others nothing
_SHARED: list[tuple[Path, int]] = []
"""Of the shared project that this process works in: its folder, and the umask that the user had before."""


@dataclass(frozen=True)
class Closed:
    """Something in a shared project that its group can't use as the owner can."""

    path: Path
    owner: int
    why: str


def is_shared(folder: Path) -> bool:
    """Whether a folder is a group's: setgid and writable by the group. False where it can't be looked at."""
    try:
        mode = folder.stat().st_mode
    except OSError:
        return False
    return bool(mode & stat.S_ISGID and mode & stat.S_IWGRP)


def share_new_files(root: Path) -> None:
    """If the project at `root` is shared, have this process and those it starts make files for the group.

    Done by the umask, which holds for what other libraries write, too: SQLite's journals, submitit's files, videos.
    """
    if is_shared(root):
        before = os.umask(_GROUPS_UMASK)
        _SHARED[:] = [(root.resolve(), _SHARED[0][1] if _SHARED else before)]


@contextlib.contextmanager
def own_umask_outside(path: Path) -> Iterator[None]:
    """Within, files get the mode that the user's own umask gives, if `path` lies outside of the shared project: an
    exported agent in somebody's home is no business of the user's primary group."""
    if not _SHARED or path.resolve().is_relative_to(_SHARED[0][0]):
        yield
        return
    groups = os.umask(_SHARED[0][1])
    try:
        yield
    finally:
        os.umask(groups)


def make_folder(path: Path, *, exist_ok: bool = False) -> None:
    """Make a folder that is closed to others, with its parents: writable by the group in a shared folder only.

    Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o770 if is_shared(path.parent) else 0o750, exist_ok=exist_ok)


def user_name(uid: int) -> str:
    """The login name, else the number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)


def group_name(gid: int) -> str:
    """The name of a group, else its number."""
    try:
        return grp.getgrgid(gid).gr_name
    except (KeyError, OverflowError):
        return str(gid)


def is_member(gid: int) -> bool:
    """Whether this process may do what the group may."""
    return os.geteuid() == 0 or gid == os.getegid() or gid in os.getgroups()


def reason(error: OSError) -> str:
    """The error for a user: of a permission that is missing, also whose the file is and what to do."""
    if not isinstance(error, PermissionError) or not isinstance(error.filename, str | bytes):
        return str(error)
    path = Path(os.fsdecode(error.filename))
    return f"{path}: {error.strerror}; {whose(path)}"


def whose(path: Path) -> str:
    """Whose a file is (of one that is not there, or not to be seen: the folder it would be in), and what to do."""
    for there in (path, *path.absolute().parents):
        with contextlib.suppress(OSError):
            status = there.lstat()
            break
    else:
        return "nothing of its path can be looked at"
    name = "it" if there == path else str(there)
    owner = f"{name} belongs to {user_name(status.st_uid)}, group {group_name(status.st_gid)}"
    hint = "" if status.st_uid == os.geteuid() else "; `tdmpc-lab doctor` tells how a project is shared"
    return f"{owner}, {stat.filemode(status.st_mode)}{hint}"


def not_shared(root: Path, gid: int) -> Iterator[Closed]:
    """What in a shared project its group can't use: another group, fewer rights than the owner has, no setgid bit.

    Left out: links, hard-linked files (a change would show elsewhere), Python environments, and files that look like
    secrets. Folders that can't be looked into are named, and what is below them is not known.
    """
    for path, status in _below(root):
        if status is None:
            yield Closed(path, path.lstat().st_uid, "can't be looked into")
        elif why := _why_closed(status, gid):
            yield Closed(path, status.st_uid, why)


def share(root: Path, gid: int) -> tuple[int, list[Closed]]:
    """Give `root` and what is below it to the group, and close the folder to others.

    Returns how many files and folders were changed, and what could not be: mostly what belongs to other users.
    """
    changed = 0
    left: list[Closed] = []
    for path, status in ((root, root.stat()), *_below(root)):
        if status is None:
            left.append(Closed(path, path.lstat().st_uid, "can't be looked into"))
            continue
        others = status.st_mode & stat.S_IRWXO if path == root else 0
        if not (why := _why_closed(status, gid) or ("others may use it" if others else "")):
            continue
        try:
            _open_for_group(path, gid, _wanted_mode(status) & ~others)
            changed += 1
        except FileNotFoundError:  # removed meanwhile
            continue
        except OSError as error:
            left.append(Closed(path, status.st_uid, f"{why}; {error.strerror}"))
    return changed, left


def _open_for_group(path: Path, gid: int, mode: int) -> None:
    """Raises OSError. By an open file, so that a link put in the place meanwhile leads nowhere."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if os.fstat(fd).st_gid != gid:
            os.fchown(fd, -1, gid)
        os.fchmod(fd, mode)
    finally:
        os.close(fd)


def _wanted_mode(status: os.stat_result) -> int:
    mode = stat.S_IMODE(status.st_mode)
    mode |= (mode & stat.S_IRWXU) >> 3
    return mode | stat.S_ISGID if stat.S_ISDIR(status.st_mode) else mode


def _why_closed(status: os.stat_result, gid: int) -> str:
    """Why the group can't use it as the owner can, in words; empty where it can."""
    if status.st_gid != gid:
        return f"group {group_name(status.st_gid)}"
    if _wanted_mode(status) != stat.S_IMODE(status.st_mode):
        return stat.filemode(status.st_mode)
    return ""


def _below(folder: Path) -> Iterator[tuple[Path, os.stat_result | None]]:
    """Files and folders below, each with its status; a folder that can't be looked into comes again, with None."""
    try:
        with os.scandir(folder) as found:
            entries = list(found)
    except FileNotFoundError:
        return
    except PermissionError:
        yield folder, None
        return
    for entry in entries:
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        path = Path(entry.path)
        if stat.S_ISDIR(status.st_mode):
            if os.path.exists(path / "pyvenv.cfg"):  # noqa: PTH110 - False where it is not to be seen
                continue
            yield path, status
            yield from _below(path)
        elif stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and not is_secret_name(entry.name):
            yield path, status
