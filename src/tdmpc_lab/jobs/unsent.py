"""Which jobs have values that MLflow may lack: one small file for each, so that nobody has to look at all jobs.

Written when a job starts, taken away when MLflow has everything. Only a reminder: the job folders are the truth,
and `sync` compares all of them.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from tdmpc_lab.files import write_atomic
from tdmpc_lab.jobs.find import is_recorded
from tdmpc_lab.jobs.ids import is_job_id
from tdmpc_lab.jobs.paths import Project


@dataclass(frozen=True)
class Unsent:
    """A job that MLflow may lack something of."""

    send: Literal["live", "later"]
    """`live`: the job sends its values itself while it runs. `later`: it leaves them to `sync`."""
    bytes_sent: int = -1
    """Size of its metrics when they were last sent for it; -1: never."""
    run_id: str | None = None
    experiment_id: str | None = None
    """The run that they were sent to: the events of a job that runs are its own to write."""


def mark_unsent(project: Project, job_id: str, unsent: Unsent) -> None:
    """Note that MLflow will lack something of this job. Raises OSError."""
    folder = project.unsent
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / job_id, json.dumps(asdict(unsent)) + "\n")


def remind(project: Project, job_id: str) -> None:
    """Note that MLflow lacks something of this job, where that is not noted already. Never raises."""
    if unsent_as(project, job_id) is None:
        with contextlib.suppress(OSError):
            mark_unsent(project, job_id, Unsent("live"))


def all_is_sent(project: Project, job_id: str) -> None:
    """Forget the mark: the job is over, and MLflow has everything. Never raises: a mark too many costs a look."""
    with contextlib.suppress(OSError):
        (project.unsent / job_id).unlink()


def unsent_jobs(project: Project) -> dict[str, Unsent]:
    """The jobs that MLflow may lack something of, by id, in no order. Reads one small file for each of them.

    Marks of jobs that are no more are taken away. Never raises.
    """
    found = {}
    for name in _names(project.unsent):
        if not is_recorded(project, name):
            all_is_sent(project, name)
        elif (unsent := _read(project.unsent / name)) is not None:
            found[name] = unsent
    return found


def unsent_as(project: Project, job_id: str) -> Unsent | None:
    """The mark of one job; None where it has none. Never raises."""
    return _read(project.unsent / job_id)


def _names(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(folder) if is_job_id(entry.name)]
    except OSError:
        return []


def _read(path: Path) -> Unsent | None:
    try:
        data = json.loads(path.read_bytes())
        run, experiment = data.get("run_id"), data.get("experiment_id")
        return Unsent("later" if data["send"] == "later" else "live", int(data["bytes_sent"]), run, experiment)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return Unsent("live")  # it can't be read: whoever looks closer will see
