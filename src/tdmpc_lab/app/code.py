"""Which code a job runs: a snapshot of the project as it is now, that of an older job, or the project's own files."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import tdmpc_lab
from tdmpc_lab.errors import RecordError, SnapshotError
from tdmpc_lab.jobs.git import code_diff, git_state
from tdmpc_lab.jobs.paths import ROOT_VARIABLE, JobPaths, Project
from tdmpc_lab.jobs.record import NO_SNAPSHOT, JobRecord
from tdmpc_lab.jobs.snapshot import repository_of, take_snapshot
from tdmpc_lab.launch.environment import Workplace
from tdmpc_lab.secret import NAMES, secret_values, without_secrets
from tdmpc_lab.text import count

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
        """What a person who submits should know; None when all code is kept, or he wanted it so."""
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
