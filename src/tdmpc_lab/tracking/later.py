"""What comes to a run from outside of its job: points of an evaluation made by hand, a person's words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tdmpc_lab.jobs.record import JobRecord
from tdmpc_lab.text import shorten
from tdmpc_lab.tracking import run as runs
from tdmpc_lab.tracking.points import Point
from tdmpc_lab.tracking.store import configure, open_client, public_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient


def add_points(uri: str, root: Path, record: JobRecord, points: Sequence[Point], description: str) -> str | None:
    """Add points to the run of a job and give it a new description; returns what went wrong, in one line.

    A point that is there already (same name, step, time and value) is kept once by MLflow.
    """

    def add(client: MlflowClient, run_id: str) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(point.name, point.value, point.time_ms, point.step) for point in points]
        client.log_batch(run_id, metrics=metrics)
        client.set_tag(run_id, runs.DESCRIPTION_TAG, description[: runs.MAX_TAG])

    return _with_run(uri, root, record, add)


def describe_run(uri: str, root: Path, record: JobRecord, description: str, tags: Mapping[str, str]) -> str | None:
    """Give the run of a job a new description and these tags; returns what went wrong, in one line."""

    def describe(client: MlflowClient, run_id: str) -> None:
        for name, value in {runs.DESCRIPTION_TAG: description, **tags}.items():
            client.set_tag(run_id, name, value[: runs.MAX_TAG])

    return _with_run(uri, root, record, describe)


def _with_run(uri: str, root: Path, record: JobRecord, change: Callable[[MlflowClient, str], None]) -> str | None:
    """Do something to the run of a job; returns what went wrong, in one line."""
    configure()
    try:
        client = open_client(uri, root)
        experiment = client.get_experiment_by_name(record.experiment)
        run = None if experiment is None else runs.find_run(client, [experiment.experiment_id], record.id)
        if run is None:
            return f"MLflow at {public_uri(uri)} has no run of {record.id} (yet)"
        change(client, run.info.run_id)
    except Exception as error:  # noqa: BLE001 - whatever MLflow or a driver raises: all of it is on file
        return f"MLflow at {public_uri(uri)}: {shorten(public_uri(f'{type(error).__name__}: {error}'), 300)}"
    return None
