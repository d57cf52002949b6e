"""Eight jobs log to a real MLflow server that is paused, killed and brought back; one job gets SIGKILL itself.

One of the jobs trains. The others are processes that do all that a job does but for the training: their rows come
from a loop, and a file tells them when to end.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from app_fixtures import write_specs
from sync_fixtures import add_job

from servers import free_port, mlflow_server, wait_until
from tdmpc_lab.app.mlflow.sync import sync
from tdmpc_lab.files import read_jsonl
from tdmpc_lab.jobs.events import OUTCOMES, read_events
from tdmpc_lab.jobs.find import job_ids
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.jobs.unsent import unsent_jobs
from tdmpc_lab.launch.process import last_start, live_pid
from tdmpc_lab.tracking.points import attempt_starts, row_points

pytestmark = pytest.mark.timeout(600)

IDS = [f"local-20260203-091422-00{n}" for n in range(1, 8)]
END_WHILE_DOWN, KILLED, FAIL, END_WHEN_BACK = IDS[:3], IDS[3], IDS[4], IDS[5:]
# One process loads MLflow, and forks the jobs: seven loads of it would be most of the test.
JOBS = """
import os, sys, time
from types import SimpleNamespace
import mlflow, mlflow.store.tracking.rest_store
from tdmpc_lab.app.run import worker
from tdmpc_lab.config.loader import load_resolved
from tdmpc_lab.errors import TrainingError
from tdmpc_lab.files import JsonlWriter
from tdmpc_lab.jobs.paths import Project
from pathlib import Path

worker.CLOSE_S = 3.0  # what a job that ends gives a server that is away

class Job(worker._Run):
    def _train(self):
        self._start_mirror(load_resolved(self.paths.resolved))
        with JsonlWriter(self.paths.metrics) as rows:
            for step in range(100_000):
                wall = time.monotonic() - began
                row = {"step": step, "split": "train", "attempt": self.attempt, "wall_s": round(wall, 3)}
                rows.append({**row, "return": step / 7, "loss/value": 1 / (step + 1), "loss/reward": float("nan")})
                if (self.paths.folder / "end").exists():
                    break
                if (self.paths.folder / "fail").exists():
                    raise TrainingError("told to fail")
                time.sleep(0.02)
        return SimpleNamespace(stopped=None, step=step)

began = time.monotonic()
project = Project(Path(sys.argv[1]))
pids = []
for job_id in sys.argv[2:]:
    pid = os.fork()
    if pid == 0:
        try:
            Job(project, project.job(job_id), worker.StopFlag()).run()
        except TrainingError:
            pass
        finally:
            sys.stdout.flush()
            os._exit(0)
    pids.append(pid)
for pid in pids:
    os.waitpid(pid, 0)
"""


@pytest.fixture
def lab(project: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    write_specs(project)
    monkeypatch.setenv("PYTHONPATH", str(project), prepend=os.pathsep)
    return Project(project)


def on_file(paths: JobPaths) -> Counter[tuple[str, int, float, int]]:
    starts = attempt_starts(read_events(paths.events))
    rows, _ = read_jsonl(paths.metrics)
    return Counter(
        (p.name, p.step, p.value, p.time_ms) for row in rows for p in row_points(row, starts[row["attempt"]])
    )


def in_store(database: Path, job_id: str) -> tuple[Counter[tuple[str, int, float, int]], list[str]]:
    """Every point of the job's runs, read past MLflow; and the status of each run that is not deleted."""
    with sqlite3.connect(database) as store:
        runs = store.execute(
            "select run_uuid, status from runs join tags using (run_uuid) where tags.key = 'tdmpc_lab.job_id' "
            "and tags.value = ? and lifecycle_stage = 'active'",
            [job_id],
        ).fetchall()
        points = [
            point
            for run, _ in runs
            for point in store.execute("select key, step, value, timestamp from metrics where run_uuid = ?", [run])
        ]
    return Counter(points), [status for _, status in runs]


def steps_of(paths: JobPaths) -> int:
    return paths.metrics.read_bytes().count(b"\n") if paths.metrics.exists() else 0


def tell(lab: Project, ids: list[str], word: str) -> None:
    for job_id in ids:
        (lab.job(job_id).folder / word).touch()


def ended(lab: Project, job_id: str) -> bool:
    """Whether it has left an outcome and its process is gone."""
    events = read_events(lab.job(job_id).events)
    return any(event["event"] in OUTCOMES for event in events) and live_pid(last_start(events)) is None


@pytest.fixture
def jobs(lab: Project) -> Iterator[subprocess.Popen[bytes]]:
    for job_id in IDS:
        add_job(lab, job_id, started=False)
    with (lab.root / "jobs.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", JOBS, str(lab.root), *IDS], stdout=log, stderr=log, start_new_session=True
        )
    yield process
    with contextlib.suppress(ProcessLookupError):  # all have come to their end
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)


def test_every_value_of_eight_jobs_once_whatever_the_server_does(
    lab: Project,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    store_template: Callable[[], Path],
) -> None:
    port = free_port()
    database = Path(shutil.copyfile(store_template(), lab.root / "server.db"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    command = [sys.executable, "-m", "tdmpc_lab", "submit", "experiments/moody.yaml", "--cluster", "local"]
    command += ["train.steps=400", "env.options.slow=0.01", "eval.every=100"]
    with mlflow_server(lab.root, port) as server:
        subprocess.run(command, check=True, timeout=60)
        (trained,) = set(job_ids(lab))
        process = request.getfixturevalue("jobs")
        wait_until(lambda: all(in_store(database, job_id)[1] for job_id in IDS), 240)
        wait_until(lambda: any(in_store(database, job_id)[0] for job_id in IDS), 60)
        os.killpg(server, signal.SIGSTOP)
        before = {job_id: steps_of(lab.job(job_id)) for job_id in IDS}
        time.sleep(4)
        # It does not answer, and training continues: 4 s are 200 steps, and a few on a busy machine.
        assert all(steps_of(lab.job(job_id)) > before[job_id] + 5 for job_id in IDS)
        os.killpg(server, signal.SIGCONT)
        time.sleep(1)
    # Killed. These end meanwhile, and can't say so to MLflow:
    pid = last_start(read_events(lab.job(KILLED).events))["pid"]  # type: ignore[index]
    os.kill(pid, signal.SIGKILL)
    tell(lab, END_WHILE_DOWN, "end")
    tell(lab, [FAIL], "fail")
    wait_until(lambda: all(ended(lab, job_id) for job_id in [*END_WHILE_DOWN, FAIL]), 120)
    assert set(unsent_jobs(lab)) >= {*END_WHILE_DOWN, FAIL, KILLED}
    with mlflow_server(lab.root, port):
        tell(lab, END_WHEN_BACK, "end")
        process.wait(180)
        wait_until(lambda: ended(lab, trained), 120)
        wait_until(lambda: all(job.what in ("sent", "level") for job in sync(lab)), 120)  # its process has gone by then
        wanted = dict.fromkeys([*END_WHILE_DOWN, *END_WHEN_BACK, trained], "FINISHED")
        for job_id, status in (wanted | {KILLED: "KILLED", FAIL: "FAILED"}).items():
            points, statuses = in_store(database, job_id)
            assert statuses == [status], job_id
            assert points == on_file(lab.job(job_id)), job_id
            assert set(points.values()) == {1}
        assert steps_of(lab.job(trained)) > 20
        assert len(list((lab.root / "artifacts").rglob("resolved.yaml"))) == 8
        assert [job.what for job in sync(lab)] == ["level"] * 8
        assert unsent_jobs(lab) == {}
