"""A job's MLflow run: followed while the job runs, and ended for a job that could not do so itself."""

from __future__ import annotations

from pathlib import Path

from tdmpc_lab.app.journal import mlflow_description
from tdmpc_lab.config.loader import load_resolved
from tdmpc_lab.config.schema import Spec
from tdmpc_lab.config.serialize import flatten, to_dict
from tdmpc_lab.jobs.events import OUTCOMES, EventLog, read_events
from tdmpc_lab.jobs.metrics import as_int
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.jobs.record import JobRecord, read_record
from tdmpc_lab.launch.process import last_start
from tdmpc_lab.tracking.mirror import MlflowMirror
from tdmpc_lab.tracking.run import RunStatus, run_info
from tdmpc_lab.tracking.store import public_uri, store_uri

RUN_STATUS: dict[str, RunStatus] = {
    "finished": "FINISHED",
    "failed": "FAILED",
    "stopped": "KILLED",
    "timeout": "KILLED",
}
"""The outcome of a job in MLflow's words."""


def start_mirror(
    project: Project,
    paths: JobPaths,
    record: JobRecord,
    spec: Spec,
    *,
    attempt: int | None,
    node: str | None,
    gpu: str | None = None,
    log: EventLog | None = None,
) -> MlflowMirror:
    """MLflow follows the job's files in a thread of its own, from here on; the run is named in the job's events.

    `log` is the job's event log where its writer has one open.

    Raises UsageError when the store can't be where it is said to be.
    """
    uri = store_uri(project.root)

    events = log or EventLog(paths.events)

    def on_run(run_id: str, experiment_id: str) -> None:
        events.append("tracking", run_id=run_id, experiment_id=experiment_id, store=public_uri(uri))

    info = run_info(record, flatten(to_dict(spec)), attempt=attempt, node=node, gpu=gpu)
    return MlflowMirror(uri, project.root, info, paths, submitted=record.submitted, on_run=on_run).start()


def run_files(paths: JobPaths) -> dict[str, Path]:
    """What a run gets as artifacts at its end."""
    return {"spec.yaml": paths.spec, "resolved.yaml": paths.resolved}


def end_run_of(project: Project, paths: JobPaths, note: str | None, timeout_s: float = 60.0) -> str | None:
    """Bring the MLflow run level with the files of a job that died, and give it the outcome that is on file.

    `note` becomes its description. Returns what went wrong in MLflow, in one line. A job that never started,
    or has no outcome, is left alone.

    Raises:
        RecordError, SpecError: a file of the job can't be read.
        UsageError: the store can't be where it is said to be.
    """
    events = read_events(paths.events)
    start = last_start(events)
    outcomes = [event["event"] for event in events if event.get("event") in OUTCOMES]
    if start is None or not outcomes:
        return None
    record, spec = read_record(paths), load_resolved(paths.resolved)
    description = None if note is None else mlflow_description(paths, None, note)
    attempt, node = as_int(start.get("attempt")), start.get("host")
    mirror = start_mirror(project, paths, record, spec, attempt=attempt, node=node)
    status = RUN_STATUS[outcomes[-1]]
    return mirror.close(status, description=description, files=run_files(paths), timeout_s=timeout_s).problem
