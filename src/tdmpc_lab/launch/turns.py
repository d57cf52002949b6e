"""Whose turn it is among the local jobs of a project: at most so many at once, the oldest first.

jobs/.local/lock         held while somebody decides
jobs/.local/queue/<id>   a job that waits; counts only while its supervisor lives
jobs/.local/slot-<k>     locked by the supervisor of a running job, so freed when that process ends
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tdmpc_lab.files import file_lock
from tdmpc_lab.jobs.ids import is_job_id, natural_key
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.launch.lease import read_holder

_POLL_S = 0.3


def join_queue(project: Project, job_id: str) -> None:
    """Have the job wait for its turn. Its lease is to be held by now: without it, it does not count."""
    ticket = _queue(project) / job_id
    ticket.parent.mkdir(parents=True, exist_ok=True)
    ticket.touch()


def leave_queue(project: Project, job_id: str) -> None:
    """Wait no longer."""
    (_queue(project) / job_id).unlink(missing_ok=True)


@contextlib.contextmanager
def turn(
    project: Project, job_id: str, max_local: int, cancelled: Callable[[], bool], poll_s: float = _POLL_S
) -> Iterator[bool]:
    """Wait until fewer than `max_local` jobs run and no older one waits; the place is held inside.

    Gives False at once when `cancelled()` becomes true.
    """
    join_queue(project, job_id)
    slot: int | None = None
    try:
        while slot is None and not cancelled():
            slot = _try(project, job_id, max_local)
            if slot is None:
                time.sleep(poll_s)
        leave_queue(project, job_id)
        yield slot is not None
    finally:
        leave_queue(project, job_id)
        if slot is not None:
            os.close(slot)


def _try(project: Project, job_id: str, max_local: int) -> int | None:
    """The open file of a slot, or None when it is not this job's turn."""
    folder = project.jobs / ".local"
    with file_lock(folder / "lock"):
        if any(natural_key(other) < natural_key(job_id) for other in _waiting(project)):
            return None
        free: list[int] = []
        running = 0
        try:
            for number in range(max(max_local, _slots(folder))):
                fd = os.open(folder / f"slot-{number}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    free.append(fd)
                except BlockingIOError:
                    running += 1
                    os.close(fd)
            return free.pop(0) if running < max_local and free else None
        finally:
            for fd in free:
                os.close(fd)


def _waiting(project: Project) -> list[str]:
    """Jobs that wait and whose supervisor lives; tickets of dead ones are torn up."""
    alive = []
    for ticket in _queue(project).iterdir():
        if not is_job_id(ticket.name):
            continue
        _, held = read_holder(project.job(ticket.name))
        if held:
            alive.append(ticket.name)
        else:
            ticket.unlink(missing_ok=True)
    return alive


def _slots(folder: Path) -> int:
    """How many slot files there are: other jobs may have been started with a larger `max_local`."""
    numbers = [int(p.name.removeprefix("slot-")) for p in folder.glob("slot-*") if p.name[5:].isdecimal()]
    return max(numbers, default=-1) + 1


def _queue(project: Project) -> Path:
    return project.jobs / ".local" / "queue"
