"""`sync`: brings MLflow level with the job folders, for jobs that were killed or whose store was away or is lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tdmpc_lab.app.journal import mlflow_description, write_note
from tdmpc_lab.app.mirroring import RUN_STATUS, add_evaluation, info_of, is_told, run_end, run_files, start_mirror
from tdmpc_lab.app.status import JobView, job_views, scheduler_states
from tdmpc_lab.config.loader import load_resolved
from tdmpc_lab.config.schema import Spec
from tdmpc_lab.errors import LabError
from tdmpc_lab.files import file_lock, read_jsonl
from tdmpc_lab.jobs.events import read_events
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.jobs.record import JobRecord
from tdmpc_lab.jobs.state import SchedulerState, State
from tdmpc_lab.launch.process import last_start
from tdmpc_lab.notes.entries import parse_entry
from tdmpc_lab.tracking.later import describe_run
from tdmpc_lab.tracking.run import DESCRIPTION_TAG, RunStatus
from tdmpc_lab.tracking.store import store_uri

if TYPE_CHECKING:
    from tdmpc_lab.tracking.held import HeldStore

What = Literal["level", "sent", "left", "failed"]

_CLOSE_S = 300.0  # for the points of one job, over a slow network


@dataclass(frozen=True)
class Synced:
    """What was done about one job."""

    id: str
    what: What
    """`level`: nothing was missing. `sent`: MLflow has everything now. `left`: not for sync to send."""
    points: int = 0
    """Values sent; MLflow keeps those that it had already once."""
    detail: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For scripts."""
        return asdict(self)


@dataclass(frozen=True)
class _About:
    """What is known of a job whose run may lack something."""

    wanted: RunStatus
    scheduler: SchedulerState
    evaluations: Sequence[Mapping[str, Any]]
    """Rows of `evals.jsonl`."""


def sync(project: Project, ids: Sequence[str] | None = None) -> Iterator[Synced]:
    """Bring the MLflow runs of these jobs (default: all) level with their folders, one after another.

    A run lacks nothing when it holds every row of `metrics.jsonl`, every param, tag and file, the right status and
    the note; another is sent what it lacks, and one that is missing is made anew from the folder. Jobs that wait or
    run are left alone: they send their values themselves. Two syncs of one project take turns.

    Raises:
        ExternalError: MLflow can't be reached.
        UsageError: the store can't be where it is said to be.
    """
    from tdmpc_lab.tracking.held import HeldStore

    uri = store_uri(project.root)
    with file_lock(project.jobs / ".sync.lock"):
        store = HeldStore.open(uri, project.root)
        views = job_views(project, ids)
        states = scheduler_states([(project.job(view.id), view.record) for view in views if view.record is not None])
        for view in views:
            try:
                yield _sync_one(project, store, view, states.get(view.id))
            except (LabError, OSError) as error:
                yield Synced(view.id, "failed", detail=str(error))


def _sync_one(project: Project, store: HeldStore, view: JobView, scheduler: SchedulerState | None) -> Synced:
    paths, run = project.job(view.id), store.runs.get(view.id)
    if view.record is None or view.status is None or scheduler is None:
        return Synced(view.id, "failed", detail=view.problem or "it can't be read")
    start = last_start(read_events(paths.events))
    if start is None or (why := _not_ours(view.status.state, scheduler)):
        return Synced(view.id, "left", detail="it never started" if start is None else why)
    about = _About(RUN_STATUS[view.status.state], scheduler, read_jsonl(paths.evals)[0])
    spec, files = load_resolved(paths.resolved), run_files(paths)
    if run is not None:
        files = store.lacking(run, files)
        info, words = info_of(project, paths, view.record, spec), _words(project, paths, scheduler)
        told = run.has(info, words, about.wanted) and is_told(run.metrics, about.evaluations)
        if told and not files and run.has_rows(paths.metrics):
            return Synced(view.id, "level")
    return _send(project, paths, view.record, spec, files, about)


def _not_ours(state: State, scheduler: SchedulerState) -> str:
    """Why a job's values are not to be sent from here; empty when they are."""
    if state not in RUN_STATUS:
        unknown = f"whether it still runs can't be told ({scheduler.reason})"
        return unknown if scheduler.state == "UNREACHABLE" else f"{state.value}: it sends its values itself"
    if scheduler.state in ("PENDING", "RUNNING"):  # its outcome is on file, its process not yet done
        return "its process is still busy with it"
    return ""


def _words(project: Project, paths: JobPaths, scheduler: SchedulerState) -> dict[str, str]:
    """The tags that come from the note, which is brought up to date first."""
    note = write_note(project, paths, scheduler)
    verdict = parse_entry(paths.id, note.encode(errors="surrogateescape")).verdict
    told = {DESCRIPTION_TAG: mlflow_description(paths, scheduler, note)}
    return told if verdict is None else told | verdict.tags


def _send(
    project: Project, paths: JobPaths, record: JobRecord, spec: Spec, files: Mapping[str, Path], about: _About
) -> Synced:
    mirror = start_mirror(project, paths, record, spec)
    report = mirror.close(about.wanted, ended=run_end(paths), files=files, timeout_s=_CLOSE_S)
    problem = report.problem
    words = _words(project, paths, about.scheduler)  # only now: the note names the run
    description = words[DESCRIPTION_TAG]
    if problem is None and about.evaluations:
        problem = add_evaluation(project, paths, about.evaluations, description)
    if problem is None:
        problem = describe_run(store_uri(project.root), project.root, record, description, words)
    if problem is not None:
        return Synced(paths.id, "failed", report.sent_points, problem)
    return Synced(paths.id, "sent", report.sent_points, about.wanted)
