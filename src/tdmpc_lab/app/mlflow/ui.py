"""`ui`: the MLflow pages of this project's store, on this machine only."""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import shlex
import socket
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path

from tdmpc_lab.errors import ExternalError, NoJobError, RecordError, UsageError
from tdmpc_lab.jobs.events import read_events
from tdmpc_lab.jobs.find import job_ids, peek, raw_records, require_job
from tdmpc_lab.jobs.ids import array_of
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.jobs.unsent import unsent_as
from tdmpc_lab.tracking.store import ensure_store, public_uri, run_url, sqlite_path, store_uri, ui_command, uri_problem
from tdmpc_lab.tracking.view import refresh_views, view_url

PORTS = range(5000, 5100)
# Its job runner, for language models, costs several processes and seconds; what the user has set is kept.
SERVER_SETTINGS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


@dataclass(frozen=True)
class Running:
    """The MLflow server of a project that runs somewhere."""

    host: str
    port: int
    pid: int
    user: str


@dataclass(frozen=True)
class UiCommand:
    """What to run, where to look, and how to get there from another machine."""

    command: list[str] | None
    """None where the store is a server, which has its pages already."""
    url: str
    """The page to open: the ready view of an experiment where one is known, or the run of a job that was asked for. A
    server that is started takes some seconds to answer."""
    tunnel: str | None
    """None where the server is another one's."""
    lock: Path | None = None
    """To be held by the server that is started."""
    running: Running | None = None
    """The server that `ui` has started for this project already; `command` is None then."""

    def shell_line(self) -> str:
        """The command as one line for a shell; of a server its page."""
        return self.url if self.command is None else shlex.join(self.command)


def ui_for(project: Project, port: int | None, which: str | None = None) -> UiCommand:
    """The command for this project's store; a free port from 5000 on unless one is given. Where `ui` runs a server for
    it already, that one is meant: two would only cost memory, and write into one store.

    `which` is an experiment, a job or a job array whose page is wanted; default: the experiment of the newest job.

    Raises:
        ExternalError: the port is taken, the server that is up has another one, or the store is none that MLflow has.
        UsageError: there is no such experiment or job, or it is not in this store.
    """
    uri = store_uri(project.root)
    if problem := uri_problem(uri):
        raise ExternalError(problem)
    if uri.startswith(("http://", "https://")):
        return UiCommand(None, _page(project, uri, uri, which), None)
    if (running := running_ui(project)) is not None:
        if port not in (None, running.port):
            raise ExternalError(
                f"MLflow for this project is at port {running.port} of {running.host} already (process "
                f"{running.pid} of {running.user}); end that one first to have it at another port"
            )
        page = _page(project, uri, f"http://127.0.0.1:{running.port}", which)
        return UiCommand(None, page, _tunnel(running.port, running.host), running=running)
    chosen = port if port is not None else next((p for p in PORTS if _is_free(p)), None)
    if chosen is None or not _is_free(chosen):
        wanted = f"port {port} is" if port is not None else f"all ports {PORTS.start}-{PORTS.stop - 1} are"
        raise ExternalError(f"{wanted} taken on 127.0.0.1; choose another with --port N")
    page = _page(project, uri, f"http://127.0.0.1:{chosen}", which)
    tunnel = _tunnel(chosen, socket.gethostname())
    return UiCommand(ui_command(uri, project.root, chosen), page, tunnel, lock=project.ui_lock)


def _tunnel(port: int, host: str) -> str:
    return f"ssh -N -L {port}:127.0.0.1:{port} {getpass.getuser()}@{host}"


def running_ui(project: Project) -> Running | None:
    """The server of this project that was started with `ui` and still runs; None where there is none."""
    try:
        with project.ui_lock.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return Running(**json.loads(file.read()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:  # it is written when the lock is already held
        raise ExternalError(f"MLflow for this project is being started by another `ui` ({error}); try again") from error
    return None


def _page(project: Project, uri: str, base: str, which: str | None) -> str:
    """The page for `which`; without it that of the newest job's experiment, or `base` when no job is in this store."""
    base = public_uri(base).replace("***@", "")
    known = {job_id: peek(raw, "experiment") for job_id, raw in raw_records(project)}
    if which is None or which in known.values():
        wanted = (job_id for job_id in reversed(job_ids(project)) if which in (None, known.get(job_id)))
        found = next(filter(None, (_told(project, job_id, uri) for job_id in wanted)), None)
        if found is not None:
            return view_url(base, found["experiment_id"])
        if which is None:
            return base
    elif tasks := [job_id for job_id in known if (of := array_of(job_id)) and of[0] == which]:
        # The tasks of an array are one experiment, whose view compares them.
        for job_id in tasks:
            if found := _told(project, job_id, uri):
                return view_url(base, found["experiment_id"])
    else:
        job = _job(project, which, {name for name in known.values() if name})
        if found := _told(project, job, uri):
            return run_url(base, found["experiment_id"], found["run_id"])
    raise UsageError(f"{which} has no run in MLflow at {public_uri(uri)} yet; tdmpc-lab sync sends what it lacks")


def _job(project: Project, text: str, experiments: Collection[str]) -> str:
    try:
        return require_job(project, text).id
    except NoJobError:  # what is an id is no name of an experiment
        raise
    except UsageError as error:
        near = get_close_matches(text, experiments, n=1)
        hint = f"; did you mean the experiment {near[0]}?" if near else ""
        raise UsageError(f"no experiment {text}, and {error}{hint}") from error


def _told(project: Project, job_id: str, uri: str) -> Mapping[str, str] | None:
    """What a job's events say of its run in this store, or its mark while it runs; None where they say nothing."""
    try:
        events = read_events(project.job(job_id).events)
    except RecordError:  # `status` says what is wrong with it
        return None
    for event in reversed(events):
        if event.get("event") == "tracking" and event.get("store") == public_uri(uri) and event.get("experiment_id"):
            return {name: str(event.get(name)) for name in ("experiment_id", "run_id")}
    mark = unsent_as(project, job_id)
    if mark is None or mark.run_id is None or mark.experiment_id is None:
        return None
    return {"experiment_id": mark.experiment_id, "run_id": mark.run_id}


def make_ready(project: Project) -> str | None:
    """Create the store where there is none yet, and bring the ready views up to date.

    Returns what went wrong with the views, in one line. Raises OSError when the store can't be created.
    """
    uri = store_uri(project.root)
    if sqlite_path(uri) is not None:
        ensure_store(uri, project.root)
    return refresh_views(uri, project.root)


def run_ui(ui: UiCommand) -> None:
    """Become the MLflow server, where there is one to start; returns only if that fails.

    It holds the project's lock for that, open over the exec, so that it is let go when the server ends, however.
    Raises OSError, and ExternalError where another one was quicker.
    """
    if ui.command is not None:
        if ui.lock is not None:
            _claim(ui.lock, port=int(ui.command[ui.command.index("--port") + 1]))
        os.execve(ui.command[0], ui.command, {**SERVER_SETTINGS, **os.environ})


def _claim(lock: Path, port: int) -> None:
    lock.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise ExternalError("another `ui` of this project was quicker; ask again for its page: tdmpc-lab ui") from error
    here = Running(socket.gethostname(), port, os.getpid(), getpass.getuser())
    os.ftruncate(fd, 0)
    os.write(fd, json.dumps(asdict(here)).encode())
    os.set_inheritable(fd, True)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
