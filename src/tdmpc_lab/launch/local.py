"""Jobs on this machine: a supervisor process per job waits for its turn, runs the job and sees to its end.

shell ── start_local ──▶ supervisor (own session) ──▶ submitit's controller ──▶ the job

At most so many jobs of a project run at once, the oldest first:

jobs/.local/lock         held while somebody decides
jobs/.local/queue/<id>   a job that waits; counts only while its supervisor lives
jobs/.local/slot-<k>     locked by the supervisor of a running job, so freed when that process ends

A debug job runs in this process instead. `log.out` and `log.err` are links to the files that submitit writes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

from tdmpc_lab.cpus import SHARE_VARIABLE, cpus_here
from tdmpc_lab.files import file_lock
from tdmpc_lab.jobs.events import OUTCOMES, EventLog, read_events
from tdmpc_lab.jobs.ids import is_job_id, natural_key
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.jobs.state import SchedulerState, Why
from tdmpc_lab.launch.lease import LEASE_VARIABLE, Lease, read_holder
from tdmpc_lab.launch.process import Workplace, clean_environment, clean_process_environment, last_start, live_pid
from tdmpc_lab.streams import UTF8_STREAMS

if TYPE_CHECKING:
    from submitit import LocalJob


_POLL_S = 0.1
_STARTING_S = 10.0
_NO_LIMIT_MIN = 60 * 24 * 3650  # ten years: submitit ends a job after minutes unless told otherwise


class _Supervisor(subprocess.Popen[bytes]):
    """A process that is meant to outlive this one: Popen would complain about that when it is dropped."""

    def __del__(self) -> None:
        pass


_SUPERVISORS: list[_Supervisor] = []  # kept so that those that ended are reaped


def start_local(
    paths: JobPaths, project: Project, max_local: int, supervisor_module: str, workplace: Workplace | None = None
) -> int:
    """Start the supervisor of a job as a process of its own, and return its id at once.

    It runs `python -m supervisor_module ROOT JOB MAX_LOCAL` at the workplace (default: the project's folder), as
    the job will, in a session of its own: neither Ctrl-C nor closing the terminal reaches it. The job has its
    place in the queue from here on.
    Raises UsageError when the job is being run already, OSError when no process can be started.
    """
    workplace = workplace or Workplace(project.root)
    _SUPERVISORS[:] = [process for process in _SUPERVISORS if process.poll() is None]
    with Lease.take(paths) as lease:
        lease.note("waiting", len(read_events(paths.events)), starting=True)
        join_queue(project, paths.id)
        environ = workplace.environment(clean_environment(os.environ)) | UTF8_STREAMS | {LEASE_VARIABLE: str(lease.fd)}
        command = [sys.executable, "-m", supervisor_module, str(project.root), paths.id, str(max_local)]
        try:
            with (paths.folder / "supervisor.log").open("ab") as log:
                process = _Supervisor(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=workplace.folder,
                    env=environ,
                    pass_fds=(lease.fd,),
                    start_new_session=True,
                )
        except OSError:
            leave_queue(project, paths.id)
            raise
    _SUPERVISORS.append(process)
    return process.pid


def supervise(
    project: Project,
    paths: JobPaths,
    max_local: int,
    function: Callable[..., object],
    *args: object,
    after: Callable[[bool], None] | None = None,
) -> int:
    """Wait for the job's turn, run `function(*args)` in a process of its own through submitit, wait for its
    end. Returns 0 when the job finished, else 1; a job that left no outcome gets one.

    `after(whole)` is called last: the job's place is free by then, but it still counts as supervised. `whole`
    says whether nothing was left half done: the function came to its end, or never began.

    SIGTERM or SIGINT: a job that waits is cancelled, one that runs gets SIGTERM; a second one kills it. To be
    called in the main thread. Raises UsageError when another process supervises the job.
    """
    with Lease.take_or_inherit(paths) as lease, _stop_signals() as stops, clean_process_environment():
        lease.note("waiting", len(read_events(paths.events)))
        with turn(project, paths.id, max_local, lambda: bool(stops)) as mine:
            if mine:
                known = len(read_events(paths.events))
                lease.note("running", known)
                folder = paths.folder / "submitit"
                job = _submit(folder, function, args, max_local)
                link_logs(paths, folder, job.job_id)
                _wait(job, paths, known, stops)
                code = _conclude(job, paths, known, stops)
                whole = job.paths.result_pickle.exists()  # submitit's last deed, also for a function that raised
            else:
                EventLog(paths.events).append("stopped", reason="cancelled before it started", step=None)
                code, whole = 1, True
        if after is not None:
            after(whole)
        return code


def _submit(folder: Path, function: Callable[..., object], args: Sequence[object], max_local: int) -> LocalJob[object]:
    from submitit import LocalExecutor

    executor = LocalExecutor(folder, python=_python(os.environ, max_local))
    executor.update_parameters(timeout_min=_NO_LIMIT_MIN)
    return cast("LocalJob[object]", executor.submit(function, *args))


def _python(environ: Mapping[str, str], max_local: int) -> str:
    """The command of the job's Python. submitit empties CUDA_VISIBLE_DEVICES: the job is to see what this
    process sees, be it numbers, GPU ids, or everything because the variable is not set.

    Of jobs that may run side by side each gets its share of the CPUs."""
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    change = ["-u", "CUDA_VISIBLE_DEVICES"] if visible is None else [f"CUDA_VISIBLE_DEVICES={visible}"]
    if max_local > 1 and SHARE_VARIABLE not in environ:
        change.append(f"{SHARE_VARIABLE}={max(1, cpus_here() // max_local)}")
    return shlex.join(["env", *change, sys.executable])


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """The SIGTERM and SIGINT that came so far."""
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(job: LocalJob[object], paths: JobPaths, known: int, stops: Sequence[int]) -> None:
    """Until the job's process has ended, passing stop signals on.

    submitit's controller is asked first; should it have been killed, the job itself may live on.
    """
    passed_on = 0
    while True:
        controller = job.get_info()["jobState"] == "RUNNING"
        orphan = None if controller else live_pid(last_start(read_events(paths.events)[known:]))
        if not controller and orphan is None:
            return
        if len(stops) > passed_on:
            passed_on = len(stops)
            reported = last_start(read_events(paths.events)[known:]) is not None
            kill = passed_on > 1 or not reported  # before its report a job has nothing to save
            with contextlib.suppress(ProcessLookupError):
                if orphan is not None:
                    os.kill(orphan, signal.SIGKILL if kill else signal.SIGTERM)
                else:
                    # On SIGINT the controller interrupts the job, and kills it a second later.
                    os.kill(int(job.job_id), signal.SIGINT if kill else signal.SIGTERM)
        time.sleep(_POLL_S)


def _conclude(job: LocalJob[object], paths: JobPaths, known: int, stops: Sequence[int]) -> int:
    """The exit code by the job's own outcome; writes one for it when it left none."""
    for event in reversed(read_events(paths.events)[known:]):
        if event.get("event") in OUTCOMES:
            return 0 if event["event"] == "finished" else 1
        if event.get("event") == "started":
            break
    log = EventLog(paths.events)
    if stops:
        log.append("stopped", reason="cancelled; it ended without saying how far it was", step=None)
        return 1
    trace = _trace(job)
    if trace:
        error = trace.strip().splitlines()[-1]
        log.append("failed", cause=f"the job's process raised {error}", error=error, traceback=trace, step=None)
    else:
        cause = "the process ended without an outcome: killed from outside, or out of memory; see log.err"
        log.append("failed", cause=cause, error="", why=Why.KILLED.value, traceback="", step=None)
    return 1


def _trace(job: LocalJob[object]) -> str:
    """The traceback that submitit kept, if the function raised and did not say so itself."""
    if not job.paths.result_pickle.exists():
        return ""
    import pickle

    try:
        outcome, value = pickle.loads(job.paths.result_pickle.read_bytes())
    except Exception:  # noqa: BLE001 - a result can be anything that fails to load here; it is not needed
        return ""
    return str(value) if outcome == "error" else ""


def local_state(paths: JobPaths, events: Sequence[Mapping[str, Any]]) -> SchedulerState:
    """What this machine knows about a local job; `events` are the job's.

    PENDING while its supervisor waits, or the job has not reported; RUNNING while the job's process or its
    supervisor lives; UNREACHABLE when it was started on another machine; else GONE.
    """
    holder, held = read_holder(paths)
    start = last_start(events)
    if held:
        waits = holder is None or holder.phase == "waiting"
        if holder is None or waits or last_start(events[holder.events :]) is None:
            return SchedulerState("PENDING", "" if waits else "starting")
        return SchedulerState("RUNNING")
    if live_pid(start) is not None:
        return SchedulerState("RUNNING", "its supervisor is gone")
    hosts = [str(start.get("host"))] if start is not None else [holder.host] if holder is not None else []
    if any(host != socket.gethostname() for host in hosts):
        return SchedulerState("UNREACHABLE", f"it was started on {hosts[0]}; ask there")
    return SchedulerState("GONE", "see supervisor.log in its folder" if start is None else "")


def cancel_local(paths: JobPaths, events: Sequence[Mapping[str, Any]]) -> bool:
    """Ask a job of this machine to stop; False when neither it nor its supervisor lives here.

    A job that waits is cancelled, one that runs saves what it has and stops; asked twice, it is killed.
    """
    pid = _supervisor(paths) or live_pid(last_start(events))
    if pid is None:
        return False
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return False
    return True


def _supervisor(paths: JobPaths) -> int | None:
    """The process that supervises a job on this machine; waits a little for one that is just starting."""
    for _ in range(round(_STARTING_S / _POLL_S)):
        holder, held = read_holder(paths)
        if not held or (holder is not None and holder.host != socket.gethostname()):
            return None
        if holder is not None and holder.pid:
            return holder.pid
        time.sleep(_POLL_S)
    return None


def run_debug(folder: Path, function: Callable[..., Any], *args: Any) -> Any:
    """Run `function(*args)` here and now through submitit, and return what it returns.

    Whatever it raises comes out as it is, with its own traceback; nothing stops at a prompt. The environment
    is as before afterwards.
    """
    from submitit import DebugExecutor

    with clean_process_environment():
        job = DebugExecutor(folder).submit(function, *args)
        os.environ.update(SUBMITIT_EXECUTOR="debug", SUBMITIT_DEBUG_JOB_ID=job.job_id, SUBMITIT_FOLDER=str(folder))
        error = job.exception()  # runs it; asking for the result instead would open pdb on an error
        if error is not None:
            raise error
        return job.result()


_TURN_S = 0.3


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
    project: Project, job_id: str, max_local: int, cancelled: Callable[[], bool], poll_s: float = _TURN_S
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


def link_logs(paths: JobPaths, submitit_folder: Path, submitit_id: str) -> None:
    """Point `log.out` and `log.err` at submitit's files of its job `submitit_id`.

    The links are relative, so the project can be moved. The files may not exist yet; links of an earlier
    attempt are replaced, anything else of that name is left alone. Raises OSError.
    """
    for link, ending in ((paths.log_out, "out"), (paths.log_err, "err")):
        if link.exists() and not link.is_symlink():
            continue
        target = os.path.relpath(submitit_folder / f"{submitit_id}_0_log.{ending}", link.parent)
        temp = link.with_name(f".{link.name}.{secrets.token_hex(4)}.tmp")
        temp.symlink_to(target)
        temp.replace(link)
