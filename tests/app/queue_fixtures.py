"""A project whose jobs are files alone, and SLURM's commands as scripts that say what a file says."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tdmpc_lab.files import write_atomic
from tdmpc_lab.jobs.events import EventLog
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.jobs.record import JobRecord, read_record

RECORD = JobRecord(
    id="7",
    experiment="reference",
    group="0",
    seed=1,
    cluster="slurm",
    spec_file="experiments/reference.yaml",
    submitted_at=datetime.now().astimezone().isoformat(),
    steps_total=1000,
)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project, and SLURM's commands as scripts that say what `queue` in it holds and note `scancel`'s words."""
    (tmp_path / "bin").mkdir()
    for name, text in {
        "squeue": f'while read -r x; do echo "$x"; done < {tmp_path}/queue',
        "sacct": "echo 'Slurm accounting storage is disabled' >&2; exit 1",
        "scancel": f'echo "$@" >> {tmp_path}/cancelled',
    }.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "queue").touch()
    return Project(tmp_path)


def job(project: Project, job_id: str, experiment: str = "reference", *events: str) -> JobPaths:
    paths = project.job(job_id)
    paths.folder.mkdir(parents=True)
    record = dataclasses.replace(RECORD, id=job_id, experiment=experiment)
    write_atomic(paths.record, json.dumps(asdict(record)))
    for kind in events:
        EventLog(paths.events).append(kind, step=40, attempt=1, host="node7", pid=1)
    return paths


def queue(project: Project, **states: str) -> None:
    lines = [f"{name.removeprefix('j')}|{state}|day|10:00|None" for name, state in states.items()]
    (project.root / "queue").write_text("".join(f"{line}\n" for line in lines))


def change(paths: JobPaths, **fields: Any) -> None:
    write_atomic(paths.record, json.dumps(asdict(dataclasses.replace(read_record(paths), **fields))))
