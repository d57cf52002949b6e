"""Which files differ between the code of a job that is submitted and that of the job it is compared to."""

from __future__ import annotations

import contextlib
import filecmp
import functools
import os
from pathlib import Path

from tdmpc_lab.app.code import JobCode
from tdmpc_lab.errors import RecordError
from tdmpc_lab.jobs.git import GitError, git
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.jobs.record import JobRecord, read_record

_MOST = 50  # files named in a record


def code_changes(project: Project, job_id: str, code: JobCode) -> tuple[str, ...] | None:
    """What differs, one line each, from the code that the job `job_id` ran to this: `M src/train.py` as git has it
    (A: new, D: gone). None where that can't be told, empty where nothing differs.

    Snapshots of both are compared file by file; without them the two commits, where nothing else was changed.
    """
    try:
        old = read_record(project.job(job_id))
    except RecordError:  # `status` says what is wrong with it
        return None
    changes = _of_snapshots(project, old, code)
    if changes is None:
        changes = _of_commits(project, old, code)
    if changes is None:
        return None
    if old.package != code.package:
        changes = (
            f"M tdmpc-lab {old.package or 'in the repository'} → {code.package or 'in the repository'}",
            *changes,
        )
    more = len(changes) - _MOST
    return changes if more <= 0 else (*changes[:_MOST], f"and {more:,} more")


def _of_snapshots(project: Project, old: JobRecord, code: JobCode) -> tuple[str, ...] | None:
    if old.snapshot is None or code.snapshot is None:
        return None
    if old.snapshot == code.snapshot:
        return ()
    before, after = project.snapshots / old.snapshot, project.snapshots / code.snapshot
    if not before.is_dir() or not after.is_dir():
        return None
    return changed_files(before, after)


@functools.cache  # a snapshot is named by its content, and the jobs of a sweep share theirs
def changed_files(before: Path, after: Path) -> tuple[str, ...]:
    """What differs between two snapshots' folders, one line each: `M src/train.py`."""
    old, new = _files(before), _files(after)
    changed = []
    for name in sorted(old | new):
        if name not in new:
            changed.append(f"D {name}")
        elif name not in old:
            changed.append(f"A {name}")
        elif not _same(before / name, after / name):
            changed.append(f"M {name}")
    return tuple(changed)


def _files(folder: Path) -> set[str]:
    """The files of a snapshot, by their path in it; links lead to what is not kept."""
    found = set()
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place) / name
            if not path.is_symlink():
                found.add(str(path.relative_to(folder)))
    return found


def _same(one: Path, other: Path) -> bool:
    with contextlib.suppress(OSError):  # a file that can't be read is told as changed
        return filecmp.cmp(one, other, shallow=False)
    return False


def _of_commits(project: Project, old: JobRecord, code: JobCode) -> tuple[str, ...] | None:
    if old.git_commit is None or code.commit is None or old.git_dirty or code.dirty:
        return None
    if old.git_commit == code.commit:
        return ()
    try:
        listed = git(project.root, "diff", "--name-status", "--no-renames", old.git_commit, code.commit)
    except GitError:  # the old commit may be gone
        return None
    return tuple(line.replace("\t", " ") for line in listed.splitlines())
