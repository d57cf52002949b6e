"""A job's MLflow run: what it is called, what it says of the job, and the files it gets at its end."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from tdmpc_lab.app.joblog.write import mlflow_description, verdict_tags
from tdmpc_lab.config.loader import load_resolved
from tdmpc_lab.config.schema import Spec
from tdmpc_lab.config.serialize import flatten, to_dict
from tdmpc_lab.errors import LabError
from tdmpc_lab.files import write_atomic
from tdmpc_lab.jobs.events import OUTCOMES, EventLog, read_events
from tdmpc_lab.jobs.heartbeats import last_heartbeat
from tdmpc_lab.jobs.metrics import as_int, eval_rows, latest_rows
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.jobs.record import JobRecord, read_record
from tdmpc_lab.jobs.state import State, status_of
from tdmpc_lab.jobs.unsent import Unsent, all_is_sent, mark_unsent, remind
from tdmpc_lab.jobs.variants import Colours, variant_name
from tdmpc_lab.text import parse_time
from tdmpc_lab.tracking.mirror import MlflowMirror
from tdmpc_lab.tracking.points import Point, attempt_starts, metric_name, opponent_label, row_time
from tdmpc_lab.tracking.run import RunInfo, RunStatus, add_points, run_info
from tdmpc_lab.tracking.store import public_uri, store_uri

_LAST_ROWS = 4096  # bytes at the end of the metrics
_LATER = ("return_mean", "win", "draw", "loss", "win_low", "win_high")
RUN_STATUS: Mapping[State, RunStatus] = {
    State.COMPLETED: "FINISHED",
    State.FAILED: "FAILED",
    State.CANCELLED: "KILLED",
    State.TIMEOUT: "KILLED",
    State.UNKNOWN: "KILLED",  # its process is gone and left no outcome
}
"""The end of a job in MLflow's words."""
_colours = functools.lru_cache(maxsize=4)(Colours)


def start_mirror(
    project: Project,
    paths: JobPaths,
    record: JobRecord,
    spec: Spec,
    *,
    log: EventLog | None = None,
    tell: bool = True,
) -> MlflowMirror:
    """MLflow follows the job's files in a thread of its own, from here on; the run is named in the job's events.

    `log` is the job's event log where its writer has one open. Without `tell` the run is named in the job's mark
    instead: by whoever sends the values of a job that runs, and writes its events itself.

    Raises:
        RecordError: the job's events can't be read.
        UsageError: the store can't be where it is said to be.
    """
    uri = store_uri(project.root)

    events = log or EventLog(paths.events)

    def remember(run_id: str, experiment_id: str) -> None:
        mark_unsent(project, paths.id, Unsent("later", run_id=run_id, experiment_id=experiment_id))

    def on_run(run_id: str, experiment_id: str) -> None:
        fields = {"run_id": run_id, "experiment_id": experiment_id, "store": public_uri(uri)}
        told = [event for event in read_events(paths.events) if event.get("event") == "tracking"]
        if not told or any(told[-1].get(name) != value for name, value in fields.items()):
            events.append("tracking", **fields)
        # Read after that event: whoever judges the job later than this finds the run, and tells it himself.
        mirror.set_tags(verdict_tags(project, paths.id))

    info = info_of(project, paths, record, spec)
    seen = on_run if tell else remember
    mirror = MlflowMirror(uri, project.root, info, paths, submitted=record.submitted, on_run=seen)
    return mirror.start()


def info_of(project: Project, paths: JobPaths, record: JobRecord, spec: Spec) -> RunInfo:
    """What MLflow is told of a job, the same while it runs as later: all of it is on file. Raises RecordError."""
    events = read_events(paths.events)
    starts = [event for event in events if event.get("event") == "started"]
    gpus = [event.get("gpu") for event in events if event.get("event") == "ready"]
    last = starts[-1] if starts else {}
    return run_info(
        record,
        flatten(to_dict(spec)),
        attempt=as_int(last.get("attempt")),
        node=last.get("host"),
        gpu=gpus[-1] if gpus else None,
        colour=_colours(project).of(record),
        started=parse_time(starts[0].get("time")) if starts else None,
    )


def run_end(paths: JobPaths) -> datetime | None:
    """When a job that is over came to its end: its outcome, else its last heartbeat; None without any.

    Raises RecordError.
    """
    events = read_events(paths.events)
    for event in reversed(events):
        if event.get("event") in OUTCOMES and (moment := parse_time(event.get("time"))):
            return moment
        if event.get("event") == "started":
            break
    starts = attempt_starts(events)
    rows = [(row, starts.get(as_int(row.get("attempt")) or 1)) for row in latest_rows(paths, _LAST_ROWS)]
    own = [parse_time(event.get("time")) for event in events if event.get("event") != "tracking"]  # sync writes that
    beats = [last_heartbeat(paths.attempts, number) for number in starts]
    signs = [*own, *beats, *(row_time(row, start) for row, start in rows if start is not None)]
    return max((moment for moment in signs if moment is not None), default=None)


def end_run_of(project: Project, paths: JobPaths, note: str | None, timeout_s: float = 60.0) -> str | None:
    """Bring the MLflow run in sync with the files of a job that died, and give it the outcome that is on file.

    `note` becomes its description. Returns what went wrong in MLflow, in one line. A job that never started,
    or has no outcome, is left alone.

    Raises:
        RecordError, SpecError: a file of the job can't be read.
        UsageError: the store can't be where it is said to be.
    """
    record = read_record(paths)
    status = status_of(paths, record, None)
    if status.started_at is None or not status.state.ended:
        return None
    spec = load_resolved(paths.resolved)
    description = None if note is None else mlflow_description(paths, None, note)
    mirror = start_mirror(project, paths, record, spec)
    report = mirror.close(
        RUN_STATUS[status.state],
        ended=run_end(paths),
        description=description,
        files=run_files(paths),
        timeout_s=timeout_s,
    )
    if report.complete:
        all_is_sent(project, paths.id)
    return report.problem


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
    problem = add_points(store_uri(project.root), project.root, read_record(paths), points, description)
    if problem is not None:
        remind(project, paths.id)
    return problem


def is_told(metrics: Mapping[str, float], rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a run with these metrics has been told of all rows of `evals.jsonl`, by their names."""
    return all(later_name(row, key) in metrics for row in rows for key in row if key in _LATER)


def later_name(row: Mapping[str, Any], key: str) -> str:
    """`win` of a row against strong as `later/win_strong`; of the policy alone `later/policy_win_strong`."""
    prefix = "policy_" if row.get("mode") == "policy" else ""
    opponent = f"_{opponent_label(str(row['opponent']))}" if row.get("opponent") else ""
    return metric_name(f"later/{prefix}{key}{opponent}", "later")


def _time_ms(row: Mapping[str, Any]) -> int:
    moment = parse_time(row.get("time"))
    return 0 if moment is None else int(moment.timestamp() * 1000)


def run_files(paths: JobPaths) -> dict[str, Path]:
    """The files of a job by the name that they get: specs, learning curve and videos; the last checkpoint where
    `mlflow.checkpoint` is on. Never raises: a picture that can't be drawn is left out, and said on standard error."""
    videos = sorted(paths.videos.glob("*.mp4"))
    # At the root: MLflow's page that compares runs shows only what lies there.
    shown = {"video.mp4": videos[-1:], "curve.png": [*filter(None, [draw_curve(paths)])]}
    files = {
        "spec.yaml": paths.spec,
        "resolved.yaml": paths.resolved,
        **{name: found[0] for name, found in shown.items() if found},
        **{f"videos/{video.name}": video for video in videos},
        **{f"checkpoints/{file.name}": file for file in _checkpoint(paths)},
    }
    return {name: path for name, path in files.items() if path.is_file()}


def draw_curve(paths: JobPaths) -> Path | None:
    """The job's learning curve in its folder, drawn anew where evaluations came since; None where it has none yet."""
    try:
        if paths.curve.exists() and paths.curve.stat().st_mtime >= paths.metrics.stat().st_mtime:
            return paths.curve
        from tdmpc_lab.report.plots import curve_png

        record = read_record(paths)
        names = dict.fromkeys([record.experiment, variant_name(record), f"seed {record.seed}", record.id])
        picture = curve_png(eval_rows(paths), " · ".join(names))
        if picture is None:
            return None
        write_atomic(paths.curve, picture)
    except Exception as error:  # noqa: BLE001 - whatever the drawing raises, the job's outcome is on file already
        print(f"the learning curve was not drawn: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return None
    return paths.curve


def _checkpoint(paths: JobPaths) -> list[Path]:
    """The last checkpoint, where it is wanted and there is one."""
    with contextlib.suppress(LabError):  # an unreadable config is told elsewhere
        if load_resolved(paths.resolved).mlflow.checkpoint:
            return sorted(paths.checkpoints.glob("step_*.pt"))[-1:]
    return []
