"""What the supervisor sees to for a job that can no longer speak for itself."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from app_fixtures import write_specs

from tdmpc_lab.app.submit.submit import SUPERVISOR
from tdmpc_lab.app.supervisor import close_books
from tdmpc_lab.config.loader import load_spec
from tdmpc_lab.config.serialize import dump_yaml
from tdmpc_lab.jobs.events import EventLog, read_events
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.jobs.record import JobRecord, prepare_job
from tdmpc_lab.launch.lease import read_holder
from tdmpc_lab.launch.local import start_local
from tdmpc_lab.notes.note import BEGIN
from tdmpc_lab.tracking.run import DESCRIPTION_TAG, JOB_TAG
from tdmpc_lab.tracking.store import ensure_store, open_client, store_uri

LIMIT_S = 60


@pytest.fixture(scope="module")
def new_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store; MLflow takes seconds to make one."""
    root = tmp_path_factory.mktemp("store")
    ensure_store(store_uri(root), root)
    return root / "mlruns" / "mlflow.db"


@pytest.fixture
def lab(project: Path, new_store: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    write_specs(project)
    (project / "mlruns").mkdir()
    shutil.copyfile(new_store, project / "mlruns" / "mlflow.db")
    here = [str(project), str(Path(__file__).parents[3] / "src")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(here))
    return Project(project)


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def events(paths: JobPaths, kind: str) -> list[dict]:
    return [event for event in read_events(paths.events) if event["event"] == kind]


def all_runs(lab: Project):
    client = open_client(store_uri(lab.root), lab.root)
    return client.search_runs([e.experiment_id for e in client.search_experiments()])


def the_run(lab: Project):
    (run,) = all_runs(lab)
    return run


def make_job(lab: Project, name: str, *overrides: str) -> JobPaths:
    found = load_spec(lab.root / "experiments" / f"{name}.yaml", overrides)

    def record(job_id: str) -> JobRecord:
        return JobRecord(
            id=job_id,
            experiment=name,
            group="0123456789",
            seed=1,
            cluster="local",
            spec_file=f"experiments/{name}.yaml",
            submitted_at="2026-02-03T09:14:22+00:00",
            steps_total=found.spec.train.steps,
        )

    return prepare_job(lab, None, found.text, dump_yaml(found.spec), record)


def dead_job(lab: Project) -> JobPaths:
    """A job that started, did 40 steps and left neither an outcome nor a run."""
    paths = make_job(lab, "quick")
    EventLog(paths.events).append("started", host="here", pid=1, attempt=1)
    row = '{"step": 40, "split": "eval", "attempt": 1, "wall_s": 2.0, "return_mean": -7.5}\n'
    paths.metrics.write_text(row)
    return paths


def test_the_run_of_a_killed_job_is_ended(lab: Project) -> None:
    """A real job, killed while its run is open: MLflow says FAILED by the time that the job counts as over."""
    paths = make_job(lab, "moody", "env.options={slow: 0.02}", "train.steps=100000", "eval.every=20")
    start_local(paths, lab, 1, SUPERVISOR)
    wait_until(lambda: events(paths, "tracking") and paths.metrics.exists() and paths.metrics.stat().st_size)
    assert the_run(lab).info.status == "RUNNING"
    (start,) = events(paths, "started")
    os.kill(start["pid"], signal.SIGKILL)
    wait_until(lambda: not read_holder(paths)[1])

    run = the_run(lab)
    assert run.info.status == "FAILED"
    assert run.info.end_time is not None
    assert run.info.run_id == events(paths, "tracking")[0]["run_id"]
    assert run.data.tags["node"] == start["host"]
    first_line = run.data.tags[DESCRIPTION_TAG].splitlines()[0]
    assert "FAILED" in first_line
    assert "without an outcome" in first_line
    assert "MLflow" not in (paths.folder / "supervisor.log").read_text()


@pytest.mark.parametrize(("outcome", "status"), [("failed", "FAILED"), ("stopped", "KILLED"), ("finished", "FINISHED")])
def test_a_job_that_left_no_run_gets_one(outcome: str, status: str, lab: Project) -> None:
    paths = dead_job(lab)
    EventLog(paths.events).append(outcome, cause="gone", reason="gone", step=40)
    close_books(lab, paths, whole=False)
    run = the_run(lab)
    assert run.info.status == status
    assert run.data.tags[JOB_TAG] == paths.id
    assert run.data.metrics["eval/return_mean"] == -7.5
    assert run.data.params["agent.horizon"] == "3"
    assert run.info.run_id in lab.note(paths.id).read_text()


def test_a_whole_job_and_one_that_never_started_are_left_alone(lab: Project) -> None:
    paths = dead_job(lab)
    EventLog(paths.events).append("finished", step=40)
    close_books(lab, paths, whole=True)
    assert "COMPLETED" in lab.note(paths.id).read_text()
    paths.events.write_text("")
    EventLog(paths.events).append("stopped", reason="cancelled before it started", step=None)
    close_books(lab, paths, whole=False)
    assert all_runs(lab) == []


def test_troubles_are_printed_and_end_nothing(lab: Project, capsys: pytest.CaptureFixture[str]) -> None:
    paths = dead_job(lab)
    EventLog(paths.events).append("failed", cause="gone", step=40)
    paths.resolved.write_text("no: spec\n")
    note = lab.note(paths.id)
    note.parent.mkdir(exist_ok=True)
    note.write_text(f"{BEGIN}\nits end is gone\n")
    close_books(lab, paths, whole=False)
    errors = capsys.readouterr().err
    assert "the note was not written" in errors
    assert "MLflow is not complete" in errors
