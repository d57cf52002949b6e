"""`init`: a folder becomes a project, and a project one that several users share."""

from __future__ import annotations

import grp
import os
import stat
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tdmpc_lab.errors import ExternalError, UsageError
from tdmpc_lab.jobs.git import GitError, git
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.sharing import Closed, group_name, is_member, is_shared, share, share_new_files, user_name


@dataclass(frozen=True)
class Made:
    """What was done."""

    folder: Path
    made: tuple[str, ...]
    """Folders that were not there."""
    group: str | None = None
    """Who shares it; None where that was not asked for."""
    changed: int = 0
    """Files and folders that were given to the group."""
    left: tuple[Closed, ...] = ()
    """What could not be, each with whose it is and why."""
    closed_above: tuple[Path, ...] = ()
    """Folders above the project that keep the group out."""
    git: bool = False
    """Whether git makes its own files for the group, too."""

    def as_dict(self) -> dict[str, Any]:
        """For scripts."""
        left = [{"path": str(one.path), "owner": user_name(one.owner), "why": one.why} for one in self.left]
        above = [str(path) for path in self.closed_above]
        return {**asdict(self), "folder": str(self.folder), "left": left, "closed_above": above}


def init(folder: Path, *, group: str | None = None, shared: bool = False) -> Made:
    """Make what a project needs and has not yet: its folders. `shared`: give it to its folder's group, or to `group`.

    May be called again at any time; nothing is ever removed.

    Raises:
        UsageError: the folder is a file, there is no such group, or it is not this user's to share.
        OSError: a folder can't be made.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; a project is a folder")
    if group is not None and not shared:
        raise UsageError("--group says who shares a project: give --shared, too")
    project = Project(folder.absolute())
    gid = _group(project.root, group) if shared else None
    wanted = (project.root, project.experiments, project.jobs, project.notes)
    missing = [path for path in wanted if not path.is_dir()]
    for path in missing:
        path.mkdir(parents=True, exist_ok=True)
    made = tuple("." if path == project.root else path.name for path in missing)
    return Made(project.root, made) if gid is None else _shared(project, made, gid)


def _group(root: Path, name: str | None) -> int:
    """The group to share with. Raises UsageError where this user can't share the project with it."""
    if name is None:
        gid = root.stat().st_gid if root.exists() else os.getegid()
    else:
        try:
            gid = int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid
        except KeyError:
            raise UsageError(f"there is no group {name!r}; yours: {_my_groups()}") from None
    if not is_member(gid):
        raise UsageError(
            f"you are not in the group {group_name(gid)}: share with one of yours (--group): {_my_groups()}"
        )
    if root.exists():
        status = root.stat()
        ready = is_shared(root) and status.st_gid == gid
        if os.geteuid() not in (0, status.st_uid) and not ready:
            owner = user_name(status.st_uid)
            raise UsageError(f"{root} belongs to {owner}: let {owner} run `tdmpc-lab init --shared` first")
    return gid


def _my_groups() -> str:
    return ", ".join(sorted(group_name(gid) for gid in {os.getegid(), *os.getgroups()}))


def _shared(project: Project, made: tuple[str, ...], gid: int) -> Made:
    changed, left = share(project.root, gid)
    if not is_shared(project.root):
        raise ExternalError(
            f"{project.root}: the file system did not take the group and its rights; ask who looks after it"
        )
    share_new_files(project.root)
    return Made(
        project.root, made, group_name(gid), changed, tuple(left), closed_above(project.root, gid), _git(project)
    )


def closed_above(root: Path, gid: int) -> tuple[Path, ...]:
    """The folders above a project that its group can't go through, as far as their modes tell."""
    closed = []
    for folder in root.resolve().parents:
        status = folder.stat()
        through = status.st_mode & stat.S_IXOTH or (status.st_gid == gid and status.st_mode & stat.S_IXGRP)
        if not through:
            closed.append(folder)
    return tuple(closed)


def _git(project: Project) -> bool:
    """Have git make files for the group in the project's own repository, where it has one."""
    if not (project.root / ".git").is_dir():
        return False
    try:
        git(project.root, "config", "core.sharedRepository", "group")
    except GitError:
        return False
    return True
