"""Submits that came to no end: what they left in SLURM's queue is found again by a mark in the jobs' comment.

jobs/.submitit/<mark>.submit    made before sbatch is called, locked by the submitting process, removed when
                                everything is recorded and released
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tdmpc_lab.jobs.find import is_recorded
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.launch.sbatch import submit_folder
from tdmpc_lab.launch.slurm import ids_by_comment
from tdmpc_lab.sharing import make_folder

_MARK = re.compile(r"tdmpc-lab-[0-9a-f]{16}")
_ENDING = ".submit"


@dataclass(frozen=True)
class Unfinished:
    """A job or array that is in the queue, held, because its submit ended before it was released."""

    id: str
    recorded: bool
    """Whether all its tasks have their record: then they are jobs like others, which wait for their release."""

    @property
    def cause(self) -> str:
        """Why it is there without a whole record, and what to do."""
        return (
            "in SLURM's queue without a whole record: its submit was interrupted. It does not start; "
            f"remove it: tdmpc-lab cancel {self.id}"
        )


def is_mark(comment: str) -> bool:
    """Whether a job with this comment was submitted by this tool."""
    return _MARK.fullmatch(comment) is not None


@contextlib.contextmanager
def submitting(project: Project) -> Iterator[str]:
    """The mark to be put into the comment of what is submitted within.

    Leaving it with an exception, or not at all, leaves a file that has `unfinished` look into the queue.
    """
    mark = f"tdmpc-lab-{secrets.token_hex(8)}"
    path = submit_folder(project) / f"{mark}{_ENDING}"
    make_folder(path.parent, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield mark
        path.unlink(missing_ok=True)
    finally:
        os.close(fd)


def unfinished(project: Project) -> list[Unfinished]:
    """What interrupted submits of this project left in the queue. SLURM is asked only if there were any.

    Raises ExternalError and UsageError when SLURM can't be asked.
    """
    marks = {path.name.removesuffix(_ENDING): path for path in _abandoned(project)}
    if not marks:
        return []
    found = ids_by_comment(marks)
    tasks: dict[str, list[str]] = {}
    for job_id in itertools.chain(*found.values()):
        tasks.setdefault(job_id.partition("_")[0], []).append(job_id)
    for mark in marks.keys() - found:
        marks[mark].unlink(missing_ok=True)
    return [Unfinished(job_id, all(is_recorded(project, task) for task in ids)) for job_id, ids in tasks.items()]


def _abandoned(project: Project) -> list[Path]:
    """The files of this user's submits whose process is gone: what colleagues submitted is theirs to look for."""
    found = []
    for path in sorted(submit_folder(project).glob(f"*{_ENDING}")):
        if not _MARK.fullmatch(path.name.removesuffix(_ENDING)):
            continue
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_uid != os.getuid():
                continue
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            found.append(path)
    return found
