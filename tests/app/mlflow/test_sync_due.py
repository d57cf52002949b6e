"""What `ui` sends MLflow before anybody asks: values of jobs that leave it to others, and what is missing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from app_fixtures import write_specs
from sync_fixtures import add_job, add_rows, in_store, on_file, the_run

from tdmpc_lab.app.mlflow import sync as sync_due
from tdmpc_lab.app.mlflow.sync import begin, send_due, wait_for
from tdmpc_lab.app.mlflow.ui import ui_for
from tdmpc_lab.cli import mlflow as syncing
from tdmpc_lab.cli.main import main
from tdmpc_lab.jobs.events import EventLog, read_events
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.jobs.unsent import Unsent, mark_unsent, unsent_jobs

JOB = "local-20260203-091422-001"


@pytest.fixture
def lab(project: Path) -> Project:
    write_specs(project)
    return Project(project)


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that `begin` would have started."""
    calls: list[list[str]] = []
    monkeypatch.setattr(subprocess, "Popen", lambda command, **_: calls.append(command))
    return calls


def test_a_job_that_leaves_its_values_is_followed_while_it_runs_and_ended(
    lab: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
    try:
        paths = add_job(lab, JOB, started=False)
        EventLog(paths.events).append("started", host=os.uname().nodename, pid=alive.pid, attempt=1)
        add_rows(paths, range(20))
        mark_unsent(lab, JOB, Unsent("later"))
        before = paths.events.read_bytes()
        assert send_due(lab)
        assert the_run(lab, paths)[1].info.status == "RUNNING"
        assert sum(in_store(lab, paths).values()) == 40
        assert paths.events.read_bytes() == before  # which the job writes itself
        run = the_run(lab, paths)[1].info
        mark = Unsent("later", paths.metrics.stat().st_size, run.run_id, run.experiment_id)
        assert unsent_jobs(lab) == {JOB: mark}
        assert f"experiments/{run.experiment_id}/runs/{run.run_id}" in ui_for(lab, None, JOB).url
        with monkeypatch.context() as patched:
            patched.setattr("tdmpc_lab.tracking.held.open_client", None)
            assert send_due(lab)  # nothing is new: MLflow is not asked
        add_rows(paths, range(20, 30))
        assert send_due(lab)
        assert sum(in_store(lab, paths).values()) == 60
    finally:
        alive.kill()
        alive.wait()
    assert send_due(lab)
    assert the_run(lab, paths)[1].info.status == "KILLED"
    assert unsent_jobs(lab) == {}
    assert [event["event"] for event in read_events(paths.events)] == ["started", "tracking"]


def test_status_names_what_mlflow_lacks_and_sends_nothing(
    lab: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun: list[Project] = []
    monkeypatch.setattr(sync_due, "begin", begun.append)
    add_job(lab, JOB, "finished")
    mark_unsent(lab, JOB, Unsent("live"))
    running = add_job(lab, "local-20260203-091422-002", started=False)
    EventLog(running.events).append("started", host=os.uname().nodename, pid=os.getpid(), attempt=1)
    mark_unsent(lab, running.id, Unsent("live"))  # it sends its values itself
    assert main(["status"]) == 0
    said = capsys.readouterr()
    assert JOB.removeprefix("local-") in said.out
    assert said.err == "note: 1 job is not (all) in MLflow yet: tdmpc-lab sync\n"
    mark_unsent(lab, running.id, Unsent("later"))
    assert main(["status"]) == 0
    assert capsys.readouterr().err == "note: 2 jobs are not (all) in MLflow yet: tdmpc-lab sync\n"
    assert main(["status", "--json"]) == 0
    assert capsys.readouterr().err == ""
    assert begun == []


def test_ui_sends_before_it_opens_and_again_while_it_is_open(lab: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """With processes of their own, as typed; in the place of the server a process that ends after a while."""
    monkeypatch.setattr(syncing, "AT_MOST_S", 100.0)
    monkeypatch.setattr("tdmpc_lab.app.mlflow.sync.start_following", lambda _: None)
    monkeypatch.setattr("tdmpc_lab.app.mlflow.ui.run_ui", lambda _: None)
    paths = add_job(lab, JOB, "finished")
    mark_unsent(lab, JOB, Unsent("later"))
    assert main(["ui"]) == 1  # of a server that could not be started
    assert in_store(lab, paths) == on_file(paths)
    assert unsent_jobs(lab) == {}
    later = add_job(lab, "local-20260203-091422-002", "finished")
    mark_unsent(lab, later.id, Unsent("live"))
    server = (
        "import os, sys, tdmpc_lab.app.mlflow.sync as sync; from tdmpc_lab.jobs.paths import Project; from pathlib "
        f"import Path; sync.start_following(Project(Path({str(lab.root)!r})), 1.0); "
        "os.execv('/bin/sleep', ['sleep', '100'])"
    )
    followed = subprocess.Popen([sys.executable, "-c", server], env=dict(os.environ))
    try:
        until = time.monotonic() + 120
        while unsent_jobs(lab) and time.monotonic() < until:
            time.sleep(0.5)
        assert in_store(lab, later) == on_file(later)
    finally:
        followed.kill()
        followed.wait()


def test_nothing_is_begun_where_nothing_is_to_be_sent(lab: Project, begun: list[list[str]]) -> None:
    add_job(lab, JOB, "finished")
    assert begin(lab) is None  # it has no mark
    paths = add_job(lab, "local-20260203-091422-002", started=False)
    EventLog(paths.events).append("started", host=os.uname().nodename, pid=os.getpid(), attempt=1)
    mark_unsent(lab, paths.id, Unsent("live"))  # it runs, and sends its values itself
    assert begin(lab) is None
    assert begun == []


def test_it_is_tried_again_after_a_while_or_when_a_job_has_ended(lab: Project, begun: list[list[str]]) -> None:
    paths = add_job(lab, JOB)
    mark_unsent(lab, JOB, Unsent("later"))
    begin(lab)
    begin(lab)
    assert begun == [[sys.executable, "-m", "tdmpc_lab.app.mlflow.sync", str(lab.root)]]
    _passed(lab, sync_due.EVERY_S + 1)
    begin(lab)
    assert len(begun) == 2
    EventLog(paths.events).append("finished", step=299, attempt=1)
    _passed(lab, 1)
    begin(lab)
    begin(lab)
    assert len(begun) == 3
    (lab.unsent / ".last").write_text("trouble\n")
    _passed(lab, sync_due.EVERY_S + 1)
    assert begin(lab) is None
    _passed(lab, sync_due.AFTER_TROUBLE_S + 1)
    begin(lab)
    assert len(begun) == 4


def _passed(lab: Project, seconds: float) -> None:
    """The last try was so long ago, and no job has changed since but in the last moment."""
    last = time.time() - seconds
    os.utime(lab.unsent / ".last", (last, last))
    if seconds > sync_due.EVERY_S:
        os.utime(lab.job(JOB).events, (last - 1, last - 1))


def test_trouble_with_mlflow_is_said_and_the_mark_stays(
    lab: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add_job(lab, JOB, "finished")
    mark_unsent(lab, JOB, Unsent("later"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert not send_due(lab)
    assert "nothing is lost" in capsys.readouterr().out
    (lab.root / "tdmpc-lab.yaml").write_text("tracking: {url: x}\n")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert not send_due(lab)
    assert "did you mean 'uri'" in capsys.readouterr().out
    (lab.unsent / ".last").unlink()
    assert set(unsent_jobs(lab)) == {JOB}


def test_a_sync_that_takes_long_is_not_waited_for() -> None:
    slow = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        began = time.monotonic()
        wait_for(slow, 0.2)
        assert time.monotonic() - began < 5
        assert slow.poll() is None
    finally:
        slow.kill()
        slow.wait()
