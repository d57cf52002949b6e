"""Points that come after a job's end, such as those of an evaluation made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tdmpc_lab.jobs.record import JobRecord
from tdmpc_lab.text import shorten
from tdmpc_lab.tracking import run as runs
from tdmpc_lab.tracking.points import Point
from tdmpc_lab.tracking.store import configure, open_client, public_uri


def add_points(uri: str, root: Path, record: JobRecord, points: Sequence[Point], description: str) -> str | None:
    """Add points to the run of a job and give it a new description; returns what went wrong, in one line.

    A point that is there already (same name, step, time and value) is kept once by MLflow.
    """
    from mlflow.entities import Metric

    configure()
    try:
        client = open_client(uri, root)
        experiment = client.get_experiment_by_name(record.experiment)
        run = None if experiment is None else runs.find_run(client, [experiment.experiment_id], record.id)
        if run is None:
            return f"MLflow at {public_uri(uri)} has no run of {record.id} (yet)"
        metrics = [Metric(point.name, point.value, point.time_ms, point.step) for point in points]
        client.log_batch(run.info.run_id, metrics=metrics)
        client.set_tag(run.info.run_id, runs.DESCRIPTION_TAG, description[: runs.MAX_TAG])
    except Exception as error:  # noqa: BLE001 - whatever MLflow or a driver raises: the results are on file
        return f"MLflow at {public_uri(uri)}: {shorten(public_uri(f'{type(error).__name__}: {error}'), 300)}"
    return None
