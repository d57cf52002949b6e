"""Jobs whose function is in a file of the test: they report like a worker does, and do as they are told."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tdmpc_lab.jobs.events import read_events
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.launch.lease import read_holder
from tdmpc_lab.launch.local import cancel_local
from tdmpc_lab.launch.process import last_start, live_pid

HERE = Path(__file__).parent

# What a supervisor runs, as the application's own does: python -m … ROOT JOB MAX_LOCAL
SUPERVISOR = """
import sys
from pathlib import Path
import job_functions
from tdmpc_lab.jobs.events import read_events
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.launch.lease import read_holder
from tdmpc_lab.launch.local import supervise

if __name__ == "__main__":
    root, job_id, max_local = sys.argv[1:]
    project = Project(Path(root))
    paths = project.job(job_id)
    function = getattr(job_functions, (paths.folder / "function").read_text())

    def after(whole):
        last = read_events(paths.events)[-1]["event"]
        (paths.folder / "after").write_text(f"{last} whole={whole} held={read_holder(paths)[1]}")

    sys.exit(supervise(project, paths, int(max_local), function, str(paths.folder), after=after))
"""

FUNCTIONS = """
import json, os, signal, socket, sys, time
from pathlib import Path
from tdmpc_lab.jobs.events import EventLog

def _start(folder):
    log = EventLog(Path(folder) / "events.jsonl")
    stop = []
    signal.signal(signal.SIGTERM, lambda number, frame: stop.append(number))
    log.append("started", host=socket.gethostname(), pid=os.getpid(), attempt=1)
    return log, stop

def finish(folder):
    log, _ = _start(folder)
    print("to standard output")
    print("to standard error", file=sys.stderr)
    names = ("SLURM_", "SUBMITIT_", "CUDA_", "PYTHONPATH", "TDMPC_LAB_CPUS")
    seen = {k: v for k, v in os.environ.items() if k.startswith(names)}
    (Path(folder) / "environment.json").write_text(json.dumps({**seen, "cwd": os.getcwd()}))
    log.append("finished", step=1)

def brief(folder):
    log, _ = _start(folder)
    time.sleep(0.3)
    log.append("finished", step=1)

def until_told(folder):
    log, stop = _start(folder)
    for _ in range(1200):
        if stop or (Path(folder) / "go").exists():
            break
        time.sleep(0.05)
    log.append("stopped", reason="SIGTERM", step=7) if stop else log.append("finished", step=1)

def deaf(folder):
    _, stop = _start(folder)
    for _ in range(1200):
        time.sleep(0.05)

def silent(folder):
    time.sleep(60)

def raises(folder):
    _start(folder)
    raise ZeroDivisionError("nobody caught this")

def dies(folder):
    _start(folder)
    os.kill(os.getpid(), signal.SIGKILL)

def dies_late(folder):
    log, _ = _start(folder)
    log.append("finished", step=1)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def install(root: Path, monkeypatch: Any) -> Project:
    """A project whose supervisor module is `supervisor_of_test`."""
    (root / "experiments").mkdir()
    (root / "lib").mkdir()
    (root / "lib" / "supervisor_of_test.py").write_text(SUPERVISOR)
    (root / "lib" / "job_functions.py").write_text(FUNCTIONS)
    source = HERE.parents[1] / "src"
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root / "lib"), str(source)]))
    return Project(root)


def new_job(project: Project, function: str, number: int = 1) -> JobPaths:
    paths = project.job(f"local-20260203-091422-{number:03}")
    paths.folder.mkdir(parents=True)
    (paths.folder / "function").write_text(function)
    return paths


def kinds(paths: JobPaths) -> list[str]:
    return [event["event"] for event in read_events(paths.events)]


def wait_until(condition: Callable[[], bool], seconds: float = 40) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def wait_for_end(paths: JobPaths) -> None:
    try:
        wait_until(lambda: not read_holder(paths)[1])
    except AssertionError:
        log = paths.folder / "supervisor.log"
        raise AssertionError(log.read_text() if log.exists() else "no supervisor") from None


@contextlib.contextmanager
def none_left(project: Project) -> Iterator[None]:
    """Ends what a failed test would leave behind."""
    try:
        yield
    finally:
        for folder in project.jobs.glob("local-*"):
            paths = JobPaths(folder)
            holder, held = read_holder(paths)
            pid = live_pid(last_start(read_events(paths.events)))
            if held and holder is not None and holder.pid:
                cancel_local(paths, [])
                cancel_local(paths, [])
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
