"""The jobs that `status` shows: those of the project that were asked for, and this user's others in SLURM's queue."""

from __future__ import annotations

import math
import shutil
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tdmpc_lab.app.jobview import NOT_OURS, UNRECORDED, JobView, foreign_view, owner_of
from tdmpc_lab.app.status import (
    Asked,
    Job,
    named_record,
    newest_and_active,
    no_garbage,
    owners,
    unrecorded_views,
    views_of,
)
from tdmpc_lab.errors import RecordError, UsageError
from tdmpc_lab.jobs.ids import array_of, fold_tasks, is_slurm_id, natural_key
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.jobs.queued import QueueLine
from tdmpc_lab.jobs.record import JobRecord, all_records
from tdmpc_lab.jobs.requests import person
from tdmpc_lab.jobs.state import State
from tdmpc_lab.launch.queue import Queue, ask_queue, waits
from tdmpc_lab.launch.unfinished import is_mark
from tdmpc_lab.sharing import is_shared

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
        jobs: Sequence[Job] = all_records(project) if ids is None else [named_record(project, i) for i in ids]
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
    jobs: Sequence[Job], states: frozenset[State] | None, most: int | None, asked: Asked
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


def foreign_job(job_id: str) -> str:
    """What SLURM's queue says of an id that is none of this project's, and what can be done; "" for nothing.

    Never raises for want of SLURM.
    """
    if not is_slurm_id(job_id) or not shutil.which("squeue"):
        return ""
    queue = ask_queue(FOREIGN_S)
    found = [line for known, line in queue.lines.items() if job_id in (known, known.partition("_")[0])]
    if not found:
        return ""
    line = found[0]
    where = f", submitted in {line.folder}" if line.folder else ""
    return (
        f"SLURM's queue has it: {line.name or 'a job'}, {line.word}{where}. It is not of this project; "
        f"to stop it: scancel {job_id}"
    )


def _about(project: Project, line: QueueLine) -> str:
    """What the tool submitted from this project's folder is its own, whatever became of the record."""
    here = bool(line.folder) and Path(line.folder).resolve() == project.root.resolve()
    return UNRECORDED if here and is_mark(line.comment) else NOT_OURS


class _EarlyQueue:
    """Asks for the queue in a thread from the beginning, so that the answer is there when it is needed."""

    def __init__(self, project: Project) -> None:
        self._answer: Queue | None = None
        # Which jobs are open is not known yet: in a shared project all who have jobs there are asked about.
        self._users = owners(project.job(name) for name in project.folder_names()) if is_shared(project.root) else ()
        self._thread = threading.Thread(target=self._ask, name="squeue", daemon=True)
        self._thread.start()

    def __call__(self, timeout_s: float | None, _users: Collection[int]) -> Queue:
        """The answer, waited for `timeout_s` seconds at most."""
        self._thread.join(timeout_s)
        return self._answer or Queue(problem=f"squeue gave no answer in {timeout_s or 0:.0f} s")

    def _ask(self) -> None:
        self._answer = ask_queue(users=self._users)
