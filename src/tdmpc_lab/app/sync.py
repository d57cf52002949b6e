"""`sync`: brings MLflow level with the job folders, for jobs that were killed or whose store was away or is lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tdmpc_lab.app.journal import mlflow_description, write_note
from tdmpc_lab.app.mirroring import add_evaluation, is_told, run_files, start_mirror
from tdmpc_lab.app.status import JobView, job_views, scheduler_states
from tdmpc_lab.config.loader import load_resolved
from tdmpc_lab.errors import ExternalError, LabError
from tdmpc_lab.files import file_lock, read_jsonl
from tdmpc_lab.jobs.events import read_events
from tdmpc_lab.jobs.metrics import as_int
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.jobs.record import JobRecord
from tdmpc_lab.jobs.state import SchedulerState, State
from tdmpc_lab.launch.process import last_start
from tdmpc_lab.notes.entries import parse_entry
from tdmpc_lab.tracking.later import describe_run
from tdmpc_lab.tracking.run import DESCRIPTION_TAG, MAX_TAG, SENT_TAG, HeldRun, RunStatus
from tdmpc_lab.tracking.store import open_client, public_uri, store_uri

What = Literal["level", "sent", "left", "failed"]

RUN_STATUS: Mapping[State, RunStatus] = {
    State.COMPLETED: "FINISHED",
    State.FAILED: "FAILED",
    State.CANCELLED: "KILLED",
    State.TIMEOUT: "KILLED",
    State.UNKNOWN: "KILLED",  # its process is gone and left no outcome
}
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
    start: Mapping[str, Any]
    """The `started` event of its last attempt."""
    scheduler: SchedulerState
    evaluations: Sequence[Mapping[str, Any]]
    """Rows of `evals.jsonl`."""


def sync(project: Project, ids: Sequence[str] | None = None) -> Iterator[Synced]:
    """Bring the MLflow runs of these jobs (default: all) level with their folders, one after another.

    A run lacks nothing when it holds every row of `metrics.jsonl`, the right status and the note; another is sent
    what it lacks, and one that is missing is made anew from the folder. Jobs that wait or run are left alone: they
    send their values themselves. Two syncs of one project take turns.

    Raises:
        ExternalError: MLflow can't be reached.
        UsageError: the store can't be where it is said to be.
    """
    uri = store_uri(project.root)
    with file_lock(project.jobs / ".sync.lock"):
        runs = _runs(project, uri)
        views = job_views(project, ids)
        states = scheduler_states([(project.job(view.id), view.record) for view in views if view.record is not None])
        for view in views:
            try:
                yield _sync_one(project, view, states.get(view.id), runs.get(view.id))
            except (LabError, OSError) as error:
                yield Synced(view.id, "failed", detail=str(error))


def _runs(project: Project, uri: str) -> dict[str, HeldRun]:
    """The run of every job in the store, the oldest where somebody made a second."""
    from tdmpc_lab.tracking.run import all_runs
    from tdmpc_lab.tracking.store import configure

    configure()
    try:
        return all_runs(open_client(uri, project.root))
    except LabError:
        raise
    except Exception as error:  # whatever MLflow or a driver raises
        raise ExternalError(
            f"MLflow at {public_uri(uri)}: {public_uri(f'{type(error).__name__}: {error}')[:300]}; try again when it "
            f"answers: nothing is lost, all values are in the job folders"
        ) from error


def _sync_one(project: Project, view: JobView, scheduler: SchedulerState | None, run: HeldRun | None) -> Synced:
    paths = project.job(view.id)
    if view.record is None or view.status is None or scheduler is None:
        return Synced(view.id, "failed", detail=view.problem or "it can't be read")
    start = last_start(read_events(paths.events))
    if start is None or (why := _not_ours(view.status.state, scheduler)):
        return Synced(view.id, "left", detail="it never started" if start is None else why)
    about = _About(RUN_STATUS[view.status.state], start, scheduler, read_jsonl(paths.evals)[0])
    if run is not None and _is_level(paths, run, about, _words(project, paths, scheduler)):
        return Synced(view.id, "level")
    return _send(project, paths, view.record, about)


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


def _is_level(paths: JobPaths, run: HeldRun, about: _About, words: Mapping[str, str]) -> bool:
    from tdmpc_lab.tracking.points import Sent

    sent = Sent.from_tag(run.tags.get(SENT_TAG), {})
    begin = sent.follow(paths.metrics)
    rows, _ = read_jsonl(paths.metrics, begin)  # a line torn off in the writing is none
    return (
        run.status == about.wanted
        and not rows
        and all(run.tags.get(name, "") == value[:MAX_TAG] for name, value in words.items())
        and is_told(run.metrics, about.evaluations)
    )


def _send(project: Project, paths: JobPaths, record: JobRecord, about: _About) -> Synced:
    spec = load_resolved(paths.resolved)
    attempt, node = as_int(about.start.get("attempt")), about.start.get("host")
    mirror = start_mirror(project, paths, record, spec, attempt=attempt, node=node)
    report = mirror.close(about.wanted, files=run_files(paths), timeout_s=_CLOSE_S)
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
