"""`gc`: removable files in `jobs/`, found and removed. Records, metrics, notes and logs of jobs stay."""

from __future__ import annotations

import math
import os
import re
import shutil
import stat
import time
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from tdmpc_lab.app.queue.status import Asked, JobView, job_views
from tdmpc_lab.errors import LabError, UsageError
from tdmpc_lab.jobs.find import folder_names
from tdmpc_lab.jobs.ids import is_slurm_id
from tdmpc_lab.jobs.metrics import as_float, as_int, eval_rows
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.jobs.snapshot import unused_snapshots
from tdmpc_lab.launch.attempts import beats
from tdmpc_lab.launch.lease import read_holder
from tdmpc_lab.launch.queue import Queue
from tdmpc_lab.launch.sbatch import submit_folder

Kind = Literal["checkpoint", "episodes", "reserve", "temporary", "snapshot", "unfinished", "orphan"]
KINDS: dict[Kind, str] = {
    "checkpoint": "checkpoints that a later one follows, of jobs that are over",
    "episodes": "episodes of the replay that no checkpoint needs, of jobs that are over",
    "reserve": "space kept for the outcome of jobs that are over",
    "temporary": "files that were being written when a process was killed",
    "snapshot": "code that no job runs from",
    "unfinished": "folders of submits that came to no end",
    "orphan": "scripts and logs of SLURM jobs whose folder is gone",
}
LEAST_AGE_S = 3600.0  # what no job vouches for may be somebody's work of this moment
_QUEUE_S = 30.0
_STEP = re.compile(r"step_(\d+)\.pt")
_EPISODES = re.compile(r"episodes_[0-9]+-[0-9]+_[0-9a-f]+\.pt")
_TEMPORARY = re.compile(r"\..+\.[0-9]+\.[0-9a-f]{8}\.tmp")
_NAMED = re.compile(r"([\w-]+)/checkpoints/(step_\d+\.pt)")
_IDS = re.compile(r"(?<![\w-])(local-[0-9]{8}-[0-9]{6}-[0-9]{3}|[1-9][0-9]{2,18}(?:_[0-9]{1,9})?)(?![\w-])")
_AT = re.compile(r"(local-[0-9]{8}-[0-9]{6}-[0-9]{3}|[1-9][0-9]*(?:_[0-9]+)?)@([0-9_]*[0-9])\b")
# All that a submit writes before the record: a folder with more in it was a job once.
_OF_A_SUBMIT = {"spec.yaml", "resolved.yaml", "code.diff", "checkpoints", "opponents", "start", "log.out", "log.err"}


@dataclass(frozen=True)
class Leftover:
    """A removable file or folder."""

    kind: Kind
    path: Path
    size: int
    """Bytes, of a folder with all that is in it."""
    job: str | None = None

    def as_dict(self, project: Project) -> dict[str, Any]:
        """For scripts."""
        path = str(self.path.relative_to(project.root))
        return {"kind": self.kind, "path": path, "job": self.job, "bytes": self.size}


@dataclass
class Findings:
    """What was found, and what was left alone although it may not be needed, in words."""

    leftovers: list[Leftover] = field(default_factory=list)
    left_alone: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(leftover.size for leftover in self.leftovers)


def find_leftovers(
    project: Project, ids: Sequence[str] | None = None, *, older_than: datetime | None = None, keep: int = 1
) -> Findings:
    """What can be removed. Nothing is written.

    Of a job that is over, and that no job which waits or runs continues from or plays against, the newest `keep`
    checkpoints stay, the one with the best evaluation, and those that a spec names. Jobs that wait, run or are UNKNOWN
    are left as they are. `ids`: only files of these jobs. `older_than`: only jobs that ended before then.

    Raises UsageError where `jobs` is a link out of the project, OSError when a job's record can't be read.
    """
    if not project.jobs.resolve().is_relative_to(project.root.resolve()):
        raise UsageError(f"{project.jobs} is a link out of the project, and nothing is removed out there")
    found = Findings()
    asked = Asked(math.inf)
    views = job_views(project, None, asked)
    slurm = submit_folder(project).exists() or any(is_slurm_id(name) for name in folder_names(project))
    queue = asked.queue(_QUEUE_S) if slurm else Queue()
    needed = _needed(project, [view for view in views if not view.state.ended])
    for view in views:
        if ids is not None and view.id not in ids:
            continue
        if view.state.ended and not _busy(project, view, queue, found) and _ended_before(view, older_than):
            found.leftovers += _of_job(project.job(view.id), keep, needed, found)
    if ids is None:
        before = min(time.time() - LEAST_AGE_S, math.inf if older_than is None else older_than.timestamp())
        found.leftovers += _of_nobody(project, queue, before)
    return found


def remove(project: Project, leftovers: Iterable[Leftover]) -> tuple[list[Leftover], list[str]]:
    """Remove these; what was removed, and what could not be, in words. Links are removed, never followed."""
    removed: list[Leftover] = []
    problems: list[str] = []
    unused = set(unused_snapshots(project))
    for leftover in leftovers:
        try:
            if leftover.kind == "snapshot" and not (leftover.path in unused and _old(leftover.path)):
                problems.append(f"{leftover.path}: a job was submitted from it this moment; it stays")
                continue
            if leftover.path.is_dir() and not leftover.path.is_symlink():
                shutil.rmtree(leftover.path)
            else:
                leftover.path.unlink()
            removed.append(leftover)
        except FileNotFoundError:  # somebody else was quicker
            continue
        except OSError as error:
            problems.append(f"{error.filename or leftover.path}: {error.strerror or error}")
    return removed, problems


def _old(folder: Path) -> bool:
    """Whether a snapshot has not been taken up by a submit, which makes it young."""
    return time.time() - folder.lstat().st_mtime > LEAST_AGE_S


@dataclass(frozen=True)
class _Needed:
    """What other jobs and specs rely on."""

    jobs: frozenset[str]
    """Jobs that a job which waits or runs names: as its parent, or as an opponent."""
    checkpoints: frozenset[tuple[str, str]]
    """Single checkpoints that a spec or such a job names, by path or as `ID@STEP`: job id and file name."""


def _needed(project: Project, open_views: Sequence[JobView]) -> _Needed:
    jobs: set[str] = set()
    texts: list[str] = []
    for view in open_views:
        if view.record is not None:
            jobs.update(job for job in (view.record.parent, view.record.rerun_of) if job)
        texts.append(_text(project.job(view.id).resolved))
        jobs.update(_IDS.findall(texts[-1]))
    texts += [_text(spec) for spec in sorted(project.experiments.rglob("*.y*ml"))]
    named = {pair for text in texts for pair in _NAMED.findall(text)}
    named |= {(job, f"step_{int(step):09d}.pt") for text in texts for job, step in _AT.findall(text)}
    return _Needed(frozenset(jobs), frozenset(named))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _busy(project: Project, view: JobView, queue: Queue, found: Findings) -> bool:
    """Whether a process may still be at work in the folder of a job whose outcome is known."""
    assert view.record is not None
    if beats(project.job(view.id).attempts):
        return True
    if view.record.cluster != "slurm":
        return read_holder(project.job(view.id))[1]
    if queue.problem is None:
        return queue.alive(view.id)
    ended = view.status.ended_at if view.status is not None else None
    if ended is not None and time.time() - ended.timestamp() > LEAST_AGE_S:
        return False
    found.left_alone.append(f"{view.id}: SLURM could not be asked whether it is still closing")
    return True


def _ended_before(view: JobView, moment: datetime | None) -> bool:
    if moment is None:
        return True
    ended = view.status.ended_at if view.status is not None else None
    if ended is None and view.record is not None:  # SLURM ended it, and it left no time
        ended = view.record.submitted
    return ended is not None and ended < moment


def _of_job(paths: JobPaths, keep: int, needed: _Needed, found: Findings) -> Iterator[Leftover]:
    """What can go of a job that is over."""
    if paths.folder.is_symlink():
        found.left_alone.append(f"{paths.id}: its folder is a link")
        return
    for folder in (paths.folder, paths.checkpoints):
        yield from (Leftover("temporary", p, n, paths.id) for p, n in _files(folder) if _TEMPORARY.fullmatch(p.name))
    yield from (Leftover("reserve", p, n, paths.id) for p, n in _files(paths.folder) if p == paths.reserve)
    if paths.checkpoints.is_symlink():
        found.left_alone.append(f"{paths.id}: its folder of checkpoints is a link")
    elif paths.id not in needed.jobs:
        yield from _old_checkpoints(paths, keep, needed, found)


def _old_checkpoints(paths: JobPaths, keep: int, needed: _Needed, found: Findings) -> Iterator[Leftover]:
    """The checkpoints beyond the newest `keep`, and files of episodes that none of those that stay names."""
    files = dict(_files(paths.checkpoints))
    steps = sorted((path for path in files if _STEP.fullmatch(path.name)), key=_step)
    episodes = [path for path in files if _EPISODES.fullmatch(path.name)]
    newest = steps[-keep:]
    best = _best_step(paths) if len(steps) > keep else None
    old = [path for path in steps[:-keep] if _step(path) != best and (paths.id, path.name) not in needed.checkpoints]
    if not newest or not (old or episodes):
        return
    try:
        named = {path: _named_episodes(path) for path in steps if path not in old}
        kept = set[str]().union(*named.values())
        unnamed = [path for path in episodes if path.name not in kept]
        if not (old or unnamed):
            return
        whole = all(_is_whole(path) for path in newest)
    except (OSError, zipfile.BadZipFile):
        named, unnamed, whole = {}, [], False
    if not whole or any((paths.checkpoints / name) not in files for path in newest for name in named[path]):
        found.left_alone.append(f"{paths.id}: not all of its newest checkpoint can be read; the older ones stay")
        return
    yield from (Leftover("checkpoint", path, files[path], paths.id) for path in old)
    yield from (Leftover("episodes", path, files[path], paths.id) for path in unnamed)


def _named_episodes(checkpoint: Path) -> set[str]:
    """The files of episodes that a checkpoint names, read without torch. Raises OSError, BadZipFile."""
    with zipfile.ZipFile(checkpoint) as archive:
        pickles = [archive.read(name) for name in archive.namelist() if name.endswith("data.pkl")]
    return {name.decode() for data in pickles for name in re.findall(_EPISODES.pattern.encode(), data)}


def _is_whole(checkpoint: Path) -> bool:
    """Whether all of a checkpoint is as it was written, by the sums in its archive. Raises OSError, BadZipFile."""
    with zipfile.ZipFile(checkpoint) as archive:
        return archive.testzip() is None


def _step(path: Path) -> int:
    match = _STEP.fullmatch(path.name)
    return int(match[1]) if match else -1


def _best_step(paths: JobPaths) -> int | None:
    """The step of the best evaluation, by games won, else by return; the last of equals."""
    try:
        rows = eval_rows(paths)
    except LabError:
        return None
    scores = []
    for row in rows:
        wins = [won for key in row if key == "win" or key.startswith("win_") if (won := as_float(row[key])) is not None]
        if (step := as_int(row.get("step"))) is not None:
            mean = as_float(row.get("return_mean"))
            scores.append((sum(wins), -math.inf if mean is None else mean, step))
    return max(scores)[2] if scores else None


def _of_nobody(project: Project, queue: Queue, before: float) -> Iterator[Leftover]:
    """What belongs to no job: old snapshots, and what interrupted submits and removed jobs left."""
    for folder in [] if project.snapshots.is_symlink() else unused_snapshots(project):
        if folder.lstat().st_mtime < before:
            yield Leftover("snapshot", folder, _size(folder))
    names = folder_names(project)
    for name in names:
        folder = project.jobs / name
        if queue.problem is None and not _in_queue(queue, name) and _of_a_submit(folder, before):
            yield Leftover("unfinished", folder, _size(folder), name)
    if queue.problem is None:
        yield from _orphans(project, queue, {name.partition("_")[0] for name in names}, before)


def _of_a_submit(folder: Path, before: float) -> bool:
    """Whether a folder is what a submit that was killed left: no record, nothing that a job writes."""
    if folder.is_symlink() or (folder / "job.json").exists() or folder.lstat().st_mtime >= before:
        return False
    return all(p.name in _OF_A_SUBMIT or _TEMPORARY.fullmatch(p.name) for p in folder.iterdir())


def _in_queue(queue: Queue, name: str) -> bool:
    """Whether a job of this id, or of this array, waits or runs."""
    return any(queue.alive(job_id) and name in (job_id, job_id.partition("_")[0]) for job_id in queue.lines)


def _orphans(project: Project, queue: Queue, arrays: set[str], before: float) -> Iterator[Leftover]:
    """Files that submitit made for SLURM jobs of which there is no folder any more."""
    for path, size in _files(submit_folder(project)):
        match = re.match(r"(\d+)_", path.name)
        if match is None or match[1] in arrays or _in_queue(queue, match[1]) or path.lstat().st_mtime >= before:
            continue
        yield Leftover("orphan", path, size, match[1])


def _files(folder: Path) -> list[tuple[Path, int]]:
    """The regular files in a folder that is itself no link, with their sizes."""
    if folder.is_symlink():
        return []
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = []
    for entry in entries:
        status = entry.stat(follow_symlinks=False)
        if stat.S_ISREG(status.st_mode):
            found.append((folder / entry.name, status.st_size))
    return found


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; links count nothing."""
    if path.is_symlink():
        return 0
    if not path.is_dir():
        return path.lstat().st_size
    return sum(size for here, _, _ in os.walk(path) for _, size in _files(Path(here)))
