"""`status` and `wait`: what the jobs are doing, from their files and one question to the scheduler."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tdmpc_lab.app.journal import status_of, traceback_of
from tdmpc_lab.errors import LabError, RecordError
from tdmpc_lab.files import read_jsonl
from tdmpc_lab.jobs.events import read_events
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.jobs.record import JobRecord, read_record
from tdmpc_lab.jobs.state import JobStatus, SchedulerState, State

if TYPE_CHECKING:
    from tdmpc_lab.training.progress import Progress

POLL_S = 0.5
KEYS = (
    "id", "experiment", "about", "state", "cause", "step", "steps", "attempt", "node", "elapsed_s", "eta_s",
    "steps_per_s", "return", "win", "mlflow_run", "traceback", "sweep",
)  # fmt: skip


@dataclass(frozen=True)
class JobView:
    """One job for the table: its record and status, or the reason why it can't be read."""

    id: str
    record: JobRecord | None
    status: JobStatus | None
    problem: str | None = None
    traceback: str | None = None
    """Of a failed job."""

    def as_dict(self) -> dict[str, Any]:
        """For scripts."""
        if self.record is None or self.status is None:
            return dict.fromkeys(KEYS) | {"id": self.id, "state": State.UNKNOWN.value, "cause": self.problem}
        s = self.status
        evaluation = s.latest_eval or {}
        return {
            "id": self.id,
            "experiment": self.record.experiment,
            "about": self.record.about,
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
            "return": evaluation.get("return_mean", s.latest_return),
            "mlflow_run": s.run_id,
            "traceback": self.traceback,
            "sweep": self.record.sweep,
        }


def scheduler_states(jobs: Sequence[tuple[JobPaths, JobRecord]]) -> dict[str, SchedulerState]:
    """What the schedulers say of these jobs: one squeue call for all SLURM jobs, the process table for local ones."""
    states: dict[str, SchedulerState] = {}
    slurm = [record.id for _, record in jobs if record.cluster == "slurm"]
    if slurm:
        from tdmpc_lab.launch.queue import slurm_states

        states |= slurm_states(slurm)
    here = [(paths, record) for paths, record in jobs if record.cluster != "slurm"]
    if here:
        from tdmpc_lab.launch.local import local_state

        for paths, record in here:
            states[record.id] = local_state(paths, read_events(paths.events))
    return states


def job_views(project: Project, ids: Sequence[str] | None = None) -> list[JobView]:
    """All jobs of the project (or those named), oldest first. A damaged job is shown as such, the others go on."""
    readable: list[tuple[JobPaths, JobRecord]] = []
    problems: dict[str, str] = {}
    wanted = project.job_ids() if ids is None else list(ids)
    for job_id in wanted:
        paths = project.job(job_id)
        try:
            readable.append((paths, read_record(paths)))
        except RecordError as error:
            problems[job_id] = str(error)
    ended_by_file: dict[str, JobView] = {}
    open_jobs: list[tuple[JobPaths, JobRecord]] = []
    for paths, record in readable:  # an outcome on file needs no scheduler
        view = _view(paths, record, None)
        if view.status is None or view.status.state.ended:
            ended_by_file[record.id] = view
        else:
            open_jobs.append((paths, record))
    states = scheduler_states(open_jobs)
    views = ended_by_file | {r.id: _view(p, r, states.get(r.id)) for p, r in open_jobs}
    return [views.get(i) or JobView(i, None, None, problems[i]) for i in wanted]


def _view(paths: JobPaths, record: JobRecord, scheduler: SchedulerState | None) -> JobView:
    try:
        events = read_events(paths.events)
        status = status_of(paths, record, scheduler, events)
        failed = status.state is State.FAILED
        return JobView(record.id, record, status, traceback=traceback_of(events) if failed else None)
    except LabError as error:
        return JobView(record.id, record, None, str(error))


def wait(project: Project, ids: Sequence[str], progress: Progress) -> list[JobView]:
    """Show the jobs' progress until all have ended; returns how they ended.

    A job that is UNKNOWN (its process is gone without a word) counts as ended.
    """
    offsets = dict.fromkeys(ids, 0)
    events_seen = dict.fromkeys(ids, 0)
    while True:
        views = job_views(project, ids)
        for job_id in ids:
            paths = project.job(job_id)
            rows, offsets[job_id] = read_jsonl(paths.metrics, offsets[job_id])
            for row in rows:
                progress.row(job_id, row)
            events_seen[job_id] = _show_events(paths, events_seen[job_id], progress)
        over = all(v.status is None or v.status.state not in (State.PENDING, State.RUNNING) for v in views)
        if over and not _closing(project, views):
            return job_views(project, ids)
        time.sleep(POLL_S)


def _closing(project: Project, views: Sequence[JobView]) -> bool:
    """A process is still busy with a job whose outcome is known: its note and its MLflow run are being finished."""
    jobs = [(project.job(view.id), view.record) for view in views if view.record is not None]
    return any(found.state in ("PENDING", "RUNNING") for found in scheduler_states(jobs).values())


def _show_events(paths: JobPaths, seen: int, progress: Progress) -> int:
    from tdmpc_lab.app.worker import event_text

    events = read_events(paths.events)
    for event in events[seen:]:
        if event.get("event") == "started":
            progress.message(paths.id, f"started on {event.get('host')}")
        elif text := event_text(str(event.get("event")), event):
            progress.message(paths.id, text)
    return len(events)
