"""A job's MLflow run: followed while the job runs, and ended for a job that could not do so itself."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tdmpc_lab.app.journal import mlflow_description
from tdmpc_lab.config.loader import load_resolved
from tdmpc_lab.config.schema import Spec
from tdmpc_lab.config.serialize import flatten, to_dict
from tdmpc_lab.jobs.events import OUTCOMES, EventLog, read_events
from tdmpc_lab.jobs.metrics import as_int
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.jobs.record import JobRecord, read_record
from tdmpc_lab.jobs.variants import Colours
from tdmpc_lab.launch.process import last_start
from tdmpc_lab.text import parse_time
from tdmpc_lab.tracking.later import add_points
from tdmpc_lab.tracking.mirror import MlflowMirror
from tdmpc_lab.tracking.points import Point, metric_name
from tdmpc_lab.tracking.run import RunStatus, run_info
from tdmpc_lab.tracking.store import public_uri, store_uri

_LATER = ("return_mean", "win", "draw", "loss", "win_low", "win_high")
RUN_STATUS: dict[str, RunStatus] = {
    "finished": "FINISHED",
    "failed": "FAILED",
    "stopped": "KILLED",
    "timeout": "KILLED",
}
"""The outcome of a job in MLflow's words."""
_colours = functools.lru_cache(maxsize=4)(Colours)


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
        fields = {"run_id": run_id, "experiment_id": experiment_id, "store": public_uri(uri)}
        told = [event for event in read_events(paths.events) if event.get("event") == "tracking"]
        if not told or any(told[-1].get(name) != value for name, value in fields.items()):
            events.append("tracking", **fields)

    info = run_info(
        record,
        flatten(to_dict(spec)),
        attempt=attempt,
        node=node,
        gpu=gpu or _gpu_of(read_events(paths.events)),
        colour=_colours(project).of(record),
    )
    return MlflowMirror(uri, project.root, info, paths, submitted=record.submitted, on_run=on_run).start()


def _gpu_of(events: Sequence[Mapping[str, Any]]) -> str | None:
    """The GPU that the last attempt trained on; None where that was a CPU, or is not on file."""
    ready = [event for event in events if event.get("event") == "ready"]
    return str(ready[-1]["gpu"]) if ready and ready[-1].get("gpu") else None


def run_files(paths: JobPaths) -> dict[str, Path]:
    """What a run gets as artifacts at its end."""
    videos = sorted(paths.videos.glob("*.mp4"))
    newest = {} if not videos else {"video.mp4": videos[-1]}
    return {
        "spec.yaml": paths.spec,
        "resolved.yaml": paths.resolved,
        **newest,  # at the root: MLflow's compare page shows only what lies there
        **{f"videos/{video.name}": video for video in videos},
    }


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


def add_evaluation(
    project: Project, paths: JobPaths, rows: Sequence[Mapping[str, Any]], description: str
) -> str | None:
    """Put rows of `evals.jsonl` into the job's MLflow run, as metrics `later/win_strong` and so on at the agent's step.

    Returns what went wrong in MLflow, in one line.

    Raises:
        RecordError: a file of the job can't be read.
        UsageError: the store can't be where it is said to be.
    """
    values = [(later_name(row, key), value, row) for row in rows for key, value in row.items() if key in _LATER]
    points = [Point(name, float(value), _time_ms(row), int(row["step"])) for name, value, row in values]
    return add_points(store_uri(project.root), project.root, read_record(paths), points, description)


def is_told(metrics: Mapping[str, float], rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a run with these metrics has been told of all rows of `evals.jsonl`, by their names."""
    return all(later_name(row, key) in metrics for row in rows for key in row if key in _LATER)


def later_name(row: Mapping[str, Any], key: str) -> str:
    """`win` of a row against strong as `later/win_strong`; of the policy alone `later/policy_win_strong`."""
    prefix = "policy_" if row.get("mode") == "policy" else ""
    opponent = f"_{row['opponent']}" if row.get("opponent") else ""
    return metric_name(f"later/{prefix}{key}{opponent}", "later")


def _time_ms(row: Mapping[str, Any]) -> int:
    moment = parse_time(row.get("time"))
    return 0 if moment is None else int(moment.timestamp() * 1000)
