"""`cancel`: ask jobs of this project to stop."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tdmpc_lab.app.joblog.log import catch_up_notes
from tdmpc_lab.app.queue.status import JobView, job_views
from tdmpc_lab.errors import LabError, UsageError
from tdmpc_lab.jobs.events import OUTCOMES, WITHDRAWN, ask, read_events
from tdmpc_lab.jobs.find import all_records, is_recorded, require_jobs, tasks_of
from tdmpc_lab.jobs.ids import array_of, is_slurm_id
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.jobs.state import State
from tdmpc_lab.sharing import user_name

SAVE_S = 60.0
_POLL_S = 0.5


def chosen(project: Project, words: Sequence[str], experiment: str | None) -> list[str]:
    """The ids meant by job ids, ids of whole arrays, and the name of an experiment, whose jobs that are over are
    left out; each once.

    Raises UsageError for what is no job or experiment of this project.
    """
    ids: dict[str, None] = {}
    for word in words:
        unrecorded = is_slurm_id(word) and word in _unrecorded(project)
        if unrecorded:
            ids[word] = None
        if not unrecorded or tasks_of(project, word):
            ids |= {paths.id: None for paths in require_jobs(project, [word])}
    if experiment is not None:
        names = {r.id: r.experiment for _, r in all_records(project) if not isinstance(r, Exception)}
        if experiment not in names.values():
            known = ", ".join(sorted(set(names.values()))) or "none yet"
            raise UsageError(f"no job of experiment {experiment!r} in {project.jobs}; experiments with jobs: {known}")
        views = job_views(project, [job_id for job_id, name in names.items() if name == experiment])
        ids |= {view.id: None for view in views if view.status is not None and not view.status.state.ended}
    return list(ids)


def _unrecorded(project: Project) -> list[str]:
    """What interrupted submits left in SLURM's queue without a whole record."""
    from tdmpc_lab.launch.slurm import unfinished

    return [left.id for left in unfinished(project) if not left.recorded]


def cancel(
    project: Project,
    ids: Sequence[str],
    *,
    save: bool = False,
    wait_s: float = SAVE_S,
    tell: Callable[[str], None] = lambda _text: None,
) -> dict[str, str]:
    """Cancel the jobs named; what was done to each, in words.

    A job that waits never starts. A running local one saves a checkpoint and stops; one in SLURM does so with
    `save`, and then is waited for, at most `wait_s` seconds: `tell` is told of that. Without it SLURM kills the
    job after some seconds, within which it saves if it can.

    An id without a record is that of what an interrupted submit left in SLURM's queue.

    Raises:
        ExternalError: SLURM can't be reached.
        LabError: a job is another user's, and then nothing was done; or it could not be told, because it runs on
            another machine, or its scheduler has lost sight of it.
    """
    from tdmpc_lab.launch.local import cancel_local
    from tdmpc_lab.launch.slurm import cancel_ids, signal_ids

    left = [job_id for job_id in ids if is_slurm_id(job_id) and not is_recorded(project, job_id)]
    done: dict[str, str] = {}
    kill: list[str] = list(left)
    saving: list[str] = []
    views = job_views(project, [job_id for job_id in ids if job_id not in left])
    _check_owners(project, views)
    for view in views:
        if view.unseen:
            assert view.status is not None
            raise LabError(
                f"{view.id}: its scheduler does not know it, but its process sends heartbeats; nothing was "
                f"cancelled. End it where it runs: process {view.status.pid} on {view.status.node}"
            )
    for view in views:
        paths = project.job(view.id)
        if view.status is not None and view.status.state.ended:
            done[view.id] = f"was over already: {view.status.state}"
        elif view.over and view.record is not None and view.record.cluster == "slurm":
            done[view.id] = "SLURM does not know it, and it sends no heartbeat: there is nothing to cancel"
        elif view.record is not None and view.record.cluster == "slurm":
            ask(paths, "cancel", save=save)
            (saving if save and _can_save(project, view) else kill).append(view.id)
        elif cancel_local(paths, read_events(paths.events)):
            done[view.id] = "asked to stop"
        else:
            raise LabError(f"{view.id}: no process of it lives on this machine; see tdmpc-lab status {view.id}")
    with _withdrawn_on_error(project, kill):
        cancel_ids(_whole_arrays(project, kill))
    done |= dict.fromkeys(kill, "cancelled in SLURM")
    with _withdrawn_on_error(project, saving):
        signal_ids(saving, "USR1")
    if saving:
        tell(f"asked to save and stop: {', '.join(saving)}; waiting for it, at most {wait_s:.0f} s")
    done |= _wait_for_saves(project, saving, wait_s)
    catch_up_notes(project, job_views(project, [job_id for job_id in kill if job_id not in left]))
    return {job_id: done[job_id] for job_id in ids}


@contextlib.contextmanager
def _withdrawn_on_error(project: Project, ids: Sequence[str]) -> Iterator[None]:
    """Where SLURM could not be told, the requests on file are withdrawn: a preemption later is no cancellation."""
    try:
        yield
    except BaseException:
        for job_id in ids:
            if is_recorded(project, job_id):
                ask(project.job(job_id), WITHDRAWN)
        raise


def _check_owners(project: Project, views: Sequence[JobView]) -> None:
    """Raise LabError for jobs that wait or run and are another user's: neither the system nor SLURM lets anybody else
    stop them, and a request on file would be taken for the cause of their end later."""
    if os.getuid() == 0:
        return
    others: dict[int, list[str]] = {}
    for view in views:
        owner = project.job(view.id).folder.stat().st_uid
        if owner != os.getuid() and not (view.status is not None and view.status.state.ended):
            others.setdefault(owner, []).append(view.id)
    if others:
        told = "; ".join(f"{', '.join(ids)}: only {user_name(owner)}, who started it" for owner, ids in others.items())
        raise LabError(f"a job is stopped by its own user. {told}. Nothing was done; ask there")


def _whole_arrays(project: Project, ids: Sequence[str]) -> list[str]:
    """The ids with all tasks of an array as the array's own id: scancel takes its time for each."""
    chosen_ids = set(ids)
    arrays = dict.fromkeys(of[0] for job_id in ids if (of := array_of(job_id)))
    whole = [array for array in arrays if chosen_ids.issuperset(tasks_of(project, array))]
    return [*whole, *(job_id for job_id in ids if not ((of := array_of(job_id)) and of[0] in whole))]


def _can_save(project: Project, view: JobView) -> bool:
    """Whether a process of the job runs that has something to save, and knows what the signal means."""
    if view.status is None or view.status.state is not State.RUNNING:
        return False
    marks = [e["event"] for e in read_events(project.job(view.id).events) if e.get("event") in ("started", "preempted")]
    return bool(marks) and marks[-1] == "started"


def _wait_for_saves(project: Project, ids: Sequence[str], wait_s: float) -> dict[str, str]:
    """What became of each job that was asked to save, at most `wait_s` seconds later."""
    end = time.monotonic() + wait_s
    done: dict[str, str] = {}
    while True:
        for job_id in ids:
            if job_id not in done and (last := _outcome(project, job_id)) is not None:
                step = last.get("step")
                at = f" at step {step:,}" if isinstance(step, int) else ""
                done[job_id] = f"saved{at} and stopped" if last["event"] == "stopped" else f"it {last['event']}{at}"
        if len(done) == len(ids) or time.monotonic() >= end:
            busy = f"asked to save and stop, and still busy after {wait_s:.0f} s; to kill it: tdmpc-lab cancel "
            return {job_id: done.get(job_id, f"{busy}{job_id}") for job_id in ids}
        time.sleep(_POLL_S)


def _outcome(project: Project, job_id: str) -> dict[str, Any] | None:
    """The outcome of the last attempt, if it is on file."""
    for event in reversed(read_events(project.job(job_id).events)):
        if event.get("event") in OUTCOMES:
            return dict(event)
        if event.get("event") == "started":
            return None
    return None
