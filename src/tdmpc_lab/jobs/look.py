"""How a job stands now, from its files and what the scheduler says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from tdmpc_lab.jobs.events import read_events
from tdmpc_lab.jobs.metrics import latest_rows
from tdmpc_lab.jobs.paths import JobPaths
from tdmpc_lab.jobs.record import JobRecord
from tdmpc_lab.jobs.signs import last_sign
from tdmpc_lab.jobs.state import JobStatus, SchedulerState, derive_status


def traceback_of(events: Sequence[Mapping[str, Any]]) -> str | None:
    """The traceback of the job's last failure, if there was one."""
    failures = [event for event in events if event.get("event") == "failed"]
    return str(failures[-1].get("traceback") or "") or None if failures else None


def status_of(
    paths: JobPaths,
    record: JobRecord,
    scheduler: SchedulerState | None,
    events: list[dict[str, Any]] | None = None,
    rows: list[dict[str, Any]] | None = None,
) -> JobStatus:
    """The job's status now, from its files (`events`, and `rows` of its metrics, where they were read already) and
    what the scheduler says. Raises RecordError.
    """
    events = read_events(paths.events) if events is None else events
    rows = latest_rows(paths) if rows is None else rows
    now = datetime.now().astimezone()
    return derive_status(record, events, rows, now, scheduler, partial(last_sign, paths.attempts))
