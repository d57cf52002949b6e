"""`status` and `wait`: what the jobs are doing, from their files and one question to the scheduler."""

from __future__ import annotations

import contextlib
import gc
import math
import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tdmpc_lab.app.jobview import JobView, owner_of
from tdmpc_lab.errors import ExternalError, LabError, RecordError, UsageError
from tdmpc_lab.files import read_jsonl
from tdmpc_lab.jobs.events import OUTCOMES, read_brief, read_events, seems_over
from tdmpc_lab.jobs.look import status_of, traceback_of
from tdmpc_lab.jobs.metrics import telling_rows
from tdmpc_lab.jobs.paths import EVENTS, JobPaths, Project
from tdmpc_lab.jobs.record import JobRecord, all_records, read_record
from tdmpc_lab.jobs.requests import cancelled_since, read_requests
from tdmpc_lab.jobs.state import JobStatus, SchedulerState, State
from tdmpc_lab.launch.attempts import heartbeat_s, last_sign_s
from tdmpc_lab.launch.queue import Queue, ask_queue, slurm_states
from tdmpc_lab.launch.unfinished import unfinished
from tdmpc_lab.text import parse_time, shorten

if TYPE_CHECKING:
    from tdmpc_lab.training.progress import Progress

__all__ = ["JobView"]  # it is at home in jobview; who asks for views looks for it here

Job = tuple[JobPaths, JobRecord | RecordError]

POLL_S = 0.5
ASK_S = 5.0  # between two questions to SLURM
UNKNOWN_S = 30.0
_LAST_WORDS = 4096  # bytes at the end of a log
_ERROR_LINE = re.compile(r"^(?:[a-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Exit)(?::[^\n]*)?$", re.MULTILINE)


def scheduler_states(
    jobs: Sequence[tuple[JobPaths, JobRecord]], queue: Queue | None = None
) -> dict[str, SchedulerState]:
    """What the schedulers say of these jobs: one squeue call for all SLURM jobs (unless its answer `queue` is there
    already), the process table for local ones; and the heartbeats of those of which no scheduler says that they live.
    """
    states: dict[str, SchedulerState] = {}
    slurm = [(paths, record) for paths, record in jobs if record.cluster == "slurm"]
    if slurm:
        queue = queue or ask_queue(users=owners(paths for paths, _ in slurm))
        states |= slurm_states([record.id for _, record in slurm], _without_strangers(queue, slurm))
    here = [(paths, record) for paths, record in jobs if record.cluster != "slurm"]
    if here:
        from tdmpc_lab.launch.local import local_state

        for paths, record in here:
            states[record.id] = local_state(paths, read_events(paths.events))
    folders = {record.id: paths.attempts for paths, record in jobs}
    return {
        job_id: replace(state, heartbeat_s=heartbeat_s(folders[job_id]))
        if state.state in ("GONE", "UNREACHABLE")
        else state
        for job_id, state in states.items()
    }


def _without_strangers(queue: Queue, jobs: Sequence[tuple[JobPaths, JobRecord]]) -> Queue:
    """The queue without jobs that only have the ids of these: other ones, of after SLURM's ids began anew. They have
    another name and another folder; a project that was moved, or a job that was renamed, has one of the two."""

    def is_stranger(paths: JobPaths, record: JobRecord) -> bool:
        line = queue.lines.get(record.id)
        if line is None or not line.folder or line.name == record.experiment:
            return False
        return Path(line.folder).resolve() != paths.folder.parent.parent.resolve()

    strangers = {record.id for paths, record in jobs if is_stranger(paths, record)}
    return replace(queue, lines={job_id: line for job_id, line in queue.lines.items() if job_id not in strangers})


def owners(jobs: Iterable[JobPaths]) -> set[int]:
    """The users whose jobs these are: of a project that several share, the queue holds jobs of all of them."""
    found = set()
    for paths in jobs:
        with contextlib.suppress(OSError):
            found.add(paths.folder.stat().st_uid)
    return found


def job_views(project: Project, ids: Sequence[str] | None = None, asked: Asked | None = None) -> list[JobView]:
    """All jobs of the project (or those named), oldest first. A damaged job is shown as such, the others go on.

    Every file is read once, and only at its end where that says enough. `asked` remembers the scheduler's answer
    for a while, for callers that look again and again.
    """
    with no_garbage():
        records = all_records(project) if ids is None else [named_record(project, job_id) for job_id in ids]
        return views_of(records, asked or Asked())


def newest_and_active(
    jobs: Sequence[Job], most: int, asked: Asked | None = None
) -> tuple[list[JobView], list[JobView]]:
    """Of these jobs (oldest first) the last `most`, and before them those that wait or run; and of the others
    those that had to be looked at closely, because no outcome of theirs is on file.

    Of an older job that is over no more is read than tells that it is.
    """
    with no_garbage():
        cut = max(0, len(jobs) - most)
        open_jobs = [job for job in jobs[:cut] if not _is_over(*job)]
        views = views_of([*open_jobs, *jobs[cut:]], asked or Asked())
        older, newest = views[: len(open_jobs)], views[len(open_jobs) :]
        active = [view for view in older if view.goes_on]
        return [*active, *newest], [view for view in older if not view.goes_on]


@contextlib.contextmanager
def no_garbage() -> Iterator[None]:
    """Within, Python does not look for cycles: it would, again and again, among the rows of thousands of jobs."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def views_of(jobs: Sequence[Job], asked: Asked) -> list[JobView]:
    """These jobs, in their order; the schedulers are asked about those that left no outcome."""
    views: list[JobView | None] = []
    open_jobs: list[tuple[int, JobPaths, JobRecord]] = []
    for paths, record in jobs:
        if isinstance(record, RecordError):
            view: JobView | None = JobView(paths.id, None, None, str(record))
        else:
            view = _ended_by_file(paths, record)
            if view is None:
                open_jobs.append((len(views), paths, record))
        views.append(view)
    states = asked.states([(paths, record) for _, paths, record in open_jobs])
    for index, paths, record in open_jobs:
        views[index] = _view(paths, record, states.get(record.id))
    return [view for view in views if view is not None]


def _is_over(paths: JobPaths, record: JobRecord | RecordError) -> bool:
    """Whether it is plain that a job's outcome is on file, or its files tell nothing."""
    if isinstance(record, RecordError):
        return True
    try:
        return seems_over(paths.text(EVENTS))
    except OSError:
        return False


def named_record(project: Project, job_id: str) -> Job:
    """A job with its record, or with the reason why that can't be read."""
    paths = project.job(job_id)
    try:
        return paths, read_record(paths)
    except RecordError as error:
        return paths, error


def _ended_by_file(paths: JobPaths, record: JobRecord) -> JobView | None:
    """A job whose outcome is on file, which needs no scheduler; None for the others."""
    try:
        events = read_brief(paths.text(EVENTS))
        if not any(event.get("event") in OUTCOMES for event in events):
            return None
        status = status_of(paths, record, None, events, telling_rows(paths))
    except LabError as error:
        return JobView(record.id, record, None, str(error))
    return _seen(paths, record, status, events) if status.state.ended else None


def unrecorded_views(project: Project) -> list[JobView]:
    """What interrupted submits left in SLURM's queue without a whole record; none where SLURM can't be asked."""
    try:
        return [JobView(left.id, None, None, left.cause) for left in unfinished(project) if not left.recorded]
    except (ExternalError, UsageError) as error:
        return [JobView("?", None, None, f"a submit was interrupted, and what it left can't be looked for: {error}")]


def _view(paths: JobPaths, record: JobRecord, scheduler: SchedulerState | None) -> JobView:
    try:
        events = read_events(paths.events)
        status = status_of(paths, record, scheduler, events)
        gone = status.state is State.UNKNOWN and scheduler is not None and scheduler.state == "GONE"
        if gone and (by := _who_asked(paths, events)):  # SLURM has forgotten it: what was asked of it tells the end
            status = status_of(paths, record, SchedulerState("GONE", f"CANCELLED by {by}"), events)
        if status.state is State.FAILED and (error := last_error(paths.log_err)):
            status = replace(status, cause=f"{error}; {status.cause}")
        unreachable = scheduler is not None and scheduler.state == "UNREACHABLE"
        return replace(
            _seen(paths, record, status, events),
            slurm_answered=not (unreachable and record.cluster == "slurm"),
            unseen=status.state is State.RUNNING and scheduler is not None and scheduler.state == "GONE",
            over=status.state.ended or (status.state is State.UNKNOWN and not unreachable),
            line=None if scheduler is None or status.state.ended else scheduler.line,
            user=owner_of(paths, scheduler),
            sign_of_life_s=last_sign_s(paths.attempts) if status.state is State.RUNNING else None,
        )
    except LabError as error:
        return JobView(record.id, record, None, str(error))


def _seen(paths: JobPaths, record: JobRecord, status: JobStatus, events: Sequence[dict[str, Any]]) -> JobView:
    trace = traceback_of(events) if status.state is State.FAILED else None
    return JobView(paths.id, record, status, traceback=trace, user=owner_of(paths), over=status.state.ended)


def _who_asked(paths: JobPaths, events: Sequence[dict[str, Any]]) -> str | None:
    """Who asked for the job's end since it last started."""
    starts = [parse_time(event.get("time")) for event in events if event.get("event") == "started"]
    return cancelled_since(read_requests(paths), starts[-1] if starts else None)


def last_error(log: Path) -> str | None:
    """The exception that ended a process, from the end of what it printed; None where it names none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _LAST_WORDS))
            text = file.read().decode(errors="replace")
    except OSError:
        return None
    found = _ERROR_LINE.findall(text)
    return shorten(found[-1], 200) if found else None


class Asked:
    """What the schedulers said, asked again only after a while: they serve everybody.

    `every_s` infinite: SLURM's queue is read once.
    """

    def __init__(self, every_s: float = 0.0, ask: Callable[[float | None, Collection[int]], Queue] = ask_queue) -> None:
        self._every_s = every_s
        self._ask = ask
        self._next = -math.inf
        self._queue: Queue | None = None
        self._states: dict[str, SchedulerState] = {}

    def states(self, jobs: Sequence[tuple[JobPaths, JobRecord]]) -> dict[str, SchedulerState]:
        """The states of these jobs: of local ones now, of SLURM's as far as `every_s` seconds old."""
        slurm = [(paths, record) for paths, record in jobs if record.cluster == "slurm"]
        if slurm and (time.monotonic() >= self._next or any(r.id not in self._states for _, r in slurm)):
            self._states |= scheduler_states(slurm, self._read(None, owners(paths for paths, _ in slurm)))
        here = [(paths, record) for paths, record in jobs if record.cluster != "slurm"]
        return self._states | scheduler_states(here)

    def queue(self, timeout_s: float) -> Queue:
        """All of the queue, as far as `every_s` seconds old; SLURM may take `timeout_s` where it has to be asked."""
        fresh = self._queue is not None and time.monotonic() < self._next
        return self._queue if fresh and self._queue is not None else self._read(timeout_s, ())

    def _read(self, timeout_s: float | None, users: Collection[int]) -> Queue:
        self._queue = self._ask(timeout_s, users)
        self._next = time.monotonic() + self._every_s
        return self._queue


def wait(project: Project, ids: Sequence[str], progress: Progress) -> list[JobView]:
    """Show the jobs' progress until all have ended; returns how they ended.

    A job that is UNKNOWN for a while (its process is gone without a word) counts as ended; for a moment a SLURM
    job can be, between the queue and the accounts.
    """
    offsets = dict.fromkeys(ids, 0)
    events_seen = dict.fromkeys(ids, 0)
    asked = Asked(ASK_S)
    unknown_since: dict[str, float] = {}
    while True:
        views = job_views(project, ids, asked)
        for job_id in ids:
            paths = project.job(job_id)
            rows, offsets[job_id] = read_jsonl(paths.metrics, offsets[job_id])
            for row in rows:
                progress.row(job_id, row)
            events_seen[job_id] = _show_events(paths, events_seen[job_id], progress)
        if not any(goes_on(view, unknown_since) for view in views) and not _closing(project, views, asked):
            return job_views(project, ids)
        time.sleep(POLL_S)


def goes_on(view: JobView, unknown_since: dict[str, float]) -> bool:
    """Whether this job is to be waited for; `unknown_since` keeps when each became UNKNOWN."""
    if view.status is None or view.record is None:
        return False
    if view.status.state is not State.UNKNOWN or not view.over:
        unknown_since.pop(view.id, None)
        return not view.over
    since = unknown_since.setdefault(view.id, time.monotonic())
    return view.record.cluster == "slurm" and time.monotonic() - since < UNKNOWN_S


def _closing(project: Project, views: Sequence[JobView], asked: Asked) -> bool:
    """A process is still busy with a job whose outcome is known: its note and its MLflow run are being finished."""
    jobs = [(project.job(view.id), view.record) for view in views if view.record is not None]
    return any(found.state in ("PENDING", "RUNNING") for found in asked.states(jobs).values())


def _show_events(paths: JobPaths, seen: int, progress: Progress) -> int:
    from tdmpc_lab.app.worker import event_text

    events = read_events(paths.events)
    for event in events[seen:]:
        if event.get("event") == "started":
            progress.message(paths.id, f"started on {event.get('host')}")
        elif text := event_text(str(event.get("event")), event):
            progress.message(paths.id, text)
    return len(events)
