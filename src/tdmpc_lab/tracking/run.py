"""MLflow runs of jobs: opened, found, described, filled and ended; and what comes to a run from outside of its job."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from tdmpc_lab.jobs.ids import is_local_id
from tdmpc_lab.jobs.record import JobRecord
from tdmpc_lab.jobs.variants import point_label, point_of, point_text, telling_keys, variant_name
from tdmpc_lab.text import shorten
from tdmpc_lab.tracking.points import Point, safe_name
from tdmpc_lab.tracking.store import artifact_location, configure, open_client, public_uri, store_lock
from tdmpc_lab.tracking.view import RESULTS, add_to_views

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run


RunStatus = Literal["FINISHED", "FAILED", "KILLED"]

JOB_TAG = "tdmpc_lab.job_id"
SENT_TAG = "tdmpc_lab.sent"
CHANGED_TAG = "tdmpc_lab.changed_params"
DESCRIPTION_TAG = "mlflow.note.content"
COLOUR_TAG = "mlflow.runColor"
PEOPLES_TAGS = frozenset({COLOUR_TAG})
"""Given to a run once: a user may have chosen another value on MLflow's pages since."""

MAX_TAG = 8000
_MAX_PARAM = 6000
_PARAMS_A_BATCH = 25  # MLflow takes 100, but no request over 1 MB
_POINTS_A_BATCH = 999  # MLflow takes 1000 entities, the tag that counts them included


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """What MLflow is told of a job."""

    job_id: str
    experiment: str
    """Name of the MLflow experiment."""
    run_name: str
    params: Mapping[str, Any] = field(default_factory=dict)
    """By dotted key."""
    tags: Mapping[str, str] = field(default_factory=dict)
    started: datetime | None = None
    """When the job first began: the run's start. None: now."""
    telling: Sequence[str] = ()
    """The params that tell it from other runs of its experiment: the ready views show them."""
    results: Sequence[str] = RESULTS
    """The metrics that say how good it is, the one that counts most first."""


def run_info(
    record: JobRecord,
    params: Mapping[str, Any],
    *,
    attempt: int | None = None,
    node: str | None = None,
    gpu: str | None = None,
    colour: str | None = None,
    started: datetime | None = None,
) -> RunInfo:
    """What MLflow is told of this job; `params` are the spec's values by dotted key, `colour` (`#004488`) is what its
    charts draw it in, `started` when it first began."""
    tags = {
        JOB_TAG: record.id,
        "group": record.group,
        "seed": str(record.seed),
        "cluster": record.cluster,
        "slurm_job_id": record.id if record.cluster == "slurm" else None,
        "git_commit": f"{record.git_commit}{'-dirty' if record.git_dirty else ''}" if record.git_commit else None,
        "snapshot": record.snapshot,
        "rerun_of": record.rerun_of,
        "starts_from": record.starts_from or None,
        "about": record.about or None,
        "variant": variant_name(record),
        "sweep_point": point_text(record) or None,
        "attempt": None if attempt is None else str(attempt),
        "node": node,
        "gpu": gpu,
        COLOUR_TAG: colour,
    }
    return RunInfo(
        job_id=record.id,
        experiment=record.experiment,
        run_name=f"{point_label(point_of(record)) or record.experiment} · {short_id(record.id)}",
        params=params,
        tags={name: value for name, value in tags.items() if value is not None},
        started=started,
        telling=telling_keys(record),
        results=RESULTS if record.env_id == "hockey" else RESULTS[1:],
    )


def short_id(job_id: str) -> str:
    """A job id for the legend of a chart: a local one without its `local-` and date."""
    return job_id.split("-", 2)[2] if is_local_id(job_id) else job_id


def open_run(client: MlflowClient, uri: str, root: Path, info: RunInfo) -> Run:
    """The job's run, made if there is none, with params and tags, and RUNNING.

    Raises MLflow's own errors and OSError.
    """
    experiment = _open_experiment(client, uri, root, info.experiment)
    tags = {safe_name(name): value[:MAX_TAG] for name, value in {**info.tags, JOB_TAG: info.job_id}.items()}
    run = find_run(client, [experiment.experiment_id], info.job_id)
    if run is None:
        start_ms = None if info.started is None else _ms(info.started)
        run = client.create_run(experiment.experiment_id, start_ms, tags, info.run_name)
    else:
        for name, value in tags.items():
            if run.data.tags.get(name) != value and not (name in PEOPLES_TAGS and name in run.data.tags):
                client.set_tag(run.info.run_id, name, value)
        if run.info.status != "RUNNING":
            client.update_run(run.info.run_id, status="RUNNING")
    _log_params(client, run, info.params)
    add_to_views(client, experiment, info.telling, info.results)
    return run


def find_run(client: MlflowClient, experiment_ids: Sequence[str], job_id: str) -> Run | None:
    """The run of a job, see `sort_out`. A run deleted in MLflow is not found."""
    run, _ = sort_out(_runs_of(client, experiment_ids, job_id))
    return run


def drop_spares(client: MlflowClient, experiment_id: str, job_id: str) -> None:
    """Delete what requests to create the job's run have left that were given up and came through all the same."""
    _, spares = sort_out(_runs_of(client, [experiment_id], job_id))
    for run in spares:
        client.delete_run(run.info.run_id)


def sort_out(runs: Sequence[Run]) -> tuple[Run | None, list[Run]]:
    """Of the runs of one job the one that counts, and those that can be deleted: empty ones beside it.

    The one that was sent to comes first, then the oldest. A second one with points in it is a user's.
    """
    ordered = sorted(runs, key=lambda r: (SENT_TAG not in r.data.tags, r.info.start_time, r.info.run_id))
    return (ordered[0] if ordered else None), [run for run in ordered[1:] if not run.data.metrics]


def _runs_of(client: MlflowClient, experiment_ids: Sequence[str], job_id: str) -> list[Run]:
    quoted = job_id.replace("'", "")  # ids hold no quotes
    return list(client.search_runs(list(experiment_ids), filter_string=f"tags.`{JOB_TAG}` = '{quoted}'"))


def _open_experiment(client: MlflowClient, uri: str, root: Path, name: str) -> Experiment:
    """The experiment of this name: made if there is none, taken out of the trash if it is there."""
    from mlflow.exceptions import MlflowException

    with store_lock(uri, root):
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            try:
                created = client.create_experiment(name, artifact_location(uri, name))
                return client.get_experiment(created)
            except MlflowException as error:  # on a server, another job may have been quicker
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                experiment = client.get_experiment_by_name(name)
                if experiment is None:
                    raise
        if experiment.lifecycle_stage != "active":
            client.restore_experiment(experiment.experiment_id)
            experiment = client.get_experiment(experiment.experiment_id)
    return experiment


def _log_params(client: MlflowClient, run: Run, params: Mapping[str, Any]) -> None:
    """Add the params that the run lacks. MLflow can't change one: a changed value is noted in a tag."""
    from mlflow.entities import Param

    wanted = param_texts(params)
    known = run.data.params
    missing = [Param(key, value) for key, value in wanted.items() if key not in known]
    for batch in _batches(missing, _PARAMS_A_BATCH):
        client.log_batch(run.info.run_id, params=batch)
    changed = [f"{k}: {known[k]} → {v}" for k, v in wanted.items() if k in known and known[k] != v]
    if changed:
        client.set_tag(run.info.run_id, CHANGED_TAG, "; ".join(changed)[:MAX_TAG])


def param_texts(params: Mapping[str, Any]) -> dict[str, str]:
    """The params as MLflow holds them."""
    return {safe_name(key): param_text(value) for key, value in params.items()}


def param_text(value: Any) -> str:
    """A value as a param: numbers and texts as they are, all else as JSON (`true`, `null`, `[1,2]`)."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        value = json.dumps(value, ensure_ascii=False, default=str, separators=(",", ":"))
    text = str(value)
    return text if len(text) <= _MAX_PARAM else f"{text[: _MAX_PARAM - 1]}…"


def send_points(client: MlflowClient, run_id: str, points: Sequence[Point], sent_tag: str) -> Iterator[int]:
    """Send points batch by batch, with the last one the tag that counts them; yields each batch's size."""
    from mlflow.entities import Metric, RunTag

    for batch in _batches(points, _POINTS_A_BATCH):
        metrics = [Metric(p.name, p.value, p.time_ms, p.step) for p in batch]
        tags = [RunTag(SENT_TAG, sent_tag)] if batch[-1] is points[-1] else []
        client.log_batch(run_id, metrics=metrics, tags=tags)
        yield len(batch)


def _batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def log_files(client: MlflowClient, run_id: str, files: Mapping[str, Path]) -> None:
    """Add files as artifacts, by the name they get there (`spec.yaml`, `plots/curve.png`).

    A file that is missing is left out. Raises MLflow's own errors and OSError.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name, path in files.items():
            if not path.is_file():
                continue
            target = PurePosixPath(name)
            source = path
            if source.name != target.name:  # MLflow names an artifact after its file
                source = Path(shutil.copyfile(path, Path(folder) / target.name))
            place = str(target.parent)
            client.log_artifact(run_id, str(source), None if place == "." else place)


def end_run(client: MlflowClient, run_id: str, status: RunStatus, ended: datetime | None = None) -> None:
    """Give the run its outcome, and its end: now unless `ended` says when that was."""
    client.set_terminated(run_id, status=status, end_time=_ms(ended or datetime.now().astimezone()))


def _ms(moment: datetime) -> int:
    """Milliseconds since 1970, as MLflow counts."""
    return round(moment.timestamp() * 1000)


def add_points(uri: str, root: Path, record: JobRecord, points: Sequence[Point], description: str) -> str | None:
    """Add points to the run of a job and give it a new description; returns what went wrong, in one line.

    A point that is there already (same name, step, time and value) is kept once by MLflow.
    """

    def add(client: MlflowClient, run_id: str) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(point.name, point.value, point.time_ms, point.step) for point in points]
        client.log_batch(run_id, metrics=metrics)
        client.set_tag(run_id, DESCRIPTION_TAG, description[:MAX_TAG])

    return _with_run(uri, root, record, add)


def describe_run(uri: str, root: Path, record: JobRecord, description: str, tags: Mapping[str, str]) -> str | None:
    """Give the run of a job a new description and these tags; returns what went wrong, in one line."""

    def describe(client: MlflowClient, run_id: str) -> None:
        for name, value in {DESCRIPTION_TAG: description, **tags}.items():
            client.set_tag(run_id, name, value[:MAX_TAG])

    return _with_run(uri, root, record, describe)


def _with_run(uri: str, root: Path, record: JobRecord, change: Callable[[MlflowClient, str], None]) -> str | None:
    """Do something to the run of a job; returns what went wrong, in one line."""
    configure()
    try:
        client = open_client(uri, root)
        experiment = client.get_experiment_by_name(record.experiment)
        run = None if experiment is None else find_run(client, [experiment.experiment_id], record.id)
        if run is None:
            return f"MLflow at {public_uri(uri)} has no run of {record.id} (yet)"
        change(client, run.info.run_id)
    except Exception as error:  # noqa: BLE001 - whatever MLflow or a driver raises: all of it is on file
        return f"MLflow at {public_uri(uri)}: {shorten(public_uri(f'{type(error).__name__}: {error}'), 300)}"
    return None
