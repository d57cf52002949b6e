"""What MLflow holds of the jobs: read in a few requests, to be compared with their folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tdmpc_lab.errors import ExternalError, LabError
from tdmpc_lab.files import read_jsonl
from tdmpc_lab.tracking.mirror import PIECE_BYTES
from tdmpc_lab.tracking.points import Sent, safe_name
from tdmpc_lab.tracking.run import JOB_TAG, MAX_TAG, PEOPLES_TAGS, SENT_TAG, RunInfo, RunStatus, param_texts, sort_out
from tdmpc_lab.tracking.store import open_client, public_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_RUNS_A_PAGE = 1000


@dataclass(frozen=True)
class HeldRun:
    """What MLflow holds of a job."""

    run_id: str
    status: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    """The last value of each."""
    spares: tuple[str, ...] = ()
    """Empty runs of the same job: a request to create one was given up, and came through all the same."""

    def has(self, info: RunInfo, tags: Mapping[str, str], status: RunStatus | None) -> bool:
        """Whether it has this status (None: the job continues), these tags and those of `info`, and every param, which
        MLflow can't change."""
        wanted = {safe_name(name): value[:MAX_TAG] for name, value in {**info.tags, **tags}.items()}
        return (
            self.status == (status or "RUNNING")
            and all(self._has_tag(name, value) for name, value in wanted.items())
            and param_texts(info.params).keys() <= self.params.keys()
        )

    def _has_tag(self, name: str, value: str) -> bool:
        held = self.tags.get(name)
        return (held or "") == value or (name in PEOPLES_TAGS and held is not None)

    def has_rows(self, metrics: Path) -> bool:
        """Whether every whole line of the file was sent. Raises RecordError."""
        begin = Sent.from_tag(self.tags.get(SENT_TAG), {}).follow(metrics)
        rows, _ = read_jsonl(metrics, begin, PIECE_BYTES)
        return not rows


@dataclass(frozen=True)
class HeldStore:
    """A store as it was when it was opened."""

    client: MlflowClient
    runs: Mapping[str, HeldRun]
    """By job id."""

    @classmethod
    def open(cls, uri: str, root: Path) -> Self:
        """Read which runs the store holds. Raises ExternalError when it can't be reached or opened."""
        try:
            client = open_client(uri, root)
            return cls(client, _all_runs(client))
        except LabError:
            raise
        except Exception as error:  # whatever MLflow or a driver raises
            raise ExternalError(
                f"MLflow at {public_uri(uri)}: {public_uri(f'{type(error).__name__}: {error}')[:300]}; try again when "
                f"it answers: nothing is lost, all values are in the job folders"
            ) from error

    def lacking(self, run: HeldRun, files: Mapping[str, Path]) -> dict[str, Path]:
        """Those of the files that are not among the run's artifacts, or are there in another size.

        Raises ExternalError when MLflow can't be asked, OSError when a file can't be read.
        """
        try:
            held = self._files(run.run_id)
        except Exception as error:
            raise ExternalError(f"MLflow does not tell the files of run {run.run_id}: {error}") from error
        return {n: path for n, path in files.items() if n not in held or held[n] not in (None, path.stat().st_size)}

    def drop_spares(self, run: HeldRun) -> None:
        """Delete the empty runs beside this one. Raises ExternalError."""
        try:
            for spare in run.spares:
                self.client.delete_run(spare)
        except Exception as error:
            raise ExternalError(f"MLflow does not delete an empty run beside {run.run_id}: {error}") from error

    def _files(self, run_id: str) -> dict[str, int | None]:
        """The run's artifacts by name, with their sizes in bytes where the store knows them."""
        found: dict[str, int | None] = {}
        folders: list[str | None] = [None]
        while folders:
            for item in self.client.list_artifacts(run_id, folders.pop()):
                if item.is_dir:
                    folders.append(item.path)
                else:
                    found[item.path] = item.file_size
        return found


def _all_runs(client: MlflowClient) -> dict[str, HeldRun]:
    """The run of every job in the store, by job id."""
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    found: dict[str, list[Run]] = {}
    token: str | None = None
    while ids:
        page = client.search_runs(ids, max_results=_RUNS_A_PAGE, page_token=token)
        for run in page:
            if job_id := run.data.tags.get(JOB_TAG):
                found.setdefault(job_id, []).append(run)
        token = page.token
        if not token:
            break
    return {job_id: held for job_id, runs in found.items() if (held := _held(runs)) is not None}


def _held(runs: Sequence[Run]) -> HeldRun | None:
    run, spares = sort_out(runs)
    if run is None:
        return None
    data, ids = run.data, tuple(spare.info.run_id for spare in spares)
    return HeldRun(run.info.run_id, run.info.status, data.params, data.tags, data.metrics, ids)
