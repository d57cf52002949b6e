"""`status` and `wait`: the jobs that are asked for, and what they are doing, from their files and one question to the
scheduler; and this user's other jobs in SLURM's queue.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tdmpc_lab.errors import ExternalError, LabError, RecordError, UsageError
from tdmpc_lab.files import read_jsonl
from tdmpc_lab.jobs.events import (
    OUTCOMES,
    cancelled_since,
    event_text,
    person,
    read_brief,
    read_events,
    read_requests,
    seems_over,
)
from tdmpc_lab.jobs.find import all_records, folder_names, tasks_of
from tdmpc_lab.jobs.ids import array_of, fold_tasks, is_slurm_id, natural_key
from tdmpc_lab.jobs.metrics import opponents_of, telling_rows
from tdmpc_lab.jobs.paths import EVENTS, JobPaths, Project
from tdmpc_lab.jobs.queued import QueueLine, share_at_limit
from tdmpc_lab.jobs.record import JobRecord, read_record
from tdmpc_lab.jobs.state import END_WORDS, JobStatus, SchedulerState, State, status_of, traceback_of
from tdmpc_lab.launch.attempts import DEAD_S, heartbeat_s, last_heartbeat_s
from tdmpc_lab.launch.queue import Queue, ask_queue, slurm_states, waits
from tdmpc_lab.launch.slurm import is_mark, unfinished
from tdmpc_lab.sharing import is_shared, user_name
from tdmpc_lab.text import parse_time, shorten

if TYPE_CHECKING:
    from tdmpc_lab.training.progress import Progress


NOT_OURS = "(not of this project)"
UNRECORDED = "(of this project, but without a record: it is being submitted, or its folder was removed)"
KEYS = (
    "id", "experiment", "about", "state", "cause", "step", "steps", "attempt", "node", "elapsed_s", "eta_s",
    "steps_per_s", "return", "win", "wins", "mlflow_run", "traceback", "sweep", "cluster", "partition", "user",
    "submitted_at", "limit_left_s", "done_at_limit", "sign_of_life_s", "slurm", "foreign",
)  # fmt: skip
"""Of a job in `status --json`; see docs/status.md."""


@dataclass(frozen=True)
class JobView:
    """One job for the table: its record and status, or the reason why it can't be read.

    A job in the queue that the project knows nothing of has neither, but a `line`.
    """

    id: str
    record: JobRecord | None
    status: JobStatus | None
    problem: str | None = None
    traceback: str | None = None
    """Of a failed job."""
    slurm_answered: bool = True
    """False when SLURM could not be asked about this job: then the status is what was last known."""
    over: bool = False
    """Whether it is known that it neither runs nor will: an outcome, or no trace and no heartbeat of it where its
    scheduler could be asked. What starts a job again, cancels it or removes its files asks this."""
    unseen: bool = False
    """Whether only its heartbeats say that it runs: its scheduler does not know it."""
    line: QueueLine | None = None
    """How SLURM's queue shows it, while it waits or runs there."""
    user: str | None = None
    """Who submitted it."""
    sign_of_life_s: float | None = None
    """Seconds since the running job's last heartbeat; None where it has given none."""
    folder: str | None = None
    """Working directory of a job that the project knows nothing of."""

    @property
    def foreign(self) -> bool:
        """Whether the project knows nothing of this job but its line in the queue."""
        return self.record is None and self.line is not None

    @property
    def goes_on(self) -> bool:
        """Whether it waits or runs, as far as is known."""
        return self.foreign or (self.status is not None and self.status.state in (State.PENDING, State.RUNNING))

    @property
    def state(self) -> State:
        """Its state; UNKNOWN for a job that can't be read."""
        if self.status is not None:
            return self.status.state
        if self.line is not None:
            return State.PENDING if waits(self.line) else State.RUNNING
        return State.UNKNOWN

    @property
    def partition(self) -> str:
        """Where it waits or runs: the partition, or `local`, `debug`."""
        if self.line is not None:
            return self.line.partition
        if self.record is None:
            return ""
        return str(self.record.resources.get("partition") or self.record.cluster)

    @property
    def limit_left_s(self) -> float | None:
        """Seconds until SLURM's time limit, while it runs."""
        return self.line.left_s if self.line is not None and self.state is State.RUNNING else None

    @property
    def done_at_limit(self) -> float | None:
        """The share of its steps it will have done at its time limit; None where it is done before, or not known."""
        s, left = self.status, self.limit_left_s
        if s is None or left is None or s.steps_per_s is None or s.eta_s is None:
            return None
        return share_at_limit(s.step or 0, s.steps, s.steps_per_s, left)

    @property
    def silent(self) -> bool:
        """Whether a running job has sent no heartbeat for longer than it may."""
        return self.sign_of_life_s is not None and self.sign_of_life_s > DEAD_S

    def as_dict(self) -> dict[str, Any]:
        """For scripts."""
        here = {"user": self.user, "partition": self.partition or None, "slurm": _slurm(self.line)}
        if self.record is None or self.status is None:
            known = {"id": self.id, "state": self.state.value, "cause": self.problem, "foreign": self.foreign}
            named = {"about": self.problem, "cause": None, "cluster": "slurm"} if self.foreign else {}
            return dict.fromkeys(KEYS) | here | known | named
        s, record = self.status, self.record
        evaluation = s.latest_eval or {}
        return {
            "id": self.id,
            "experiment": record.experiment,
            "about": record.about,
            "state": s.state.value,
            "cause": s.cause,
            "step": s.step,
            "steps": s.steps,
            "attempt": s.attempt,
            "node": s.node,
            "elapsed_s": s.elapsed_s,
            "eta_s": s.eta_s,
            "steps_per_s": s.steps_per_s,
            "win": evaluation.get("win"),
            "wins": {name: evaluation.get(f"win{suffix}") for name, suffix in opponents_of(evaluation)} or None,
            "return": evaluation.get("return_mean", s.latest_return),
            "mlflow_run": s.run_id,
            "traceback": self.traceback,
            "sweep": record.sweep,
            "cluster": record.cluster,
            **here,
            "submitted_at": record.submitted_at,
            "limit_left_s": self.limit_left_s,
            "done_at_limit": self.done_at_limit,
            "sign_of_life_s": self.sign_of_life_s,
            "foreign": False,
        }


def foreign_view(job_id: str, line: QueueLine, about: str) -> JobView:
    """A job in the queue that the project knows nothing of; `about` says what it is instead."""
    return JobView(job_id, None, None, about, line=line, user=line.user or None, folder=line.folder or None)


_user_name = cache(user_name)  # the same few for thousands of jobs


def owner_of(paths: JobPaths, scheduler: SchedulerState | None = None) -> str | None:
    """Who submitted a job: by SLURM's queue, else the owner of its folder."""
    if scheduler is not None and scheduler.line is not None and scheduler.line.user:
        return scheduler.line.user
    try:
        return _user_name(paths.folder.stat().st_uid)
    except OSError:
        return None


def _slurm(line: QueueLine | None) -> dict[str, Any] | None:
    """The columns of squeue."""
    if line is None:
        return None
    return {
        "name": line.name,
        "state": line.word,
        "time": line.used,
        "limit": line.limit,
        "nodes": line.nodes,
        "nodelist_or_reason": line.place,
        "begin": None if line.held else line.begin or None,
    }


__all__ = ["JobView"]  # it is at home in jobview; who asks for views looks for it here

RecordedJob = tuple[JobPaths, JobRecord | RecordError]

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
    """All jobs of the project (or those named), oldest first. A damaged job is shown as such, the others continue.

    Every file is read once, and only at its end where that says enough. `asked` remembers the scheduler's answer
    for a while, for callers that look again and again.
    """
    with no_garbage():
        records = all_records(project) if ids is None else [named_record(project, job_id) for job_id in ids]
        return views_of(records, asked or Asked())


def newest_and_active(
    jobs: Sequence[RecordedJob], most: int, asked: Asked | None = None
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


def views_of(jobs: Sequence[RecordedJob], asked: Asked) -> list[JobView]:
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


def named_record(project: Project, job_id: str) -> RecordedJob:
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
            sign_of_life_s=last_heartbeat_s(paths.attempts) if status.state is State.RUNNING else None,
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
    events = read_events(paths.events)
    for event in events[seen:]:
        if event.get("event") == "started":
            progress.message(paths.id, f"started on {event.get('host')}")
        elif text := event_text(str(event.get("event")), event):
            progress.message(paths.id, text)
    return len(events)


FOREIGN_S = 5.0  # SLURM may take for an answer where no job of the project needs one
GROUPS = {
    "active": (State.PENDING, State.RUNNING),
    "over": (State.COMPLETED, State.FAILED, State.CANCELLED, State.TIMEOUT),
}


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which jobs are wanted; all that is given must hold."""

    ids: Sequence[str] | None = None
    states: frozenset[State] | None = None
    experiment: str | None = None
    cluster: str | None = None
    """`slurm`, `local` or `debug`."""
    partition: str | None = None
    since: datetime | None = None
    mine: bool = False
    """Only jobs that this user submitted, of a project that several share."""
    foreign: bool = True
    """Also this user's jobs in SLURM's queue that the project knows nothing of."""

    @property
    def filters(self) -> bool:
        """Whether anything but ids is asked for."""
        asked = (self.states, self.experiment, self.cluster, self.partition, self.since)
        return self.mine or any(one is not None for one in asked)

    def takes_record(self, paths: JobPaths, record: JobRecord | RecordError) -> bool:
        """Whether a job can be wanted, by what was known at its submit; one that can't be read only without filter."""
        if isinstance(record, RecordError):
            return not self.filters
        partitions = str(record.resources.get("partition") or record.cluster).split(",")
        return (
            (self.experiment is None or record.experiment == self.experiment)
            and (self.cluster is None or record.cluster == self.cluster)
            and (self.partition is None or self.partition in partitions)
            and (self.since is None or record.submitted >= self.since)
            and (not self.mine or owner_of(paths) == person())
        )

    def takes_foreign(self, view: JobView) -> bool:
        """Whether a job that is not of the project is wanted; never where a submit time is asked for."""
        assert view.line is not None
        return (
            self.since is None
            and (self.states is None or view.state in self.states)
            and (self.experiment is None or view.line.name == self.experiment)
            and (self.cluster is None or self.cluster == "slurm")
            and (self.partition is None or view.line.partition == self.partition)
        )


@dataclass(frozen=True)
class Listing:
    """What was found."""

    views: list[JobView]
    """Jobs of the project, oldest first."""
    foreign: list[JobView]
    """This user's other jobs in the queue."""
    left_out: int = 0
    """Older jobs that are over and not among them."""
    known: int = 0
    """Jobs of the project, wanted or not."""
    problem: str | None = None
    """Why the queue could not be read, where no job of the project needed it."""
    looked_at: Sequence[JobView] = ()
    """Jobs of the project that were looked at, shown or not: among them all that have left no outcome."""

    @property
    def slurm_answered(self) -> bool:
        """False when SLURM could not be asked about a job of the project."""
        return all(view.slurm_answered for view in self.views)


def parse_states(text: str) -> frozenset[State]:
    """The states meant by `failed`, `pending,running`, `active`, `over`. Raises UsageError."""
    found: set[State] = set()
    for word in (word.strip() for word in text.split(",")):
        if word.lower() in GROUPS:
            found.update(GROUPS[word.lower()])
        elif word.upper() in State.__members__:
            found.add(State[word.upper()])
        else:
            names = ", ".join(state.value.lower() for state in State)
            raise UsageError(f"{word!r} is no state; there are {names}, and for several active and over")
    return frozenset(found)


def list_jobs(project: Project, wanted: Selection, most: int | None, asked: Asked | None = None) -> Listing:
    """The jobs wanted, of those that are over the newest `most` (None: all); one question to SLURM in all.

    `asked` remembers SLURM's answer for a caller that looks again and again. Raises UsageError for what is no id.
    """
    with_foreign = wanted.foreign and wanted.ids is None
    if asked is None:
        asked = Asked(math.inf, _EarlyQueue(project) if with_foreign and shutil.which("squeue") else ask_queue)
    with no_garbage():
        ids = wanted.ids
        jobs: Sequence[RecordedJob] = all_records(project) if ids is None else [named_record(project, i) for i in ids]
        known = {paths.id for paths, _ in jobs}
        if wanted.filters:
            jobs = [job for job in jobs if wanted.takes_record(*job)]
        views, left_out, looked_at = _chosen(jobs, wanted.states, most, asked)
    if wanted.ids is not None:
        return Listing(views, [], left_out, len(known), looked_at=looked_at)
    unrecorded = [] if wanted.filters else unrecorded_views(project)
    foreign, problem = [], None
    if with_foreign and shutil.which("squeue"):
        queue = asked.queue(FOREIGN_S)
        others = _foreign(project, queue, known | {view.id for view in unrecorded})
        foreign, problem = [view for view in others if wanted.takes_foreign(view)], queue.problem
    return Listing([*views, *unrecorded], foreign, left_out, len(known), problem, looked_at)


def _chosen(
    jobs: Sequence[RecordedJob], states: frozenset[State] | None, most: int | None, asked: Asked
) -> tuple[list[JobView], int, list[JobView]]:
    """The views of these jobs that are in one of the states; how many older ones are left out; and all views
    that were made on the way."""
    if states is None and most is not None:
        shown, others = newest_and_active(jobs, most, asked)
        return shown, len(jobs) - len(shown), [*shown, *others]
    views = views_of(jobs, asked)
    fitting = views if states is None else [view for view in views if view.state in states]
    left_out = 0 if most is None else max(0, len(fitting) - most)
    shown = fitting[left_out:]
    return shown, left_out, views


def _foreign(project: Project, queue: Queue, known: set[str]) -> list[JobView]:
    """The jobs that wait or run, and that neither they nor their array are known; tasks that wait in one line."""
    views: list[JobView] = []
    waiting: dict[tuple[str, QueueLine], list[int]] = {}
    for job_id, line in queue.lines.items():
        if not queue.alive(job_id) or job_id in known or job_id.partition("_")[0] in known:
            continue
        if line.user in queue.others:
            continue
        task = array_of(job_id)
        if task is not None and waits(line):
            waiting.setdefault((task[0], line), []).append(task[1])
        else:
            views.append(foreign_view(job_id, line, _about(project, line)))
    for (array, line), tasks in waiting.items():
        job_id = fold_tasks(array, tasks) if len(tasks) > 1 else f"{array}_{tasks[0]}"
        views.append(foreign_view(job_id, line, _about(project, line)))
    return sorted(views, key=lambda view: natural_key(view.id))


def foreign_job(project: Project, job_id: str) -> str:
    """What SLURM's queue says of an id that has no record in this project, and what can be done; "" for nothing.

    Never raises for want of SLURM.
    """
    if not is_slurm_id(job_id) or tasks_of(project, job_id) or not shutil.which("squeue"):
        return ""
    queue = ask_queue(FOREIGN_S)
    found = [line for known, line in queue.lines.items() if job_id in (known, known.partition("_")[0])]
    if not found:
        return ""
    line = found[0]
    here = bool(line.folder) and Path(line.folder).resolve() == project.root.resolve()
    where = "from this project" if here else f"in {line.folder}, not this project" if line.folder else "elsewhere"
    stop = "" if line.word in END_WORDS else f"; to stop it: scancel {job_id}"
    return f"SLURM's queue has it: {line.name or 'a job'}, {line.word}, submitted {where}{stop}"


def _about(project: Project, line: QueueLine) -> str:
    """What the tool submitted from this project's folder is its own, whatever became of the record."""
    here = bool(line.folder) and Path(line.folder).resolve() == project.root.resolve()
    return UNRECORDED if here and is_mark(line.comment) else NOT_OURS


class _EarlyQueue:
    """Asks for the queue in a thread from the beginning, so that the answer is there when it is needed."""

    def __init__(self, project: Project) -> None:
        self._answer: Queue | None = None
        # Which jobs are open is not known yet: in a shared project all who have jobs there are asked about.
        self._users = owners(project.job(name) for name in folder_names(project)) if is_shared(project.root) else ()
        self._thread = threading.Thread(target=self._ask, name="squeue", daemon=True)
        self._thread.start()

    def __call__(self, timeout_s: float | None, _users: Collection[int]) -> Queue:
        """The answer, waited for `timeout_s` seconds at most."""
        self._thread.join(timeout_s)
        return self._answer or Queue(problem=f"squeue gave no answer in {timeout_s or 0:.0f} s")

    def _ask(self) -> None:
        self._answer = ask_queue(users=self._users)
