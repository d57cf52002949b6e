"""Jobs as their processes leave them, and what MLflow holds of them."""

from __future__ import annotations

import os
from collections import Counter
from datetime import UTC, datetime

from tdmpc_lab.config.diff import config_hash
from tdmpc_lab.config.loader import load_spec
from tdmpc_lab.config.serialize import dump_yaml
from tdmpc_lab.files import append_jsonl, read_jsonl
from tdmpc_lab.jobs.events import EventLog
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.jobs.record import JobRecord, write_record
from tdmpc_lab.tracking.points import row_points
from tdmpc_lab.tracking.run import JOB_TAG
from tdmpc_lab.tracking.store import open_client, store_uri

QUICK = "experiments/quick.yaml"
BEGAN, ENDED = datetime(2026, 2, 3, 10, tzinfo=UTC), datetime(2026, 2, 3, 11, tzinfo=UTC)
PID_OF_NOBODY = 2**22 + 1  # beyond what Linux hands out


def add_job(
    lab: Project, job_id: str, *outcome: str, started: bool = True, seed: int = 1, pid: int = PID_OF_NOBODY
) -> JobPaths:
    """A job as a process leaves it: started, three metrics at each of 300 steps; SIGKILL where there is no outcome."""
    spec = load_spec(lab.root / QUICK, [f"train.seed={seed}"]).spec
    paths = lab.job(job_id)
    paths.folder.mkdir(parents=True)
    paths.resolved.write_text(dump_yaml(spec))
    paths.spec.write_text((lab.root / QUICK).read_text())
    record = JobRecord(
        id=job_id, experiment=spec.name, group="0123456789", config_hash=config_hash(spec), seed=seed,
        cluster="local", spec_file=QUICK, submitted_at="2026-02-03T09:14:22+00:00", steps_total=300,
    )  # fmt: skip
    write_record(paths, record)
    now = [BEGAN]
    log = EventLog(paths.events, clock=lambda: now[0])
    if started:
        log.append("started", host=os.uname().nodename, pid=pid, attempt=1)
        log.append("ready", gpu="NVIDIA GeForce RTX 2080 Ti")
        add_rows(paths, range(300))
    now[0] = ENDED
    for kind in outcome:
        log.append(kind, step=299, attempt=1)
    return paths


def add_rows(paths: JobPaths, steps: range, attempt: int = 1) -> None:
    for step in steps:
        row = {"step": step, "split": "train", "attempt": attempt, "wall_s": step / 10}
        append_jsonl(paths.metrics, {**row, "return": float(-step), "loss/value": 1 / (step + 1), "nothing": None})


def on_file(paths: JobPaths) -> Counter[tuple[str, int, float]]:
    rows, _ = read_jsonl(paths.metrics)
    return Counter((point.name, point.step, point.value) for row in rows for point in row_points(row, BEGAN))


def the_run(lab: Project, paths: JobPaths):
    client = open_client(store_uri(lab.root), lab.root)
    experiments = [e.experiment_id for e in client.search_experiments()]
    (run,) = client.search_runs(experiments, f"tags.`{JOB_TAG}` = '{paths.id}'")
    return client, run


def in_store(lab: Project, paths: JobPaths) -> Counter[tuple[str, int, float]]:
    client, run = the_run(lab, paths)
    return Counter(
        (key, m.step, m.value)
        for key in run.data.metrics
        if not key.startswith("later/")
        for m in client.get_metric_history(run.info.run_id, key)
    )
