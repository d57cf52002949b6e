"""The mirror: a thread that follows a job's own files and fills the job's MLflow run with them.

The files are the truth and MLflow a view of it: a store that is slow, down or broken must not stop, slow or
fail the training. So nothing here raises into the job, everything that failed is tried again, and what is
missing at the end is said and can be sent later from the files, by the same code.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tdmpc_lab.files import read_jsonl
from tdmpc_lab.jobs.events import read_events
from tdmpc_lab.jobs.paths import JobPaths
from tdmpc_lab.text import shorten
from tdmpc_lab.tracking import run as runs
from tdmpc_lab.tracking.points import Point, Sent, attempt_starts, mark_before, safe_name
from tdmpc_lab.tracking.run import MAX_TAG, RunInfo, RunStatus
from tdmpc_lab.tracking.store import configure, open_client, public_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

PIECE_BYTES = 128 * 1024
"""Of the metrics, read and sent at once: some thousand values, which bounds the memory that the mirror takes."""
_PROBLEM_WIDTH = 300
_SYSTEM_ERROR = re.compile(r"new connection: \[Errno -?\d+\] ([\w ]+)")
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 60.0
_ABANDON_S = 5.0
_CLOSING_WAIT_S, _CLOSING_TRIES = 1.0, 5  # a store that is down is given up sooner than one that is slow


@dataclass(frozen=True)
class MirrorReport:
    """What became of the mirror."""

    sent_points: int
    """Points that MLflow took from this mirror."""
    problem: str | None
    """The last thing that went wrong and was not mended, in one line; None when all is well."""
    complete: bool
    """Whether MLflow has everything: all points, the description, the files and the outcome."""


@dataclass
class _Ending:
    """What `close` asks for."""

    status: RunStatus | None
    ended: datetime | None
    files: Mapping[str, Path]
    deadline: float


class MlflowMirror:
    """Keeps the MLflow run of one job up to date from `metrics.jsonl` and `events.jsonl`, in a thread.

    `on_run(run_id, experiment_id)` is called once, in that thread, when the run is found or made; it should
    return soon. Start the mirror after an earlier attempt's surplus rows were cut off. Not for use in more
    than one process per job at a time.
    """

    def __init__(
        self,
        uri: str,
        root: Path,
        info: RunInfo,
        paths: JobPaths,
        *,
        submitted: datetime,
        on_run: Callable[[str, str], None] | None = None,
        flush_s: float = 5.0,
    ) -> None:
        self.uri, self.info = uri, info
        self.run_id: str | None = None
        self.experiment_id: str | None = None
        self._root, self._paths, self._submitted = root, paths, submitted
        self._on_run, self._flush_s = on_run, flush_s
        self._lock = threading.Lock()  # guards what the job's thread hands over
        self._tags: dict[str, str] = {}
        self._ending: _Ending | None = None
        self._abandoned = False
        self._wake = threading.Event()
        self._done = threading.Event()
        # Below: the mirror's own thread only, but for the report's three.
        self._client: MlflowClient | None = None
        self._sent = Sent()
        self._pending: list[Point] = []
        self._starts: dict[int, datetime] = {}
        self._points_sent = 0
        self._problem: str | None = None
        self._complete = False
        self._thread = threading.Thread(target=self._run, name="mlflow-mirror", daemon=True)

    def start(self) -> Self:
        """Begin; returns at once."""
        configure()  # here, not in the thread: it changes the environment of the process
        self._thread.start()
        return self

    @property
    def problem(self) -> str | None:
        """What is wrong at this moment, in one line; None when all is well."""
        return self._problem

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Have these tags set with the next batch."""
        with self._lock:
            self._tags.update({str(name): str(value) for name, value in tags.items()})

    def set_description(self, text: str) -> None:
        """Have the run's description (Markdown) set with the next batch."""
        self.set_tags({runs.DESCRIPTION_TAG: text})

    def abandon(self) -> None:
        """Another process of the job follows its files from now on: send nothing more, not even an outcome."""
        self._abandoned = True
        self._wake.set()
        if self._thread.ident is not None:
            self._done.wait(_ABANDON_S)

    def close(
        self,
        status: RunStatus | None,
        *,
        ended: datetime | None = None,
        description: str | None = None,
        files: Mapping[str, Path] | None = None,
        timeout_s: float = 120.0,
    ) -> MirrorReport:
        """Send what is left, add `files` as artifacts by name, set the outcome; at most `timeout_s` seconds.

        `status` None leaves the run RUNNING: the job continues later. `ended` is when the job came to its end
        (default: now).

        Never raises. What could not be sent stays in the job's files.
        """
        if description is not None:
            self.set_description(description)
        deadline = time.monotonic() + timeout_s
        with self._lock:
            self._ending = self._ending or _Ending(status, ended, dict(files or {}), deadline)
        self._wake.set()
        if self._thread.ident is not None:
            self._done.wait(timeout_s)
        return self.report()

    def report(self) -> MirrorReport:
        """How things stand."""
        problem = None if self._complete else self._problem
        if problem is None and self._ending is not None and not self._complete:
            problem = f"MLflow at {public_uri(self.uri)} was too slow"
        if problem is not None and self._ending is not None:
            problem += f"; nothing is lost: all values are in {self._paths.metrics}"
        return MirrorReport(self._points_sent, problem, self._complete)

    def _run(self) -> None:
        failures, closing = 0, False
        try:
            while not self._complete and not self._abandoned:
                ending = self._ending
                if ending is not None and not closing:
                    failures, closing = 0, True
                try:
                    self._cycle(ending)
                    failures, self._problem = 0, None
                except Exception as error:  # noqa: BLE001 - whatever MLflow or a driver raises, training continues
                    failures += 1
                    self._problem = self._describe(error)
                if ending is None:
                    wait = min(_FIRST_WAIT_S * 2 ** (failures - 1), _LONGEST_WAIT_S) if failures else self._flush_s
                    self._wake.wait(wait)
                elif not self._complete:
                    if failures >= _CLOSING_TRIES or time.monotonic() + _CLOSING_WAIT_S >= ending.deadline:
                        return
                    time.sleep(_CLOSING_WAIT_S)
        finally:
            self._done.set()

    def _cycle(self, ending: _Ending | None) -> None:
        """One round: open the run if need be, send new points and tags, and end the run when asked to.

        Each part is undone by none of the others failing, so that a round can be repeated as it is.
        """
        if self._client is None:
            self._client = open_client(self.uri, self._root)
        client = self._client
        run_id = self._attach(client)
        self._send_points(client, run_id)
        self._send_tags(client, run_id)
        if ending is not None:
            runs.log_files(client, run_id, ending.files)
            if ending.status is not None:
                runs.end_run(client, run_id, ending.status, ending.ended)
                runs.drop_spares(client, str(self.experiment_id), self.info.job_id)
            self._complete = True

    def _attach(self, client: MlflowClient) -> str:
        if self.run_id is not None:
            return self.run_id
        run = runs.open_run(client, self.uri, self._root, self.info)
        latest = {metric.key: int(metric.step) for metric in run.data._metric_objs}
        self._sent = Sent.from_tag(run.data.tags.get(runs.SENT_TAG), latest)
        run_id = str(run.info.run_id)
        self.experiment_id, self.run_id = str(run.info.experiment_id), run_id
        if self._on_run is not None:
            self._on_run(run_id, self.experiment_id)
        return run_id

    def _send_points(self, client: MlflowClient, run_id: str) -> None:
        """Send what is in the file now, a piece at a time: after a long outage there may be a day's rows.

        Batches that went through are dropped at once, so that after a failure only the rest is sent again.
        """
        while True:
            for count in runs.send_points(client, run_id, tuple(self._pending), self._sent.to_tag()):
                del self._pending[:count]
                self._points_sent += count
            start = self._sent.follow(self._paths.metrics)
            rows, self._sent.offset = read_jsonl(self._paths.metrics, start, PIECE_BYTES)
            if self._sent.offset == start:
                return
            self._sent.mark = mark_before(self._paths.metrics, self._sent.offset)
            for row in rows:
                self._pending += self._sent.new_points(row, self._start_of(row.get("attempt")))

    def _start_of(self, attempt: object) -> datetime:
        number = attempt if isinstance(attempt, int) else 1
        if number not in self._starts:
            self._starts.update(attempt_starts(read_events(self._paths.events)))
        return self._starts.setdefault(number, self._submitted)

    def _send_tags(self, client: MlflowClient, run_id: str) -> None:
        with self._lock:
            tags = dict(self._tags)
        for name, value in tags.items():
            client.set_tag(run_id, safe_name(name), value[:MAX_TAG])
            with self._lock:
                if self._tags.get(name) == value:
                    del self._tags[name]

    def _describe(self, error: Exception) -> str:
        text = f"{type(error).__name__}: {error}"
        if found := _SYSTEM_ERROR.search(text):  # what the many layers of an HTTP client wrap
            text = f"{found[1].lower()} (is the server up?)"
        elif "timed out" in text.lower():
            text = "no answer in time (is the server up?)"
        return f"MLflow at {public_uri(self.uri)}: {shorten(public_uri(text), _PROBLEM_WIDTH)}"
