from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from launch_fixtures import install, kinds, new_job, none_left, wait_for_end, wait_until

from tdmpc_lab.app.submit.submit import SUPERVISOR
from tdmpc_lab.app.worker import run_job
from tdmpc_lab.errors import UsageError
from tdmpc_lab.jobs.events import EventLog, read_events
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.launch.lease import LEASE_VARIABLE, Lease, read_holder
from tdmpc_lab.launch.local import cancel_local, local_state, start_local, supervise
from tdmpc_lab.launch.process import last_start, live_pid, process_mark

MODULE = "supervisor_of_test"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    made = install(tmp_path, monkeypatch)
    with none_left(made):
        yield made


def state(project: Project, number: int = 1) -> str:
    paths = project.job(f"local-20260203-091422-{number:03}")
    return local_state(paths, read_events(paths.events)).state


def test_a_job_runs_to_its_end(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8f3a,3")
    paths = new_job(project, "finish")
    begun = time.monotonic()
    pid = start_local(paths, project, 1, MODULE)
    assert time.monotonic() - begun < 2
    assert os.getsid(pid) == pid  # out of reach for the terminal of this session
    assert state(project) in ("PENDING", "RUNNING")
    wait_for_end(paths)
    assert kinds(paths) == ["started", "finished"]
    assert state(project) == "GONE"
    assert "to standard output" in paths.log_out.read_text()
    assert "to standard error" in paths.log_err.read_text()
    assert not paths.log_out.readlink().is_absolute()
    seen = json.loads((paths.folder / "environment.json").read_text())
    assert not [name for name in seen if name.startswith("SLURM_")]
    assert seen["SUBMITIT_EXECUTOR"] == "local"
    assert seen["CUDA_VISIBLE_DEVICES"] == "GPU-8f3a,3"
    assert seen["cwd"] == str(project.root)
    assert LEASE_VARIABLE not in seen


def test_without_a_list_of_gpus_the_job_has_none_either(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    paths = new_job(project, "finish")
    start_local(paths, project, 1, MODULE)
    wait_for_end(paths)
    assert "CUDA_VISIBLE_DEVICES" not in json.loads((paths.folder / "environment.json").read_text())


@pytest.mark.parametrize(("at_once", "share"), [(1, None), (2, "4"), (16, "1")])
def test_jobs_side_by_side_share_the_cpus(project: Project, monkeypatch: pytest.MonkeyPatch, at_once, share) -> None:
    (Path(project.root) / "sitecustomize.py").write_text("import os\nos.sched_getaffinity = lambda _: set(range(8))\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(project.root), os.environ.get("PYTHONPATH", "")]))
    paths = new_job(project, "finish")
    start_local(paths, project, at_once, MODULE)
    wait_for_end(paths)
    assert json.loads((paths.folder / "environment.json").read_text()).get("TDMPC_LAB_CPUS") == share


def test_one_at_a_time_and_the_oldest_first(project: Project) -> None:
    first = new_job(project, "until_told", 1)
    start_local(first, project, 1, MODULE)
    wait_until(lambda: state(project, 1) == "RUNNING")
    later = {number: new_job(project, "brief", number) for number in (4, 3, 2)}
    for paths in later.values():  # the youngest asks first
        start_local(paths, project, 1, MODULE)
    for number in later:
        assert state(project, number) == "PENDING"
    time.sleep(1)
    assert [kinds(paths) for paths in later.values()] == [[], [], []]
    (first.folder / "go").touch()
    for paths in (first, *later.values()):
        wait_for_end(paths)
    spans = []
    for number in (1, 2, 3, 4):
        paths = project.job(f"local-20260203-091422-{number:03}")
        assert kinds(paths) == ["started", "finished"]
        spans.append([event["time"] for event in read_events(paths.events)])
    times = [moment for span in spans for moment in span]
    assert times == sorted(times)
    assert not list((project.jobs / ".local" / "queue").iterdir())


def test_two_at_a_time(project: Project) -> None:
    jobs = [new_job(project, "until_told", number) for number in (1, 2, 3)]
    for paths in jobs:
        start_local(paths, project, 2, MODULE)
    wait_until(lambda: [state(project, n) for n in (1, 2)] == ["RUNNING", "RUNNING"])
    time.sleep(0.6)
    assert state(project, 3) == "PENDING"
    (jobs[1].folder / "go").touch()
    wait_until(lambda: state(project, 3) == "RUNNING")
    for paths in (jobs[0], jobs[2]):
        (paths.folder / "go").touch()
    for paths in jobs:
        wait_for_end(paths)


def test_a_dead_supervisor_keeps_nobody_waiting(project: Project) -> None:
    blocked = new_job(project, "until_told", 1)
    start_local(blocked, project, 1, MODULE)
    wait_until(lambda: state(project, 1) == "RUNNING")
    waiting, last = new_job(project, "brief", 2), new_job(project, "brief", 3)
    start_local(waiting, project, 1, MODULE)
    start_local(last, project, 1, MODULE)
    for paths in (waiting, blocked):
        wait_until(lambda paths=paths: bool(_holder_pid(paths)))  # type: ignore[misc]
        os.kill(_holder_pid(paths), signal.SIGKILL)
    wait_for_end(last)
    assert kinds(last) == ["started", "finished"]
    assert state(project, 2) == "GONE"
    assert state(project, 1) == "RUNNING"  # the job itself lives on
    assert cancel_local(blocked, read_events(blocked.events))
    wait_until(lambda: state(project, 1) == "GONE")
    assert kinds(blocked) == ["started", "stopped"]


def _holder_pid(paths: object) -> int:
    holder, _ = read_holder(paths)  # type: ignore[arg-type]
    return holder.pid if holder is not None else 0


def test_cancelling_a_job_that_waits(project: Project) -> None:
    first, second = new_job(project, "until_told", 1), new_job(project, "brief", 2)
    start_local(first, project, 1, MODULE)
    start_local(second, project, 1, MODULE)
    assert cancel_local(second, [])
    wait_for_end(second)
    assert (second.folder / "after").read_text() == "stopped whole=True held=True"
    (event,) = read_events(second.events)
    assert (event["event"], event["reason"]) == ("stopped", "cancelled before it started")
    (first.folder / "go").touch()
    wait_for_end(first)
    assert kinds(first) == ["started", "finished"]


def test_cancelling_a_job_that_runs(project: Project) -> None:
    paths = new_job(project, "until_told")
    start_local(paths, project, 1, MODULE)
    wait_until(lambda: state(project) == "RUNNING")
    assert cancel_local(paths, read_events(paths.events))
    wait_for_end(paths)
    assert kinds(paths) == ["started", "stopped"]
    assert read_events(paths.events)[-1]["step"] == 7
    assert not cancel_local(paths, read_events(paths.events))


def test_cancelling_twice_kills(project: Project) -> None:
    paths = new_job(project, "deaf")
    start_local(paths, project, 1, MODULE)
    wait_until(lambda: state(project) == "RUNNING")
    assert cancel_local(paths, [])
    time.sleep(0.5)
    assert state(project) == "RUNNING"
    assert cancel_local(paths, [])
    wait_for_end(paths)
    assert kinds(paths) == ["started", "stopped"]


def test_cancelling_before_the_job_reports(project: Project) -> None:
    paths = new_job(project, "silent")
    start_local(paths, project, 1, MODULE)
    wait_until(lambda: (h := read_holder(paths)[0]) is not None and h.phase == "running")
    assert cancel_local(paths, [])
    wait_for_end(paths)
    assert kinds(paths) == ["stopped"]


@pytest.mark.parametrize(
    ("function", "cause"),
    [("dies", "killed from outside, or out of memory"), ("raises", "ZeroDivisionError: nobody caught this")],
)
def test_an_end_without_an_outcome_becomes_one(function: str, cause: str, project: Project) -> None:
    paths = new_job(project, function)
    start_local(paths, project, 1, MODULE)
    wait_for_end(paths)
    assert kinds(paths) == ["started", "failed"]
    assert cause in read_events(paths.events)[-1]["cause"]


@pytest.mark.parametrize(
    ("function", "seen"),
    [
        ("finish", "finished whole=True held=True"),
        ("raises", "failed whole=True held=True"),
        ("dies", "failed whole=False held=True"),
        ("dies_late", "finished whole=False held=True"),
    ],
)
def test_what_is_called_after_a_job(function: str, seen: str, project: Project) -> None:
    """After the outcome is on file, before the job counts as over; it is told when the job was cut short."""
    paths = new_job(project, function)
    start_local(paths, project, 1, MODULE)
    wait_for_end(paths)
    assert (paths.folder / "after").read_text() == seen


def test_a_shell_that_ends_before_its_job_says_nothing(project: Project) -> None:
    paths = new_job(project, "until_told")
    code = (
        "import sys; from pathlib import Path; from tdmpc_lab.jobs.paths import Project;"
        "from tdmpc_lab.launch.local import start_local;"
        f"p = Project(Path(sys.argv[1])); start_local(p.job('{paths.id}'), p, 1, '{MODULE}')"
    )
    command = [sys.executable, "-W", "always::ResourceWarning", "-c", code, str(project.root)]
    shell = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (shell.returncode, shell.stdout, shell.stderr) == (0, "", "")
    (paths.folder / "go").touch()
    wait_for_end(paths)


def test_a_job_is_not_run_twice_at_once(project: Project) -> None:
    paths = new_job(project, "until_told")
    start_local(paths, project, 1, MODULE)
    with pytest.raises(UsageError, match="being run already"):
        start_local(paths, project, 1, MODULE)
    with pytest.raises(UsageError, match="being run already"):
        supervise(project, paths, 1, print)
    (paths.folder / "go").touch()
    wait_for_end(paths)
    assert kinds(paths) == ["started", "finished"]


def test_closing_the_shell_does_not_end_the_job(project: Project) -> None:
    paths = new_job(project, "until_told")
    code = (
        "import sys; from pathlib import Path; from tdmpc_lab.jobs.paths import Project;"
        "from tdmpc_lab.launch.local import start_local;"
        f"p = Project(Path(sys.argv[1])); start_local(p.job('{paths.id}'), p, 1, '{MODULE}');"
        "print('submitted', flush=True); sys.stdin.read()"
    )
    shell = subprocess.Popen(
        [sys.executable, "-c", code, str(project.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    with shell:
        assert shell.stdout is not None
        assert shell.stdout.readline() == b"submitted\n"
        wait_until(lambda: state(project) == "RUNNING")
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGKILL):  # Ctrl-C, the terminal closed, the end
            os.killpg(shell.pid, number)
    time.sleep(0.3)
    assert state(project) == "RUNNING"
    (paths.folder / "go").touch()
    wait_for_end(paths)
    assert kinds(paths) == ["started", "finished"]


def test_a_job_that_goes_on_is_pending_until_it_reports_again(project: Project) -> None:
    paths = new_job(project, "brief")
    EventLog(paths.events).append("started", host=os.uname().nodename, pid=1, attempt=1)
    EventLog(paths.events).append("stopped", reason="SIGTERM", step=3)
    assert state(project) == "GONE"
    with Lease.take(paths) as lease:
        lease.note("waiting", 2)
        assert state(project) == "PENDING"
        lease.note("running", 2)
        assert local_state(paths, read_events(paths.events)).reason == "starting"
        EventLog(paths.events).append("started", host="elsewhere", pid=1, attempt=2)
        assert state(project) == "RUNNING"
    assert state(project) == "UNREACHABLE"


def test_a_process_id_used_again_is_not_the_job(project: Project) -> None:
    here = os.uname().nodename
    now = datetime.now().astimezone()
    event = {"event": "started", "host": here, "pid": os.getpid(), "time": now.isoformat()}
    assert live_pid(last_start([event])) == os.getpid()
    before = (now - timedelta(days=1)).isoformat()
    assert live_pid({**event, "time": before}) is None
    assert live_pid({**event, "host": "elsewhere"}) is None
    assert live_pid({**event, "pid": None}) is None
    marked = {**event, "time": before, "process": process_mark(os.getpid())}  # the clock was set after it began
    assert live_pid(marked) == os.getpid()
    assert live_pid({**marked, "process": f"{process_mark(os.getpid())}0"}) is None
    assert live_pid({**marked, "process": process_mark(2**22 + 1)}) is None
    assert live_pid({**event, "pid": 2**22 + 1}) is None
    assert live_pid(None) is None


def test_a_supervisor_that_can_not_start_leaves_no_ghost(project: Project) -> None:
    paths = new_job(project, "brief")
    start_local(paths, project, 1, "no_such_module_of_test")
    wait_for_end(paths)
    assert local_state(paths, []).state == "GONE"
    assert "supervisor.log" in local_state(paths, []).reason
    assert "no_such_module_of_test" in (paths.folder / "supervisor.log").read_text()
    other = new_job(project, "brief", 2)
    start_local(other, project, 1, MODULE)
    wait_for_end(other)
    assert kinds(other) == ["started", "finished"]


def test_a_pickled_job_names_its_code_as_ever() -> None:
    """Jobs that were submitted before an update name it so, and so does a snapshot that `rerun` starts."""
    assert (run_job.__module__, run_job.__qualname__) == ("tdmpc_lab.app.worker", "run_job")
    assert list(inspect.signature(run_job).parameters) == ["root", "job_id"]
    assert SUPERVISOR == "tdmpc_lab.app.supervisor"
