"""A small job on disk, and reading back what MLflow holds of it."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tdmpc_lab.files import append_jsonl
from tdmpc_lab.jobs.events import EventLog
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.tracking.mirror import MlflowMirror
from tdmpc_lab.tracking.run import JOB_TAG, RunInfo
from tdmpc_lab.tracking.store import open_client, store_uri

JOB_ID = "local-20260203-091422-123"
SUBMITTED = datetime(2026, 2, 3, 9, 14, 22, tzinfo=UTC)
Held = list[tuple[str, int, float]]


def make_job(root: Path, job_id: str = JOB_ID) -> JobPaths:
    paths = Project(root).job(job_id)
    paths.folder.mkdir(parents=True)
    start_attempt(paths, 1)
    return paths


def start_attempt(paths: JobPaths, attempt: int) -> None:
    moment = datetime(2026, 2, 3, 10, attempt, tzinfo=UTC)
    EventLog(paths.events, clock=lambda: moment).append("started", host="here", pid=1, attempt=attempt)


def write_rows(paths: JobPaths, steps: range, attempt: int = 1) -> None:
    """Three metrics a row."""
    for step in steps:
        row = {"step": step, "split": "train", "attempt": attempt, "wall_s": step / 100 + attempt}
        append_jsonl(paths.metrics, {**row, "return": float(step), "loss/reward": 1 / (step + 1), "steps_per_s": 9.5})


def info(job_id: str = JOB_ID, **changes: Any) -> RunInfo:
    values: dict[str, Any] = {
        "job_id": job_id,
        "experiment": "quickstart",
        "run_name": f"quickstart · {job_id}",
        "params": {"agent.horizon": 9, "eval": None, "env.options": {}},
        "tags": {"group": "abc", "seed": "1"},
    }
    return RunInfo(**{**values, **changes})


def mirror(paths: JobPaths, root: Path, uri: str | None = None, **kwargs: Any) -> MlflowMirror:
    run = kwargs.pop("info", None) or info(paths.id)
    return MlflowMirror(uri or store_uri(root), root, run, paths, submitted=SUBMITTED, flush_s=0.05, **kwargs)


def held(uri: str, root: Path, keys: tuple[str, ...], job_id: str = JOB_ID) -> Held:
    """Every point that MLflow holds of the job's only run, with repetitions."""
    client = open_client(uri, root)
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()], f"tags.`{JOB_TAG}` = '{job_id}'")
    assert len(runs) == 1, f"{len(runs)} runs of one job"
    return [
        (key, m.step, m.value)
        for key in keys
        for m in sorted(client.get_metric_history(runs[0].info.run_id, key), key=lambda m: m.step)
    ]


def expected(steps: range, key: str = "train/return") -> Held:
    return [(key, step, float(step)) for step in steps]


def repeated(points: Held) -> list[Any]:
    return [key for key, count in Counter((name, step) for name, step, _ in points).items() if count > 1]
