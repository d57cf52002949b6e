"""`sync`: brings MLflow in sync with the job folders, for jobs that were killed or whose store was away or is lost.

`python -m tdmpc_lab.app.mlflow.sync ROOT` does the same for what is known to be missing, in a process of its own: `ui`
waits for it a moment at most, and nothing that goes wrong there harms it. With `--follow` it is repeated every minute
for as long as the process lives that started it: the MLflow server that `ui` became.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tdmpc_lab.app.joblog.log import catch_up_notes
from tdmpc_lab.app.joblog.write import mlflow_description, read_note, verdict_tags, write_note
from tdmpc_lab.app.mlflow.mirror import RUN_STATUS, add_evaluation, info_of, is_told, run_end, run_files, start_mirror
from tdmpc_lab.app.queue.status import JobView, job_views, scheduler_states
from tdmpc_lab.config.loader import load_resolved
from tdmpc_lab.config.schema import Spec
from tdmpc_lab.errors import LabError, NoteError
from tdmpc_lab.files import file_lock, read_jsonl
from tdmpc_lab.jobs.events import OUTCOMES, read_brief
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.jobs.record import JobRecord
from tdmpc_lab.jobs.state import SchedulerState, State
from tdmpc_lab.jobs.unsent import Unsent, all_is_sent, mark_unsent, unsent_as, unsent_jobs
from tdmpc_lab.launch.process import clean_environment, is_here, last_start, live_pid
from tdmpc_lab.streams import UTF8_STREAMS
from tdmpc_lab.text import count
from tdmpc_lab.tracking.run import DESCRIPTION_TAG, RunStatus, describe_run
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

    wanted: RunStatus | None
    """None: the job continues."""
    scheduler: SchedulerState
    evaluations: Sequence[Mapping[str, Any]]
    """Rows of `evals.jsonl`."""


def sync(project: Project, ids: Sequence[str] | None = None, *, wait: bool = True) -> Iterator[Synced]:
    """Bring the MLflow runs of these jobs (default: all) in sync with their folders, one after another.

    A run lacks nothing when it holds every row of `metrics.jsonl`, every param, tag and file, the right status and
    the note; another is sent what it lacks, and one that is missing is made anew from the folder. Jobs that wait or
    run are left alone where they send their values themselves; of those that leave it to `sync`, what there is so far
    is sent. Two syncs of one project take turns; without `wait` the second is none.

    Raises:
        BlockingIOError: another sync is at work, and this was not to wait.
        ExternalError: MLflow can't be reached.
        SpecError, UsageError: the store can't be where it is said to be.
    """
    from tdmpc_lab.tracking.held import HeldStore

    uri = store_uri(project.root)
    with file_lock(project.sync_lock, blocking=wait):
        store = HeldStore.open(uri, project.root)
        views = job_views(project, ids)
        states = scheduler_states([(project.job(view.id), view.record) for view in views if view.record is not None])
        catch_up_notes(project, views)
        for view in views:
            try:
                yield _sync_one(project, store, view, states.get(view.id))
            except (LabError, OSError) as error:
                yield Synced(view.id, "failed", detail=str(error))


def _sync_one(project: Project, store: HeldStore, view: JobView, scheduler: SchedulerState | None) -> Synced:
    paths = project.job(view.id)
    if view.record is None or view.status is None or scheduler is None:
        return Synced(view.id, "failed", detail=view.problem or "it can't be read")
    if view.status.started_at is None:
        return Synced(view.id, "left", detail="it never started")
    over = is_over(view.status.state, scheduler)
    mark = unsent_as(project, view.id)
    if not over and (mark is None or mark.send != "later"):
        return Synced(view.id, "left", detail=_why_left(view.status.state, scheduler))
    size = paths.metrics.stat().st_size if paths.metrics.exists() else 0
    wanted = RUN_STATUS[view.status.state] if over else None
    done = _bring_level(project, store, view.record, _About(wanted, scheduler, read_jsonl(paths.evals)[0]))
    if done.what == "failed":
        return done
    if over:
        all_is_sent(project, view.id)
    else:
        now = unsent_as(project, view.id) or Unsent("later")  # it names the run by now
        mark_unsent(project, view.id, replace(now, bytes_sent=size))
    return done


def is_over(state: State, scheduler: SchedulerState) -> bool:
    """Whether nothing more comes from a job: its outcome may be on file while its process is still busy with it."""
    return state in RUN_STATUS and scheduler.state not in ("PENDING", "RUNNING")


def _why_left(state: State, scheduler: SchedulerState) -> str:
    """Why the values of a job that is not over are not sent from here."""
    if state in RUN_STATUS:
        return "its process is still busy with it"
    if scheduler.state == "UNREACHABLE":
        return f"whether it still runs can't be told ({scheduler.reason})"
    return f"{state.value}: it sends its values itself"


def _bring_level(project: Project, store: HeldStore, record: JobRecord, about: _About) -> Synced:
    paths, run = project.job(record.id), store.runs.get(record.id)
    spec, files = load_resolved(paths.resolved), run_files(paths)
    if run is not None:
        store.drop_spares(run)
        files = store.lacking(run, files)
        info, words = info_of(project, paths, record, spec), _words(project, paths, about.scheduler)
        told = run.has(info, words, about.wanted) and is_told(run.metrics, about.evaluations)
        if told and not files and run.has_rows(paths.metrics):
            return Synced(record.id, "level")
    return _send(project, paths, record, spec, files, about)


def _words(project: Project, paths: JobPaths, scheduler: SchedulerState) -> dict[str, str]:
    """The tags that come from the note, which is brought up to date first."""
    try:
        note = write_note(project, paths, scheduler)
    except NoteError:  # `notes` tells what is wrong with it; the job's values are to be sent all the same
        note = read_note(project, paths.id) if project.note(paths.id).is_file() else ""
    return {DESCRIPTION_TAG: mlflow_description(paths, scheduler, note), **verdict_tags(project, paths.id)}


def _send(
    project: Project, paths: JobPaths, record: JobRecord, spec: Spec, files: Mapping[str, Path], about: _About
) -> Synced:
    mirror = start_mirror(project, paths, record, spec, tell=about.wanted is not None)
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
    return Synced(paths.id, "sent", report.sent_points, about.wanted or "RUNNING")


EVERY_S, AFTER_TROUBLE_S = 60.0, 600.0
LIMIT_S = 600
_TROUBLE = "trouble\n"
_MODULE = "tdmpc_lab.app.mlflow.sync"  # which runs as a process of its own, where its name is another one
_LEFT: list[subprocess.Popen[bytes]] = []  # continues by itself: kept, for Popen complains when it is dropped


def begin(project: Project) -> subprocess.Popen[bytes] | None:
    """Start sending, if something is to be sent; None if not. Never raises, and reads next to nothing then."""
    try:
        marks = unsent_jobs(project)
        if not marks or not _is_due(project, marks):
            return None
        _last(project).write_text("", encoding="utf-8")
        with (project.jobs / ".sync.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", _MODULE, str(project.root)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=project.root,
                env=clean_environment(os.environ) | UTF8_STREAMS,
                start_new_session=True,
            )
    except (LabError, OSError):  # `sync` says what is wrong
        return None


def not_sent(project: Project) -> list[str]:
    """Jobs of which MLflow is known to lack something that nobody sends: they are over, or leave it to `sync`."""
    marks = unsent_jobs(project)
    return [name for name, unsent in marks.items() if unsent.send == "later" or _has_ended(project.job(name))]


def wait_for(process: subprocess.Popen[bytes] | None, seconds: float) -> None:
    """Wait until all is sent, `seconds` at most: it continues by itself."""
    if process is not None:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            _LEFT.append(process)


def _last(project: Project) -> Path:
    """When it was last tried, and, by its content, whether in vain."""
    return project.unsent / ".last"


def _is_due(project: Project, marks: Mapping[str, Unsent]) -> bool:
    """Whether to try now: a job has ended since the last time, or that is a while ago and a job may need it."""
    try:
        last = _last(project).stat().st_mtime
        pause = AFTER_TROUBLE_S if _last(project).read_text(encoding="utf-8") == _TROUBLE else EVERY_S
    except FileNotFoundError:
        last, pause = 0.0, EVERY_S
    if time.time() - last >= pause:
        return any(unsent.send == "later" or _has_ended(project.job(name)) for name, unsent in marks.items())
    jobs = [project.job(name) for name in marks]
    return any(_changed(paths.events) > last and _has_ended(paths) for paths in jobs)


def _changed(path: Path) -> float:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return 0.0


def _has_ended(paths: JobPaths) -> bool:
    """Whether an outcome is on file, or the job's process was on this machine and is gone."""
    events = read_brief(paths.events)
    start = last_start(events)
    since = events if start is None else events[events.index(dict(start)) :]
    if any(event.get("event") in OUTCOMES for event in since):
        return True
    return start is not None and is_here(start) and live_pid(start) is None


def start_following(project: Project, every_s: float = EVERY_S) -> None:
    """Have MLflow sent what it lacks every so many seconds, for as long as this process lives, whatever it becomes."""
    subprocess.Popen(
        [sys.executable, "-m", _MODULE, str(project.root), "--follow", str(every_s)],
        stdin=subprocess.DEVNULL,
        cwd=project.root,
        env=clean_environment(os.environ) | UTF8_STREAMS,
    )


def follow(project: Project, every_s: float) -> None:
    """Send what MLflow lacks every so many seconds, in a process of its own each time, until the parent is gone."""
    parent, due = os.getppid(), time.monotonic() + every_s
    while os.getppid() == parent:
        time.sleep(1.0)
        if time.monotonic() >= due:
            begin(project)
            due = time.monotonic() + every_s


def main() -> int:
    """Send what can be sent now; 1 when something could not be sent."""
    project = Project(Path(sys.argv[1]))
    if sys.argv[2:3] == ["--follow"]:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C is for the server and for this
        follow(project, float(sys.argv[3]))
        return 0
    signal.alarm(LIMIT_S)  # ends this process: what it has sent is noted in MLflow, the rest is sent another time
    return int(not send_due(project))


def send_due(project: Project) -> bool:
    """Send MLflow what it lacks of the marked jobs that are over, or leave it to others and have new values.

    MLflow is not even loaded where there are none. For the log, one line per job is printed. False when something
    could not be sent.
    """
    marks = unsent_jobs(project)
    views = job_views(project, list(marks))
    states = scheduler_states([(project.job(view.id), view.record) for view in views if view.record is not None])
    ids = [view.id for view in views if _is_worth_it(project, view, states.get(view.id), marks[view.id])]
    whole = True
    try:
        for job in sync(project, ids, wait=False) if ids else ():
            print(f"{job.id}: {job.what}, {count(job.points, 'value')} {job.detail}", flush=True)
            whole = whole and job.what != "failed"
    except BlockingIOError:
        print("another sync is at work")
    except LabError as error:
        print(error)
        whole = False
    if not whole:
        _last(project).write_text(_TROUBLE, encoding="utf-8")
    return whole


def _is_worth_it(project: Project, view: JobView, scheduler: SchedulerState | None, unsent: Unsent) -> bool:
    if view.status is None or scheduler is None:
        return False
    if is_over(view.status.state, scheduler):
        return True
    metrics = project.job(view.id).metrics
    return unsent.send == "later" and metrics.exists() and metrics.stat().st_size != unsent.bytes_sent


if __name__ == "__main__":
    sys.exit(main())
