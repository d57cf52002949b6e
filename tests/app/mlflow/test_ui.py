"""What `ui` runs and which page it names."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tdmpc_lab.app.mlflow import ui
from tdmpc_lab.app.mlflow.ui import run_ui, running_ui, ui_for
from tdmpc_lab.cli.main import main
from tdmpc_lab.errors import ExternalError, UsageError
from tdmpc_lab.jobs.events import EventLog
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.tracking.store import ensure_store, run_url, store_uri
from tdmpc_lab.tracking.view import view_url

BASE = "http://127.0.0.1:5091"


@pytest.fixture
def lab(project: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setattr(ui, "_is_free", lambda port: True)
    return Project(project)


def job(lab: Project, number: int, experiment: str = "", **tracking: Any) -> None:
    paths = lab.job(f"local-20260203-091422-{number:03}")
    paths.folder.mkdir(parents=True)
    paths.record.write_text(json.dumps({"experiment": experiment} if experiment else {}, indent=2))
    if tracking:
        EventLog(paths.events).append("tracking", run_id="r", **tracking)


def page(lab: Project, which: str | None = None) -> str:
    return ui_for(lab, 5091, which).url


def test_the_page_is_the_newest_known_experiment(lab: Project) -> None:
    assert page(lab) == BASE
    here = store_uri(lab.root)
    job(lab, 1, experiment_id="7", store=here)
    assert page(lab) == view_url(BASE, "7")
    job(lab, 2, experiment_id="8", store=here)
    job(lab, 3, experiment_id="9", store="http://elsewhere:5000")  # another store counts on its own
    job(lab, 4)  # not there yet
    job(lab, 5)
    lab.job("local-20260203-091422-005").events.write_text("torn\n{}\n")
    assert page(lab) == view_url(BASE, "8")


def test_the_page_of_a_job_array_is_its_experiment(lab: Project) -> None:
    for task in (0, 1):
        paths = lab.job(f"20_{task}")
        paths.folder.mkdir(parents=True)
        paths.record.write_text(json.dumps({"experiment": "sweep"}, indent=2))
    EventLog(paths.events).append("tracking", run_id="r", experiment_id="7", store=store_uri(lab.root))
    assert page(lab, "20") == view_url(BASE, "7")


def test_a_store_that_mlflow_does_not_know(lab: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """No server is started that would end with a traceback."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "127.0.0.1:5000")
    with pytest.raises(ExternalError, match=r"did you mean http://127\.0\.0\.1:5000"):
        page(lab)


def test_the_page_of_an_experiment_or_of_a_job(lab: Project) -> None:
    here = store_uri(lab.root)
    job(lab, 1, "horizon", experiment_id="7", store=here)
    job(lab, 2, "reward", experiment_id="8", store=here)
    job(lab, 3, "horizon")
    assert page(lab, "horizon") == view_url(BASE, "7")
    assert page(lab, "091422-002") == run_url(BASE, "8", "r")
    with pytest.raises(UsageError, match=r"091422-003 has no run in MLflow at .*tdmpc-lab sync"):
        page(lab, "091422-003")
    with pytest.raises(UsageError, match=r"no experiment horzon.* did you mean the experiment horizon\?"):
        page(lab, "horzon")


def test_a_server_has_its_pages_already(lab: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@lab.example/")
    job(lab, 1, "horizon", experiment_id="7", store="https://***@lab.example/")
    found = ui_for(lab, None)
    assert (found.command, found.tunnel) == (None, None)
    assert found.url == found.shell_line() == view_url("https://lab.example", "7")


@pytest.mark.parametrize(("problem", "code"), [(None, 0), ("no answer", 3)])
def test_the_page_of_a_server_that_may_be_away(
    problem: str | None, code: int, lab: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://lab.example")
    monkeypatch.setattr(ui, "make_ready", lambda project: problem)
    assert main(["ui"]) == code
    said = capsys.readouterr()
    assert said.out == "http://lab.example\n"
    assert ("no answer" in said.err) == (problem is not None)


@pytest.mark.parametrize(("own", "seen"), [(None, "false"), ("true", "true")])
def test_the_server_runs_no_jobs_of_its_own(
    own: str | None, seen: str, lab: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "execve", lambda *call: calls.append(call))
    if own is not None:
        monkeypatch.setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", own)
    found = ui_for(lab, 5091)
    run_ui(found)
    ((program, command, environ),) = calls
    assert command == found.command
    assert program == command[0]
    assert environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == seen
    assert environ["PATH"] == os.environ["PATH"]


def test_a_second_ui_names_the_server_of_the_first(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first one is a process of its own, and becomes MLflow's server."""
    here = Project(project)
    ensure_store(store_uri(here.root), here.root)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3] / "src")}
    command = [sys.executable, "-m", "tdmpc_lab", "ui", "--port", str(port)]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(command, cwd=project, env=environ, start_new_session=True, **quiet)
    try:
        end = time.monotonic() + 60
        while (running := running_ui(here)) is None:
            assert server.poll() is None and time.monotonic() < end
            time.sleep(0.1)
        assert (running.port, running.pid) == (port, server.pid)
        assert main(["ui"]) == 0
        said = capsys.readouterr()
        assert said.out == f"http://127.0.0.1:{port}\n"
        assert f"runs already: process {server.pid} of " in said.err and f"-L {port}:127.0.0.1:{port}" in said.err
        assert ui_for(here, port).running == running
        with pytest.raises(ExternalError, match=f"is at port {port} of "):
            ui_for(here, 5099)
        with pytest.raises(ExternalError, match="another `ui` of this project was quicker"):
            run_ui(replace(ui_for(here, None), command=["mlflow", "--port", "5099"], lock=here.ui_lock))
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    assert running_ui(here) is None
