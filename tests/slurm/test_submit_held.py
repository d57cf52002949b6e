"""`launch.slurm` alone: a function as a job, held until it is released."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from slurm_fixtures import SOURCE
from slurm_jobs import nap, work

from tdmpc_lab.config.schema import SlurmConfig
from tdmpc_lab.errors import UsageError
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.jobs.state import SchedulerState
from tdmpc_lab.launch import slurm
from tdmpc_lab.launch.local import link_logs
from tdmpc_lab.launch.queue import slurm_states
from tdmpc_lab.launch.sbatch import submit_folder

SMALL = SlurmConfig(cpus=1, memory="200M", time=timedelta(minutes=2))


@pytest.fixture
def project(cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("SLURM_CONF", str(cluster))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), str(SOURCE)]))
    return Project(tmp_path)


@pytest.fixture
def submitted(project: Project) -> Iterator[list[str]]:
    ids: list[str] = []
    yield ids
    slurm.cancel_ids(ids)


def _wait_for(job_id: str, state: str, seconds: float = 60) -> SchedulerState:
    end = time.monotonic() + seconds
    while (seen := slurm_states([job_id])[job_id]).state != state:
        assert time.monotonic() < end, f"{job_id} is {seen}"
        time.sleep(0.3)
    return seen


def test_a_real_job_waits_for_its_release(
    project: Project, submitted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CPU_BIND", "leaked")
    job_id = slurm.submit_held(project, SMALL, "test · held", work, "hello", comment="a 'comment'")
    submitted.append(job_id)
    held = slurm_states([job_id])[job_id]
    assert (held.state, "JobHeldUser" in held.reason) == ("PENDING", True)
    paths = JobPaths(project.jobs / job_id)
    paths.folder.mkdir()
    link_logs(paths, submit_folder(project), job_id)
    slurm.release(job_id)
    assert _wait_for(job_id, "GONE").reason == "COMPLETED"
    log = paths.log_out.read_text()
    assert f"hello {job_id} {project.root}" in log
    assert "leaked" not in log


def test_a_real_job_is_cancelled(project: Project, submitted: list[str]) -> None:
    job_id = slurm.submit_held(project, SMALL, "test · cancel", nap)
    submitted.append(job_id)
    slurm.release(job_id)
    _wait_for(job_id, "RUNNING")
    slurm.cancel_ids([job_id])
    assert _wait_for(job_id, "GONE").reason.startswith("CANCELLED")
    slurm.cancel_ids([job_id])


@pytest.mark.parametrize("change", [{"partition": "no-such"}, {"gpus": "nosuch:1"}, {"memory": "90000G"}])
def test_a_real_cluster_refuses_what_it_has_not(change: dict[str, str], project: Project) -> None:
    with pytest.raises(UsageError, match="sbatch refused"):
        slurm.submit_held(project, replace(SMALL, **change), "test · refused", work, "x")  # type: ignore[arg-type]
