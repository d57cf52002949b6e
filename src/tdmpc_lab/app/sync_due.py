"""Before `status` and `ui`: what MLflow is known to lack is sent, by a process of its own: `python -m …sync_due ROOT`.

The command that is typed waits for it a moment at most, and is not harmed by anything that goes wrong there.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tdmpc_lab.errors import LabError
from tdmpc_lab.jobs.events import OUTCOMES, read_brief
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.jobs.state import SchedulerState
from tdmpc_lab.jobs.unsent import Unsent, unsent_jobs
from tdmpc_lab.launch.environment import clean_environment
from tdmpc_lab.launch.process import is_here, last_start, live_pid
from tdmpc_lab.streams import UTF8_STREAMS
from tdmpc_lab.text import count

if TYPE_CHECKING:
    from tdmpc_lab.app.status import JobView

EVERY_S, AFTER_TROUBLE_S = 60.0, 600.0
LIMIT_S = 600
_TROUBLE = "trouble\n"
_LEFT: list[subprocess.Popen[bytes]] = []  # goes on by itself: kept, for Popen complains when it is dropped


def begin(project: Project) -> subprocess.Popen[bytes] | None:
    """Start sending, if something is to be sent; None if not. Never raises, and reads next to nothing then."""
    try:
        marks = unsent_jobs(project)
        if not marks or not _is_due(project, marks):
            return None
        _last(project).write_text("", encoding="utf-8")
        with (project.jobs / ".sync.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", __name__, str(project.root)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=project.root,
                env=clean_environment(os.environ) | UTF8_STREAMS,
                start_new_session=True,
            )
    except (LabError, OSError):  # `sync` says what is wrong
        return None


def wait_for(process: subprocess.Popen[bytes] | None, seconds: float) -> None:
    """Wait until all is sent, `seconds` at most: it goes on by itself."""
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


def main() -> int:
    """Send what can be sent now; 1 when something could not be sent."""
    signal.alarm(LIMIT_S)  # ends this process: what it has sent is noted in MLflow, the rest is sent another time
    return int(not send_due(Project(Path(sys.argv[1]))))


def send_due(project: Project) -> bool:
    """Send MLflow what it lacks of the marked jobs that are over, or leave it to others and have new values.

    MLflow is not even loaded where there are none. For the log, one line per job is printed. False when something
    could not be sent.
    """
    from tdmpc_lab.app.status import job_views, scheduler_states
    from tdmpc_lab.app.sync import sync

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
    from tdmpc_lab.app.sync import is_over

    if view.status is None or scheduler is None:
        return False
    if is_over(view.status.state, scheduler):
        return True
    metrics = project.job(view.id).metrics
    return unsent.send == "later" and metrics.exists() and metrics.stat().st_size != unsent.bytes_sent


if __name__ == "__main__":
    sys.exit(main())
