"""Which code a job runs: decided once per submit, compared between jobs, and named file by file where it differs."""

from __future__ import annotations

import contextlib
import filecmp
import functools
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import tdmpc_lab
from tdmpc_lab.errors import RecordError, SnapshotError
from tdmpc_lab.jobs.git import GitError, code_diff, git, git_state
from tdmpc_lab.jobs.paths import ROOT_VARIABLE, JobPaths, Project
from tdmpc_lab.jobs.record import NO_SNAPSHOT, JobRecord, read_record
from tdmpc_lab.jobs.snapshot import repository_of, take_snapshot
from tdmpc_lab.launch.process import Workplace
from tdmpc_lab.secret import NAMES, secret_values, without_secrets
from tdmpc_lab.text import count

if TYPE_CHECKING:
    from tdmpc_lab.report.comparison import Comparison
    from tdmpc_lab.report.runs import Run


DEBUG = "a debug run uses the code of its own process"


@dataclass(frozen=True, kw_only=True)
class JobCode:
    """The code of the jobs of one submit; the fields are explained in `JobRecord`."""

    commit: str | None
    dirty: bool | None
    diff: str | None
    """See `code_diff`."""
    snapshot: str | None = None
    live: str | None = None
    left_out: tuple[str, ...] = ()
    secrets: int = 0
    """How many values that look like secrets are left out of `diff`."""
    package: str | None = None
    workplace: Workplace | None = None
    """Where the snapshot's code is found."""

    @property
    def all_left_out(self) -> tuple[str, ...]:
        """For the record: files, and values of the difference."""
        values = f"{count(self.secrets, 'value')} in code.diff (look like secrets)"
        return (*self.left_out, values) if self.secrets else self.left_out

    @property
    def warning(self) -> str | None:
        """What the user who submits should know; None when all code is kept, or that was asked for."""
        if self.snapshot is None and self.live not in (NO_SNAPSHOT, DEBUG):
            return (
                f"the code is not kept: {self.live}. The job runs the files as they are when it starts "
                "(--no-snapshot: that is what you want)"
            )
        told = []
        if self.left_out:
            told.append(f"not kept with the code, the job reads the project's own: {', '.join(self.left_out)}")
        if self.secrets:
            told.append(f"left out of code.diff: {count(self.secrets, 'value')} that look like secrets")
        return "; ".join(told) or None


def code_now(project: Project, cluster: str, *, snapshot: bool = True, write: bool = True) -> JobCode:
    """The project's code as it is; without `write` nothing is kept, it is only told what would be.

    Raises OSError when the snapshot can't be written.
    """
    commit, dirty = git_state(project.root)
    diff = code_diff(project.root, NAMES) if commit is not None and dirty else None
    told, secrets = (None, 0) if diff is None else without_secrets(diff, secret_values())
    live = JobCode(
        commit=commit,
        dirty=dirty,
        diff=told,
        secrets=secrets,
        live=DEBUG if cluster == "debug" else NO_SNAPSHOT,
        package=tdmpc_lab.__version__,
    )
    if not snapshot or cluster == "debug":
        return live
    try:
        kept = take_snapshot(project, write=write)
    except SnapshotError as error:
        return replace(live, live=str(error))
    path, package = _python_path(kept.folder, kept.top, project.root, lambda folder: folder in kept.folders)
    return replace(
        live,
        snapshot=kept.name,
        live=None,
        left_out=kept.left_out,
        package=package,
        workplace=_workplace(project, kept.folder / kept.place, path),
    )


def code_of_job(project: Project, old: JobPaths, record: JobRecord) -> JobCode | None:
    """The code that a job ran, for one that repeats it; None where it ran the project's own files.

    Raises RecordError when the snapshot is gone, or can't be placed because the repository is gone.
    """
    if record.snapshot is None:
        return None
    folder = project.snapshots / record.snapshot
    if not folder.is_dir():
        raise RecordError(
            f"{folder}: the code that job {old.id} ran is gone; to run its config with the code as it is now: "
            f"tdmpc-lab submit jobs/{old.id}/resolved.yaml"
        )
    try:
        top, place = repository_of(project)
    except SnapshotError as error:
        raise RecordError(f"the code that job {old.id} ran can't be used: {error}") from error
    path, package = _python_path(folder, top, project.root, lambda inside: _is_folder(folder, inside))
    return JobCode(
        commit=record.git_commit,
        dirty=record.git_dirty,
        diff=old.code_diff.read_text(encoding="utf-8", errors="surrogateescape") if old.code_diff.exists() else None,
        snapshot=record.snapshot,
        left_out=record.left_out,
        package=package,
        workplace=_workplace(project, folder / place, path),
    )


def _workplace(project: Project, folder: Path, python_path: tuple[Path, ...]) -> Workplace:
    # Commands and code of the job that look for the project are to find the one with the jobs in it.
    return Workplace(folder, python_path, {ROOT_VARIABLE: str(project.root)})


def _python_path(
    folder: Path, top: Path, root: Path, holds: Callable[[PurePosixPath], bool]
) -> tuple[tuple[Path, ...], str | None]:
    """What this process imports from the repository at `top`, in its snapshot `folder`; and the version of this
    package if it is not in there. `holds` tells whether the snapshot has a folder."""
    source = Path(tdmpc_lab.__file__).resolve().parents[1]
    found: list[Path] = []
    package: str | None = tdmpc_lab.__version__
    for entry in (source, *(Path(text).resolve() for text in sys.path), root.resolve()):
        inside = PurePosixPath(entry.relative_to(top)) if entry.is_relative_to(top) else None
        if inside is None or not holds(inside):
            continue
        if entry == source and holds(inside / "tdmpc_lab"):
            package = None
        if folder / inside not in found:
            found.append(folder / inside)
    return tuple(found), package


def _is_folder(folder: Path, inside: PurePosixPath) -> bool:
    """Whether the snapshot has this folder, and not only a link to the project's own."""
    meant = folder / inside
    return meant.is_dir() and meant.resolve() == folder.resolve() / inside


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


# A change there changes no job: what a spec says is in the job's config.
_NO_CODE = ("experiments", "docs", "tests")
_NO_CODE_ENDINGS = (".md", ".txt", ".rst", ".ipynb")
_SHOWN_FILES = 4
_MOST_VERSIONS = 6


def code_remarks(project: Project, found: Comparison) -> list[str]:
    """A warning where the runs that count ran different code, or code that is not known; nothing where it is one."""
    used = {s.name: [figures.run for figures in s.figures] for s in found.summaries}
    versions: dict[str, list[Run]] = {}
    for run in itertools.chain.from_iterable(used.values()):
        versions.setdefault(run.code, []).append(run)
    if len(versions) < 2:
        return []
    folders = {code: project.snapshots / code for code in versions if code}
    if len(versions) <= _MOST_VERSIONS and len(folders) == len(versions) and all(f.is_dir() for f in folders.values()):
        changed = sorted(
            set(itertools.chain.from_iterable(_changed(*two) for two in itertools.pairwise(folders.values())))
        )
        if not changed:
            return []  # specs and texts alone
        more = f" and {len(changed) - _SHOWN_FILES} more" if len(changed) > _SHOWN_FILES else ""
        where = f"; it differs in {', '.join(changed[:_SHOWN_FILES])}{more}"
    else:
        where = ""
    ran = [f"{name} ran {_codes(runs)}" for name, runs in used.items() if runs]
    told = "; ".join(ran[:_MOST_VERSIONS]) + ("; …" if len(ran) > _MOST_VERSIONS else "")
    return [f"warning: the code is not the same: {told}{where}"]


def _codes(runs: list[Run]) -> str:
    words = dict.fromkeys(run.record.code or "code that is not known" for run in runs)
    return " and ".join(list(words)[:_MOST_VERSIONS])


def _changed(one: Path, other: Path) -> Iterator[str]:
    """The files of code that are not the same in two snapshots."""
    for line in changed_files(one, other):
        name = line.partition(" ")[2]
        if not name.endswith(_NO_CODE_ENDINGS) and not set(PurePosixPath(name).parts) & set(_NO_CODE):
            yield name
