"""What the tests on a real cluster need: a project that submits to it, and a way to take a cluster apart."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tdmpc_lab.app.queue.status import job_views
from tdmpc_lab.files import file_lock, read_jsonl
from tdmpc_lab.jobs.events import read_events
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.tracking.held import HeldStore

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCE = REPOSITORY / "src"
SLURM_SIM = REPOSITORY / "tools" / "slurm-sim"
DEFAULT_CONF = REPOSITORY / ".slurm-sim" / "slurm.conf"
CLUSTERS = os.environ.get("TDMPC_LAB_TEST_CLUSTERS")  # taken before the environment is cleaned; None: the usual one
COMMAND_S = 120
POLL_S = 0.5

sys.path.insert(0, str(REPOSITORY / "tests" / "app"))
from app_fixtures import write_specs  # noqa: E402 - the same specs and environment as for local jobs

RESOURCES = 'slurm: {partition: test, cpus: 1, memory: 500M, time: "0:10:00"}\n'


def reachable(conf: Path) -> bool:
    """Whether the cluster of this slurm.conf answers and its nodes are this machine."""
    if not conf.is_file():
        return False
    try:
        done = run_slurm(conf, "scontrol", "show", "nodes")
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and f"NodeHostName={socket.gethostname().partition('.')[0]}" in done.stdout


def run_slurm(conf: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """One of SLURM's own commands on this cluster."""
    return subprocess.run(
        words,
        env={**os.environ, "SLURM_CONF": str(conf)},
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
    )


class Sim:
    """A cluster of a test's own, down at first; calling it runs `tools/slurm-sim` on it.

    Its folder is a new one in CLUSTERS, which `.ci/run` looks through at its end.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-sim-", dir=CLUSTERS))
        self.conf = self.folder / "slurm.conf"

    def __call__(self, command: str, *words: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, str(SLURM_SIM), command, "--dir", str(self.folder), *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        assert done.returncode == code, f"slurm-sim {command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def make_empty_store(folder: Path) -> Path:
    """An MLflow store without a run, made once for all projects: MLflow works five seconds on one."""
    with file_lock(folder / ".mlflow.lock"):
        store = folder / "mlruns" / "mlflow.db"
        if not store.exists():
            code = "import sys, pathlib, tdmpc_lab.tracking.store as s; s.ensure_store(sys.argv[1], pathlib.Path.cwd())"
            environ = {**os.environ, "PYTHONPATH": str(SOURCE)}
            subprocess.run(
                [sys.executable, "-c", code, f"sqlite:///{store}"],
                cwd=folder,
                env=environ,
                check=True,
                timeout=COMMAND_S,
            )
    return store


class Lab:
    """A project with `quick.yaml` and `moody.yaml` and an empty MLflow store, used through the command line."""

    def __init__(self, root: Path, conf: Path, store: Path) -> None:
        self.root, self.conf = root, conf
        self.project = Project(root)
        self.project.experiments.mkdir(parents=True)
        self.project.mlruns.mkdir()
        shutil.copyfile(store, self.project.mlruns / store.name)
        # Its nodes are all this machine. What jobs do by default, `test_life.py` looks at.
        (root / "tdmpc-lab.yaml").write_text("tracking: {slurm_jobs: live}\n")
        write_specs(root)
        for spec in self.project.experiments.glob("*.yaml"):
            spec.write_text(spec.read_text() + RESOURCES)

    def environ(self, **extra: str) -> dict[str, str]:
        """The shell's environment: jobs inherit it, and find the source under test through it."""
        path = os.pathsep.join([str(self.root), str(SOURCE)])
        return {**os.environ, "SLURM_CONF": str(self.conf), "PYTHONPATH": path, **extra}

    def command(self, *words: str) -> list[str]:
        """`tdmpc-lab WORDS`, for a process that the test starts itself."""
        return [sys.executable, "-m", "tdmpc_lab", *words]

    def run(self, *words: str, code: int | None = 0, **extra: str) -> subprocess.CompletedProcess[str]:
        """Run `tdmpc-lab WORDS` as a user would; `code` is the exit code expected, `extra` more environment."""
        done = subprocess.run(
            self.command(*words),
            cwd=self.root,
            env=self.environ(**extra),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        if code is not None:
            assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def submit(self, *words: str) -> str:
        """`tdmpc-lab submit WORDS` to the cluster, without its preflight of some seconds; the id of the job."""
        done = self.run("submit", *words, "--cluster", "slurm", "--skip-preflight", "--json")
        (job,) = json.loads(done.stdout)["jobs"]
        return str(job["id"])

    def status(self, job_id: str, code: int = 0) -> dict[str, Any]:
        """The job in `tdmpc-lab status --json`; `code` is the exit code expected."""
        (job,) = json.loads(self.run("status", job_id, "--json", code=code).stdout)
        return dict(job)

    def held_runs(self) -> dict[str, str]:
        """The status of every job's run in the MLflow store, by job id."""
        runs = HeldStore.open(f"sqlite:///{self.project.mlruns}/mlflow.db", self.root).runs
        return {job_id: run.status for job_id, run in runs.items()}

    def wait_for(self, job_id: str, *states: str, seconds: float = 120) -> dict[str, Any]:
        """The job in `status --json` as soon as it is in one of these states."""

        def there() -> bool:
            # in this process: a hundred starts of Python would cost more than the job itself
            (view,) = job_views(self.project, [job_id])
            return view.status is not None and view.status.state.value in states

        self.until(there, seconds, lambda: f"{job_id} is {self.status(job_id)}\n{self.log(job_id)}")
        return self.status(job_id)

    def wait_until_left(self, job_id: str, seconds: float = 60) -> None:
        """Wait until SLURM is done with the job: its process has come to its end, the note and MLflow included."""
        self.until(lambda: job_id not in self.queue(), seconds, lambda: f"{job_id} is still in the queue")

    def until(
        self, condition: Callable[[], object], seconds: float = 60, about: Callable[[], str] = lambda: "in vain"
    ) -> None:
        """Wait until the condition holds. Raises AssertionError with what `about` says when the time is over."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"waited {seconds:.0f} s: {about()}"
            time.sleep(POLL_S)

    def paths(self, job_id: str) -> JobPaths:
        """The job's files."""
        return self.project.job(job_id)

    def events(self, job_id: str) -> list[dict[str, Any]]:
        """The job's events so far."""
        return [dict(event) for event in read_events(self.paths(job_id).events)]

    def metrics(self, job_id: str, split: str = "train") -> list[dict[str, Any]]:
        """The job's metric rows so far."""
        return [dict(row) for row in read_jsonl(self.paths(job_id).metrics)[0] if row["split"] == split]

    def note(self, job_id: str) -> str:
        """The job's note."""
        return self.project.note(job_id).read_text()

    def log(self, job_id: str) -> str:
        """What the job printed, on both channels."""
        paths = self.paths(job_id)
        return "\n".join(p.read_text(errors="replace") for p in (paths.log_out, paths.log_err) if p.exists())

    def slurm(self, *words: str, code: int = 0) -> str:
        """One of SLURM's own commands on this cluster; what it printed."""
        done = run_slurm(self.conf, *words)
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def queue(self) -> list[str]:
        """The ids of this project's jobs that SLURM has not done with, whether they are recorded or not."""
        lines = self.slurm("squeue", "--noheader", "--array", "--format=%i|%Z").splitlines()
        return [line.partition("|")[0] for line in lines if line.partition("|")[2].strip() == str(self.root)]

    def cancel_all(self) -> None:
        """Clear the project's jobs from the queue; nothing to do when the cluster is gone already."""
        if reachable(self.conf) and (ids := self.queue()):
            self.slurm("scancel", *ids)


def stand_in(lab: Lab, name: str, script: str) -> str:
    """A PATH on which the SLURM command `name` is this shell script, in which `real` is the command itself."""
    tools = lab.root / "bin"
    tools.mkdir(exist_ok=True)
    rest = lab.environ()["PATH"]
    (tools / name).write_text(f'#!/bin/sh\nreal="$(PATH={rest}; command -v {name})"\n{script}\n')
    (tools / name).chmod(0o755)
    return f"{tools}:{rest}"
